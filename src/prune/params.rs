//! What the caller can choose.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The manual cut-off `K` of the paper: keep a token when its importance is over this.
pub const DEFAULT_THRESHOLD: f32 = 1.6;

/// How the tokens to keep are chosen.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_method)]
#[non_exhaustive]
pub enum Method {
    /// Visual SharpV: the tokens of highest spatial and temporal importance, and of each scene one for the rest of it.
    #[default]
    SharpV,
    /// Visual SharpV as in the paper: the tokens of highest importance, and nothing else. It is the paper's only on
    /// embeddings that the encoder computed whole: see [`needs_exact_embeddings`](Self::needs_exact_embeddings).
    #[serde(rename = "sharpv-paper")]
    #[strum(serialize = "sharpv-paper")]
    SharpVPaper,
    /// Keep every token of every slice, without a look at the embeddings.
    Off,
    /// Control: in each slice as many tokens as SharpV keeps there under the same parameters, drawn at random.
    Random,
    /// Control: whole slices, evenly spaced, up to the total that SharpV keeps under the same parameters. The last
    /// of them is cut to fit; what is left of it is evenly spaced over its grid.
    Uniform,
    /// Efficient Video Sampling: the tokens of the whole video that differ most from the same cell of the slice before.
    /// [`SliceDecision::ratio`](super::SliceDecision::ratio) is the share of the slice among the best quarter of all.
    Evs,
    /// Video Compression Commander: the tokens that stand out from their slice and from the video, more of the slices
    /// that stand out themselves. The ratio is a quarter, raised or lowered by how much the slice stands out.
    VidCom2,
    /// DyCoke's token temporal merging: in windows of four slices, tokens like those of an earlier slice go. The ratio
    /// is 1 in first slices of windows, 0.3 in others.
    DyCoke,
    /// DivPrune: tokens as different from each other as can be, over the whole video. The ratio is 0.098 in every
    /// slice. It scores no token by itself, so [`Budget::Threshold`] is refused.
    DivPrune,
}

impl Method {
    /// All methods, in the order in which help texts list them.
    pub const ALL: [Self; 9] = [
        Self::SharpV,
        Self::SharpVPaper,
        Self::Off,
        Self::Random,
        Self::Uniform,
        Self::Evs,
        Self::VidCom2,
        Self::DyCoke,
        Self::DivPrune,
    ];

    /// Whether it is Visual SharpV, in one form or the other. Those are the methods that tell while a video comes which
    /// tokens they will keep ([`RunningScores`](super::RunningScores)).
    pub fn is_sharpv(self) -> bool {
        matches!(self, Self::SharpV | Self::SharpVPaper)
    }

    /// Whether it has to see what the encoder makes of each whole image. Other methods may be given estimates of what
    /// hardly changes or will be dropped; this one stands for what its authors published, which knows none.
    pub fn needs_exact_embeddings(self) -> bool {
        self == Self::SharpVPaper
    }

    /// The name as written on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown_method(name: &str) -> Error {
    Error::unknown_name::<Method>("the pruning method", name)
}

/// How many tokens to keep.
///
/// [`Keep`](Self::Keep) and [`MaxTokens`](Self::MaxTokens) set the total over all slices, which every method meets
/// exactly. SharpV then scales every slice's adaptive ratio by one common factor, so slices keep their order of need; a
/// slice that is full (all its tokens kept) stops growing and the others share the rest. Fractions of a token go to the
/// slices with the largest ones, of equals to the earlier one. Slices with ratio 0 (identical to the one before) get
/// tokens only when all others are full; they then share evenly. First slices get [`PruneParams::min_keep`] before
/// anything is shared, unless the total is too small for that: the total always wins. A total above the number of
/// tokens keeps all. How other methods share a total is told [with them](super#other-methods).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// What the video needs, as SharpV sees it: `ceil(r_t·n)` tokens of slice `t`. Other methods: as many as their
    /// papers keep.
    #[default]
    Adaptive,
    /// Every token whose importance is over this cut-off, [`DEFAULT_THRESHOLD`] in the paper. Importance lies in
    /// `[0, 2 + 2w]`, and in `[0, 2]` in a first slice. With EVS and DyCoke it lies in `[0, 2]`, and first slices stay
    /// whole; with VidCom² in `[0, 1]`. DivPrune has none. A [cap](PruneParams::cap) takes from those over it, and
    /// gives nothing to the others.
    Threshold(f32),
    /// This share of all visual tokens, 0 to 1; rounded to the nearest number of tokens, at least 1.
    Keep(f32),
    /// This number of tokens, at least 1: used up when there are so many, never exceeded.
    MaxTokens(usize),
}

/// Parameters of [`prune`](super::prune) and [`Scorer`](super::Scorer). The default is [`Method::SharpV`] with as many
/// tokens as the video needs: the paper's selection, but that one token of each scene stands for what importance leaves
/// out. The paper's own is [`Method::SharpVPaper`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneParams {
    /// How tokens are chosen.
    pub method: Method,
    /// How many tokens are kept.
    pub budget: Budget,
    /// No more tokens than this are kept in all, whatever the budget gives: what there is memory for. Means nothing to
    /// [`Method::Off`].
    pub cap: Option<usize>,
    /// `w` in SharpV's `I = T + w·S`: weight of spatial against temporal importance. 1 in the paper; 0 or more.
    pub spatial_weight: f32,
    /// Tokens that SharpV, and so random and uniform, keeps at least of a slice that has no slice before it to compare
    /// with. Default 1.
    pub min_keep: usize,
    /// Seed of [`Method::Random`].
    pub seed: u64,
}

impl Default for PruneParams {
    fn default() -> Self {
        Self {
            method: Method::default(),
            budget: Budget::default(),
            cap: None,
            spatial_weight: 1.0,
            min_keep: 1,
            seed: 0,
        }
    }
}

impl PruneParams {
    /// Parameters that keep every token.
    pub fn off() -> Self {
        Self { method: Method::Off, ..Self::default() }
    }

    /// Whether one token of each scene is kept for what importance leaves out. A threshold says of each token by itself
    /// whether it is kept.
    pub(super) fn covers(&self) -> bool {
        self.method == Method::SharpV && !matches!(self.budget, Budget::Threshold(_))
    }

    /// Checks that every parameter is in its range, and that the budget is one that the method can follow.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], naming the parameter, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let check = |valid: bool, name: &'static str, value: &dyn std::fmt::Display, expected: &str| {
            if valid {
                return Ok(());
            }
            Err(Error::InvalidParameter { name, value: value.to_string(), expected: expected.into() })
        };
        let finite = "a finite number of at least 0";
        check(is_finite_non_negative(self.spatial_weight), "the spatial weight", &self.spatial_weight, finite)?;
        match self.budget {
            Budget::Adaptive => Ok(()),
            Budget::Threshold(k) if self.method == Method::DivPrune => check(
                false,
                "the importance threshold",
                &k,
                "left out with divprune, which gives tokens no importance: set a share or a number of tokens",
            ),
            Budget::Threshold(k) => check(is_finite_non_negative(k), "the importance threshold", &k, finite),
            Budget::Keep(share) => {
                check((0.0..=1.0).contains(&share), "the share of visual tokens to keep", &share, "between 0 and 1")
            }
            Budget::MaxTokens(n) => check(n > 0, "the maximum of visual tokens", &n, "at least 1"),
        }
    }
}

fn is_finite_non_negative(value: f32) -> bool {
    value.is_finite() && value >= 0.0
}
