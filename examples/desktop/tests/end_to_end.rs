//! The window with the real model `smol`, if it is on this machine.

use eframe::egui::accesskit::Role;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use sharpv_desktop::app::App;
use sharpv_desktop::worker::WorkerEngine;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Window = Harness<'static, App<WorkerEngine>>;

fn shows(window: &Window, text: &str) -> bool {
    window.query_all_by_label_contains(text).next().is_some()
}

/// Lets the window run until it shows `text`.
fn wait_for(window: &mut Window, text: &str) {
    let start = Instant::now();
    while !shows(window, text) {
        assert!(start.elapsed() < Duration::from_secs(1200), "no {text:?} in {:#?}", window.root());
        std::thread::sleep(Duration::from_millis(20));
        window.run_steps(1);
    }
}

fn ask(window: &mut Window, question: &str) {
    let field = window.get_by_role(Role::TextInput);
    field.focus();
    field.type_text(question);
    window.run_steps(2);
    window.get_by_role_and_label(Role::Button, "Ask").click();
    window.run_steps(2);
}

#[test]
fn a_video_is_opened_planned_asked_about_and_asked_again() {
    if sharpv::models::resolve("smol", None, &[]).is_err() {
        eprintln!("SKIPPED: the model smol is missing; run `sharpv pull smol`");
        return;
    }
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/clip.mp4");
    let mut app = App::new(WorkerEngine::new(Arc::new(|| {})));
    app.open(clip);
    let builder = Harness::builder().with_size([1180.0, 760.0]);
    let mut window: Window = builder.build_ui_state(|ui, app| app.show(ui), app);
    wait_for(&mut window, "smol is loaded");
    wait_for(&mut window, "KV cache, at most");
    wait_for(&mut window, "frame 1 of");

    ask(&mut window, "What is in the video?");
    wait_for(&mut window, "visual tokens kept; first token after");
    assert!(shows(&window, "tokens kept"), "the overlay has its numbers");
    let whole = window.query_all_by_label_contains("first token after").count();

    // Fewer tokens, without encoding again.
    window.get_by_label("Choose how much is kept").click();
    window.run_steps(3);
    ask(&mut window, "What color is the background?");
    let start = Instant::now();
    while window.query_all_by_label_contains("first token after").count() == whole {
        assert!(start.elapsed() < Duration::from_secs(1200));
        assert!(!shows(&window, "Watching the video"), "it is not read again");
        std::thread::sleep(Duration::from_millis(20));
        window.run_steps(1);
    }
}
