//! MVBench: a JSON file for each of its 20 tasks.

use super::{categories, files_ending, find_video, inside, json_rows, roots, seconds, text, texts, unusable};
use crate::error::Result;
use crate::lab::eval::question::{Clip, Dataset, Question, RightAnswer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folders of each task's videos: those of the authors, and those of the published copy, in which some videos are
/// cut to the questions' bounds.
const FOLDERS: [(&str, &[&str]); 20] = [
    ("action_antonym", &["ssv2_video", "ssv2_video_mp4"]),
    ("action_count", &["perception/videos"]),
    ("action_localization", &["sta/sta_video", "sta/sta_video_segment"]),
    ("action_prediction", &["star/Charades_v1_480", "star/Charades_segment"]),
    ("action_sequence", &["star/Charades_v1_480", "star/Charades_segment"]),
    ("character_order", &["perception/videos"]),
    ("counterfactual_inference", &["clevrer/video_validation"]),
    ("egocentric_navigation", &["vlnqa"]),
    ("episodic_reasoning", &["tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"]),
    ("fine_grained_action", &["Moments_in_Time_Raw/videos"]),
    ("fine_grained_pose", &["nturgbd", "nturgbd_convert"]),
    ("moving_attribute", &["clevrer/video_validation"]),
    ("moving_count", &["clevrer/video_validation"]),
    ("moving_direction", &["clevrer/video_validation"]),
    ("object_existence", &["clevrer/video_validation"]),
    ("object_interaction", &["star/Charades_v1_480", "star/Charades_segment"]),
    ("object_shuffle", &["perception/videos"]),
    ("scene_transition", &["scene_qa/video"]),
    ("state_change", &["perception/videos"]),
    ("unexpected_action", &["FunQA_test/test"]),
];

/// Frames per second of the folders of frames.
const FOLDER_FPS: f64 = 3.0;

pub fn load(data: &Path, videos: Option<&Path>) -> Result<Dataset> {
    let files = if data.is_file() {
        vec![data.to_owned()]
    } else {
        let in_json = files_ending(&data.join("json"), ".json");
        if in_json.is_empty() { files_ending(data, ".json") } else { in_json }
    };
    if files.is_empty() {
        return Err(unusable(data, "there are no .json files in this folder, nor in json/ in it"));
    }
    let roots = roots(data, videos);
    let mut dataset = Dataset::default();
    for path in files {
        let task = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (index, row) in json_rows(&path)?.iter().enumerate() {
            let place = format!("{}, row {}", path.display(), index + 1);
            dataset.add(place, question(row, &task, index, &roots));
        }
    }
    Ok(dataset)
}

fn question(row: &Value, task: &str, index: usize, roots: &[PathBuf]) -> Result<Question, String> {
    let choices = texts(row, "candidates")?;
    let answer = text(row, "answer")?;
    let right = choices.iter().position(|choice| *choice == answer);
    let right = right.ok_or_else(|| format!("the answer \"{answer}\" is none of the candidates"))?;
    let video = text(row, "video")?;
    let own = FOLDERS.iter().find(|(name, _)| *name == task).map_or(&[] as &[&str], |(_, folders)| folders);
    let mut folders = Vec::new();
    for top in ["video", "videos", "", "data0613"] {
        folders.extend(own.iter().map(|folder| format!("{top}/{folder}").trim_start_matches('/').to_owned()));
    }
    // All videos may be in one folder.
    folders.extend(["video", "videos", ""].map(str::to_owned));
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let path = find_video(roots, &folders, &[inside(&video)?]);
    let is_cut = path.parent().is_some_and(|folder| folder.to_string_lossy().contains("_segment"));
    let bound = |key| if is_cut { Ok(None) } else { seconds(row, key) };
    Ok(Question {
        id: format!("{task}/{index}"),
        clip: Clip { path, start_s: bound("start")?, end_s: bound("end")?, folder_fps: Some(FOLDER_FPS) },
        question: text(row, "question")?,
        choices,
        answer: RightAnswer::Choice(right),
        categories: categories([("task", Some(task.to_owned()))]),
    })
}
