//! Looking for the part of a video that an answer hangs on.
//!
//! A model that was trained on a few frames overlooks what only one of many shows. So each part of the video is asked
//! about alone, and the parts' answers are compared: where one differs from the others, that part has something to say
//! about the question. No answer is written for it: the probabilities of the first token are enough.

use crate::chat::kv::trial::log_softmax;
use crate::chat::prompt::arrangement::Arrangement;
use crate::chat::session::Session;
use crate::chat::video::{EncodedSlice, EncodedVideo, decide, select};
use crate::error::Result;
use crate::layout::{Size, clock};
use crate::observer::{Observer, Stage};
use crate::video::{Kind, VideoInfo};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Slices (frames, or merged pairs of them) of a part.
pub(in crate::chat) const PART: usize = 2;

/// With fewer parts there is nothing to be gained: the model sees them all.
pub(in crate::chat) const LEAST_PARTS: usize = 4;

/// Nats, below which a part says nothing else than the others: the answer is given from the whole video then. Where it
/// lies matters little (docs/results.md).
const LEAST_SURPRISE: f64 = 0.1;

/// What was found in the parts of a video.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Search {
    /// The parts in the order of the video. There are four at least.
    pub parts: Vec<SearchedPart>,
    /// Which of them the answer hangs on; `None` if all say the same.
    pub found: Option<usize>,
}

/// A part of a video that was asked about alone.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SearchedPart {
    /// The time of its first frame, in seconds.
    pub start_s: f64,
    /// Where the next part begins, or the video ends, in seconds.
    pub end_s: f64,
    /// Its frames.
    pub frames: usize,
    /// How far its answer is from those of the others, in nats: the Kullback-Leibler divergence of its probabilities of
    /// the first token from the mean of the others'.
    pub surprise: f64,
}

impl Search {
    /// With what each part came to.
    pub(in crate::chat) fn new(parts: Vec<SearchedPart>) -> Self {
        let surprises: Vec<f64> = parts.iter().map(|part| part.surprise).collect();
        Self { parts, found: most(&surprises) }
    }

    /// The part that the answer hangs on, if there is one.
    pub fn part(&self) -> Option<&SearchedPart> {
        self.found.and_then(|found| self.parts.get(found))
    }
}

impl std::fmt::Display for SearchedPart {
    /// Its times: `12:22 to 12:38`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", clock(self.start_s), clock(self.end_s))
    }
}

impl Session {
    /// Asks each part of the last video alone, two slices (frames, or merged pairs) of it, and lets the next answer be
    /// given from the part whose answer to `question` differs most from those of the others, if one differs. Behind
    /// that answer the whole video is there again, and the question and its answer are part of the conversation; what
    /// was said before is not seen by the parts. A video, a system message or a selection that is set in between ends
    /// it. Does nothing for images and videos of fewer than eight slices.
    ///
    /// For one thing that a long video shows once ("Is there a crown in the video?"), and not for what all of it is
    /// about. Its time is part of the answer's prefill. It takes about as long as prefilling the video once more, and
    /// the question with each of its parts; the question behind it computes the whole video anew.
    ///
    /// # Errors
    /// [`crate::Error::InvalidParameter`] if the session was not opened with
    /// [`keep_unpruned`](crate::SessionParams::keep_unpruned), or if the video came from a saved session: each part's
    /// visual tokens are selected anew. Otherwise as [`ask`](Self::ask).
    pub fn search(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Option<Search>> {
        self.aside = None;
        let Some((video, slices)) = self.parts() else { return Ok(None) };
        let start = Instant::now();
        let result = self.search_in(&video, &slices, question, observer);
        self.searched = start.elapsed();
        if result.is_err() {
            self.aside = None;
        }
        result.map(Some)
    }

    /// The video to search in, and the slices of its parts.
    fn parts(&self) -> Option<(Arc<EncodedVideo>, Vec<Range<usize>>)> {
        let video = self.conversation.videos.iter().rev().find(|video| video.info.kind != Kind::Image)?;
        let n = video.slices.len();
        let parts: Vec<Range<usize>> = (0..n).step_by(PART).map(|start| start..(start + PART).min(n)).collect();
        (parts.len() >= LEAST_PARTS).then(|| (video.clone(), parts))
    }

    fn search_in(
        &mut self,
        video: &EncodedVideo,
        slices: &[Range<usize>],
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<Search> {
        self.check_unpruned([video])?;
        let part = |session: &Self, i: usize| session.part(video, &slices[i]);
        let surprises = self.compare(slices.len(), &part, question, observer)?;
        let part = |(slices, surprise)| describe(video, slices, surprise);
        Ok(Search::new(slices.iter().zip(surprises).map(part).collect()))
    }

    /// Asks each of `n` parts alone, and leaves the one that the answer hangs on aside for the next question. Gives how
    /// far the answer of each is from those of the others.
    pub(in crate::chat) fn compare(
        &mut self,
        n: usize,
        part: &dyn Fn(&Self, usize) -> Result<Arc<EncodedVideo>>,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f64>> {
        let mut answers = Answers::default();
        for i in 0..n {
            let about = self.conversation.about(part(self, i)?);
            let aside = self.aside.insert(about);
            self.kv.show_videos(&aside.videos);
            let plan = self.plan(&self.user_message(question))?;
            self.feed(&plan, &mut ())?;
            answers.push(&self.kv.read_logits(|context| context.logits().map(probabilities))?);
            observer.progress(Stage::Search, i as u64 + 1, n as u64);
        }
        let surprises = answers.surprises();
        let about = |found| Ok(self.conversation.about(part(self, found)?));
        self.aside = most(&surprises).map(about).transpose()?;
        Ok(surprises)
    }

    /// A video of these slices alone.
    fn part(&self, video: &EncodedVideo, slices: &Range<usize>) -> Result<Arc<EncodedVideo>> {
        let times: Vec<f64> = video.slices[slices.clone()].iter().flat_map(|slice| slice.times_s.clone()).collect();
        let arrangement = self.arranged(&video.info, video.arrangement.image_size, &times);
        self.selected(EncodedVideo {
            slices: video.slices[slices.clone()].to_vec(),
            unpruned: video.unpruned[slices.clone()].to_vec(),
            max_kept: video.max_kept,
            ..EncodedVideo::empty(&self.engine.model, &self.engine.vision, &video.info, arrangement)?
        })
    }

    /// How frames of `info` at `times` stand in a prompt, which were encoded in images of this size.
    pub(in crate::chat) fn arranged(&self, info: &VideoInfo, image_size: Size, times: &[f64]) -> Arrangement {
        let engine = &self.engine;
        let whole = Arrangement::new(engine.layout.as_ref(), info, times, None, engine.vision.uses_mrope());
        Arrangement { image_size, ..whole }
    }

    /// `part` with a selection of its own, and without what that leaves out: what a whole video keeps of it is what is
    /// new against the frames before.
    pub(in crate::chat) fn selected(&self, part: EncodedVideo) -> Result<Arc<EncodedVideo>> {
        let Self { engine, params, .. } = self;
        let mut part = Arc::new(part);
        let decision = decide(&part, &params.prune, &engine.model)?;
        select(&mut part, &decision, engine.model.n_embd_inp());
        Arc::make_mut(&mut part).unpruned.clear();
        Ok(part)
    }
}

/// Which part the answer hangs on, if one is far enough from the others.
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

/// The probabilities of tokens with these logits.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    log_softmax(logits).into_iter().map(|log| log.exp() as f32).collect()
}

/// What the parts say: the probabilities of the answers' first tokens.
#[derive(Debug, Default)]
struct Answers {
    /// Of each part, those from [`UNLIKELY`] on: few of a vocabulary that may have 250,000.
    likely: Vec<Vec<(usize, f32)>>,
    /// The sums of all, by token.
    sums: Vec<f64>,
}

/// Tokens of less probability count for nothing in an answer.
const UNLIKELY: f32 = 1e-6;

impl Answers {
    fn push(&mut self, probabilities: &[f32]) {
        self.sums.resize(probabilities.len(), 0.0);
        self.sums.iter_mut().zip(probabilities).for_each(|(sum, &p)| *sum += f64::from(p));
        let likely = probabilities.iter().copied().enumerate().filter(|(_, p)| *p >= UNLIKELY);
        self.likely.push(likely.collect());
    }

    /// Of each, its Kullback-Leibler divergence from the mean of the others, in nats.
    fn surprises(&self) -> Vec<f64> {
        let others = self.likely.len().saturating_sub(1).max(1) as f64;
        let divergence = |one: &Vec<(usize, f32)>| {
            let terms = one.iter().map(|&(token, p)| {
                let p = f64::from(p);
                // What no other part says would be infinitely far from them.
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
        // What nobody says counts for nothing, and what one alone says is finite.
        let found = surprises(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!(found.iter().all(|surprise| surprise.is_finite() && *surprise > 10.0), "{found:?}");
    }

    #[test]
    fn what_is_unlikely_hardly_counts() {
        // A large vocabulary, most of which nobody says.
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
