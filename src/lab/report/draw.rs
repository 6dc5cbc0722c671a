//! What all charts share: colors, text, legends.

use plotters::coord::Shift;
use plotters::prelude::*;

/// The reason why a chart could not be drawn.
pub type DrawError = Box<dyn std::error::Error + Send + Sync>;

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The color of text and axes. A page replaces it with the color of its own text.
pub const INK: RGBColor = RGBColor(34, 36, 38);
/// [`INK`], as in an SVG.
pub const INK_TEXT: &str = "#222426";
/// The color of the grid, visible on white and on black.
pub const GRID: RGBAColor = RGBAColor(138, 143, 148, 0.35);

/// The colors of Okabe and Ito that stand out from white and from black; they can be told apart with any kind of color
/// blindness.
const PALETTE: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const DENSE: RGBColor = RGBColor(127, 127, 127);

/// Known methods, so that each has the same color in every chart.
const METHODS: [&str; 8] = ["sharpv", "random", "uniform", "evs", "vidcom2", "dycoke", "divprune", "sharpv-paper"];

pub const WIDTH: u32 = 760;
const LEFT: i32 = 16;
const LINE: i32 = 22;
/// The approximate width of a letter in a legend, in pixels.
const LETTER: i32 = 8;
const SWATCH: i32 = 12;

/// The color at an index, cyclically.
pub fn color(i: usize) -> RGBColor {
    PALETTE.get(i % PALETTE.len()).copied().unwrap_or(DENSE)
}

/// Encoder modes, which follow the method's name after a plus.
const ENCODES: [&str; 4] = ["reuse", "stop", "fast", "auto"];

/// The color of a method.
pub fn method_color(name: &str) -> RGBColor {
    // Charts that compare encoder modes have few methods, so other colors are free.
    let encode = name.split_once('+').and_then(|(_, encode)| ENCODES.iter().position(|known| *known == encode));
    if let Some(i) = encode {
        return color(i + 1);
    }
    match METHODS.iter().position(|method| *method == name) {
        // More methods than colors: one is darker than the method closest to it, and the paper's SharpV is paler than
        // SharpV.
        Some(6) => RGBColor(140, 90, 60),
        Some(7) => RGBColor(240, 165, 110),
        Some(i) => color(i),
        None => DENSE,
    }
}

/// Text in [`INK`].
pub fn text(size: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&INK)
}

/// Draws title and legend, and returns the area below them.
pub fn head<'a>(root: &Area<'a>, title: &str, legend: &[(String, RGBColor)]) -> Result<Area<'a>, DrawError> {
    root.draw(&Text::new(title.to_owned(), (LEFT, 14), text(20)))?;
    let (mut x, mut y) = (LEFT, 44);
    for (name, color) in legend {
        let width = SWATCH + 6 + LETTER * name.chars().count() as i32 + 14;
        if x > LEFT && x + width > WIDTH as i32 {
            (x, y) = (LEFT, y + LINE);
        }
        root.draw(&Rectangle::new([(x, y), (x + SWATCH, y + SWATCH)], color.filled()))?;
        root.draw(&Text::new(name.clone(), (x + SWATCH + 6, y - 1), text(16)))?;
        x += width;
    }
    let below = if legend.is_empty() { y } else { y + LINE };
    Ok(root.clone().split_vertically(below).1)
}

/// The height of [`head`], in pixels.
pub fn head_height(legend: &[(String, RGBColor)]) -> u32 {
    let (mut x, mut lines) = (LEFT, 1);
    for (name, _) in legend {
        let width = SWATCH + 6 + LETTER * name.chars().count() as i32 + 14;
        if x > LEFT && x + width > WIDTH as i32 {
            (x, lines) = (LEFT, lines + 1);
        }
        x += width;
    }
    44 + if legend.is_empty() { 0 } else { lines * LINE as u32 }
}

/// An axis label, without trailing zeros.
pub fn tick(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return format!("{value:.0}");
    }
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}
