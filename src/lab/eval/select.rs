//! Selecting questions of a dataset.

use super::question::{Clip, Question};
use super::task::Task;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Keeps the questions of `category`, in an order that `shuffle` seeds, and of those the first `limit`.
pub fn select(questions: &mut Vec<Question>, category: Option<&str>, shuffle: Option<u64>, limit: Option<usize>) {
    if let Some(category) = category {
        questions.retain(|question| question.is_in(category));
    }
    if let Some(seed) = shuffle {
        // The order depends only on the ids and the seed.
        questions.sort_by_cached_key(|question| Sha256::digest(format!("{seed} {}", question.id)).to_vec());
    }
    questions.truncate(limit.unwrap_or(usize::MAX));
}

/// The categories of `questions`, separated by commas.
pub fn category_names(questions: &[Question]) -> String {
    let names: BTreeSet<&str> = questions.iter().flat_map(|q| q.categories.values().map(String::as_str)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// A hash of everything in the questions of a dataset, except where their videos are.
pub fn fingerprint(task: Task, questions: &[Question]) -> String {
    let mut hasher = Sha256::new();
    for question in questions {
        let Clip { start_s, end_s, folder_fps, .. } = &question.clip;
        let facts = (&question.id, task.prompt(question), question.right_answer(), start_s, end_s, folder_fps);
        hasher.update(format!("{facts:?}\n"));
    }
    let digest = hasher.finalize();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{} questions, {hex}", questions.len())
}
