//! Clicks through the window, with a fake engine.

use eframe::egui::accesskit::{Role, Toggled};
use eframe::egui::{self, Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use sharpv_desktop::app::App;
use sharpv_desktop::engine::{Choice, Cost, Engine, Image, Progress, Request, Settings, Slice, Update};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

#[derive(Default)]
struct Script {
    sent: Vec<Request>,
    updates: VecDeque<Update>,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Script>>);

impl Fake {
    /// The requests since the last call.
    fn sent(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.borrow_mut().sent)
    }
}

impl Engine for Fake {
    fn models(&self) -> Vec<Choice> {
        [("small", true), ("large", false)].map(|(name, is_here)| Choice { name: name.into(), is_here }).into()
    }

    fn send(&mut self, request: Request) {
        self.0.borrow_mut().sent.push(request);
    }

    fn receive(&mut self) -> Option<Update> {
        self.0.borrow_mut().updates.pop_front()
    }
}

type Window = Harness<'static, App<Fake>>;

fn window() -> (Window, Fake) {
    let fake = Fake::default();
    let app = App::new(fake.clone());
    let builder = Harness::builder().with_size([1100.0, 760.0]);
    let mut window = builder.build_ui_state(|ui, app: &mut App<Fake>| app.show(ui), app);
    window.run_steps(2);
    (window, fake)
}

/// Lets the engine send updates.
fn tell(window: &mut Window, fake: &Fake, updates: impl IntoIterator<Item = Update>) {
    fake.0.borrow_mut().updates.extend(updates);
    window.run_steps(3);
}

fn click(window: &mut Window, button: &str) {
    window.get_by_role_and_label(Role::Button, button).click();
    window.run_steps(3);
}

fn shows(window: &Window, text: &str) -> bool {
    window.query_all_by_label_contains(text).next().is_some()
}

fn is_enabled(window: &Window, button: &str) -> bool {
    !window.get_by_role_and_label(Role::Button, button).accesskit_node().is_disabled()
}

fn clip() -> PathBuf {
    PathBuf::from("/videos/clip.mp4")
}

fn image(time_s: f64) -> Image {
    Image { time_s, width: 8, height: 8, rgb: vec![(50.0 * time_s) as u8; 8 * 8 * 3] }
}

fn images() -> Update {
    Update::Images(clip(), [0.0, 1.0, 2.0].map(image).into())
}

fn cost(settings: Settings) -> Cost {
    let frames = (1.5 * settings.fps) as usize;
    let kept = (settings.keep.unwrap_or(1.0) * 64.0 * frames as f32) as usize;
    Cost {
        frames,
        visual_tokens: 64 * frames,
        kept,
        kv: 20_000 * kept as u64,
        free: Some(8_000_000_000),
        fits: true,
        notes: Vec::new(),
    }
}

/// A window with a model, a video and its cost.
fn ready() -> (Window, Fake) {
    let (mut window, fake) = window();
    tell(&mut window, &fake, [Update::Loaded("small".into()), Update::Picked(clip())]);
    let settings = Settings::default();
    tell(&mut window, &fake, [images(), Update::Planned(clip(), settings, cost(settings))]);
    fake.sent();
    (window, fake)
}

fn type_question(window: &mut Window, question: &str) {
    let field = window.get_by_role(Role::TextInput);
    field.focus();
    field.type_text(question);
    window.run_steps(2);
}

#[test]
fn a_model_that_is_here_is_loaded_at_once() {
    let (mut window, fake) = window();
    assert_eq!(fake.sent(), [Request::Load("small".into())]);
    assert!(shows(&window, "loading small") && shows(&window, "Drop a video here"));
    let half = Progress { what: "Loading the language model", done: 0.5 };
    tell(&mut window, &fake, [Update::Progress(half)]);
    assert!(shows(&window, "Loading the language model: 50 %"));
    tell(&mut window, &fake, [Update::Loaded("small".into())]);
    assert!(shows(&window, "small is loaded") && !shows(&window, "50 %"));
}

#[test]
fn a_video_is_opened_and_its_cost_is_shown_before_anything_runs() {
    let (mut window, fake) = window();
    tell(&mut window, &fake, [Update::Loaded("small".into())]);
    fake.sent();
    click(&mut window, "Open video…");
    assert_eq!(fake.sent(), [Request::Pick]);
    tell(&mut window, &fake, [Update::Picked(clip())]);
    let settings = Settings::default();
    assert_eq!(fake.sent(), [Request::Plan(clip(), settings)]);
    assert!(shows(&window, "clip.mp4") && shows(&window, "Planning"));

    tell(&mut window, &fake, [images(), Update::Planned(clip(), settings, cost(settings))]);
    for text in ["192", "3.8 MB", "8.0 GB", "frame 1 of 3"] {
        assert!(shows(&window, text), "{text}");
    }
    assert!(fake.sent().is_empty(), "nothing is planned twice, and nothing runs");
}

#[test]
fn sliders_change_the_cost() {
    let (mut window, fake) = ready();
    window.get_by_role_and_label(Role::Slider, "frames per second").set_value_accesskit(4.0);
    window.run_steps(3);
    let faster = Settings { fps: 4.0, ..Settings::default() };
    assert_eq!(fake.sent(), [Request::Plan(clip(), faster)]);
    // A plan for other settings is not shown.
    let before = Settings::default();
    tell(&mut window, &fake, [Update::Planned(clip(), Settings { fps: 9.0, ..before }, cost(before))]);
    assert!(shows(&window, "192"));
    tell(&mut window, &fake, [Update::Planned(clip(), faster, cost(faster))]);
    assert!(shows(&window, "384") && !shows(&window, "192"));

    window.get_by_label("Choose how much is kept").click();
    window.run_steps(3);
    window.get_by_role_and_label(Role::Slider, "% of the tokens kept").set_value_accesskit(25.0);
    window.run_steps(3);
    let few = Settings { keep: Some(0.25), ..faster };
    assert_eq!(fake.sent().last(), Some(&Request::Plan(clip(), few)));
    tell(&mut window, &fake, [Update::Planned(clip(), few, cost(few))]);
    assert!(shows(&window, "96") && shows(&window, "1.9 MB"));

    window.get_by_label("Choose what is evicted").click();
    window.run_steps(3);
    window.get_by_role_and_label(Role::Slider, "M: evict below").set_value_accesskit(0.05);
    window.run_steps(3);
    let planned = fake.sent().pop();
    assert!(matches!(planned, Some(Request::Plan(_, Settings { threshold: Some(m), .. })) if (m - 0.05).abs() < 1e-6));
}

#[test]
fn a_question_is_answered_piece_by_piece() {
    let (mut window, fake) = ready();
    assert!(!is_enabled(&window, "Ask"), "there is nothing to ask yet");
    type_question(&mut window, "What is in the video?");
    assert!(is_enabled(&window, "Ask") && !is_enabled(&window, "Stop"));
    click(&mut window, "Ask");
    assert_eq!(fake.sent(), [Request::Ask(clip(), Settings::default(), "What is in the video?".into())]);
    assert!(shows(&window, "What is in the video?") && is_enabled(&window, "Stop"));

    let kept = [(0.0, vec![0, 5, 9]), (1.0, vec![]), (2.0, vec![63])];
    let kept = kept.map(|(time_s, kept)| Slice { time_s, total: 64, kept });
    tell(&mut window, &fake, [Update::Progress(Progress { what: "Watching the video", done: 0.25 })]);
    assert!(shows(&window, "Watching the video: 25 %"));
    tell(&mut window, &fake, [Update::Kept(kept.into()), Update::Text("A ".into())]);
    assert!(shows(&window, "3 of 64 tokens kept"));
    tell(&mut window, &fake, [Update::Text("tent.".into())]);
    assert!(shows(&window, "A tent."));
    tell(&mut window, &fake, [Update::Answered("4 of 192 visual tokens kept".into())]);
    assert!(shows(&window, "4 of 192 visual tokens kept") && !is_enabled(&window, "Stop"));

    // It also works with the keyboard alone.
    type_question(&mut window, "Why?");
    window.key_press(Key::Enter);
    window.run_steps(3);
    assert_eq!(fake.sent(), [Request::Ask(clip(), Settings::default(), "Why?".into())]);
    // The focus stays: what is typed next is the next question.
    tell(&mut window, &fake, [Update::Text("So.".into()), Update::Answered("4 of 192".into())]);
    window.event(egui::Event::Text("And then?".into()));
    window.run_steps(2);
    window.key_press(Key::Enter);
    window.run_steps(3);
    assert_eq!(fake.sent(), [Request::Ask(clip(), Settings::default(), "And then?".into())]);
}

#[test]
fn stop_stops() {
    let (mut window, fake) = ready();
    for by_key in [false, true] {
        type_question(&mut window, "Go on.");
        click(&mut window, "Ask");
        tell(&mut window, &fake, [Update::Text("On and on".into())]);
        fake.sent();
        if by_key {
            window.key_press(Key::Escape);
            window.run_steps(3);
        } else {
            click(&mut window, "Stop");
        }
        assert_eq!(fake.sent(), [Request::Stop]);
        tell(&mut window, &fake, [Update::Stopped]);
        assert!(shows(&window, "stopped") && !is_enabled(&window, "Stop"));
    }
}

#[test]
fn the_strip_leads_to_a_frame() {
    let (mut window, fake) = ready();
    window.get_by_label("go to 2.0 s").click();
    window.run_steps(3);
    assert!(shows(&window, "frame 3 of 3") && shows(&window, "frame at 2.0 s"));
    let kept = [Slice { time_s: 0.0, total: 64, kept: vec![1] }, Slice { time_s: 2.0, total: 64, kept: vec![7, 8] }];
    tell(&mut window, &fake, [Update::Kept(kept.into())]);
    assert!(shows(&window, "2 of 64 tokens kept"));

    let overlay = window.get_by_label("Kept tokens");
    assert_eq!(overlay.accesskit_node().toggled(), Some(Toggled::True));
    overlay.click();
    window.run_steps(3);
    assert_eq!(window.get_by_label("Kept tokens").accesskit_node().toggled(), Some(Toggled::False));

    // At the end, playing starts from the beginning. A step of the harness is a quarter of a second.
    click(&mut window, "Play");
    assert!(shows(&window, "frame 1 of 3"));
    window.run_steps(12);
    assert!(shows(&window, "frame 3 of 3") && shows(&window, "Play"));
}

#[test]
fn a_model_is_fetched_with_progress() {
    let (mut window, fake) = ready();
    window.get_by_role_and_label(Role::ComboBox, "Model").click();
    window.run_steps(3);
    window.get_by_label("large (not downloaded)").click();
    window.run_steps(3);
    click(&mut window, "Download and load");
    // The cost depends on the model.
    assert_eq!(fake.sent(), [Request::Load("large".into()), Request::Plan(clip(), Settings::default())]);
    assert!(shows(&window, "Planning"));
    tell(&mut window, &fake, [Update::Progress(Progress { what: "Downloading", done: 0.4 })]);
    assert!(shows(&window, "loading large") && shows(&window, "Downloading: 40 %"));
    assert!(!is_enabled(&window, "Download and load"));
    tell(&mut window, &fake, [Update::Loaded("large".into())]);
    assert!(shows(&window, "large is loaded") && fake.sent().is_empty());
    assert!(!is_enabled(&window, "Load"), "it is loaded");
}

#[test]
fn what_fails_is_told_and_can_be_tried_again() {
    let (mut window, fake) = ready();
    type_question(&mut window, "What?");
    click(&mut window, "Ask");
    tell(&mut window, &fake, [Update::Failed("clip.mp4: the file is cut off".into())]);
    assert!(shows(&window, "the file is cut off"));
    type_question(&mut window, "Again?");
    assert!(is_enabled(&window, "Ask"));

    let settings = Settings::default();
    let short = Cost { fits: false, notes: vec!["12 MB of memory are free".into()], ..cost(settings) };
    tell(&mut window, &fake, [Update::Planned(clip(), settings, short)]);
    assert!(shows(&window, "It does not fit.") && shows(&window, "12 MB of memory are free"));
    assert!(!is_enabled(&window, "Ask"));
}

#[derive(Debug)]
struct Dropped(PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        Err("nobody reads it".into())
    }
}

#[test]
fn files_can_be_dropped_and_opened_by_a_key() {
    let (mut window, fake) = ready();
    let other = PathBuf::from("/videos/other.mkv");
    window.input_mut().dropped_files.push(Arc::new(Dropped(other.clone())));
    window.run_steps(3);
    assert_eq!(fake.sent(), [Request::Plan(other.clone(), Settings::default())]);
    assert!(shows(&window, "other.mkv"));
    // Images of the previous video come too late.
    tell(&mut window, &fake, [images()]);
    assert!(!shows(&window, "frame 1 of 3"));

    window.key_press_modifiers(Modifiers::COMMAND, Key::O);
    window.run_steps(3);
    assert_eq!(fake.sent(), [Request::Pick]);
}
