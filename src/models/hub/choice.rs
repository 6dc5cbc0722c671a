//! Chooses among the files of a repository.

use super::files::{Files, Projector, RepoFile, Weights, kind, plain};
use super::{HubSpec, size};
use crate::error::{Error, RemoteKind, Result};

/// Quantizations in order of preference. Good 4-bit types cost hardly any quality and a quarter of the memory. Larger
/// types come before smaller ones, as quality drops below 4 bits.
const WANTED: &str = "Q4_K_M Q4_K_XL Q4_K_L Q4_K_H Q4_K_S Q4_K IQ4_NL IQ4_XS Q4_1 Q4_0 MXFP4 MXFP4_MOE NVFP4 \
                      Q5_K_M Q5_K_S Q5_K_L Q5_K_XL Q5_K Q5_1 Q5_0 Q6_K Q6_K_H Q6_K_L Q6_K_XL Q8_0 Q8_K_XL F16 BF16 F32 \
                      Q3_K_XL Q3_K_L Q3_K_M IQ3_M Q3_K Q3_K_S Q3_K_XS IQ3_S IQ3_XS IQ3_XXS \
                      Q2_K_XL Q2_K_L Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0";

/// Below this size, 8 bits are preferred: they cost little, and small models lose more by quantization.
const SMALL_MODEL_BYTES: u64 = 1_000_000_000;

/// Types of projectors in order of preference: not all backends compute with bf16, and f32 is no better than f16.
const WANTED_PROJECTORS: &[&str] = &["F16", "BF16", "Q8_0", "F32"];

/// Requirements on a model, besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Memory for the model, in bytes; `None` ignores memory. It limits the quantizations to choose from if none is
    /// named.
    pub memory: Option<u64>,
    /// Whether a multimodal projector is required.
    pub mmproj: bool,
}

impl Default for Wish {
    /// Any size, and a projector.
    fn default() -> Self {
        Self { memory: None, mmproj: true }
    }
}

/// The chosen files.
#[derive(Debug)]
pub(super) struct Choice {
    pub weights: Weights,
    pub mmproj: Option<Projector>,
    /// A message about the choice, its reason, and the alternatives.
    pub because: String,
}

/// Memory for weights and a projector, in bytes, with 512 MiB and a tenth of the weights for KV cache and compute
/// buffers.
fn needed(weights: &Weights, mmproj: Option<&Projector>) -> u64 {
    let parts = [mmproj.map_or(0, |mmproj| mmproj.file.size), 512 << 20, weights.bytes() / 10];
    parts.into_iter().fold(weights.bytes(), u64::saturating_add)
}

/// Chooses among the files of a repository.
pub(super) fn choose(spec: &HubSpec, files: &Files, wish: Wish) -> Result<Choice> {
    let problem = |reason: String, advice: String| problem(spec, reason, advice);
    let (candidates, named) = candidates(spec, files)?;
    let mmproj = match wish.mmproj.then(|| projector(&candidates, files)) {
        Some(None) => {
            let reason = "it contains no multimodal projector (*mmproj*.gguf), so the model could not see images";
            return Err(problem(reason.into(), "use another repository, or give a projector for it".to_owned()));
        }
        projector => projector.flatten(),
    };
    let need = |weights: &Weights| needed(weights, mmproj.as_ref());
    let fits = |weights: &Weights| wish.memory.is_none_or(|memory| need(weights) <= memory);

    let wanted = candidates.iter().copied().min_by_key(|weights| rank(weights));
    let chosen = if named { wanted } else { candidates.iter().copied().filter(|w| fits(w)).min_by_key(|w| rank(w)) };
    let Some(chosen) = chosen else {
        let memory = size(wish.memory.unwrap_or_default());
        let (label, needs) = candidates
            .iter()
            .min_by_key(|weights| weights.bytes())
            .map_or_else(Default::default, |weights| (weights.label().to_owned(), size(need(weights))));
        let reason = format!("nothing in it fits {memory} of memory: the smallest, {label}, needs about {needs}");
        return Err(problem(reason, format!("use it anyway with {}:{label}, or use a smaller model", spec.repo)));
    };
    let reason = match wish.memory {
        Some(memory) if named && !fits(chosen) => {
            format!("it needs about {} of memory, but this machine has {} for it", size(need(chosen)), size(memory))
        }
        _ if named => "as requested".to_owned(),
        None => "the usual choice".to_owned(),
        Some(memory) => {
            let why = if wanted == Some(chosen) { "the usual choice, and it" } else { "it" };
            format!("{why} fits {} of memory (needs about {})", size(memory), size(need(chosen)))
        }
    };
    let because =
        format!("{}{reason}{}", describe(spec, chosen, mmproj.as_ref()), others(spec, chosen, &candidates, fits));
    Ok(Choice { weights: chosen.clone(), mmproj, because })
}

fn describe(spec: &HubSpec, chosen: &Weights, mmproj: Option<&Projector>) -> String {
    let parts = match chosen.parts.len() {
        1 => String::new(),
        n => format!(" in {n} parts"),
    };
    let projector = mmproj.map_or(String::new(), |m| format!(" with {} ({})", m.file.file_name(), size(m.file.size)));
    format!("{}: {} ({}{parts}){projector}: ", spec.repo, chosen.label(), size(chosen.bytes()))
}

/// A message about the other quantizations, with a command for the preferred one among those that fit.
fn others(spec: &HubSpec, chosen: &Weights, candidates: &[&Weights], fits: impl Fn(&Weights) -> bool) -> String {
    let mut others: Vec<&Weights> = candidates.iter().copied().filter(|weights| *weights != chosen).collect();
    if others.is_empty() {
        return String::new();
    }
    others.sort_by_key(|weights| weights.bytes());
    let list: Vec<String> = others.iter().map(|w| format!("{} ({})", w.label(), size(w.bytes()))).collect();
    let next = match others.into_iter().filter(|weights| fits(weights)).min_by_key(|weights| rank(weights)) {
        Some(next) => format!(": sharpv pull {}:{}", spec.repo, next.label()),
        None => ", which do not fit".to_owned(),
    };
    format!(". There are also {}{next}", list.join(", "))
}

/// The language model that the name means, in one or several quantizations, and whether the name determines the
/// quantization.
fn candidates<'a>(spec: &HubSpec, files: &'a Files) -> Result<(Vec<&'a Weights>, bool)> {
    let problem = |reason: String, advice: String| problem(spec, reason, advice);
    if files.weights.is_empty() {
        return Err(match files.incomplete.as_slice() {
            [] => problem(
                "it contains no language model in GGUF".into(),
                "look for a repository with GGUF files of the model; its name often ends with -GGUF".into(),
            ),
            incomplete => problem(
                format!("parts of its language model are missing: {}", incomplete.join(", ")),
                "use another repository".into(),
            ),
        });
    }
    let (found, named) = match &spec.file {
        None => (files.weights.iter().collect(), false),
        Some(asked) => matching(asked, files),
    };
    if found.is_empty() {
        let asked = spec.file.clone().unwrap_or_default();
        let mut there: Vec<&str> = files.weights.iter().map(Weights::label).collect();
        there.sort_unstable();
        there.dedup();
        let lacks = match files.incomplete.iter().find(|label| label.to_lowercase().starts_with(&asked.to_lowercase()))
        {
            Some(incomplete) => format!("parts of {incomplete} are missing in it"),
            None => format!("it has no {asked}"),
        };
        return Err(problem(lacks, format!("it has {}", there.join(", "))));
    }
    let mut models: Vec<&str> = found.iter().map(|weights| weights.model.as_str()).collect();
    models.dedup_by_key(|model| model.to_lowercase());
    if let [first, _, ..] = models.as_slice() {
        let reason = format!("it contains several language models: {}", models.join(", "));
        // The name of a model does not determine the quantization, that of a file does.
        let name = found
            .first()
            .filter(|_| named)
            .and_then(|weights| weights.parts.first())
            .map_or(*first, RepoFile::file_name);
        return Err(problem(reason, format!("name one: {}:{name}", spec.repo)));
    }
    Ok((found, named))
}

/// The language models that `asked` names: by quantization, with or without a quantizer's prefix, by file, or by model;
/// and whether it names more than the model.
fn matching<'a>(asked: &str, files: &'a Files) -> (Vec<&'a Weights>, bool) {
    let quant = plain(asked);
    let stem = asked.to_lowercase();
    let stem = stem.strip_suffix(".gguf").unwrap_or(&stem);
    let file = format!("{stem}.gguf");
    let has_file = |w: &Weights| w.parts.iter().any(|part| part.file_name().to_lowercase() == file);
    let has_path = |w: &Weights| w.parts.iter().any(|part| part.path.to_lowercase() == file);
    let find = |is: &dyn Fn(&Weights) -> bool| files.weights.iter().filter(|w| is(w)).collect::<Vec<_>>();
    let beside = |is: &dyn Fn(&Weights) -> bool| files.beside.iter().filter(|w| is(w)).collect::<Vec<_>>();
    let exact = [
        find(&|w| plain(&w.quant) == quant),
        find(&|w| kind(&w.quant) == quant),
        find(&has_path),
        find(&has_file),
        // A file that does not look like a language model is used if it is named.
        beside(&has_path),
        beside(&has_file),
    ];
    match exact.into_iter().find(|found| !found.is_empty()) {
        Some(found) => (found, true),
        None => (find(&|w| w.model.to_lowercase() == stem), false),
    }
}

/// The rank of a quantization; the smallest is preferred.
fn rank(weights: &Weights) -> (usize, u64) {
    let quant = kind(&weights.quant);
    if quant == "Q8_0" && weights.bytes() < SMALL_MODEL_BYTES {
        return (0, 0);
    }
    let at = WANTED.split(' ').position(|wanted| wanted == quant).unwrap_or(usize::MAX - 1);
    (at + 1, weights.bytes())
}

/// The best projector for a model. If several models share a repository, their projectors are named after them.
fn projector(candidates: &[&Weights], files: &Files) -> Option<Projector> {
    let name = |text: &str| {
        let text = text.to_lowercase().replace("mmproj", "").replace("ggml", "");
        text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>()
    };
    let model = candidates.first().map(|weights| name(&weights.model)).unwrap_or_default();
    let rank = |projector: &Projector| {
        let at = WANTED_PROJECTORS.iter().position(|wanted| *wanted == plain(&projector.quant));
        (name(&projector.model) != model, at.unwrap_or(WANTED_PROJECTORS.len()), projector.file.path.len())
    };
    files.projectors.iter().min_by_key(|projector| rank(projector)).cloned()
}

/// The error for a repository without the requested model.
fn problem(spec: &HubSpec, reason: String, advice: String) -> Error {
    Error::Remote { kind: RemoteKind::Repository, what: spec.repo.clone(), status: None, reason, advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::InnerPath;

    const GB: u64 = 1_000_000_000;

    fn files(sizes: &[(&str, f64)]) -> Files {
        let file = |(path, gb): &(&str, f64)| RepoFile {
            path: InnerPath::parse(path).expect("a path"),
            size: (gb * GB as f64) as u64,
            content: None,
        };
        Files::new(sizes.iter().map(file))
    }

    fn large() -> Files {
        files(&[
            ("M-F16.gguf", 16.0),
            ("M-Q8_0.gguf", 8.0),
            ("M-Q4_K_M.gguf", 5.0),
            ("M-IQ4_XS.gguf", 4.4),
            ("M-Q3_K_M.gguf", 4.0),
            ("M-Q2_K.gguf", 3.0),
            ("mmproj-M-Q8_0.gguf", 0.5),
            ("mmproj-M-f16.gguf", 1.0),
        ])
    }

    fn chosen(name: &str, files: &Files, memory_gb: Option<f64>) -> Result<(String, String, String)> {
        let spec = HubSpec::parse(name).expect("a name");
        let wish = Wish { memory: memory_gb.map(|gb| (gb * GB as f64) as u64), mmproj: true };
        let choice = choose(&spec, files, wish)?;
        let mmproj = choice.mmproj.map(|mmproj| mmproj.file.path.to_string()).unwrap_or_default();
        Ok((choice.weights.label().to_owned(), mmproj, choice.because))
    }

    #[test]
    fn the_best_that_fits_is_chosen() {
        for (memory, expected) in [
            (None, "Q4_K_M"),
            (Some(100.0), "Q4_K_M"),
            (Some(7.1), "Q4_K_M"),
            (Some(7.0), "IQ4_XS"),
            (Some(6.0), "Q3_K_M"),
            (Some(5.0), "Q2_K"),
        ] {
            let (label, mmproj, because) = chosen("o/m", &large(), memory).unwrap();
            assert_eq!((label.as_str(), mmproj.as_str()), (expected, "mmproj-M-f16.gguf"), "{memory:?}");
            // The next best of those that fit.
            let next = match expected {
                "Q4_K_M" => "sharpv pull o/m:IQ4_XS",
                "IQ4_XS" => "sharpv pull o/m:Q3_K_M",
                "Q3_K_M" => "sharpv pull o/m:Q2_K",
                _ => "F16 (16.00 GB), which do not fit",
            };
            assert!(because.ends_with(next), "{because}");
        }
        let error = chosen("o/m", &large(), Some(4.0)).unwrap_err().to_string();
        assert!(error.contains("the smallest, Q2_K, needs about 4.84 GB") && error.contains("o/m:Q2_K"), "{error}");
        let (label, _, because) = chosen("o/m:q2_k", &large(), Some(4.0)).unwrap();
        assert!(label == "Q2_K" && because.contains("but this machine has 4.00 GB"), "{because}");
    }

    #[test]
    fn small_models_get_8_bits() {
        let small = files(&[("M-F16.gguf", 0.9), ("M-Q4_K_M.gguf", 0.3), ("M-Q8_0.gguf", 0.5), ("mmproj.gguf", 0.1)]);
        assert_eq!(chosen("o/m", &small, None).unwrap().0, "Q8_0");
        assert_eq!(chosen("o/m", &small, Some(1.1)).unwrap().0, "Q4_K_M");
        let without_4_bits =
            files(&[("M-F16.gguf", 4.0), ("M-Q8_0.gguf", 2.0), ("M-Q2_K.gguf", 0.5), ("mmproj.gguf", 0.1)]);
        assert_eq!(chosen("o/m", &without_4_bits, None).unwrap().0, "Q8_0");
    }

    #[test]
    fn a_name_finds_quantization_prefix_file_or_model() {
        let repo = files(&[
            ("A-UD-Q4_K_XL.gguf", 1.0),
            ("A-Q8_0.gguf", 2.0),
            ("B-Q8_0.gguf", 3.0),
            ("mmproj-A.gguf", 0.1),
            ("mmproj-B.gguf", 0.2),
        ]);
        let found = |name| chosen(name, &repo, None).map(|(label, mmproj, _)| (label, mmproj));
        assert_eq!(found("o/r:q4_k_xl").unwrap(), ("UD-Q4_K_XL".into(), "mmproj-A.gguf".into()));
        assert_eq!(found("o/r:B-Q8_0.gguf").unwrap(), ("Q8_0".into(), "mmproj-B.gguf".into()));
        assert_eq!(found("o/r:a").unwrap().0, "UD-Q4_K_XL");
        for (name, advice) in [("o/r", "o/r:A"), ("o/r:Q8_0", "o/r:A-Q8_0.gguf")] {
            let error = found(name).unwrap_err().to_string();
            assert!(error.ends_with(&format!("several language models: A, B; name one: {advice}")), "{error}");
        }
        let error = found("o/r:Q5_K_M").unwrap_err().to_string();
        assert!(error.contains("o/r: it has no Q5_K_M; it has Q8_0, UD-Q4_K_XL"), "{error}");
    }

    /// What of repositories as they are: the quantization and the projector that are taken, and the models that could
    /// be meant where there are several.
    #[test]
    fn repositories_as_they_are() {
        let omni = [
            ("MiniCPM-o-4_5-F16.gguf", 16.4),
            ("MiniCPM-o-4_5-Q4_0.gguf", 4.8),
            ("MiniCPM-o-4_5-Q4_K_M.gguf", 5.0),
            ("MiniCPM-o-4_5-Q8_0.gguf", 8.7),
            ("audio/MiniCPM-o-4_5-audio-F16.gguf", 0.6),
            ("token2wav-gguf/encoder.gguf", 0.1),
            ("token2wav-gguf/flow_matching.gguf", 0.4),
            ("tts/MiniCPM-o-4_5-projector-F16.gguf", 0.01),
            ("tts/MiniCPM-o-4_5-tts-F16.gguf", 1.1),
            ("vision/MiniCPM-o-4_5-vision-F16.gguf", 1.1),
        ];
        let dynamic = [
            ("BF16/Qwen3-VL-30B-BF16-00001-of-00002.gguf", 49.9),
            ("BF16/Qwen3-VL-30B-BF16-00002-of-00002.gguf", 11.2),
            ("Qwen3-VL-30B-IQ4_NL.gguf", 17.3),
            ("Qwen3-VL-30B-Q4_K_M.gguf", 18.6),
            ("Qwen3-VL-30B-Q8_0.gguf", 32.5),
            ("Qwen3-VL-30B-UD-IQ1_S.gguf", 8.7),
            ("Qwen3-VL-30B-UD-Q4_K_XL.gguf", 17.7),
            ("UD-Q8_K_XL/Qwen3-VL-30B-UD-Q8_K_XL-00001-of-00001.gguf", 36.0),
            ("imatrix_unsloth.gguf", 0.1),
            ("mmproj-BF16.gguf", 1.1),
            ("mmproj-F16.gguf", 1.1),
            ("mmproj-F32.gguf", 2.2),
        ];
        let folders = [
            ("Q2_K/Big-Q2_K-00001-of-00002.gguf", 40.0),
            ("Q2_K/Big-Q2_K-00002-of-00002.gguf", 40.0),
            ("Q4_K_M/Big-Q4_K_M-00001-of-00003.gguf", 48.0),
            ("Q4_K_M/Big-Q4_K_M-00002-of-00003.gguf", 48.0),
            ("Q4_K_M/Big-Q4_K_M-00003-of-00003.gguf", 40.0),
            ("mmproj-Big-f16.gguf", 1.0),
        ];
        let steps = [
            ("M.Q2_K.gguf", 3.0),
            ("M.Q3_K_XS.gguf", 3.4),
            ("M.Q3_K_M.gguf", 3.9),
            ("M.Q6_K_H.gguf", 6.3),
            ("M.i1-IQ1_M.gguf", 1.9),
            ("M.imatrix.gguf", 0.1),
            ("M.mmproj-Q8_0.gguf", 0.6),
            ("M.mmproj-f16.gguf", 1.0),
        ];
        let drafts = [
            ("MTP/Gemma-4-Q4_K_M.gguf", 0.3),
            ("Gemma-4-Q4_K_M.gguf", 5.0),
            ("Gemma-4-Q8_0.gguf", 9.0),
            ("Gemma-4-draft-Q8_0.gguf", 0.5),
            ("mtp-Gemma-4-Q8_0.gguf", 0.5),
            ("lora/Gemma-4-style-F16.gguf", 0.2),
            ("Gemma-4-style-lora-F16.gguf", 0.2),
            ("ggml-vocab-gemma.gguf", 0.01),
            ("mmproj-Gemma-4-BF16.gguf", 1.0),
        ];
        let more =
            [("M-F16.gguf", 16.0), ("quants/M-Q4_K_M.gguf", 5.0), ("quants/M-F16.gguf", 16.0), ("mmproj.gguf", 1.0)];
        type Case<'a> = (&'a str, &'a [(&'a str, f64)], &'a str, &'a str);
        let cases: [Case<'_>; 13] = [
            ("an omni model in parts", &omni, "Q4_K_M", "vision/MiniCPM-o-4_5-vision-F16.gguf"),
            ("UD quantizations, and what they were made by", &dynamic, "Q4_K_M", "mmproj-F16.gguf"),
            ("a folder for each quantization, parts of files", &folders, "Q4_K_M", "mmproj-Big-f16.gguf"),
            ("quantizations of few", &steps, "Q6_K_H", "M.mmproj-f16.gguf"),
            ("drafts and adapters beside", &drafts, "Q4_K_M", "mmproj-Gemma-4-BF16.gguf"),
            ("further quantizations in a folder", &more, "Q4_K_M", "mmproj.gguf"),
            ("lora within a word", &[("Explora-VL-Q4_K_M.gguf", 5.0), ("mmproj.gguf", 1.0)], "Q4_K_M", "mmproj.gguf"),
            ("vocab within a word", &[("Vocabra-Q8_0.gguf", 5.0), ("mmproj.gguf", 1.0)], "Q8_0", "mmproj.gguf"),
            (
                "a model by that name",
                &[("Llama-Adapter-V2-Q8_0.gguf", 5.0), ("mmproj.gguf", 1.0)],
                "Q8_0",
                "mmproj.gguf",
            ),
            (
                "its adapter was merged",
                &[("V-lora-merged-Q4_0.gguf", 5.0), ("mmproj.gguf", 1.0)],
                "Q4_0",
                "mmproj.gguf",
            ),
            ("made by statistics", &[("V-imatrix-Q4_0.gguf", 5.0), ("mmproj.gguf", 1.0)], "Q4_0", "mmproj.gguf"),
            (
                "all in a folder",
                &[("gguf/V-Q4_0.gguf", 5.0), ("gguf/mmproj-V-f16.gguf", 1.0)],
                "Q4_0",
                "gguf/mmproj-V-f16.gguf",
            ),
            ("a language model of vision", &[("V-Vision-Q4_0.gguf", 5.0), ("mmproj.gguf", 1.0)], "Q4_0", "mmproj.gguf"),
        ];
        for (what, sizes, quant, mmproj) in cases {
            let (label, projector, because) =
                chosen("o/m", &files(sizes), None).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!((label.as_str(), projector.as_str()), (quant, mmproj), "{what}");
            assert!(!because.contains("mtp") && !because.contains("imatrix"), "{what}: {because}");
        }
        // Only parts of something else: no model.
        let parts = files(&[("tts/T-F16.gguf", 1.0), ("audio/A-F16.gguf", 1.0), ("mmproj.gguf", 1.0)]);
        assert!(chosen("o/m", &parts, None).unwrap_err().to_string().contains("no language model"));
        // A file that is named is used.
        let named = |file: &str| chosen(&format!("o/m:{file}"), &files(&drafts), None).map(|(_, _, because)| because);
        for file in ["mtp-Gemma-4-Q8_0.gguf", "MTP/Gemma-4-Q4_K_M.gguf", "Gemma-4-style-lora-F16"] {
            assert!(named(file).is_ok_and(|because| because.contains("as requested")), "{file}");
        }
        assert!(named("MTP/Gemma-4-Q4_K_M").unwrap().contains("300.00 MB"));
        assert!(named("Gemma-4-Q4_K_M.gguf").unwrap().contains("5.00 GB"));
        // With two models of the same quantization, only a file name determines one.
        let two = files(&[("A-Q8_0.gguf", 2.0), ("A-Thinking-Q8_0.gguf", 2.0), ("mmproj.gguf", 1.0)]);
        let error = chosen("o/m", &two, None).unwrap_err().to_string();
        assert!(error.contains("several language models: A, A-Thinking"), "{error}");
    }
}
