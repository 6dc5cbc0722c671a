//! Curves with error bars.

use super::draw::{Area, DrawError, GRID, INK, WIDTH, head, text, tick};
use plotters::prelude::*;

const HEIGHT: u32 = 440;

/// A measurement with its interval.
#[derive(Debug, Clone, Copy)]
pub struct Dot {
    pub x: f64,
    pub y: f64,
    pub low: f64,
    pub high: f64,
}

pub struct Curve {
    pub name: String,
    pub color: RGBColor,
    pub dots: Vec<Dot>,
}

/// A value that does not depend on `x`: a dashed line in a band.
pub struct Level {
    pub name: String,
    pub color: RGBColor,
    pub y: f64,
    pub low: f64,
    pub high: f64,
}

/// Marked positions on the horizontal axis: lines, or bands of a width.
pub struct Marks {
    pub name: String,
    pub color: RGBColor,
    pub at: Vec<f64>,
    pub width: f64,
}

pub struct LineChart<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub curves: Vec<Curve>,
    pub level: Option<Level>,
    pub marks: Option<Marks>,
    /// Whether the vertical axis begins at 0.
    pub from_zero: bool,
    /// The maximum of `x` and `y`.
    pub limit: f64,
}

impl LineChart<'_> {
    pub fn svg(mut self) -> Result<String, DrawError> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            for curve in &mut self.curves {
                curve.dots.sort_by(|a, b| a.x.total_cmp(&b.x));
            }
            self.draw(&root)?;
            root.present()?;
        }
        Ok(svg)
    }

    fn draw(&self, root: &Area<'_>) -> Result<(), DrawError> {
        let legend = self.curves.iter().map(|curve| (curve.name.clone(), curve.color));
        let marks = self.marks.iter().filter(|marks| !marks.at.is_empty());
        let legend: Vec<_> = legend
            .chain(self.level.iter().map(|level| (level.name.clone(), level.color)))
            .chain(marks.clone().map(|marks| (marks.name.clone(), marks.color)))
            .collect();
        let area = head(root, self.title, &legend)?;

        let dots = || self.curves.iter().flat_map(|curve| &curve.dots);
        let x_max = (dots().map(|dot| dot.x).fold(0.0, f64::max) * 1.06).min(self.limit);
        let x_max = if x_max > 0.0 { x_max } else { 1.0 };
        let level = self.level.iter().flat_map(|level| [level.low, level.high]);
        let ends: Vec<f64> = dots().flat_map(|dot| [dot.low, dot.high]).chain(level).collect();
        let (low, high) = ends.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        let low = if self.from_zero || low > high { 0.0 } else { low };
        let pad = ((high - low) * 0.08).max(1e-6);
        let low = if self.from_zero { 0.0 } else { (low - pad).max(0.0) };
        let high = if high + pad > low { (high + pad).min(self.limit.max(low + pad)) } else { low + 1.0 };

        let mut chart = ChartBuilder::on(&area)
            .margin_top(12)
            .margin_right(24)
            .margin_bottom(8)
            .margin_left(8)
            .x_label_area_size(50)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..x_max, low..high)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(text(16))
            .axis_desc_style(text(17))
            .x_labels(8)
            .y_labels(7)
            .x_label_formatter(&|x| tick(*x))
            .y_label_formatter(&|y| tick(*y))
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .draw()?;
        for marks in marks {
            let half = marks.width / 2.0;
            let clamp = |x: f64| x.clamp(0.0, x_max);
            let (mut bands, mut lines) = (Vec::new(), Vec::new());
            for &x in &marks.at {
                if half > 0.0 {
                    let corners = [(clamp(x - half), low), (clamp(x + half), high)];
                    bands.push(Rectangle::new(corners, marks.color.mix(0.22).filled()));
                } else {
                    lines.push(PathElement::new([(clamp(x), low), (clamp(x), high)], marks.color.stroke_width(1)));
                }
            }
            chart.draw_series(bands)?;
            chart.draw_series(lines)?;
        }
        if let Some(level) = &self.level {
            chart.draw_series([Rectangle::new(
                [(0.0, level.low), (x_max, level.high)],
                level.color.mix(0.15).filled(),
            )])?;
            let dashes = (0..60).step_by(2).map(|i| {
                let at = |i: usize| x_max * i as f64 / 60.0;
                PathElement::new([(at(i), level.y), (at(i + 1), level.y)], level.color.stroke_width(2))
            });
            chart.draw_series(dashes)?;
        }
        // Shifted, since intervals at the same x would hide each other.
        let step = x_max * 0.005;
        let middle = (self.curves.len().saturating_sub(1)) as f64 / 2.0;
        for (i, curve) in self.curves.iter().enumerate() {
            let shift = if self.from_zero { 0.0 } else { (i as f64 - middle) * step };
            let place = |dot: &Dot| (dot.x + shift).clamp(0.0, x_max);
            let path: Vec<_> = curve.dots.iter().map(|dot| (place(dot), dot.y)).collect();
            chart.draw_series([PathElement::new(path, curve.color.stroke_width(2))])?;
            for dot in &curve.dots {
                let (x, cap) = (place(dot), x_max * 0.006);
                let style = curve.color.stroke_width(1);
                let bar = |from, to| PathElement::new(vec![from, to], style);
                if dot.low >= dot.high {
                    continue;
                }
                chart.draw_series([
                    bar((x, dot.low), (x, dot.high)),
                    bar((x - cap, dot.low), (x + cap, dot.low)),
                    bar((x - cap, dot.high), (x + cap, dot.high)),
                ])?;
            }
            chart
                .draw_series(curve.dots.iter().map(|dot| Circle::new((place(dot), dot.y), 4, curve.color.filled())))?;
        }
        Ok(())
    }
}
