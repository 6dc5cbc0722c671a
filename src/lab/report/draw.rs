//! What all images have in common: colours, text, legends.

use plotters::coord::Shift;
use plotters::prelude::*;

/// Why an image could not be drawn.
pub type DrawError = Box<dyn std::error::Error + Send + Sync>;

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Text and axes. The page puts the colour of its own text in its place.
pub const INK: RGBColor = RGBColor(34, 36, 38);
/// [`INK`], as it stands in an SVG.
pub const INK_TEXT: &str = "#222426";
/// Visible on white and on black.
pub const GRID: RGBAColor = RGBAColor(138, 143, 148, 0.35);

/// The colours of Okabe and Ito that stand out from white and from black; told apart with any kind of colour blindness.
const PALETTE: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const DENSE: RGBColor = RGBColor(127, 127, 127);

/// Known methods, so that each has its colour in every image.
const METHODS: [&str; 8] = ["sharpv", "random", "uniform", "evs", "vidcom2", "dycoke", "divprune", "sharpv-paper"];

pub const WIDTH: u32 = 760;
const LEFT: i32 = 16;
const LINE: i32 = 22;
/// How wide a letter of a legend is, about.
const LETTER: i32 = 8;
const SWATCH: i32 = 12;

/// The colour with a number.
pub fn color(i: usize) -> RGBColor {
    PALETTE.get(i % PALETTE.len()).copied().unwrap_or(DENSE)
}

/// Ways to encode, behind a plus after the method.
const ENCODES: [&str; 4] = ["reuse", "stop", "fast", "auto"];

/// The colour of a method.
pub fn method_color(name: &str) -> RGBColor {
    // Images that compare ways to encode have few methods: their colours are free.
    let encode = name.split_once('+').and_then(|(_, encode)| ENCODES.iter().position(|known| *known == encode));
    if let Some(i) = encode {
        return color(i + 1);
    }
    match METHODS.iter().position(|method| *method == name) {
        // More methods than colours: one is darker than the one it is nearest to, and the paper's SharpV is paler than
        // SharpV.
        Some(6) => RGBColor(140, 90, 60),
        Some(7) => RGBColor(240, 165, 110),
        Some(i) => color(i),
        None => DENSE,
    }
}

/// Text in the colour of text.
pub fn text(size: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&INK)
}

/// Draws title and legend, and gives what is below them.
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

/// How high [`head`] is.
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

/// An axis label, without zeros that say nothing.
pub fn tick(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return format!("{value:.0}");
    }
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}
