//! Making a layer profile: finding the layers in which a model can do without its visual tokens.
//!
//! The model answers questions about clips, and visual tokens are hidden from one layer after the other: what that does
//! to the distributions of the answer's tokens is the layer's cost. No labels are needed: the model without anything
//! hidden is the reference. Layers are then taken in the order of their cost, the cheapest first, and sets of them are
//! tried as a whole, on other clips than those that gave the order.
//!
//! Each prompt is prefilled once. An answer takes as many short forward passes as the model has layers: minutes for a
//! small model on a CPU, or a large one on a GPU; hours for a large one on a CPU.

mod clips;
mod record;

pub use clips::write_clips;
pub use record::Record;

use crate::chat::{Effect, LayerProfile, Loss, ProfileStep, Session, VideoOptions, order_of};
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};
use record::{Measured, Phase};
use std::path::PathBuf;

/// What the tokens of the model's answers may lose of their probability by default, in the mean. Chosen on `smol`
/// (docs/results.md, "Memory SharpV: accuracy").
pub const DEFAULT_MAX_LOSS: f64 = 0.02;

/// Sets of layers that are tried as a whole.
const SIZES: usize = 16;

/// Questions that ask for different things in a clip.
pub const QUESTIONS: [&str; 5] = [
    "What is in the video?",
    "What happens in the video?",
    "What color is the background?",
    "What moves, and in which direction?",
    "Is there a person in the video?",
];

/// What to measure.
#[derive(Debug)]
pub struct Calibration<'a> {
    /// Videos: every second gives the order, the others say how far it holds.
    pub clips: &'a [PathBuf],
    /// Which frames to take of them.
    pub video: VideoOptions,
    /// What is asked about each.
    pub questions: &'a [String],
    /// What the tokens of the answers may lose of their probability, in the mean: 0 to 1.
    pub max_loss: f64,
}

impl Calibration<'_> {
    /// Checks what is wrong without a model.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`].
    pub fn validate(&self) -> Result<()> {
        let refuse = |name, value: String, expected: &str| {
            Err(Error::InvalidParameter { name, value, expected: expected.to_owned() })
        };
        if self.clips.len() < 2 {
            let value = self.clips.len().to_string();
            let expected = "at least 2: one half gives the order, the other says how far it holds";
            return refuse("the number of videos", value, expected);
        }
        if self.questions.is_empty() {
            return refuse("the questions", "none".into(), "at least one");
        }
        if !(0.0..=1.0).contains(&self.max_loss) {
            return refuse("the quality loss", self.max_loss.to_string(), "a probability, 0 to 1");
        }
        Ok(())
    }

    /// Measures, with a session that has no conversation yet, and was opened to evict layers without a threshold or a
    /// profile. What `record` holds already is not measured again. Progress is that of [`Stage::Answers`].
    ///
    /// # Errors
    /// As [`Session::layer_effects`]; [`Error::Cancelled`]; [`Error::Io`] if the record cannot be written. What was
    /// measured is in the record.
    pub fn run(&self, session: &mut Session, record: &mut Record, observer: &mut dyn Observer) -> Result<LayerProfile> {
        self.validate()?;
        self.measure(Phase::Single, session, record, observer, |layers| {
            let with_cells = (0..layers.len()).filter(|&il| layers[il]);
            with_cells.map(|il| mark(&[il], layers.len())).collect()
        })?;
        let layers = record.layers().to_vec();
        let single = single(record, &layers);
        let order = order_of(&single);
        let sizes = sizes(order.len());
        self.measure(Phase::Steps, session, record, observer, |layers| {
            sizes.iter().map(|&n| mark(&order[..n], layers.len())).collect()
        })?;
        let steps = sizes
            .iter()
            .enumerate()
            .filter_map(|(i, &n)| Some(ProfileStep { layers: n, loss: mean(record, Phase::Steps, i)? }))
            .collect();
        let mut profile = LayerProfile::new(single, steps, self.max_loss);
        (profile.clips, profile.answers) = (self.clips.len(), record.len());
        Ok(profile)
    }

    /// Measures what is not in the record yet, of the clips of one phase. `sets` gives the layers to hide, of those
    /// that have cells.
    fn measure(
        &self,
        phase: Phase,
        session: &mut Session,
        record: &mut Record,
        observer: &mut dyn Observer,
        sets: impl Fn(&[bool]) -> Vec<Vec<bool>>,
    ) -> Result<()> {
        let total = (self.clips.len() * self.questions.len()) as u64;
        let of_phase = |i: usize| if i.is_multiple_of(2) { Phase::Single } else { Phase::Steps };
        for (clip, path) in self.clips.iter().enumerate().filter(|&(i, _)| of_phase(i) == phase) {
            let missing: Vec<usize> = (0..self.questions.len()).filter(|&q| !record.has(clip, q)).collect();
            observer.progress(Stage::Answers, record.len() as u64, total);
            if missing.is_empty() {
                continue;
            }
            session.clear();
            session.add_video(path, &self.video, &mut Quiet(observer))?;
            for question in missing {
                let text = &self.questions[question];
                let layers = session.evictable_layers(text)?;
                if !layers.iter().any(|&has_cells| has_cells) {
                    return Err(Error::InvalidParameter {
                        name: "the model",
                        value: session.model().path().display().to_string(),
                        expected: "one with a KV cache that can be evicted layer by layer".into(),
                    });
                }
                let effects = session.layer_effects(text, &sets(&layers), &mut Quiet(observer))?;
                record.add(Measured { phase, clip, question, layers, effects })?;
                observer.progress(Stage::Answers, record.len() as u64, total);
            }
        }
        Ok(())
    }
}

/// Hands on what the user should know, and no progress but that of the whole.
struct Quiet<'a>(&'a mut dyn Observer);

impl Observer for Quiet<'_> {
    fn message(&mut self, message: &str) {
        self.0.message(message);
    }

    fn warning(&mut self, message: &str) {
        self.0.warning(message);
    }
}

fn mark(chosen: &[usize], n_layer: usize) -> Vec<bool> {
    (0..n_layer).map(|il| chosen.contains(&il)).collect()
}

/// How many layers to take out at once, of `n` that can be: one is left at least.
fn sizes(n: usize) -> Vec<usize> {
    let most = n.saturating_sub(1);
    let mut sizes: Vec<usize> = (1..=SIZES).map(|i| (most * i).div_ceil(SIZES)).filter(|&n| n > 0).collect();
    sizes.dedup();
    sizes
}

/// What each layer alone costs.
fn single(record: &Record, layers: &[bool]) -> Vec<Option<Loss>> {
    let mut set = 0;
    let of = |&has_cells: &bool| {
        has_cells.then(|| {
            set += 1;
            mean(record, Phase::Single, set - 1)
        })?
    };
    layers.iter().map(of).collect()
}

/// The mean loss of the set with this number.
fn mean(record: &Record, phase: Phase, set: usize) -> Option<Loss> {
    Effect::mean(record.of(phase).filter_map(|measured| measured.effects.get(set).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_leave_a_layer() {
        assert_eq!(sizes(0), [0_usize; 0]);
        assert_eq!(sizes(1), [0_usize; 0]);
        assert_eq!(sizes(4), [1, 2, 3]);
        assert_eq!(sizes(17), (1..=16).collect::<Vec<_>>());
        assert_eq!(sizes(33), (1..=16).map(|i| 2 * i).collect::<Vec<_>>());
    }
}
