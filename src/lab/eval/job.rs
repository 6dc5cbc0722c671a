//! The remaining work of a run, by clip.

use super::question::{Clip, Question};
use super::variant::Variant;
use crate::lab::results::Results;
use std::collections::HashMap;

/// A clip, and the questions about it that have no answer yet.
#[derive(Debug)]
pub struct Job<'a> {
    pub clip: &'a Clip,
    /// Questions without an answer, by variant; variants without such questions are absent.
    pub asks: Vec<(&'a Variant, Vec<&'a Question>)>,
}

impl Job<'_> {
    /// The number of answers.
    pub fn n_answers(&self) -> usize {
        self.asks.iter().map(|(_, questions)| questions.len()).sum()
    }

    /// Each question once, with the number of its missing answers.
    pub fn questions(&self) -> Vec<(&Question, usize)> {
        let mut all: Vec<(&Question, usize)> = Vec::new();
        for &question in self.asks.iter().flat_map(|(_, questions)| questions) {
            match all.iter_mut().find(|(known, _)| known.id == question.id) {
                Some((_, n_answers)) => *n_answers += 1,
                None => all.push((question, 1)),
            }
        }
        all
    }
}

/// The answers that `results` lacks, by clip.
pub fn missing<'a>(questions: &'a [Question], variants: &'a [Variant], results: &Results) -> Vec<Job<'a>> {
    let jobs = by_clip(questions).into_iter().filter_map(|group| {
        let missing = |variant: &Variant| -> Vec<&'a Question> {
            group.iter().copied().filter(|question| !is_there(results, question, variant)).collect()
        };
        let asks = variants.iter().map(|variant| (variant, missing(variant)));
        let asks: Vec<_> = asks.filter(|(_, questions)| !questions.is_empty()).collect();
        let clip = &asks.first()?.1.first()?.clip;
        Some(Job { clip, asks })
    });
    jobs.collect()
}

fn is_there(results: &Results, question: &Question, variant: &Variant) -> bool {
    results.find(&question.id, &variant.method_name(), &variant.budget_name()).is_some()
}

/// The questions by clip; clips are in the order of their first questions.
fn by_clip(questions: &[Question]) -> Vec<Vec<&Question>> {
    let key = |clip: &Clip| {
        let bits = |seconds: Option<f64>| seconds.map(f64::to_bits);
        (clip.path.clone(), bits(clip.start_s), bits(clip.end_s), bits(clip.folder_fps))
    };
    let mut groups: Vec<Vec<&Question>> = Vec::new();
    let mut places = HashMap::new();
    for question in questions {
        let place = *places.entry(key(&question.clip)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(question),
            None => groups.push(vec![question]),
        }
    }
    groups
}
