//! Calibration: finding the layers in which a model can do without visual tokens. The result is a layer profile.
//!
//! The model answers questions about clips, and visual tokens are hidden from one layer after the other. The change in
//! the distributions of the answer's tokens is the cost of the layer. No labels are needed: the reference is the model
//! with nothing hidden. Then the layers are sorted by cost, and sets of the cheapest ones are measured together, on
//! other clips than those that gave the order.
//!
//! Each prompt is prefilled once. Each answer takes as many short forward passes as the model has layers. That takes
//! minutes for a small model on a CPU or a large one on a GPU, and hours for a large model on a CPU.

mod clips;
mod record;

pub use clips::write_clips;
pub use record::Record;

use crate::chat::{Effect, LayerProfile, Loss, ProfileStep, Session, VideoOptions, order_of};
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};
use record::{Measured, Phase};
use std::path::PathBuf;

/// The default of [`Calibration::max_loss`]. Chosen on `smol` (docs/results.md, "Memory SharpV: accuracy").
pub const DEFAULT_MAX_LOSS: f64 = 0.02;

/// The number of sets of layers that are measured together.
const SIZES: usize = 16;

/// The default questions. They ask for different things in a clip.
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
    /// Videos. Every second one gives the order of layers; with the others it is measured how many of them can be
    /// evicted.
    pub clips: &'a [PathBuf],
    /// Which frames of them are used.
    pub video: VideoOptions,
    /// The questions about each clip.
    pub questions: &'a [String],
    /// How much of their probability the tokens of the answers may lose, in the mean: 0 to 1.
    pub max_loss: f64,
}

impl Calibration<'_> {
    /// Checks the parameters.
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

    /// Measures with a `session` that has no conversation yet, and that evicts layers without a threshold or a profile.
    /// Answers in `record` are not measured again. Progress is reported as [`Stage::Answers`].
    ///
    /// # Errors
    /// As [`Session::layer_effects`]; [`Error::Cancelled`]; [`Error::Io`] if the record cannot be written. What was
    /// measured so far is in the record.
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

    /// Measures the clips of one phase that are not in the record yet. `sets` is passed which layers have cells, and
    /// returns the sets of layers to hide.
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

/// Forwards messages and warnings, and drops progress: only that of the whole run is shown.
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

/// The sizes of the sets of layers, of `n` layers that can be hidden. At least one layer stays visible.
fn sizes(n: usize) -> Vec<usize> {
    let most = n.saturating_sub(1);
    let mut sizes: Vec<usize> = (1..=SIZES).map(|i| (most * i).div_ceil(SIZES)).filter(|&n| n > 0).collect();
    sizes.dedup();
    sizes
}

/// The cost of each layer alone.
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

/// The mean loss of the set at this index.
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
