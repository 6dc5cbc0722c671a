//! The window.

use crate::engine::{Choice, Cost, Engine, Progress, Request, Settings, Update};
use crate::player::Player;
use eframe::egui::{self, Key, KeyboardShortcut, Modifiers, RichText};
use std::path::{Path, PathBuf};

const OPEN: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::O);

/// The height of the progress bar.
const PROGRESS: f32 = 18.0;

/// A line of the chat.
enum Line {
    User(String),
    Model(String),
    Note(String),
    Error(String),
}

/// The window, with an engine.
pub struct App<E> {
    engine: E,
    models: Vec<Choice>,
    chosen: usize,
    loaded: Option<String>,
    /// The model that is being loaded.
    loading: Option<String>,
    video: Option<PathBuf>,
    settings: Settings,
    cost: Option<Cost>,
    /// The last plan, so that nothing is planned twice.
    planned: Option<(PathBuf, Settings, Option<String>)>,
    player: Player,
    chat: Vec<Line>,
    question: String,
    /// A question is being answered.
    asking: bool,
    progress: Option<Progress>,
    /// Whether to give the question the keyboard focus once.
    wants_focus: bool,
}

impl<E: Engine> App<E> {
    pub fn new(engine: E) -> Self {
        let models = engine.models();
        let mut app = Self {
            engine,
            chosen: 0,
            loaded: None,
            loading: None,
            video: None,
            settings: Settings::default(),
            cost: None,
            planned: None,
            player: Player::new(),
            chat: Vec::new(),
            question: String::new(),
            asking: false,
            progress: None,
            wants_focus: true,
            models,
        };
        // A model on this machine loads quickly.
        if app.models.first().is_some_and(|model| model.is_here) {
            app.load();
        }
        app
    }

    /// The engine, for tests.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Shows another video.
    pub fn open(&mut self, video: PathBuf) {
        if self.asking {
            self.engine.send(Request::Stop);
            self.asking = false;
        }
        self.chat.clear();
        self.player.clear();
        self.cost = None;
        self.video = Some(video);
        self.wants_focus = true;
    }

    fn load(&mut self) {
        let Some(model) = self.models.get(self.chosen).map(|model| model.name.clone()) else { return };
        self.loaded = None;
        self.cost = None;
        self.loading = Some(model.clone());
        self.engine.send(Request::Load(model));
    }

    fn stop(&mut self) {
        if self.asking || self.loading.is_some() {
            self.engine.send(Request::Stop);
        }
    }

    /// Whether there is a question and a model to ask.
    fn can_ask(&self) -> bool {
        let fits = self.cost.as_ref().is_none_or(|cost| cost.fits);
        !self.asking && self.loaded.is_some() && self.video.is_some() && fits && !self.question.trim().is_empty()
    }

    fn ask(&mut self) {
        let Some(video) = self.video.clone().filter(|_| self.can_ask()) else { return };
        let question = std::mem::take(&mut self.question).trim().to_owned();
        self.chat.push(Line::User(question.clone()));
        self.asking = true;
        self.wants_focus = true;
        self.engine.send(Request::Ask(video, self.settings, question));
    }

    /// Plans the video after it, the settings or the model have changed.
    fn plan(&mut self) {
        let Some(video) = self.video.clone().filter(|_| !self.asking) else { return };
        // Frames are shown while the model is loading; the cost follows.
        let model = self.loading.clone().or_else(|| self.loaded.clone());
        let wanted = Some((video.clone(), self.settings, model));
        if self.planned != wanted {
            self.planned = wanted;
            self.engine.send(Request::Plan(video, self.settings));
        }
    }

    fn receive(&mut self, context: &egui::Context) {
        while let Some(update) = self.engine.receive() {
            match update {
                Update::Picked(video) => self.open(video),
                Update::Loaded(model) => {
                    self.loading = None;
                    self.progress = None;
                    self.models
                        .iter_mut()
                        .filter(|choice| choice.name == model)
                        .for_each(|choice| choice.is_here = true);
                    self.loaded = Some(model);
                }
                Update::Progress(progress) => self.progress = Some(progress),
                Update::Images(video, images) if self.video.as_ref() == Some(&video) => {
                    self.player.show_frames(context, &images);
                }
                Update::Planned(video, settings, cost)
                    if self.video.as_ref() == Some(&video) && self.settings == settings =>
                {
                    self.cost = Some(cost);
                }
                // Updates for an earlier video or other settings.
                Update::Images(..) | Update::Planned(..) => {}
                Update::Kept(slices) => self.player.show_kept(slices),
                Update::Text(piece) => match self.chat.last_mut() {
                    Some(Line::Model(text)) => text.push_str(&piece),
                    _ => self.chat.push(Line::Model(piece)),
                },
                Update::Answered(about) => self.end(Some(Line::Note(about))),
                Update::Note(note) => self.chat.push(Line::Note(note)),
                Update::Trouble(error) => self.chat.push(Line::Error(error)),
                Update::Stopped => self.end(Some(Line::Note("stopped".to_owned()))),
                Update::Failed(error) => self.end(Some(Line::Error(error))),
            }
        }
    }

    /// Ends the current work.
    fn end(&mut self, line: Option<Line>) {
        self.asking = false;
        self.loading = None;
        self.progress = None;
        self.chat.extend(line);
    }

    fn keys(&mut self, ui: &egui::Ui) {
        let dropped = ui.input(|input| input.raw.dropped_files.first().map(|file| file.path().to_owned()));
        if let Some(video) = dropped {
            self.open(video);
        }
        if ui.input_mut(|input| input.consume_shortcut(&OPEN)) {
            self.engine.send(Request::Pick);
        }
        // Otherwise, the key would move the focus from the question.
        let is_busy = self.asking || self.loading.is_some();
        if is_busy && ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape)) {
            self.stop();
        }
        // Other keys belong to the question while it has the focus.
        if !ui.ctx().text_edit_focused() {
            let pressed = |key| ui.input_mut(|input| input.consume_key(Modifiers::NONE, key));
            if pressed(Key::Space) {
                self.player.toggle_playing(ui.input(|input| input.time));
            }
            let step = isize::from(pressed(Key::ArrowRight)) - isize::from(pressed(Key::ArrowLeft));
            self.player.step(step);
        }
    }

    fn toolbar(&mut self, ui: &mut egui::Ui) {
        ui.horizontal_wrapped(|ui| {
            if ui.button("Open video…").on_hover_text("Ctrl+O, or drop a file").clicked() {
                self.engine.send(Request::Pick);
            }
            ui.separator();
            let name = |choice: &Choice| match choice.is_here {
                true => choice.name.clone(),
                false => format!("{} (not downloaded)", choice.name),
            };
            let selected = self.models.get(self.chosen).map(name).unwrap_or_default();
            egui::ComboBox::from_label("Model").selected_text(selected).width(260.0).show_ui(ui, |ui| {
                for (i, choice) in self.models.iter().enumerate() {
                    ui.selectable_value(&mut self.chosen, i, name(choice));
                }
            });
            let choice = self.models.get(self.chosen);
            let is_loaded = choice.is_some_and(|choice| self.loaded.as_ref() == Some(&choice.name));
            let label = if choice.is_some_and(|choice| !choice.is_here) { "Download and load" } else { "Load" };
            let can_load = choice.is_some() && !is_loaded && self.loading.is_none() && !self.asking;
            if ui.add_enabled(can_load, egui::Button::new(label)).clicked() {
                self.load();
            }
            match (&self.loading, &self.loaded) {
                (Some(model), _) => ui.label(format!("loading {model}")),
                (None, Some(model)) => ui.label(format!("{model} is loaded")),
                (None, None) => ui.label("no model is loaded"),
            };
        });
    }

    fn settings(&mut self, ui: &mut egui::Ui) {
        ui.heading("Settings");
        ui.add_enabled_ui(!self.asking, |ui| {
            ui.spacing_mut().slider_width = 150.0;
            ui.add(egui::Slider::new(&mut self.settings.fps, 0.1..=5.0).step_by(0.1).text("frames per second"));
            optional(ui, &mut self.settings.keep, "Choose how much is kept", 0.1, |ui, keep| {
                let mut percent = f64::from(*keep) * 100.0;
                let slider = egui::Slider::new(&mut percent, 1.0..=100.0).step_by(1.0).text("% of the tokens kept");
                if ui.add(slider).changed() {
                    *keep = (percent / 100.0) as f32;
                }
            });
            optional(ui, &mut self.settings.threshold, "Choose what is evicted", 0.2, |ui, threshold| {
                let slider = egui::Slider::new(threshold, 0.0..=1.0).step_by(0.01).text("M: evict below");
                ui.add(slider);
            });
        });
        ui.add_space(12.0);
        ui.heading("Cost");
        let Some(cost) = &self.cost else {
            let why = match (&self.video, &self.loaded) {
                (None, _) => "Open a video to see what it costs.",
                (_, None) if self.loading.is_none() => "Load a model to see what it costs.",
                _ => "Planning…",
            };
            ui.weak(why);
            return;
        };
        egui::Grid::new("cost").num_columns(2).show(ui, |ui| {
            let mut row = |name: &str, value: String| {
                ui.label(name);
                ui.strong(value);
                ui.end_row();
            };
            row("Frames", cost.frames.to_string());
            row("Visual tokens", cost.visual_tokens.to_string());
            row("Kept, at most", cost.kept.to_string());
            row("KV cache, at most", size(cost.kv));
            if let Some(free) = cost.free {
                row("Free memory", size(free));
            }
        });
        if !cost.fits {
            ui.colored_label(ui.visuals().error_fg_color, "It does not fit.");
        }
        for note in &cost.notes {
            ui.colored_label(ui.visuals().warn_fg_color, note);
        }
    }

    fn chat(&mut self, ui: &mut egui::Ui) {
        egui::Panel::bottom("question").show_separator_line(false).show(ui, |ui| {
            ui.add_space(4.0);
            match self.progress.as_ref().filter(|_| self.asking || self.loading.is_some()) {
                Some(progress) => {
                    let text = format!("{}: {:.0} %", progress.what, progress.done * 100.0);
                    ui.add(egui::ProgressBar::new(progress.done).desired_height(PROGRESS).text(text));
                }
                // Of fixed height, so that nothing moves when it appears.
                None => {
                    ui.allocate_space(egui::vec2(1.0, PROGRESS));
                }
            }
            ui.add_space(4.0);
            ui.horizontal(|ui| {
                let busy = self.asking || self.loading.is_some();
                let width = ui.available_width() - 104.0;
                let field = egui::TextEdit::singleline(&mut self.question).hint_text("Ask about the video");
                let field = ui.add(field.desired_width(width));
                if std::mem::take(&mut self.wants_focus) {
                    field.request_focus();
                }
                let entered = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
                let clicked = ui.add_enabled(self.can_ask(), egui::Button::new("Ask")).clicked();
                if entered || clicked {
                    self.wants_focus = true;
                    self.ask();
                }
                if ui.add_enabled(busy, egui::Button::new("Stop")).on_hover_text("Esc").clicked() {
                    self.stop();
                }
            });
            ui.add_space(4.0);
        });
        egui::CentralPanel::default().show(ui, |ui| {
            egui::ScrollArea::vertical().stick_to_bottom(true).auto_shrink(false).show(ui, |ui| {
                for line in &self.chat {
                    match line {
                        Line::User(text) => ui.label(RichText::new(text).strong()),
                        Line::Model(text) => ui.label(text),
                        Line::Note(text) => ui.weak(text),
                        Line::Error(text) => ui.colored_label(ui.visuals().error_fg_color, text),
                    };
                    ui.add_space(6.0);
                }
            });
        });
    }

    /// The whole window.
    pub fn show(&mut self, ui: &mut egui::Ui) {
        self.receive(ui.ctx());
        self.keys(ui);
        egui::Panel::top("toolbar").show(ui, |ui| {
            ui.add_space(4.0);
            self.toolbar(ui);
            ui.add_space(4.0);
        });
        egui::Panel::left("settings").exact_size(350.0).show(ui, |ui| self.settings(ui));
        egui::Panel::bottom("chat").resizable(true).default_size(240.0).show(ui, |ui| self.chat(ui));
        egui::CentralPanel::default().show(ui, |ui| match &self.video {
            Some(video) => {
                ui.label(RichText::new(file_name(video)).strong());
                self.player.ui(ui);
            }
            None => {
                ui.centered_and_justified(|ui| ui.weak("Drop a video here, or open one."));
            }
        });
        // After everything that may change a setting, but not while a slider is dragged.
        if !ui.input(|input| input.pointer.any_down()) {
            self.plan();
        }
    }
}

impl<E: Engine> eframe::App for App<E> {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.show(ui);
    }
}

/// An optional value, with a checkbox.
fn optional(
    ui: &mut egui::Ui,
    value: &mut Option<f32>,
    name: &str,
    default: f32,
    show: impl FnOnce(&mut egui::Ui, &mut f32),
) {
    let mut is_set = value.is_some();
    if ui.checkbox(&mut is_set, name).changed() {
        *value = is_set.then_some(default);
    }
    if let Some(value) = value {
        show(ui, value);
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
