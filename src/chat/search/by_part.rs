//! Search: finds the part of a video that an answer depends on.
//!
//! A model that was trained on few frames overlooks what only one of many shows. A search asks about each part of the
//! video alone and compares the answers. If the answer of one part differs from the others, that part matters to the
//! question. No answer is decoded: the probabilities of the first token are enough.

use crate::chat::cache::trial::log_softmax;
use crate::chat::cache::{Cache, Learned};
use crate::chat::conversation::Conversation;
use crate::chat::encode::{decide, select};
use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::engine::Engine;
use crate::chat::params::SessionParams;
use crate::chat::turn::Chat;
use crate::error::Result;
use crate::layout::{Size, clock};
use crate::observer::{Observer, Stage};
use crate::prune::PruneParams;
use crate::video::VideoInfo;
use serde::Serialize;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of slices in a part.
pub(in crate::chat) const PART: usize = 2;

/// The least number of parts. With fewer, a search gains nothing: the model sees them all.
pub(in crate::chat) const LEAST_PARTS: usize = 4;

/// A surprise in nats below which a part is taken to agree with the others. If all parts agree, the whole video is
/// asked about. The exact value matters little (docs/results.md).
const LEAST_SURPRISE: f64 = 0.1;

/// The result of searching the parts of a video.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Search {
    /// The parts, in the order of the video; at least four.
    pub parts: Vec<SearchedPart>,
    /// The index of the part that the answer depends on; `None` if all parts agree.
    pub found: Option<usize>,
    /// The found part as a video of its own.
    #[serde(skip)]
    video: Option<Arc<EncodedVideo>>,
    #[serde(skip)]
    took: Duration,
}

/// A part of a video that was asked about alone.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SearchedPart {
    /// The time of its first frame, in seconds.
    pub start_s: f64,
    /// The time at which the next part begins or the video ends, in seconds.
    pub end_s: f64,
    /// The number of its frames.
    pub frames: usize,
    /// How far its answer is from those of the other parts, in nats: the Kullback-Leibler divergence of its first
    /// token's distribution from the mean of the others'.
    pub surprise: f64,
}

impl Search {
    /// The part that the answer depends on; `None` if all parts agree.
    pub fn part(&self) -> Option<&SearchedPart> {
        self.found.and_then(|found| self.parts.get(found))
    }

    /// Makes `text` a question about the part that was found, or about the whole conversation if none was. The time of
    /// the search counts as prefill.
    pub fn question<'q>(&self, text: impl Into<Cow<'q, str>>) -> Question<'q> {
        Question { text: text.into(), about: self.video.clone(), spent: self.took }
    }
}

/// A question: made of a text by `into()`, or by [`Search::question`].
#[derive(Debug, Clone)]
pub struct Question<'q> {
    pub(in crate::chat) text: Cow<'q, str>,
    /// The part of a video that it is about; `None` for the whole conversation.
    pub(in crate::chat) about: Option<Arc<EncodedVideo>>,
    /// The time that finding that part took.
    pub(in crate::chat) spent: Duration,
}

impl<'q> From<&'q str> for Question<'q> {
    fn from(text: &'q str) -> Self {
        Self { text: text.into(), about: None, spent: Duration::ZERO }
    }
}

impl<'q> From<&&'q str> for Question<'q> {
    fn from(text: &&'q str) -> Self {
        (*text).into()
    }
}

impl<'q> From<&'q String> for Question<'q> {
    fn from(text: &'q String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Question<'_> {
    fn from(text: String) -> Self {
        Self { text: text.into(), about: None, spent: Duration::ZERO }
    }
}

impl std::fmt::Display for SearchedPart {
    /// Its times: `12:22 to 12:38`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", clock(self.start_s), clock(self.end_s))
    }
}

/// Returns the range of slices of each part of a video; `None` if there are too few parts for a search.
pub(in crate::chat) fn parts_of(video: &EncodedVideo) -> Option<Vec<Range<usize>>> {
    let n = video.slices.len();
    let parts: Vec<Range<usize>> = (0..n).step_by(PART).map(|start| start..(start + PART).min(n)).collect();
    (parts.len() >= LEAST_PARTS).then_some(parts)
}

/// Asks about each part of a video alone, in a separate cache, and compares the answers' first tokens.
#[derive(Debug)]
pub(in crate::chat) struct Searcher<'a> {
    pub engine: &'a Engine,
    pub params: &'a SessionParams,
    /// The conversation whose system message and answer start hold for the parts too. Its messages do not.
    pub conversation: &'a Conversation,
}

impl Searcher<'_> {
    /// Searches the parts of `video` that consist of these `slices`.
    pub fn search_video(
        &self,
        video: &EncodedVideo,
        slices: &[Range<usize>],
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<Search> {
        let part = |i: usize| self.part(video, &slices[i]);
        let describe = |i: usize, surprise| describe(video, &slices[i], surprise);
        self.search(slices.len(), part, describe, question, observer)
    }

    /// Searches `n` parts. `part(i)` returns a part; `describe(i, surprise)` returns what to report of it.
    pub fn search(
        &self,
        n: usize,
        part: impl Fn(usize) -> Result<Arc<EncodedVideo>>,
        describe: impl Fn(usize, f64) -> SearchedPart,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<Search> {
        let start = Instant::now();
        let (mut cache, mut learned) = (Cache::default(), Learned::default());
        let mut answers = Answers::default();
        for i in 0..n {
            let about = self.conversation.about(part(i)?);
            // All parts use the same context, one after the other.
            cache.cut_before_visual();
            let mut chat = Chat::new(self.engine, self.params, &about, &mut cache, &mut learned).small();
            answers.push(&chat.first_logits(question, probabilities, &mut ())?);
            observer.progress(Stage::Search, i as u64 + 1, n as u64);
        }
        let surprises = answers.surprises();
        let found = most(&surprises);
        let video = found.map(part).transpose()?;
        let parts = surprises.into_iter().enumerate().map(|(i, surprise)| describe(i, surprise)).collect();
        Ok(Search { parts, found, video, took: start.elapsed() })
    }

    /// Makes a video of these slices alone.
    fn part(&self, video: &EncodedVideo, slices: &Range<usize>) -> Result<Arc<EncodedVideo>> {
        let Self { engine, params, .. } = self;
        let times: Vec<f64> = video.slices[slices.clone()].iter().flat_map(|slice| slice.times_s.clone()).collect();
        let arrangement = arranged(engine, &video.info, video.arrangement.image_size, &times);
        let part = EncodedVideo {
            slices: video.slices[slices.clone()].to_vec(),
            unpruned: video.unpruned[slices.clone()].to_vec(),
            max_kept: video.max_kept,
            ..EncodedVideo::empty(&engine.model, &engine.vision, &video.info, arrangement)?
        };
        selected(engine, &params.prune, part)
    }
}

/// The arrangement of frames of `info` at `times`, encoded as images of size `image_size`.
pub(in crate::chat) fn arranged(engine: &Engine, info: &VideoInfo, image_size: Size, times: &[f64]) -> Arrangement {
    let whole = Arrangement::new(engine.layout.as_ref(), info, times, None, engine.vision.uses_mrope());
    Arrangement { image_size, ..whole }
}

/// Selects the visual tokens of `part` anew and drops the others. In the whole video, those are kept that are new
/// relative to earlier frames.
pub(in crate::chat) fn selected(engine: &Engine, prune: &PruneParams, part: EncodedVideo) -> Result<Arc<EncodedVideo>> {
    let mut part = Arc::new(part);
    let decision = decide(&part, prune, &engine.model)?;
    select(&mut part, &decision, engine.model.n_embd_inp());
    Arc::make_mut(&mut part).unpruned.clear();
    Ok(part)
}

/// The part that the answer depends on, if its surprise is large enough.
fn most(surprises: &[f64]) -> Option<usize> {
    let most = (0..surprises.len()).max_by(|&a, &b| surprises[a].total_cmp(&surprises[b]));
    most.filter(|&part| surprises[part] >= LEAST_SURPRISE)
}

fn describe(video: &EncodedVideo, slices: &Range<usize>, surprise: f64) -> SearchedPart {
    let time = |slice: usize| video.slices.get(slice).map(EncodedSlice::time_s);
    let start_s = time(slices.start).unwrap_or(0.0);
    SearchedPart {
        start_s,
        end_s: time(slices.end).or(video.info.duration_s).unwrap_or(start_s),
        frames: video.slices[slices.clone()].iter().map(EncodedSlice::n_frames).sum(),
        surprise,
    }
}

/// The softmax of `logits`.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    log_softmax(logits).into_iter().map(|log| log.exp() as f32).collect()
}

/// The answers of the parts: the probabilities of their first tokens.
#[derive(Debug, Default)]
struct Answers {
    /// For each part, the probabilities of at least [`UNLIKELY`]: few of a vocabulary that may have 250,000 tokens.
    likely: Vec<Vec<(usize, f32)>>,
    /// The sums over all parts, `[n_vocab]`.
    sums: Vec<f64>,
}

/// Tokens of less probability do not count.
const UNLIKELY: f32 = 1e-6;

impl Answers {
    fn push(&mut self, probabilities: &[f32]) {
        self.sums.resize(probabilities.len(), 0.0);
        self.sums.iter_mut().zip(probabilities).for_each(|(sum, &p)| *sum += f64::from(p));
        let likely = probabilities.iter().copied().enumerate().filter(|(_, p)| *p >= UNLIKELY);
        self.likely.push(likely.collect());
    }

    /// Returns for each part the Kullback-Leibler divergence of its distribution from the mean of the others, in nats.
    fn surprises(&self) -> Vec<f64> {
        let others = self.likely.len().saturating_sub(1).max(1) as f64;
        let divergence = |one: &Vec<(usize, f32)>| {
            let terms = one.iter().map(|&(token, p)| {
                let p = f64::from(p);
                // Without a lower bound, a token that no other part gives would be infinitely far.
                let mean = ((self.sums[token] - p) / others).max(1e-9);
                p * (p / mean).ln()
            });
            terms.sum::<f64>().max(0.0)
        };
        self.likely.iter().map(divergence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surprises(all: &[Vec<f32>]) -> Vec<f64> {
        let mut answers = Answers::default();
        all.iter().for_each(|one| answers.push(one));
        answers.surprises()
    }

    #[test]
    fn who_says_something_else_surprises() {
        let same = probabilities(&[1.0, 2.0, 0.0]);
        let other = probabilities(&[3.0, -2.0, 0.0]);
        let found = surprises(&[same.clone(), same.clone(), other, same]);
        assert!(found[2] > 1.0 && [0, 1, 3].iter().all(|&i| found[i] < found[2] / 4.0), "{found:?}");
        let equal = surprises(&vec![probabilities(&[0.5; 7]); 5]);
        assert!(equal.iter().all(|surprise| *surprise < 1e-9), "{equal:?}");
    }

    #[test]
    fn divergences_are_kullbacks_and_leiblers() {
        // By hand: 0.75 ln(0.75 / 0.5) + 0.25 ln(0.25 / 0.5), and 0.5 ln(0.5 / 0.75) + 0.5 ln(0.5 / 0.25).
        let found = surprises(&[vec![0.75, 0.25], vec![0.5, 0.5]]);
        assert!((found[0] - 0.130_812).abs() < 1e-5 && (found[1] - 0.143_841).abs() < 1e-5, "{found:?}");
        // A token that no part gives does not count, and one that a single part gives has a finite divergence.
        let found = surprises(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!(found.iter().all(|surprise| surprise.is_finite() && *surprise > 10.0), "{found:?}");
    }

    #[test]
    fn what_is_unlikely_hardly_counts() {
        // A large vocabulary in which most tokens are unlikely.
        let said = |token: usize| {
            let mut logits = vec![-12.0; 50_000];
            logits[token] = 6.0;
            probabilities(&logits)
        };
        let all: Vec<Vec<f32>> = [3, 3, 9, 3].into_iter().map(said).collect();
        let n_likely = |all: &[f32]| all.iter().filter(|p| **p >= UNLIKELY).count();
        assert_eq!(n_likely(&all[0]), 1);
        // By hand, over the whole vocabulary.
        let whole = |i: usize| -> f64 {
            let mean = |token: usize| (0..4).filter(|j| *j != i).map(|j| f64::from(all[j][token])).sum::<f64>() / 3.0;
            all[i].iter().enumerate().map(|(token, &p)| f64::from(p) * (f64::from(p) / mean(token)).ln()).sum()
        };
        for (i, found) in surprises(&all).into_iter().enumerate() {
            assert!((found - whole(i)).abs() < 0.01, "{found} {}", whole(i));
        }
    }

    #[test]
    fn probabilities_sum_to_one() {
        let found = probabilities(&[1000.0, 1001.0, f32::NEG_INFINITY]);
        assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-6 && found[2] == 0.0, "{found:?}");
        assert!((found[1] / found[0] - 1f32.exp()).abs() < 1e-4);
    }
}
