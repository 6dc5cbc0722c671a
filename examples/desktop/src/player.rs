//! The frames of a video, with their kept visual tokens.

use crate::engine::{Image, Slice};
use eframe::egui::{self, Color32, Rect, Sense, Vec2, pos2, vec2};

const STRIP: f32 = 64.0;

/// A frame to draw.
struct Shown {
    time_s: f64,
    size: Vec2,
    texture: egui::TextureHandle,
}

/// Shows one frame large, and all of them small.
#[derive(Default)]
pub struct Player {
    frames: Vec<Shown>,
    slices: Vec<Slice>,
    current: usize,
    /// Whether dropped tokens are dimmed.
    pub overlay: bool,
    playing: bool,
    /// When the current frame appeared, by egui's clock.
    since: f64,
}

impl Player {
    pub fn new() -> Self {
        Self { overlay: true, ..Self::default() }
    }

    /// Removes all frames.
    pub fn clear(&mut self) {
        *self = Self { overlay: self.overlay, ..Self::default() };
    }

    /// Shows other frames, whose tokens are not known yet.
    pub fn show_frames(&mut self, context: &egui::Context, images: &[Image]) {
        let shown = images.iter().enumerate().map(|(i, image)| {
            let pixels = egui::ColorImage::from_rgb([image.width, image.height], &image.rgb);
            Shown {
                time_s: image.time_s,
                size: vec2(image.width as f32, image.height as f32),
                texture: context.load_texture(format!("frame {i}"), pixels, egui::TextureOptions::LINEAR),
            }
        });
        self.frames = shown.collect();
        self.slices.clear();
        self.current = 0;
        self.playing = false;
    }

    /// Sets the kept tokens.
    pub fn show_kept(&mut self, slices: Vec<Slice>) {
        self.slices = slices;
    }

    /// Moves by `by` frames.
    pub fn step(&mut self, by: isize) {
        let last = self.frames.len().saturating_sub(1);
        self.current = self.current.saturating_add_signed(by).min(last);
    }

    pub fn toggle_playing(&mut self, now: f64) {
        self.playing = !self.playing && self.frames.len() > 1;
        self.since = now;
        if self.playing && self.current + 1 == self.frames.len() {
            self.current = 0;
        }
    }

    /// The slice of a frame: the last one that is not later.
    fn slice_of(&self, frame: &Shown) -> Option<&Slice> {
        let after = self.slices.partition_point(|slice| slice.time_s <= frame.time_s + 1e-3);
        self.slices.get(after.checked_sub(1)?)
    }

    pub fn ui(&mut self, ui: &mut egui::Ui) {
        self.play_on(ui);
        self.controls(ui);
        ui.add_space(4.0);
        self.strip(ui);
        ui.add_space(4.0);
        if let Some(frame) = self.frames.get(self.current) {
            let space = ui.available_size();
            let scale = (space.x / frame.size.x).min(space.y / frame.size.y).max(0.01);
            ui.vertical_centered(|ui| {
                let name = format!("frame at {:.1} s", frame.time_s);
                self.image(ui, frame, frame.size * scale, Sense::hover(), &name);
            });
        }
    }

    /// Shows the next frame when it is due.
    fn play_on(&mut self, ui: &egui::Ui) {
        if !self.playing {
            return;
        }
        let now = ui.input(|input| input.time);
        let [here, next] = [self.current, self.current + 1].map(|i| self.frames.get(i).map(|frame| frame.time_s));
        let Some((here, next)) = here.zip(next) else {
            self.playing = false;
            return;
        };
        let left = self.since + (next - here) - now;
        if left <= 0.0 {
            self.current += 1;
            self.since = now;
        }
        ui.ctx().request_repaint_after_secs(left.max(0.02) as f32);
    }

    fn controls(&mut self, ui: &mut egui::Ui) {
        ui.horizontal(|ui| {
            let label = if self.playing { "Pause" } else { "Play" };
            if ui.button(label).on_hover_text("Space").clicked() {
                let now = ui.input(|input| input.time);
                self.toggle_playing(now);
            }
            ui.checkbox(&mut self.overlay, "Kept tokens").on_hover_text("Dims what the language model does not see");
            if let Some(frame) = self.frames.get(self.current) {
                let (n, at) = (self.frames.len(), self.current + 1);
                let kept = self.slice_of(frame).map_or_else(String::new, |slice| {
                    format!("  ·  {} of {} tokens kept", slice.kept.len(), slice.total)
                });
                ui.label(format!("{:.1} s  ·  frame {at} of {n}{kept}", frame.time_s));
            }
        });
    }

    fn strip(&mut self, ui: &mut egui::Ui) {
        let mut chosen = None;
        egui::ScrollArea::horizontal().id_salt("strip").show(ui, |ui| {
            ui.horizontal(|ui| {
                for (i, frame) in self.frames.iter().enumerate() {
                    let size = frame.size * (STRIP / frame.size.y);
                    let name = format!("go to {:.1} s", frame.time_s);
                    let response = self.image(ui, frame, size, Sense::click(), &name);
                    if i == self.current {
                        let stroke = egui::Stroke::new(2.0, ui.visuals().selection.bg_fill);
                        ui.painter().rect_stroke(response.rect, 0.0, stroke, egui::StrokeKind::Inside);
                    }
                    if response.clicked() {
                        chosen = Some(i);
                    }
                }
            });
        });
        if let Some(chosen) = chosen {
            self.current = chosen;
            self.playing = false;
        }
    }

    /// Draws a frame with its dropped tokens dimmed.
    fn image(&self, ui: &mut egui::Ui, frame: &Shown, size: Vec2, sense: Sense, name: &str) -> egui::Response {
        let (rect, response) = ui.allocate_exact_size(size, sense);
        let role = if sense.senses_click() { egui::Role::Button } else { egui::Role::Image };
        response.widget_info(|| egui::WidgetInfo::labeled(role, true, name));
        if ui.is_rect_visible(rect) {
            let whole = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
            ui.painter().image(frame.texture.id(), rect, whole, Color32::WHITE);
            if let Some(slice) = self.slice_of(frame).filter(|_| self.overlay) {
                dim(ui.painter(), rect, slice);
            }
        }
        response
    }
}

/// Darkens dropped tokens.
fn dim(painter: &egui::Painter, rect: Rect, slice: &Slice) {
    let (columns, rows) = grid(slice.total, rect.width() / rect.height());
    let cell = vec2(rect.width() / columns as f32, rect.height() / rows as f32);
    let mut kept = slice.kept.iter().peekable();
    for token in 0..slice.total {
        if kept.next_if(|&&next| next as usize == token).is_some() {
            continue;
        }
        let corner = rect.min + vec2((token % columns) as f32 * cell.x, (token / columns) as f32 * cell.y);
        painter.rect_filled(Rect::from_min_size(corner, cell), 0.0, Color32::from_black_alpha(190));
    }
}

/// Columns and rows of `n` tokens over an image: the two factors of `n` whose ratio is nearest to the image's.
fn grid(n: usize, aspect: f32) -> (usize, usize) {
    let factors = (1..=n).filter(|columns| n.is_multiple_of(*columns)).map(|columns| (columns, n / columns));
    let off = |&(columns, rows): &(usize, usize)| (columns as f32 / rows as f32 / aspect).ln().abs();
    factors.min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or((1, 1))
}

#[cfg(test)]
mod tests {
    use super::grid;

    #[test]
    fn a_grid_has_the_shape_of_its_image() {
        assert_eq!(grid(64, 1.0), (8, 8));
        assert_eq!(grid(64, 1.1), (8, 8));
        assert_eq!(grid(15 * 27, 16.0 / 9.0), (27, 15));
        assert_eq!(grid(0, 1.0), (1, 1));
    }
}
