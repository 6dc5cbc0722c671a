//! Stacked bars, one for each method.

use super::draw::{Area, DrawError, GRID, INK, WIDTH, head, head_height, text, tick};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const BAR: u32 = 44;
const AXIS: u32 = 64;

pub struct Bar {
    pub name: String,
    pub parts: Vec<f64>,
    /// The text after the bar.
    pub note: String,
}

pub struct BarChart<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    /// The names of the parts; empty if there is only one.
    pub legend: Vec<(String, RGBColor)>,
    /// The color of each part of a bar.
    pub color: &'a dyn Fn(&Bar, usize) -> RGBColor,
    pub bars: Vec<Bar>,
}

impl BarChart<'_> {
    pub fn svg(&self) -> Result<String, DrawError> {
        let mut svg = String::new();
        {
            let height = head_height(&self.legend) + BAR * self.bars.len() as u32 + AXIS + 12;
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            self.draw(&root)?;
            root.present()?;
        }
        Ok(svg)
    }

    fn draw(&self, root: &Area<'_>) -> Result<(), DrawError> {
        let area = head(root, self.title, &self.legend)?;
        let longest = self.bars.iter().map(|bar| bar.parts.iter().sum::<f64>()).fold(0.0, f64::max);
        let longest = if longest > 0.0 { longest } else { 1.0 };
        let n = self.bars.len() as f64;
        let mut chart = ChartBuilder::on(&area)
            .margin_right(16)
            .margin_top(8)
            .x_label_area_size(AXIS - 12)
            .y_label_area_size(96)
            // With space for the notes.
            .build_cartesian_2d(0.0..longest * 1.32, 0.0..n)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(text(16))
            .axis_desc_style(text(17))
            .x_labels(7)
            .y_labels(0)
            .x_label_formatter(&|x| tick(*x))
            .x_desc(self.x_label)
            .draw()?;
        for (i, bar) in self.bars.iter().enumerate() {
            let middle = n - i as f64 - 0.5;
            let mut from = 0.0;
            for (part, &length) in bar.parts.iter().enumerate() {
                let color = (self.color)(bar, part);
                let corners = [(from, middle - 0.32), (from + length, middle + 0.32)];
                chart.draw_series([Rectangle::new(corners, color.filled())])?;
                from += length;
            }
            let anchor = |h| text(16).pos(Pos::new(h, VPos::Center));
            let (x, y) = chart.backend_coord(&(from, middle));
            let (left, _) = chart.backend_coord(&(0.0, middle));
            // In pixels of the whole image.
            root.draw(&Text::new(bar.note.clone(), (x + 8, y), anchor(HPos::Left)))?;
            root.draw(&Text::new(bar.name.clone(), (left - 8, y), anchor(HPos::Right)))?;
        }
        Ok(())
    }
}
