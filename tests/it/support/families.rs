//! The tiny models of the families, and frames for them.

use image::RgbImage;
use sharpv::models::ModelFiles;
use sharpv::runtime::Model;
use std::path::{Path, PathBuf};

/// The folder of the models.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families")
}

/// The files of a family's model.
pub fn files(family: &str) -> ModelFiles {
    ModelFiles {
        name: family.into(),
        model: folder().join(format!("{family}.gguf")),
        mmproj: Some(folder().join(format!("{family}-mmproj.gguf"))),
        lora: Vec::new(),
    }
}

/// An image in which neighboring pixels differ, and which differs for each frame.
pub fn image((width, height): (u32, u32), frame: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb(
            [7 * x + 13 * y + 29 * frame, 11 * x + 3 * y + 17 * frame, 5 * x + 19 * y + 23 * frame].map(|c| c as u8),
        )
    })
}

/// Writes `n` frames into a folder.
pub fn write_frames(folder: &Path, size: (u32, u32), n: usize) {
    for i in 0..n {
        image(size, i as u32).save(folder.join(format!("{i:04}.png"))).expect("a frame is written");
    }
}

/// Tokens as text. A run of visual tokens (`None`) is shown as its length.
pub fn text(model: &Model, tokens: &[Option<i64>]) -> String {
    let mut bytes = Vec::new();
    for run in tokens.chunk_by(|a, b| a.is_none() == b.is_none()) {
        match run[0] {
            None => bytes.extend(format!("<{} visual tokens>", run.len()).bytes()),
            Some(_) => {
                run.iter().flatten().for_each(|&token| bytes.extend(model.token_bytes(token as i32, true)));
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// ‖a − b‖ / ‖b‖.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert!(a.len() == b.len() && a.iter().chain(b).all(|x| x.is_finite()));
    let difference: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (difference / b.iter().map(|&b| f64::from(b).powi(2)).sum::<f64>()).sqrt()
}
