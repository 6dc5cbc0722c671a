//! Visual token pruning, compared with values of another implementation and with a naive one in f64; and properties
//! that hold for any video.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sharpv::Error;
use sharpv::lab::methods;
use sharpv::prune::{Budget, CausalChoice, CausalPruner, Decision, Method, PruneParams, Scorer, SliceView, prune};

use crate::support::npy;

/// A video in memory: slices of tokens of `n_embd` floats.
#[derive(Debug, Clone, PartialEq)]
struct Video {
    n_embd: usize,
    slices: Vec<Vec<Vec<f32>>>,
}

impl Video {
    /// Tokens with independent directions.
    fn noise(seed: u64, n_slices: usize, n_tokens: usize, n_embd: usize) -> Self {
        let mut rng = Lcg(seed);
        let mut token = || (0..n_embd).map(|_| rng.next()).collect::<Vec<f32>>();
        Self { n_embd, slices: (0..n_slices).map(|_| (0..n_tokens).map(|_| token()).collect()).collect() }
    }

    /// A video that changes slightly from slice to slice, each slice by a different amount.
    fn drift(seed: u64, n_slices: usize, n_tokens: usize, n_embd: usize) -> Self {
        let mut video = Self::noise(seed, n_slices, n_tokens, n_embd);
        let mut rng = Lcg(seed ^ 0xABCD);
        for t in 1..n_slices {
            let amount = rng.next().abs();
            for i in 0..n_tokens {
                for k in 0..n_embd {
                    let change = video.slices[t][i][k];
                    video.slices[t][i][k] = video.slices[t - 1][i][k] + amount * change;
                }
            }
        }
        video
    }

    fn still(seed: u64, n_slices: usize, n_tokens: usize, n_embd: usize) -> Self {
        let mut video = Self::noise(seed, 1, n_tokens, n_embd);
        video.slices = vec![video.slices[0].clone(); n_slices];
        video
    }

    fn total(&self) -> usize {
        self.slices.iter().map(Vec::len).sum()
    }

    fn flat(&self) -> Vec<Vec<f32>> {
        self.slices.iter().map(|slice| slice.concat()).collect()
    }

    fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        let mut video = self.clone();
        video.slices.iter_mut().flatten().flatten().for_each(|x| *x = f(*x));
        video
    }

    fn prune(&self, params: &PruneParams) -> Decision {
        let flat = self.flat();
        prune(params, &views(&flat, self.n_embd)).unwrap()
    }

    fn prune_one_by_one(&self, params: &PruneParams) -> Decision {
        let mut scorer = Scorer::new(params).unwrap();
        for slice in self.flat() {
            // The view and the data are dropped before the next slice, as when frames stream.
            scorer.push(SliceView::new(&slice, slice.len() / self.n_embd, self.n_embd).unwrap()).unwrap();
        }
        scorer.finish()
    }
}

fn views(flat: &[Vec<f32>], n_embd: usize) -> Vec<SliceView<'_>> {
    flat.iter().map(|slice| SliceView::new(slice, slice.len() / n_embd, n_embd).unwrap()).collect()
}

struct Lcg(u64);

impl Lcg {
    /// A number in `[-1, 1)`.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

fn counts(decision: &Decision) -> Vec<usize> {
    decision.slices.iter().map(|slice| slice.kept.len()).collect()
}

fn with_budget(budget: Budget) -> PruneParams {
    PruneParams { budget, ..PruneParams::default() }
}

/// Every method that reads embeddings.
fn choosy() -> impl Strategy<Value = Method> {
    prop::sample::select(methods::all().filter(|&method| method != Method::OFF).collect::<Vec<_>>())
}

fn importance(decision: &Decision, slice: usize) -> &[f32] {
    decision.slices[slice].importance.as_deref().unwrap()
}

/// Whether the sets are equal, up to tokens of equal importance (within the precision of f32).
fn same_but_for_ties(a: &[u32], b: &[u32], importance: &[f64]) -> Result<(), String> {
    let (a, b): (BTreeSet<u32>, BTreeSet<u32>) = (a.iter().copied().collect(), b.iter().copied().collect());
    if a.len() != b.len() {
        return Err(format!("{} tokens against {}", a.len(), b.len()));
    }
    let scores = |set: BTreeSet<u32>| {
        let mut scores: Vec<f64> = set.iter().map(|&i| importance[i as usize]).collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (only_a, only_b) = (scores(&a - &b), scores(&b - &a));
    match only_a.iter().zip(&only_b).all(|(x, y)| (x - y).abs() < 1e-5) {
        true => Ok(()),
        false => Err(format!("{only_a:?} against {only_b:?}")),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Golden values

fn golden_clips() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let mut clips: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    clips.sort();
    assert_eq!(clips.len(), 3);
    clips
}

#[test]
fn golden_values_of_another_implementation() {
    for clip in golden_clips() {
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(clip.join("golden.json")).unwrap()).unwrap();
        let npy = npy::read(&clip.join("embeddings.npy"));
        let [n_slices, n_tokens, n_embd] = npy.shape[..] else { panic!("shape {:?}", npy.shape) };
        let slices: Vec<SliceView> = npy
            .data
            .chunks_exact(n_tokens * n_embd)
            .map(|slice| SliceView::new(slice, n_tokens, n_embd).unwrap())
            .collect();
        let params = PruneParams { method: Method::SHARPV_PAPER, ..PruneParams::default() };
        let decision = prune(&params, &slices).unwrap();

        let expected = golden["sharpv"].as_array().unwrap();
        assert_eq!(decision.slices.len(), n_slices);
        assert_eq!(expected.len(), n_slices);
        for (t, (slice, expected)) in decision.slices.iter().zip(expected).enumerate() {
            let context = format!("{}, slice {t}", clip.display());
            let number = |value: &serde_json::Value| value.as_f64().unwrap();
            assert!((f64::from(slice.ratio) - number(&expected["ratio"])).abs() < 1e-6, "{context}");
            let scores: Vec<f64> = expected["importance"].as_array().unwrap().iter().map(number).collect();
            assert_eq!(scores.len(), n_tokens);
            for (i, (&ours, theirs)) in importance(&decision, t).iter().zip(&scores).enumerate() {
                assert!((f64::from(ours) - theirs).abs() < 1e-4, "{context}, token {i}: {ours} against {theirs}");
            }
            let kept: Vec<u32> =
                expected["kept"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect();
            same_but_for_ties(&slice.kept, &kept, &scores).unwrap_or_else(|e| panic!("{context}: {e}"));
        }
    }
}

/// `tests/data/baselines/make.py` computes these from the formulas.
#[test]
fn golden_values_of_the_other_methods() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/baselines");
    for clip in ["static", "moving", "cut"] {
        let text = std::fs::read_to_string(folder.join(format!("{clip}.json"))).unwrap();
        let golden: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(golden.len(), 4);
        let npy = npy::read(&folder.join(format!("{clip}.npy")));
        let [_, n_tokens, n_embd] = npy.shape[..] else { panic!("shape {:?}", npy.shape) };
        let slices: Vec<SliceView> = (npy.data.chunks_exact(n_tokens * n_embd))
            .map(|slice| SliceView::new(slice, n_tokens, n_embd).unwrap())
            .collect();
        for (name, golden) in golden {
            let method = methods::by_name(&name).unwrap();
            let budgets = golden["kept"].as_object().unwrap();
            assert_eq!(budgets.len(), 5);
            for (budget, expected) in budgets {
                let budget = match budget.strip_prefix("keep ") {
                    Some(share) => Budget::Keep(share.parse().unwrap()),
                    None => Budget::Adaptive,
                };
                let context = format!("{clip}, {name}, {budget:?}");
                let decision = prune(&PruneParams { method, ..with_budget(budget) }, &slices).unwrap();
                let kept: Vec<&[u32]> = decision.slices.iter().map(|slice| &slice.kept[..]).collect();
                let expected: Vec<Vec<u32>> = serde_json::from_value(expected.clone()).unwrap();
                assert_eq!(kept, expected, "{context}");

                let ratios: Vec<f32> = serde_json::from_value(golden["ratio"].clone()).unwrap();
                let importances: Option<Vec<Vec<f32>>> = serde_json::from_value(golden["importance"].clone()).unwrap();
                for (t, slice) in decision.slices.iter().enumerate() {
                    // The softmax over slices multiplies any error by a hundred.
                    assert!((slice.ratio - ratios[t]).abs() < 1e-5, "{context}, slice {t}: {}", slice.ratio);
                    let expected = importances.as_ref().map(|importances| &importances[t]);
                    assert_eq!(slice.importance.as_ref().map(Vec::len), expected.map(Vec::len), "{context}");
                    let pairs = slice.importance.iter().flatten().zip(expected.into_iter().flatten());
                    for (i, (ours, theirs)) in pairs.enumerate() {
                        assert!((ours - theirs).abs() < 2e-6, "{context}, slice {t}, token {i}: {ours}, not {theirs}");
                    }
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A naive implementation: cosines in f64, sorting, no shared code

/// Importance and ratio of each slice of a video without special cases; NaN tokens count as absent.
fn naive_scores(video: &Video, w: f64) -> Vec<(Vec<f64>, f64)> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let dissim = |a: &[f64], b: &[f64]| {
        let cos = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        (2.0 - 2.0 * cos).max(0.0).sqrt()
    };
    let present = |token: &Vec<f64>| token.iter().all(|x| x.is_finite());
    let slices: Vec<Vec<Vec<f64>>> = video
        .slices
        .iter()
        .map(|slice| slice.iter().map(|token| token.iter().map(|&x| f64::from(x)).collect()).collect())
        .collect();
    let rms = |values: Vec<f64>| (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
    let score = |t: usize| {
        let slice = &slices[t];
        let n = slice.iter().filter(|token| present(token)).count() as f64;
        let mean: Vec<f64> = (0..video.n_embd)
            .map(|k| slice.iter().filter(|token| present(token)).map(|token| token[k]).sum::<f64>() / n)
            .collect();
        let spatial = |i: usize| if present(&slice[i]) { Some(dissim(&slice[i], &mean)) } else { None };
        let temporal = |i: usize| {
            let previous = t.checked_sub(1).map(|t| &slices[t]).filter(|previous| previous.len() == slice.len())?;
            (present(&slice[i]) && present(&previous[i])).then(|| dissim(&slice[i], &previous[i]))
        };
        let all = 0..slice.len();
        let temporals: Vec<f64> = all.clone().filter_map(temporal).collect();
        if temporals.is_empty() {
            let spatials = all.clone().filter_map(spatial).collect();
            (all.map(|i| spatial(i).unwrap_or(0.0)).collect(), rms(spatials) / 2.0)
        } else {
            let both = |i| spatial(i).map_or(0.0, |s| w * s + temporal(i).unwrap_or(0.0));
            (all.map(both).collect(), rms(temporals) / 2.0)
        }
    };
    (0..slices.len()).map(score).collect()
}

/// Slice and index of the tokens that DivPrune takes, ascending; `None` if two candidates are too close to tell apart.
fn naive_divprune(video: &Video, k: usize) -> Option<Vec<(usize, usize)>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let tokens: Vec<(usize, usize, &[f32])> = (video.slices.iter().enumerate())
        .flat_map(|(t, slice)| slice.iter().enumerate().map(move |(i, token)| (t, i, &token[..])))
        .collect();
    let distance = |a: usize, b: usize| {
        let (a, b) = (tokens[a].2, tokens[b].2);
        1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < k.min(tokens.len()) {
        let others = (0..tokens.len()).filter(|i| !chosen.contains(i));
        let nearest = |i: usize| {
            let all = (0..tokens.len()).collect();
            let to = if chosen.is_empty() { &all } else { &chosen };
            to.iter().filter(|&&j| j != i).map(|&j| distance(i, j)).fold(f64::INFINITY, f64::min)
        };
        let mut ranked: Vec<(f64, usize)> = others.map(|i| (nearest(i), i)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        // If there are only two tokens, they are each other's neighbors: that is a tie, but not a close choice.
        if ranked.len() > 1 && tokens.len() > 2 && ranked[0].0 - ranked[1].0 < 1e-6 {
            let mutual = chosen.is_empty() && ranked[0].0 == distance(ranked[0].1, ranked[1].1);
            if !mutual {
                return None;
            }
        }
        chosen.push(ranked[0].1);
    }
    chosen.sort_unstable();
    Some(chosen.into_iter().map(|i| (tokens[i].0, tokens[i].1)).collect())
}

/// The `k` best tokens, on a tie the first.
fn naive_top(scores: &[f64], k: usize) -> Vec<u32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap());
    let mut kept: Vec<u32> = order[..k].iter().map(|&i| i as u32).collect();
    kept.sort_unstable();
    kept
}

/// Whether each slice begins a scene, and its typical token; `None` if either is too close to decide.
fn naive_covers(video: &Video) -> Option<Vec<(bool, usize)>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let angle = |a: &[f64], b: &[f64]| (2.0 - 2.0 * dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).max(0.0).sqrt();
    let mut opening: Option<Vec<f64>> = None;
    let mut covers = Vec::new();
    for (t, slice) in video.slices.iter().enumerate() {
        let wide = |token: &Vec<f32>| token.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let tokens: Vec<(usize, Vec<f64>)> = slice.iter().map(wide).enumerate().collect();
        let tokens: Vec<_> = tokens.into_iter().filter(|(_, token)| token.iter().all(|x| x.is_finite())).collect();
        let mean: Vec<f64> = (0..video.n_embd)
            .map(|k| tokens.iter().map(|(_, token)| token[k]).sum::<f64>() / tokens.len() as f64)
            .collect();
        let mut distances: Vec<(f64, usize)> = tokens.iter().map(|(i, token)| (angle(token, &mean), *i)).collect();
        let rms = (distances.iter().map(|(s, _)| s * s).sum::<f64>() / distances.len() as f64).sqrt();
        distances.sort_by(|a, b| a.0.total_cmp(&b.0));
        let moved = opening.as_ref().map_or(f64::INFINITY, |opening| angle(&mean, opening));
        if (moved - rms).abs() < 1e-5 || (distances.len() > 1 && distances[1].0 - distances[0].0 < 1e-5) {
            return None;
        }
        let opens = t == 0 || moved > rms;
        if opens {
            opening = Some(mean);
        }
        covers.push((opens, distances[0].1));
    }
    Some(covers)
}

/// SharpV with covers, from the numbers of kept tokens.
fn naive_sharpv(covers: &[(bool, usize)], scores: &[(Vec<f64>, f64)], counts: &[usize]) -> Vec<Vec<u32>> {
    let mut is_due = false;
    let mut kept = Vec::new();
    for (t, &(opens, typical)) in covers.iter().enumerate() {
        is_due |= opens;
        let mut scores = scores[t].0.clone();
        if is_due && counts[t] > 1 {
            is_due = false;
            scores[typical] = f64::INFINITY;
        }
        kept.push(naive_top(&scores, counts[t]));
    }
    kept
}

fn check_against_naive(video: &Video, w: f32) -> Result<(), TestCaseError> {
    let paper = PruneParams { method: Method::SHARPV_PAPER, spatial_weight: w, ..PruneParams::default() };
    let decision = video.prune(&paper);
    for (t, (scores, ratio)) in naive_scores(video, f64::from(w)).into_iter().enumerate() {
        let slice = &decision.slices[t];
        prop_assert!((f64::from(slice.ratio) - ratio).abs() < 1e-5, "slice {t}: {} against {ratio}", slice.ratio);
        for (i, (&ours, naive)) in importance(&decision, t).iter().zip(&scores).enumerate() {
            prop_assert!((f64::from(ours) - naive).abs() < 1e-5 * f64::from(1.0 + w), "slice {t}, token {i}");
        }
        let n = ratio * scores.len() as f64;
        if (n - n.round()).abs() > 1e-3 {
            let expected = naive_top(&scores, (n.ceil() as usize).max(usize::from(t == 0)));
            let same = same_but_for_ties(&slice.kept, &expected, &scores);
            prop_assert!(same.is_ok(), "slice {t}: {same:?}");
        }
    }
    for budget in [Budget::Adaptive, Budget::Keep(0.1), Budget::Keep(0.4)] {
        check_cover(video, &PruneParams { budget, ..paper.clone() })?;
    }
    Ok(())
}

/// SharpV keeps what the paper's method keeps, except for the covers.
fn check_cover(video: &Video, paper: &PruneParams) -> Result<(), TestCaseError> {
    let Some(covers) = naive_covers(video) else { return Ok(()) };
    let scores = naive_scores(video, f64::from(paper.spatial_weight));
    let by_paper = video.prune(paper);
    let decision = video.prune(&PruneParams { method: Method::SHARPV, ..paper.clone() });
    prop_assert_eq!(counts(&decision), counts(&by_paper));
    let expected = naive_sharpv(&covers, &scores, &counts(&by_paper));
    for (t, (slice, expected)) in decision.slices.iter().zip(&expected).enumerate() {
        prop_assert_eq!((slice.ratio, &slice.importance), (by_paper.slices[t].ratio, &by_paper.slices[t].importance));
        let same = same_but_for_ties(&slice.kept, expected, &scores[t].0);
        prop_assert!(same.is_ok(), "slice {t}: {same:?}, {paper:?}");
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// What holds for any video

fn video() -> impl Strategy<Value = Video> {
    (any::<u64>(), any::<bool>(), 1..7_usize, 1..24_usize, 4..70_usize).prop_map(|(seed, drift, f, n, d)| {
        if drift { Video::drift(seed, f, n, d) } else { Video::noise(seed, f, n, d) }
    })
}

/// A video with slices of several sizes, and occasional NaN, infinite, huge and zero tokens.
fn odd_video() -> impl Strategy<Value = Video> {
    (any::<u64>(), prop::collection::vec(1..12_usize, 1..8), 1..40_usize).prop_map(|(seed, sizes, n_embd)| {
        let mut rng = Lcg(seed);
        let slices = sizes.iter().map(|&n| {
            let token = |i: usize, rng: &mut Lcg| {
                let mut token: Vec<f32> = (0..n_embd).map(|_| rng.next()).collect();
                match (rng.next().abs() * 24.0) as u32 {
                    0 => token[i % n_embd] = f32::NAN,
                    1 => token[i % n_embd] = f32::INFINITY,
                    2 => token.fill(f32::MAX),
                    3 => token.fill(0.0),
                    _ => (),
                }
                token
            };
            (0..n).map(|i| token(i, &mut rng)).collect()
        });
        Video { n_embd, slices: slices.collect() }
    })
}

fn budget() -> impl Strategy<Value = Budget> {
    prop_oneof![
        Just(Budget::Adaptive),
        (0.0..3.0_f32).prop_map(Budget::Threshold),
        (0.0..=1.0_f32).prop_map(Budget::Keep),
        (1..80_usize).prop_map(Budget::MaxTokens),
    ]
}

fn params() -> impl Strategy<Value = PruneParams> {
    let method = prop::sample::select(methods::all().collect::<Vec<_>>());
    let cap = prop::option::of(0..80_usize);
    (method, budget(), cap, 0.0..3.0_f32, 0..4_usize, any::<u64>()).prop_map(
        |(method, budget, cap, spatial_weight, min_keep, seed)| {
            let params = PruneParams { method, budget, cap, spatial_weight, min_keep, seed };
            // DivPrune rejects a threshold.
            if params.validate().is_ok() { params } else { PruneParams { budget: Budget::Adaptive, ..params } }
        },
    )
}

proptest! {
    #[test]
    fn scores_and_selection_equal_a_naive_implementation(video in video(), w in 0.0..3.0_f32) {
        check_against_naive(&video, w)?;
    }

    #[test]
    fn kept_indices_are_sorted_unique_and_in_range(video in odd_video(), params in params()) {
        let decision = video.prune(&params);
        prop_assert_eq!(decision.slices.len(), video.slices.len());
        prop_assert_eq!(decision.total(), video.total());
        for (slice, tokens) in decision.slices.iter().zip(&video.slices) {
            prop_assert_eq!(slice.n_tokens, tokens.len());
            prop_assert!(slice.kept.is_sorted_by(|a, b| a < b), "{:?}", slice.kept);
            prop_assert!(slice.kept.last().is_none_or(|&last| (last as usize) < tokens.len()));
            prop_assert!((0.0..=1.0).contains(&slice.ratio));
            if let Some(importance) = &slice.importance {
                prop_assert_eq!(importance.len(), tokens.len());
                prop_assert!(importance.iter().all(|i| (0.0..=2.0 + 2.0 * params.spatial_weight.max(1.0)).contains(i)));
            }
        }
    }

    #[test]
    fn off_is_the_identity(video in odd_video(), budget in budget()) {
        let decision = video.prune(&PruneParams { budget, ..PruneParams::off() });
        for slice in &decision.slices {
            prop_assert_eq!(&slice.kept, &(0..slice.n_tokens as u32).collect::<Vec<_>>());
        }
        prop_assert_eq!(decision.keep_ratio(), 1.0);
    }

    #[test]
    fn one_by_one_equals_all_at_once(video in odd_video(), params in params()) {
        prop_assert_eq!(video.prune_one_by_one(&params), video.prune(&params));
    }

    #[test]
    fn no_method_but_off_keeps_a_token_that_is_not_finite(video in odd_video(), params in params()) {
        prop_assume!(params.method != Method::OFF);
        let broken = |token: &Vec<f32>| token.iter().any(|x| !x.is_finite() || *x == f32::MAX);
        let decision = video.prune(&params);
        for (slice, tokens) in decision.slices.iter().zip(&video.slices) {
            prop_assert!(slice.kept.iter().all(|&i| !broken(&tokens[i as usize])));
        }
        prop_assert_eq!(decision.non_finite, video.slices.iter().flatten().filter(|token| broken(token)).count());
    }

    #[test]
    fn a_total_is_met_exactly(video in video(), method in choosy(), share in 0.0..=1.0_f32, max in 1..200_usize) {
        let kept = |budget| video.prune(&PruneParams { method, budget, ..PruneParams::default() }).kept();
        let total = video.total();
        prop_assert_eq!(kept(Budget::MaxTokens(max)), max.min(total));
        let wanted = f64::from(share) * total as f64;
        let kept_share = kept(Budget::Keep(share)) as f64;
        prop_assert!((kept_share - wanted).abs() <= 0.5 || (kept_share == 1.0 && wanted < 1.0), "{kept_share} of {wanted}");
    }

    #[test]
    fn usable_tokens_are_enough_for_a_total(video in odd_video(), method in choosy(), max in 1..80_usize) {
        let decision = video.prune(&PruneParams { method, ..with_budget(Budget::MaxTokens(max)) });
        prop_assert_eq!(decision.kept(), max.min(video.total() - decision.non_finite));
    }

    #[test]
    fn divprune_equals_a_comparison_of_all_pairs(video in video(), max in 1..60_usize) {
        let params = PruneParams { method: methods::DIVPRUNE, ..with_budget(Budget::MaxTokens(max)) };
        let Some(expected) = naive_divprune(&video, max) else { return Err(TestCaseError::reject("a close choice")) };
        let kept: Vec<_> = (video.prune(&params).slices.into_iter().enumerate())
            .flat_map(|(t, slice)| slice.kept.into_iter().map(move |i| (t, i as usize)))
            .collect();
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn a_cap_changes_only_what_passes_it(video in video(), params in params(), cap in 0..80_usize) {
        prop_assume!(params.method != Method::OFF);
        let free = video.prune(&PruneParams { cap: None, ..params.clone() });
        let capped = video.prune(&PruneParams { cap: Some(cap), ..params });
        prop_assert_eq!(capped.kept(), free.kept().min(cap));
        if free.kept() <= cap {
            prop_assert_eq!(capped, free);
        }
    }

    /// As many tokens are kept as are over the threshold, or as the cap allows: what a slice cannot use goes to the
    /// others.
    #[test]
    fn under_a_threshold_nothing_is_kept_while_a_token_over_it_is_dropped(
        video in video(), method in choosy(), k in 0.0..2.0_f32, cap in 1..80_usize, seed: u64
    ) {
        // DivPrune rejects a threshold; the controls keep as many tokens as SharpV, whatever their importance.
        prop_assume!(![methods::DIVPRUNE, methods::RANDOM, methods::UNIFORM].contains(&method));
        let mut rng = Lcg(seed);
        let is_sharpv = [Method::SHARPV, Method::SHARPV_PAPER].contains(&method);
        let unfinished: Vec<Vec<u32>> = (video.slices.iter())
            .map(|slice| (0..slice.len() as u32).filter(|_| is_sharpv && rng.next() > 0.5).collect())
            .collect();
        let flat = video.flat();
        let views: Vec<_> = (views(&flat, video.n_embd).into_iter().zip(&unfinished))
            .map(|(view, unfinished)| view.with_unfinished(unfinished))
            .collect();
        let params = PruneParams { method, cap: Some(cap), min_keep: 0, ..with_budget(Budget::Threshold(k)) };
        let decision = prune(&params, &views).unwrap();
        let mut n_over = 0;
        for (t, slice) in decision.slices.iter().enumerate() {
            // EVS and DyCoke keep first slices whole: their tokens have the highest importance.
            let is_new = |i: f32| [methods::EVS, methods::DYCOKE].contains(&method) && i >= 2.0;
            let importance = importance(&decision, t);
            let is_over = |&i: &u32| importance[i as usize] > k || is_new(importance[i as usize]);
            prop_assert!(slice.kept.iter().all(is_over), "slice {t}: {:?} of {importance:?}", slice.kept);
            n_over += (0..slice.n_tokens as u32).filter(|i| is_over(i) && !unfinished[t].contains(i)).count();
        }
        prop_assert_eq!(decision.kept(), n_over.min(cap));
    }

    #[test]
    fn a_total_scales_all_ratios_by_one_factor(one in video(), other in video(), max in 1..100_usize) {
        // Two videos of the same width and with different grids, one after the other.
        let n_embd = one.n_embd.min(other.n_embd);
        let mut slices = [one.slices, other.slices].concat();
        slices.iter_mut().flatten().for_each(|token| token.truncate(n_embd));
        let video = Video { n_embd, slices };
        let decision = video.prune(&PruneParams { min_keep: 0, ..with_budget(Budget::MaxTokens(max)) });
        // A count k of a slice with k₀ = r·n tells that the factor is in (k − 1)/k₀ to (k + 1)/k₀, and if the slice is
        // full only the lower bound.
        let (mut from, mut to) = (0.0_f64, f64::INFINITY);
        for slice in &decision.slices {
            let adaptive = f64::from(slice.ratio) * slice.n_tokens as f64;
            let k = slice.kept.len() as f64;
            from = from.max((k - 1.0) / adaptive);
            if slice.kept.len() < slice.n_tokens {
                to = to.min((k + 1.0) / adaptive);
            }
        }
        prop_assert!(from <= to * (1.0 + 1e-5), "no common factor: {from} to {to}, counts {:?}", counts(&decision));
    }

    #[test]
    fn a_still_video_keeps_nothing_after_its_first_slice(seed: u64, f in 2..6_usize, n in 1..20_usize, d in 1..70_usize) {
        let decision = Video::still(seed, f, n, d).prune(&PruneParams::default());
        prop_assert!(!decision.slices[0].kept.is_empty());
        for slice in &decision.slices[1..] {
            prop_assert_eq!(slice.ratio, 0.0);
            prop_assert!(slice.kept.is_empty());
        }
    }

    #[test]
    fn scale_does_not_matter(video in video(), power in -20..20_i32, factor in 0.01..100.0_f32) {
        let decision = video.prune(&PruneParams::default());
        // Multiplying by a power of two is exact, so the decision is the same.
        prop_assert_eq!(&video.map(|x| x * 2.0_f32.powi(power)).prune(&PruneParams::default()), &decision);
        let scaled = video.map(|x| x * factor).prune(&PruneParams::default());
        for t in 0..decision.slices.len() {
            for (a, b) in importance(&scaled, t).iter().zip(importance(&decision, t)) {
                prop_assert!((a - b).abs() < 1e-5, "{a} against {b}");
            }
        }
    }

    #[test]
    fn permuting_the_grid_permutes_the_kept_tokens(video in video(), seed: u64) {
        let n = video.slices[0].len();
        let mut rng = Lcg(seed);
        let mut order: Vec<(f32, usize)> = (0..n).map(|i| (rng.next(), i)).collect();
        order.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let order: Vec<usize> = order.into_iter().map(|(_, i)| i).collect();
        let mut permuted = video.clone();
        permuted.slices.iter_mut().for_each(|slice| *slice = order.iter().map(|&i| slice[i].clone()).collect());

        // A fixed total avoids differences by rounding at the edge of `ceil`.
        let params = with_budget(Budget::Keep(0.5));
        let (decision, permuted) = (video.prune(&params), permuted.prune(&params));
        prop_assume!(counts(&decision) == counts(&permuted));
        for (t, (slice, permuted)) in decision.slices.iter().zip(&permuted.slices).enumerate() {
            let back: Vec<u32> = permuted.kept.iter().map(|&i| order[i as usize] as u32).collect();
            let scores: Vec<f64> = importance(&decision, t).iter().map(|&i| f64::from(i)).collect();
            let same = same_but_for_ties(&back, &slice.kept, &scores);
            prop_assert!(same.is_ok(), "{same:?}");
        }
    }

    #[test]
    fn the_controls_match_sharpv(video in odd_video(), params in params()) {
        let run = |method| video.prune(&PruneParams { method, ..params.clone() });
        let sharpv = run(Method::SHARPV);
        prop_assert_eq!(counts(&run(methods::RANDOM)), counts(&sharpv));
        prop_assert_eq!(run(methods::UNIFORM).kept(), sharpv.kept());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Single cases

/// Slices of a wall with things in front of it: `wall` everywhere but in the first `things` cells, which all differ.
fn before_a_wall(walls: &[u64], things: usize, n_tokens: usize) -> Video {
    let direction = |seed| Video::noise(seed, 1, 1, 64).slices[0][0].clone();
    let slice = |(t, &wall): (usize, &u64)| {
        let token = |i: usize| match i < things {
            true => direction(1000 + 50 * t as u64 + i as u64),
            // The cells of the wall differ slightly.
            false => {
                let grain = direction(i as u64);
                direction(wall).iter().zip(&grain).map(|(x, grain)| 3.0 * x + 0.02 * grain).collect()
            }
        };
        (0..n_tokens).map(token).collect()
    };
    Video { n_embd: 64, slices: walls.iter().enumerate().map(slice).collect() }
}

#[test]
fn a_scene_keeps_a_token_of_what_fills_it() {
    let video = before_a_wall(&[500, 500, 500, 501, 501], 4, 20);
    // The kept tokens of the wall in each slice, and the counts.
    let walls = |method, budget| {
        let decision = run(method, &video, budget);
        let walls = |kept: &Vec<u32>| kept.iter().filter(|&&i| i >= 4).count();
        (decision.slices.iter().map(|slice| walls(&slice.kept)).collect::<Vec<_>>(), counts(&decision))
    };
    let budget = Budget::Keep(0.15);
    let (none, paper) = walls(Method::SHARPV_PAPER, budget);
    assert!(paper.iter().all(|&count| (2..=6).contains(&count)), "{paper:?}");
    assert_eq!(none, [0, 0, 0, paper[3].saturating_sub(4), 0]);
    let (walls_kept, covered) = walls(Method::SHARPV, budget);
    assert_eq!(covered, paper);
    assert_eq!(walls_kept, [1, 0, 0, none[3].max(1), 0], "of each wall once");
    // A threshold decides on each token alone.
    let over = Budget::Threshold(0.9);
    assert_eq!(run(Method::SHARPV, &video, over), run(Method::SHARPV_PAPER, &video, over));
}

#[test]
fn a_single_token_is_an_important_one() {
    let video = before_a_wall(&[500; 4], 4, 20);
    for budget in [Budget::MaxTokens(1), Budget::MaxTokens(4)] {
        let decision = run(Method::SHARPV, &video, budget);
        assert!(counts(&decision).iter().all(|&count| count <= 1), "{:?}", counts(&decision));
        assert_eq!(decision, run(Method::SHARPV_PAPER, &video, budget));
    }
}

#[test]
fn what_fills_a_scene_is_kept_where_it_is_finished() {
    let video = before_a_wall(&[500; 3], 4, 20);
    let flat = video.flat();
    let (no_wall, one) = ((4..20).collect::<Vec<u32>>(), (4..20).filter(|&i| i != 9).collect::<Vec<u32>>());
    let kept = |unfinished: [&[u32]; 3]| {
        let slices = views(&flat, 64).into_iter().zip(unfinished).map(|(slice, tokens)| slice.with_unfinished(tokens));
        let params = with_budget(Budget::MaxTokens(9));
        let kept = prune(&params, &slices.collect::<Vec<_>>()).unwrap().slices;
        kept.into_iter().map(|slice| slice.kept.into_iter().filter(|&i| i >= 4).collect()).collect::<Vec<Vec<u32>>>()
    };
    assert_eq!(kept([&[]; 3]).concat().len(), 1);
    assert_eq!(kept([&one, &[], &[]]), [vec![9], vec![], vec![]]);
    // The things cannot represent the wall, so the next slice gets the cover.
    assert_eq!(kept([&no_wall, &one, &[]]), [vec![], vec![9], vec![]]);
}

#[test]
fn a_scene_cut_keeps_more_than_a_pan_and_a_pan_more_than_a_still() {
    // A smooth image of 8 × 8 cells, seen through a window that stays, moves by half a cell, or jumps.
    let cell =
        |x: f32, y: f32| (0..32).map(|k| (x * 0.3 + k as f32 * 0.7).sin() + (y * 0.2 * k as f32).cos()).collect();
    let slice = |at: f32| (0..64).map(|i| cell(at + (i % 8) as f32, (i / 8) as f32)).collect::<Vec<Vec<f32>>>();
    let kept = |second: f32| {
        let video = Video { n_embd: 32, slices: vec![slice(0.0), slice(second)] };
        video.prune(&PruneParams::default()).slices[1].kept.len()
    };
    let (still, pan, cut) = (kept(0.0), kept(0.5), kept(9.0));
    assert_eq!(still, 0);
    assert!(0 < pan && pan < cut, "pan {pan}, cut {cut}");
}

#[test]
fn tokens_with_known_angles_have_known_scores() {
    // In the plane: dissim of unit vectors is the chord 2·sin(angle/2).
    let at = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
    let video = Video { n_embd: 2, slices: vec![vec![at(0.0), at(90.0)], vec![at(0.0), at(150.0)]] };
    let decision = video.prune(&PruneParams { spatial_weight: 0.0, ..PruneParams::default() });
    let chord = |degrees: f32| 2.0 * (degrees / 2.0).to_radians().sin();
    let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} against {b}");
    // The mean of the first slice points to 45°; its weight is 1 whatever w is, since there is no temporal term.
    close(importance(&decision, 0)[0], chord(45.0));
    close(importance(&decision, 0)[1], chord(45.0));
    close(decision.slices[0].ratio, chord(45.0) / 2.0);
    close(importance(&decision, 1)[0], 0.0);
    close(importance(&decision, 1)[1], chord(60.0));
    close(decision.slices[1].ratio, (chord(60.0).powi(2) / 2.0).sqrt() / 2.0);
    assert_eq!(decision.slices[1].kept, [1]);
}

#[test]
fn of_equal_tokens_the_first_is_kept() {
    let token = |x: f32| vec![x, 1.0, 0.0];
    let video = Video { n_embd: 3, slices: vec![vec![token(1.0), token(-1.0), token(1.0), token(-1.0)]] };
    assert_eq!(video.prune(&with_budget(Budget::MaxTokens(2))).slices[0].kept, [0, 1]);
    assert_eq!(video.prune(&with_budget(Budget::MaxTokens(3))).slices[0].kept, [0, 1, 2]);
}

#[test]
fn the_threshold_is_exclusive_and_works_on_importance() {
    let video = Video::drift(3, 4, 16, 32);
    let all = video.prune(&PruneParams::default());
    for k in [0.0, 0.7, sharpv::prune::DEFAULT_THRESHOLD, importance(&all, 2)[5]] {
        let decision = video.prune(&PruneParams { min_keep: 0, ..with_budget(Budget::Threshold(k)) });
        for (t, slice) in decision.slices.iter().enumerate() {
            let over: Vec<u32> = (0..).zip(importance(&all, t)).filter(|&(_, &i)| i > k).map(|(i, _)| i).collect();
            assert_eq!(slice.kept, over);
        }
    }
    // No importance reaches 4; min_keep still holds for the first slice.
    assert_eq!(counts(&video.prune(&PruneParams { min_keep: 3, ..with_budget(Budget::Threshold(4.1)) })), [3, 0, 0, 0]);
}

#[test]
fn min_keep_is_for_slices_without_a_predecessor() {
    let grey = vec![vec![0.5, 0.5]; 6];
    let small = vec![vec![0.5, 0.5]; 4];
    let video = Video { n_embd: 2, slices: vec![grey.clone(), grey.clone(), small.clone(), small, grey] };
    let counts = |min_keep| counts(&video.prune(&PruneParams { min_keep, ..PruneParams::default() }));
    assert_eq!(counts(0), [0, 0, 0, 0, 0]);
    assert_eq!(counts(1), [1, 0, 1, 0, 1]);
    assert_eq!(counts(5), [5, 0, 4, 0, 5]);
}

#[test]
fn a_slice_of_another_size_is_a_first_slice() {
    let (a, b) = (Video::noise(1, 2, 6, 8), Video::noise(2, 1, 9, 8));
    let mixed = Video { n_embd: 8, slices: vec![a.slices[0].clone(), b.slices[0].clone(), a.slices[1].clone()] };
    let decision = mixed.prune(&PruneParams::default());
    assert_eq!(decision.slices[1], b.prune(&PruneParams::default()).slices[0]);
    let alone = Video { n_embd: 8, slices: vec![a.slices[1].clone()] };
    assert_eq!(decision.slices[2], alone.prune(&PruneParams::default()).slices[0]);
}

#[test]
fn a_second_video_starts_afresh() {
    let slice = Video::noise(7, 1, 9, 8).flat().remove(0);
    let view = SliceView::new(&slice, 9, 8).unwrap();
    for slices in [[view, view.starting_video(), view], [view.starting_video(); 3]] {
        let decision = prune(&PruneParams::default(), &slices).unwrap();
        assert_eq!(decision.slices[1], decision.slices[0]);
        assert_ne!(decision.slices[1].kept.len(), 0);
    }
    let decision = prune(&PruneParams::default(), &[view, view.starting_video(), view]).unwrap();
    assert!(decision.slices[2].kept.is_empty());
}

#[test]
fn one_token_and_one_slice() {
    let one = Video::noise(5, 1, 1, 16).prune(&PruneParams::default());
    assert_eq!((one.slices[0].ratio, &one.slices[0].kept[..]), (0.0, &[0][..]));
    let moving = Video::noise(5, 3, 1, 16).prune(&PruneParams::default());
    assert_eq!(counts(&moving), [1, 1, 1]);
    let single = Video::noise(5, 1, 40, 16).prune(&PruneParams::default());
    assert!((1..40).contains(&single.kept()));
}

#[test]
fn no_slices_no_tokens() {
    for method in methods::all() {
        let decision = prune(&PruneParams { method, ..PruneParams::default() }, &[]).unwrap();
        assert_eq!((decision.total(), decision.kept(), decision.keep_ratio()), (0, 0, 1.0));
        let params = PruneParams { method, ..with_budget(Budget::Keep(0.5)) };
        assert_eq!(prune(&params, &[]).unwrap(), Decision::default());
    }
}

#[test]
fn a_non_finite_token_changes_no_other_score() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut video = Video::drift(11, 4, 10, 20);
        video.slices[1][3][7] = broken;
        video.slices[2][0].fill(broken);
        check_against_naive(&video.map(|x| if x.is_finite() { x } else { f32::NAN }), 1.0).unwrap();
        let decision = video.prune(&PruneParams::default());
        assert_eq!(decision.non_finite, 2);
        assert_eq!(importance(&decision, 1)[3], 0.0);
        assert!(!decision.slices[1].kept.contains(&3));
        // The slices before the first broken row are not affected.
        assert_eq!(decision.slices[0], Video::drift(11, 4, 10, 20).prune(&PruneParams::default()).slices[0]);
    }
}

#[test]
fn a_slice_without_a_finite_token_keeps_nothing_and_the_next_starts_afresh() {
    let mut video = Video::still(4, 3, 6, 8);
    video.slices[1].iter_mut().for_each(|token| token[2] = f32::NAN);
    let decision = video.prune(&PruneParams::default());
    assert_eq!((decision.slices[1].ratio, decision.slices[1].kept.len(), decision.non_finite), (0.0, 0, 6));
    assert_eq!(decision.slices[2], decision.slices[0]);
    // No budget keeps tokens that must not be kept.
    assert_eq!(counts(&video.prune(&with_budget(Budget::Keep(1.0)))), [6, 0, 6]);
    assert_eq!(counts(&video.prune(&with_budget(Budget::MaxTokens(100)))), [6, 0, 6]);
    let nothing = Video { n_embd: 1, slices: vec![vec![vec![f32::NAN]]] };
    assert_eq!(nothing.prune(&with_budget(Budget::MaxTokens(1))).kept(), 0);
}

#[test]
fn a_token_without_direction_is_at_distance_one() {
    let (zero, x) = (vec![0.0, 0.0], vec![3.0, 0.0]);
    let video =
        Video { n_embd: 2, slices: vec![vec![x.clone(), x.clone()], vec![zero.clone(), x], vec![zero.clone(); 2]] };
    let decision = video.prune(&PruneParams { spatial_weight: 0.0, ..PruneParams::default() });
    assert_eq!(importance(&decision, 1), [1.0, 0.0]);
    assert_eq!(importance(&decision, 2), [0.0, 1.0]);
    assert_eq!(decision.non_finite, 0);
    // Tokens that cancel have a mean without direction.
    let opposite = Video { n_embd: 2, slices: vec![vec![vec![1.0, 2.0], vec![-1.0, -2.0]]] };
    assert_eq!(importance(&opposite.prune(&PruneParams::default()), 0), [1.0, 1.0]);
}

#[test]
fn long_and_short_embeddings_score_as_any_other() {
    let video = Video::drift(8, 3, 12, 33);
    let decision = video.prune(&PruneParams::default());
    for power in [-90, -70, 70, 90] {
        let scaled = video.map(|x| x * 2.0_f32.powi(power)).prune(&PruneParams::default());
        for t in 0..3 {
            let pairs = importance(&scaled, t).iter().zip(importance(&decision, t));
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "2^{power}, slice {t}");
        }
    }
}

#[test]
fn a_full_slice_passes_its_share_on() {
    // The first slice has by far the highest ratio, and is small; a second video of drifting slices follows.
    let (small, large) = (Video::noise(1, 2, 4, 16), Video::drift(2, 3, 40, 16));
    let mut slices = small.slices.clone();
    slices.extend(large.slices.clone());
    let decision = Video { n_embd: 16, slices }.prune(&with_budget(Budget::Keep(0.8)));
    assert_eq!(decision.total(), 128);
    assert_eq!(decision.kept(), 102);
    assert_eq!(counts(&decision)[..2], [4, 4]);
}

#[test]
fn a_still_video_fills_up_evenly_under_a_budget() {
    let video = Video::still(9, 4, 10, 16);
    let counts = |n| counts(&video.prune(&with_budget(Budget::MaxTokens(n))));
    assert_eq!(counts(1), [1, 0, 0, 0]);
    assert_eq!(counts(10), [10, 0, 0, 0]);
    assert_eq!(counts(16), [10, 2, 2, 2]);
    assert_eq!(counts(17), [10, 3, 2, 2]);
    assert_eq!(counts(40), [10, 10, 10, 10]);
    assert_eq!(counts(41), [10, 10, 10, 10]);
}

#[test]
fn a_total_wins_over_min_keep_and_keeps_at_least_one() {
    let video =
        Video { n_embd: 8, slices: (1..=4).map(|n| Video::noise(n, 1, 4 + n as usize, 8).slices.remove(0)).collect() };
    let kept = |budget, min_keep| video.prune(&PruneParams { min_keep, ..with_budget(budget) });
    assert_eq!(kept(Budget::MaxTokens(3), 2).kept(), 3);
    assert_eq!(kept(Budget::MaxTokens(8), 2).kept(), 8);
    assert_eq!(counts(&kept(Budget::MaxTokens(8), 2)), [2, 2, 2, 2]);
    assert_eq!(kept(Budget::Keep(0.0), 5).kept(), 1);
    assert_eq!(kept(Budget::Keep(0.0), 0).kept(), 1);
}

#[test]
fn rows_may_be_longer_than_the_embedding() {
    let video = Video::drift(6, 3, 9, 20);
    let padded: Vec<Vec<f32>> = (video.slices.iter())
        .map(|slice| slice.iter().flat_map(|token| [&token[..], &[f32::NAN, 1e9, -3.0]].concat()).collect())
        .collect();
    let slices: Vec<SliceView> = padded.iter().map(|s| SliceView::with_stride(s, 9, 20, 23).unwrap()).collect();
    let expected = video.prune(&PruneParams::default());
    assert_eq!(prune(&PruneParams::default(), &slices).unwrap(), expected);
    let mut scorer = Scorer::new(&PruneParams::default()).unwrap();
    slices.iter().for_each(|&slice| scorer.push(slice).unwrap());
    assert_eq!(scorer.finish(), expected);
}

#[test]
fn batches_and_single_slices_mix() {
    let video = Video::drift(12, 6, 9, 20);
    let flat = video.flat();
    let slices = views(&flat, 20);
    let mut scorer = Scorer::new(&PruneParams::default()).unwrap();
    scorer.push(slices[0]).unwrap();
    scorer.push_all(&slices[1..4]).unwrap();
    scorer.push_all(&[]).unwrap();
    scorer.push_all(&slices[4..5]).unwrap();
    scorer.push(slices[5]).unwrap();
    assert_eq!(scorer.finish(), video.prune(&PruneParams::default()));
}

#[test]
fn threads_do_not_change_the_result() {
    let video = Video::drift(13, 12, 30, 40);
    for method in methods::all() {
        let params = PruneParams { method, ..with_budget(Budget::Keep(0.3)) };
        let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(|| video.prune(&params));
        assert_eq!(on(1), on(5));
    }
}

#[test]
fn random_draws_depend_on_the_seed_alone_and_reach_every_token() {
    let video = Video::noise(14, 2, 40, 16);
    let draw = |seed| {
        let params = PruneParams { method: methods::RANDOM, seed, ..with_budget(Budget::Keep(0.25)) };
        video.prune(&params).slices.into_iter().map(|slice| slice.kept).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    let draws: Vec<_> = (0..400).map(draw).collect();
    assert_eq!(draws.iter().collect::<BTreeSet<_>>().len(), 400, "every seed draws anew");
    assert!(draws.iter().all(|slices| slices[0] != slices[1]), "every slice draws anew");
    let mut hits = [0_usize; 40];
    draws.iter().for_each(|slices| slices[0].iter().for_each(|&i| hits[i as usize] += 1));
    // About 10 of 40 tokens per draw: 100 hits each, with a standard deviation of 9.
    let mean = hits.iter().sum::<usize>() as f64 / 40.0;
    assert!(hits.iter().all(|&h| (h as f64 - mean).abs() < 0.5 * mean), "{hits:?}");
}

#[test]
fn uniform_keeps_whole_slices_at_even_distances() {
    let video = Video::noise(15, 8, 10, 16);
    let run = |n| counts(&video.prune(&PruneParams { method: methods::UNIFORM, ..with_budget(Budget::MaxTokens(n)) }));
    assert_eq!(run(40), [0, 10, 0, 10, 0, 10, 0, 10]);
    assert_eq!(run(10), [0, 0, 0, 0, 10, 0, 0, 0]);
    assert_eq!(run(15), [0, 0, 10, 0, 0, 0, 5, 0]);
    assert_eq!(run(80), [10; 8]);
    let params = PruneParams { method: methods::UNIFORM, ..with_budget(Budget::MaxTokens(15)) };
    assert_eq!(video.prune(&params).slices[6].kept, [1, 3, 5, 7, 9]);
}

fn run(method: Method, video: &Video, budget: Budget) -> Decision {
    video.prune(&PruneParams { method, ..with_budget(budget) })
}

#[test]
fn evs_keeps_first_slices_whole_where_it_can() {
    let video = Video::drift(21, 8, 10, 16);
    let evs = |budget| counts(&run(methods::EVS, &video, budget));
    assert_eq!(evs(Budget::Adaptive)[0], 10);
    assert_eq!(evs(Budget::Adaptive).iter().sum::<usize>(), 20);
    assert_eq!(evs(Budget::MaxTokens(10)), [10, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(run(methods::EVS, &video, Budget::MaxTokens(5)).slices[0].kept, [1, 3, 5, 7, 9]);
    // A quarter of 30 tokens is less than the first slice.
    assert_eq!(counts(&run(methods::EVS, &Video::drift(21, 3, 10, 16), Budget::Adaptive)), [10, 0, 0]);
    // No token has an importance over 2, but first slices are kept.
    assert_eq!(evs(Budget::Threshold(2.0)), [10, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn evs_takes_what_changed_most_wherever_it_is() {
    let mut video = Video::still(22, 4, 6, 8);
    video.slices[2][3] = Video::noise(23, 1, 1, 8).slices[0][0].clone();
    // The token changes, and then changes back.
    let kept: Vec<Vec<u32>> =
        run(methods::EVS, &video, Budget::MaxTokens(8)).slices.into_iter().map(|slice| slice.kept).collect();
    assert_eq!(kept, [vec![0, 1, 2, 3, 4, 5], vec![], vec![3], vec![3]]);
}

#[test]
fn dycoke_works_in_windows_of_four_slices() {
    let dycoke = |video: &Video, budget| counts(&run(methods::DYCOKE, video, budget));
    let video = Video::drift(24, 10, 10, 16);
    assert_eq!(dycoke(&video, Budget::Adaptive), [10, 3, 3, 3, 10, 3, 3, 3, 10, 3]);
    assert_eq!(dycoke(&video, Budget::MaxTokens(37)), [10, 1, 1, 1, 10, 1, 1, 1, 10, 1]);
    assert_eq!(dycoke(&video, Budget::MaxTokens(10)), [4, 0, 0, 0, 3, 0, 0, 0, 3, 0]);
    // Slices of another size begin a window.
    let other = Video { n_embd: 16, slices: [&video.slices[..2], &Video::noise(25, 3, 20, 16).slices[..]].concat() };
    assert_eq!(dycoke(&other, Budget::Adaptive), [10, 3, 20, 6, 6]);
}

#[test]
fn dycoke_compares_the_third_slice_with_the_first_of_its_window() {
    let tokens = Video::noise(26, 1, 12, 8).slices.remove(0);
    let mut video = Video { n_embd: 8, slices: vec![tokens[..6].to_vec(); 4] };
    // The second slice differs in its token 1; the third equals the first; the fourth differs from the third in token
    // 4.
    video.slices[1][1] = tokens[7].clone();
    video.slices[3][4] = tokens[8].clone();
    let decision = run(methods::DYCOKE, &video, Budget::Adaptive);
    assert!(importance(&decision, 2).iter().all(|&i| i == 0.0));
    assert_eq!(decision.slices[1].kept, [1]);
    assert_eq!(decision.slices[3].kept, [4]);
}

#[test]
fn what_follows_a_token_that_is_not_finite_is_new() {
    for method in [methods::EVS, methods::DYCOKE] {
        let mut video = Video::still(27, 4, 10, 8);
        video.slices[2][7][0] = f32::NAN;
        let decision = run(method, &video, Budget::Adaptive);
        assert_eq!((importance(&decision, 2)[7], importance(&decision, 3)[7]), (0.0, 2.0));
        assert!(decision.slices[3].kept.contains(&7));
    }
}

#[test]
fn vidcom2_keeps_more_of_the_slice_that_stands_out() {
    let mut video = Video::still(28, 8, 40, 16);
    video.slices[5] = Video::noise(29, 1, 40, 16).slices.remove(0);
    let decision = run(methods::VIDCOM2, &video, Budget::Adaptive);
    let counts = counts(&decision);
    assert!(counts.iter().enumerate().all(|(t, &count)| t == 5 || (1..counts[5]).contains(&count)), "{counts:?}");
    assert_eq!(run(methods::VIDCOM2, &video, Budget::MaxTokens(8)).slices.iter().map(|s| s.kept.len()).min(), Some(1));
}

#[test]
fn videos_of_one_prompt_are_scored_apart() {
    let (one, other) = (Video::drift(30, 5, 9, 16), Video::drift(31, 6, 9, 16));
    let (flat_one, flat_other) = (one.flat(), other.flat());
    let mut slices = views(&flat_one, 16);
    slices.extend(views(&flat_other, 16));
    slices[5] = slices[5].starting_video();
    for method in [Method::SHARPV, methods::VIDCOM2, methods::DYCOKE] {
        let params = PruneParams { method, ..PruneParams::default() };
        let apart = [one.prune(&params).slices, other.prune(&params).slices].concat();
        assert_eq!(prune(&params, &slices).unwrap().slices, apart, "{method}");
    }
    // EVS ranks and DivPrune compares the tokens of all videos together.
    let params = PruneParams { method: methods::EVS, ..PruneParams::default() };
    let decision = prune(&params, &slices).unwrap();
    assert_eq!((decision.slices[0].kept.len(), decision.slices[5].kept.len(), decision.kept()), (9, 9, 24));
}

#[test]
fn divprune_leaves_out_what_repeats() {
    let video = Video::still(32, 4, 6, 8);
    let decision = run(methods::DIVPRUNE, &video, Budget::MaxTokens(6));
    let mut kept: Vec<u32> = decision.slices.iter().flat_map(|slice| slice.kept.clone()).collect();
    kept.sort_unstable();
    assert_eq!(kept, [0, 1, 2, 3, 4, 5], "each cell once");
    assert!(decision.slices.iter().all(|slice| slice.importance.is_none()));
    // More tokens than different ones: repetitions, the first ones.
    assert_eq!(counts(&run(methods::DIVPRUNE, &video, Budget::MaxTokens(9))), [6, 3, 0, 0]);
}

#[test]
fn divprune_takes_no_threshold() {
    let params = PruneParams { method: methods::DIVPRUNE, ..with_budget(Budget::Threshold(1.0)) };
    let error = prune(&params, &[]).unwrap_err().to_string();
    assert!(error.contains("threshold is 1") && error.contains("divprune"), "{error}");
}

#[test]
fn shapes_that_do_not_fit_say_what_was_expected() {
    let data = [0.0; 12];
    let message = |result: Result<SliceView, Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::SliceShape { .. }));
        error.to_string()
    };
    assert!(message(SliceView::new(&data, 0, 3)).contains("n_tokens"));
    assert!(message(SliceView::new(&data, 3, 0)).contains("n_embd"));
    assert!(message(SliceView::with_stride(&data, 3, 5, 4)).contains("stride) is 4, but must be at least n_embd = 5"));
    assert!(message(SliceView::new(&data, 5, 3)).contains("is 12, but must be n_tokens · stride = 5 · 3"));
    assert!(message(SliceView::new(&data, 3, usize::MAX)).contains("is 12"));

    let view = |n_embd| SliceView::new(&data, 12 / n_embd, n_embd).unwrap();
    let error = prune(&PruneParams::default(), &[view(3), view(4)]).unwrap_err().to_string();
    assert!(error.contains("is 4, but must be 3, as in the slices before"), "{error}");
    let mut scorer = Scorer::new(&PruneParams::default()).unwrap();
    scorer.push(view(3)).unwrap();
    scorer.push(view(4)).unwrap_err();
    scorer.push(view(3)).unwrap();
    assert_eq!(scorer.finish().slices.len(), 2);
}

#[test]
fn parameters_out_of_range_are_named() {
    let bad = [
        (PruneParams { spatial_weight: -0.1, ..PruneParams::default() }, "spatial weight is -0.1"),
        (PruneParams { spatial_weight: f32::NAN, ..PruneParams::default() }, "spatial weight is NaN"),
        (with_budget(Budget::Threshold(f32::INFINITY)), "threshold is inf"),
        (with_budget(Budget::Keep(1.01)), "keep is 1.01, but must be between 0 and 1"),
        (with_budget(Budget::Keep(f32::NAN)), "keep is NaN"),
        (with_budget(Budget::MaxTokens(0)), "maximum of visual tokens is 0, but must be at least 1"),
    ];
    for (params, message) in bad {
        let error = prune(&params, &[]).unwrap_err();
        assert!(matches!(error, Error::InvalidParameter { .. }));
        assert!(error.to_string().contains(message), "{error}");
        assert!(Scorer::new(&params).is_err());
    }
    assert!(PruneParams::default().validate().is_ok());
    assert!(with_budget(Budget::Keep(0.0)).validate().is_ok());
    assert!(with_budget(Budget::Keep(1.0)).validate().is_ok());
}

#[test]
fn methods_have_names() {
    let names = [
        (Method::SHARPV, "sharpv"),
        (Method::SHARPV_PAPER, "sharpv-paper"),
        (Method::OFF, "off"),
        (methods::RANDOM, "random"),
        (methods::UNIFORM, "uniform"),
        (methods::EVS, "evs"),
        (methods::VIDCOM2, "vidcom2"),
        (methods::DYCOKE, "dycoke"),
        (methods::DIVPRUNE, "divprune"),
    ];
    assert!(names.map(|(method, _)| method).into_iter().eq(methods::all()));
    assert!(methods::all().take(3).eq(Method::ALL));
    for (method, name) in names {
        assert_eq!(serde_json::to_value(method).unwrap(), name);
        assert_eq!(method.to_string(), name);
        assert_eq!(methods::by_name(name).unwrap(), method);
        // The core parses only its own methods.
        assert_eq!(name.parse::<Method>().ok(), Some(method).filter(|method| Method::ALL.contains(method)));
    }
    let error = "fastv".parse::<Method>().unwrap_err().to_string();
    assert!(error.contains("is \"fastv\", but must be one of sharpv, sharpv-paper, off"), "{error}");
}

#[test]
fn settings_serialise() {
    let json = serde_json::to_value(PruneParams::default()).unwrap();
    let expected = serde_json::json!({"method": "sharpv", "budget": "adaptive", "cap": null, "spatial_weight": 1.0, "min_keep": 1, "seed": 0});
    assert_eq!(json, expected);
    let budget = |budget| serde_json::to_value(budget).unwrap();
    assert_eq!(budget(Budget::Keep(0.5)), serde_json::json!({"keep": 0.5}));
    assert_eq!(budget(Budget::MaxTokens(7)), serde_json::json!({"max_tokens": 7}));
    assert_eq!(budget(Budget::Threshold(1.5)), serde_json::json!({"threshold": 1.5}));
}

#[test]
fn tokens_that_are_not_finished_count_and_are_not_kept() {
    // The second slice changes in all tokens, most of all in the first two.
    let before = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0_f32];
    let after = [-1.0, 0.0, -1.0, 0.1, 0.7, 0.7, 0.9, 0.4_f32];
    let slice = |data| SliceView::new(data, 4, 2).expect("a slice");
    for budget in [Budget::Adaptive, Budget::Keep(0.5), Budget::MaxTokens(8), Budget::Threshold(0.0)] {
        let params = PruneParams { budget, ..PruneParams::default() };
        let all = prune(&params, &[slice(&before), slice(&after)]).expect("a decision");
        let some = prune(&params, &[slice(&before), slice(&after).with_unfinished(&[0, 1])]).expect("a decision");
        assert!(all.slices[1].kept.contains(&0), "{budget:?}: {:?}", all.slices[1].kept);
        assert!(!some.slices[1].kept.is_empty(), "{budget:?}");
        assert!(some.slices[1].kept.iter().all(|&token| token >= 2), "{budget:?}: {:?}", some.slices[1].kept);
        assert_eq!(
            (some.slices[1].ratio, &some.slices[1].importance),
            (all.slices[1].ratio, &all.slices[1].importance)
        );
        assert_eq!(some.non_finite, 0);
    }
}

// --- slice by slice, for live video -------------------------------------------------------------------

impl Video {
    /// The choices of [`CausalPruner`]; `is_key` says which slices are key slices.
    fn prune_causally(&self, params: &PruneParams, is_key: impl Fn(usize) -> bool) -> Vec<CausalChoice> {
        let mut pruner = CausalPruner::new(params).unwrap();
        let flat = self.flat();
        let views = views(&flat, self.n_embd);
        views.iter().enumerate().map(|(t, slice)| pruner.push(*slice, is_key(t)).unwrap()).collect()
    }
}

#[test]
fn without_a_budget_the_future_does_not_matter() {
    let budgets = [Budget::Adaptive, Budget::Threshold(1.2)];
    for (seed, method) in (0..20).flat_map(|seed| [(seed, Method::SHARPV), (seed, Method::SHARPV_PAPER)]) {
        for budget in budgets {
            let params = PruneParams { method, budget, ..PruneParams::default() };
            let mut video = Video::drift(seed, 12, 9, 16);
            video.slices[7] = video.slices[6].clone();
            let (whole, causal) = (video.prune(&params), video.prune_causally(&params, |_| false));
            for (t, (whole, causal)) in whole.slices.iter().zip(&causal).enumerate() {
                assert_eq!(
                    (&whole.kept, whole.ratio),
                    (&causal.kept, causal.novelty),
                    "{method:?} {budget:?} {seed} {t}"
                );
            }
            assert!(causal[0].opens_scene && causal[7].novelty == 0.0);
        }
    }
}

#[test]
fn a_key_slice_is_chosen_as_if_it_were_the_first() {
    for seed in 0..20 {
        let video = Video::drift(seed, 6, 9, 16);
        for method in [Method::SHARPV, Method::SHARPV_PAPER] {
            let params = PruneParams { method, ..PruneParams::default() };
            let plain = video.prune_causally(&params, |_| false);
            let keyed = video.prune_causally(&params, |t| t == 3);
            let alone = Video { slices: vec![video.slices[3].clone()], ..video.clone() }.prune(&params);
            assert_eq!(keyed[3].kept, alone.slices[0].kept, "{method:?} {seed}");
            // The novelty is the same.
            let novelty = |choices: &[CausalChoice]| choices.iter().map(|choice| choice.novelty).collect::<Vec<_>>();
            assert_eq!(novelty(&keyed), novelty(&plain));
        }
    }
    // A slice that equals the previous one is no key slice.
    let still = Video::still(3, 5, 9, 16).prune_causally(&PruneParams::default(), |_| true);
    assert!(still[1..].iter().all(|choice| choice.kept.is_empty() && choice.novelty == 0.0));
}

#[test]
fn a_share_is_met_about_and_off_keeps_all() {
    let video = Video::drift(5, 200, 25, 16);
    for share in [0.1, 0.3] {
        let params = PruneParams { budget: Budget::Keep(share), ..PruneParams::default() };
        let kept: usize = video.prune_causally(&params, |_| false).iter().map(|choice| choice.kept.len()).sum();
        let met = kept as f32 / video.total() as f32;
        assert!((met / share - 1.0).abs() < 0.25, "{met} for {share}");
    }
    let all = video.prune_causally(&PruneParams::off(), |t| t % 3 == 0);
    let plain = video.prune_causally(&PruneParams::default(), |_| false);
    assert!(all.iter().all(|choice| choice.kept == (0..25).collect::<Vec<u32>>()));
    assert!(all.iter().zip(&plain).all(|(all, plain)| all.novelty == plain.novelty));
}

#[test]
fn what_needs_the_end_is_refused() {
    for method in methods::all() {
        let made = CausalPruner::new(&PruneParams { method, ..PruneParams::default() });
        assert_eq!(made.is_ok(), method.is_causal() || !method.prunes(), "{method:?}");
    }
    assert!(CausalPruner::new(&PruneParams { budget: Budget::MaxTokens(5), ..PruneParams::default() }).is_err());
    assert!(CausalPruner::new(&PruneParams { cap: Some(5), ..PruneParams::default() }).is_err());
    let mut pruner = CausalPruner::new(&PruneParams::default()).unwrap();
    pruner.push(SliceView::new(&[1.0; 8], 2, 4).unwrap(), false).unwrap();
    assert!(matches!(pruner.push(SliceView::new(&[1.0; 8], 4, 2).unwrap(), false), Err(Error::SliceShape { .. })));
}
