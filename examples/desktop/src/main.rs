//! `sharpv-desktop [VIDEO]`

use eframe::egui;
use sharpv_desktop::app::App;
use sharpv_desktop::worker::WorkerEngine;
use std::path::PathBuf;
use std::sync::Arc;

fn main() {
    let video = std::env::args_os().nth(1).map(PathBuf::from);
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default().with_inner_size([1180.0, 760.0]).with_min_inner_size([760.0, 520.0]),
        ..Default::default()
    };
    let ended = eframe::run_native(
        "sharpv",
        options,
        Box::new(move |context| {
            let window = context.egui_ctx.clone();
            let engine = WorkerEngine::new(Arc::new(move || window.request_repaint()));
            let mut app = App::new(engine);
            if let Some(video) = video {
                app.open(video);
            }
            Ok(Box::new(app))
        }),
    );
    let code = match ended {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sharpv-desktop: {error}");
            1
        }
    };
    // Exits without waiting for threads that are downloading or loading.
    sharpv::runtime::exit_now(code)
}
