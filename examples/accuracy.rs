//! Exact-match accuracy on a JSONL of questions, dense against pruned:
//! `cargo run --release --example accuracy -- questions.jsonl [METHOD…]`.
//!
//! A row is `{"video": "clip.mp4", "category": "move", "question": "…", "answer": "…"}`, the video's path relative to the file. Methods
//! are those of `--prune`; `off sharpv` if none is given.

use sharpv::chat::{Quiet, Session, SessionParams, VideoOptions};
use sharpv::models;
use sharpv::prune::{Method, PruneParams};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

#[derive(serde::Deserialize)]
struct Row {
    video: String,
    category: String,
    question: String,
    answer: String,
}

#[derive(Default, Clone, Copy)]
struct Score {
    right: usize,
    asked: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("accuracy FILE.jsonl [METHOD…]")?;
    let methods: Vec<Method> = args.map(|name| name.parse()).collect::<Result<_, _>>()?;
    let methods = if methods.is_empty() { vec![Method::Off, Method::SharpV] } else { methods };
    let rows: Vec<Row> = std::fs::read_to_string(&file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let folder = Path::new(&file).parent().unwrap_or(Path::new("."));

    for method in methods {
        let prune = PruneParams { method, ..PruneParams::default() };
        let params = SessionParams { prune, n_predict: 32, ..SessionParams::default() };
        let mut session = Session::open(&models::resolve("smol", None, &[])?, params, &mut Quiet)?;
        let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
        let mut first_of_clip = Score::default();
        let (mut kept, mut total) = (0, 0);
        let mut video = "";
        for row in &rows {
            let new = video != row.video;
            if new {
                video = &row.video;
                session.clear();
                let report = session.add_video(&folder.join(video), &VideoOptions::default(), &mut Quiet)?;
                kept += report.visual_tokens.kept;
                total += report.visual_tokens.total;
            }
            session.restart();
            let right = usize::from(session.ask(&row.question, &mut Quiet)?.answer == row.answer);
            let score = scores.entry(&row.category).or_default();
            score.right += right;
            score.asked += 1;
            if new {
                first_of_clip.right += right;
                first_of_clip.asked += 1;
            }
        }
        let all =
            scores.values().fold(Score::default(), |a, b| Score { right: a.right + b.right, asked: a.asked + b.asked });
        print!("{method:8} {:3}/{} = {:.1} %", all.right, all.asked, 100.0 * all.right as f64 / all.asked as f64);
        print!("  first question of a clip {}/{}", first_of_clip.right, first_of_clip.asked);
        print!("  kept {:.1} %", 100.0 * kept as f64 / total as f64);
        for (category, score) in scores {
            print!("  {category} {}/{}", score.right, score.asked);
        }
        println!();
    }
    Ok(())
}
