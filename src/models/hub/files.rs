//! Classifies the GGUF files of a repository by their names.

use std::collections::BTreeMap;

use crate::names::{InnerPath, ObjectId};

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub path: InnerPath,
    /// Its size, in bytes.
    pub size: u64,
    /// Its content, if the hub listed it; `None` for files in a cache.
    pub content: Option<Content>,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// Its name on the hub and in caches: the SHA-256, or git's object id.
    pub id: ObjectId,
    /// The SHA-256, in lower-case hexadecimal; `None` for small files, which are in git itself.
    pub sha256: Option<String>,
}

impl RepoFile {
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Its folder; empty if there is none.
    fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// A language model in one quantization: a file, or all parts of a split file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weights {
    /// The model's name: the file name without quantization and part.
    pub model: String,
    /// The quantization in the file name; empty if there is none.
    pub quant: String,
    /// The parts, in order. llama.cpp takes the first.
    pub parts: Vec<RepoFile>,
}

impl Weights {
    pub fn bytes(&self) -> u64 {
        // The sizes that a hub lists are not trusted.
        self.parts.iter().fold(0, |bytes, part| bytes.saturating_add(part.size))
    }

    /// What follows `ORG/REPO:`: the quantization, or the model's name if there is none.
    pub fn label(&self) -> &str {
        if self.quant.is_empty() { &self.model } else { &self.quant }
    }
}

/// A projector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Projector {
    pub model: String,
    pub quant: String,
    pub file: RepoFile,
}

/// The usable GGUF files of a repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// The language model, or several.
    pub weights: Vec<Weights>,
    /// Other files that may be language models, which must be named to be used: drafts, adapters, speech models, older
    /// versions in folders.
    pub beside: Vec<Weights>,
    pub projectors: Vec<Projector>,
    /// The names of split models with missing parts.
    pub incomplete: Vec<String>,
}

/// The parts of a file name.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    model: String,
    quant: String,
    /// The number of the part, from 1, and the number of parts.
    part: (usize, usize),
}

/// How likely a file is the language model that a repository is about, the likeliest first. Any word can be part of a
/// model's name, so a file is set aside only if there is a likelier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// In no folder, or in a folder for its quantization.
    Plain,
    /// In a folder with another name.
    InFolder,
    /// Named like a companion of a model.
    Marked,
    /// In a folder for other parts of a system. Used only if it is named.
    Part,
}

/// Words in the names of a model's companions: an adapter, a bare vocabulary, a smaller draft model.
const MARKS: [&str; 9] = ["lora", "adapter", "adapters", "vocab", "mtp", "draft", "drafter", "eagle", "eagle3"];

/// Words in the names of folders for parts of a larger system and companions of a model.
const PARTS: [&str; 12] = [
    "audio",
    "tts",
    "vision",
    "token2wav",
    "vocoder",
    "imatrix",
    "lora",
    "adapter",
    "adapters",
    "mtp",
    "draft",
    "vocab",
];

/// Files of one name in one folder.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    standing: Standing,
    model: String,
    quant: String,
    folder: String,
    n_parts: usize,
}

impl Files {
    pub fn new(files: impl IntoIterator<Item = RepoFile>) -> Self {
        let mut found = Self::default();
        let mut groups: BTreeMap<Group, Weights> = BTreeMap::new();
        for file in files {
            let Some(Name { model, quant, part: (_, n_parts) }) = Name::parse(&file.path) else { continue };
            let folder = file.folder().to_lowercase();
            // An importance matrix has no quantization; a model that was quantized with one has.
            let is_statistics = quant.is_empty() && has_word(&model, &["imatrix"]);
            if file.file_name().to_lowercase().contains("mmproj") || has_word(&folder, &["mmproj"]) {
                found.projectors.push(Projector { model, quant, file });
            } else if !is_statistics {
                let standing = Standing::of(&folder, &model);
                let group = Group { standing, model: model.to_lowercase(), quant: plain(&quant), folder, n_parts };
                groups.entry(group).or_insert(Weights { model, quant, parts: Vec::new() }).parts.push(file);
            }
        }
        if found.projectors.is_empty() {
            found.projectors = encoders(&groups);
        }
        found.sort_out(groups);
        found
    }

    /// Separates the language model from other files.
    fn sort_out(&mut self, groups: BTreeMap<Group, Weights>) {
        // Sorted by their standing.
        let best = groups.keys().next().map(|group| group.standing).filter(|standing| *standing < Standing::Part);
        let mut taken: Vec<(String, String, usize)> = Vec::new();
        for (group, mut weights) in groups {
            let same_model = taken.iter().any(|(model, _, _)| *model == group.model);
            let is_there = taken.contains(&(group.model.clone(), group.quant.clone(), group.n_parts));
            // A folder may contain further quantizations of a model outside it.
            let is_meant = Some(group.standing) == best || group.standing == Standing::InFolder && same_model;
            weights.parts.sort_by_key(number_of);
            weights.parts.dedup_by_key(|file| number_of(file));
            let is_complete = weights.parts.len() == group.n_parts;
            match (is_meant && !is_there, is_complete) {
                (true, true) => {
                    taken.push((group.model, group.quant, group.n_parts));
                    self.weights.push(weights);
                }
                (true, false) => {
                    let label = weights.label();
                    self.incomplete.push(format!("{label} ({} of {} parts)", weights.parts.len(), group.n_parts));
                }
                (false, true) => self.beside.push(weights),
                (false, false) => (),
            }
        }
        // Groups the quantizations of a model, whatever their folders.
        self.weights.sort_by_key(|weights| weights.model.to_lowercase());
    }
}

impl Standing {
    fn of(folder: &str, model: &str) -> Self {
        let mut folders = folder.split('/').filter(|name| !name.is_empty());
        let has_quant = |name: &str| !split_quant(name).1.is_empty();
        if has_word(folder, &PARTS) {
            Self::Part
        } else if has_word(model, &MARKS) {
            Self::Marked
        } else if folders.all(has_quant) {
            Self::Plain
        } else {
            Self::InFolder
        }
    }
}

/// The vision encoders of repositories that have a folder for each part of a model and do not use the name `mmproj`.
fn encoders(groups: &BTreeMap<Group, Weights>) -> Vec<Projector> {
    let of_vision = groups.iter().filter(|(group, _)| has_word(&group.folder, &["vision"]) && group.n_parts == 1);
    let projectors = of_vision.flat_map(|(_, weights)| {
        let Weights { model, quant, parts } = weights;
        parts.iter().map(|file| Projector { model: model.clone(), quant: quant.clone(), file: file.clone() })
    });
    projectors.collect()
}

/// Whether `name` contains one of `words` as a whole word.
fn has_word(name: &str, words: &[&str]) -> bool {
    let name = name.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word))
}

/// The number of a file's part.
fn number_of(file: &RepoFile) -> Option<usize> {
    Name::parse(&file.path).map(|name| name.part.0)
}

impl Name {
    /// `None` if it is not a GGUF file.
    fn parse(path: &str) -> Option<Self> {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (stem, extension) = file.rsplit_once('.')?;
        if !extension.eq_ignore_ascii_case("gguf") {
            return None;
        }
        let (stem, part) = split_part(stem);
        let (model, quant) = split_quant(stem);
        let quant = match quant {
            // The quantization may be in the name of the folder instead.
            "" => split_quant(folder.rsplit('/').next().unwrap_or_default()).1,
            quant => quant,
        };
        Some(Self { model, quant: quant.to_owned(), part })
    }
}

/// Splits `-00002-of-00003` off the end.
fn split_part(stem: &str) -> (&str, (usize, usize)) {
    let parsed = || {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (rest, number) = rest.rsplit_once('-')?;
        let number_of = |digits: &str| (digits.len() == 5).then(|| digits.parse::<usize>().ok()).flatten();
        let (number, count) = (number_of(number)?, number_of(count)?);
        (1..=count).contains(&number).then_some((rest, (number, count)))
    };
    parsed().unwrap_or((stem, (1, 1)))
}

/// Splits a name into its last quantization and the rest.
fn split_quant(stem: &str) -> (String, &str) {
    let is_separator = |c| matches!(c, '-' | '.');
    let mut end = stem.len();
    loop {
        let start = stem[..end].rfind(is_separator).map_or(0, |at| at + 1);
        let token = &stem[start..end];
        // Names may separate words with `_`, which quantizations contain.
        let starts = std::iter::once(0).chain(token.match_indices('_').map(|(at, _)| at + 1));
        if let Some(offset) = starts.into_iter().find(|&at| is_quant(&token[at..])) {
            let mut start = start + offset;
            // `UD-Q4_K_XL` and `i1-Q4_K_M` are quantizations of their own.
            for prefix in ["UD-", "i1-"] {
                if start >= prefix.len() && stem.is_char_boundary(start - prefix.len()) {
                    let from = start - prefix.len();
                    let stands_alone = from == 0 || stem[..from].ends_with(['-', '.', '_']);
                    if stands_alone && stem[from..start].eq_ignore_ascii_case(prefix) {
                        start = from;
                        break;
                    }
                }
            }
            let ends = |c: char| matches!(c, '-' | '.' | '_');
            let model = format!("{}{}", stem[..start].trim_end_matches(ends), &stem[end..]);
            return (model.trim_start_matches(ends).to_owned(), &stem[start..end]);
        }
        if start == 0 {
            return (stem.to_owned(), "");
        }
        end = start - 1;
    }
}

/// Whether a word is a quantization of llama.cpp or of a well-known quantizer.
fn is_quant(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    if matches!(word.as_str(), "F16" | "FP16" | "BF16" | "F32" | "FP32" | "MXFP4" | "MXFP4_MOE" | "NVFP4") {
        return true;
    }
    let Some(rest) = ["IQ", "TQ", "Q"].iter().find_map(|prefix| word.strip_prefix(prefix)) else { return false };
    let Some((bits, kind)) = rest.split_once('_') else { return false };
    let mut kinds = kind.split('_');
    let first = kinds.next().unwrap_or_default();
    bits.len() == 1
        && bits.chars().all(|c| c.is_ascii_digit())
        && matches!(first, "0" | "1" | "K" | "XXS" | "XS" | "S" | "M" | "NL")
        // `H` mixes types between layers. Two digits are the block size of a layout for a processor.
        && kinds.all(|kind| matches!(kind, "XXS" | "XS" | "S" | "M" | "L" | "XL" | "XXL" | "H" | "P" | "4" | "8"))
}

/// A quantization in one spelling, for comparisons.
pub(super) fn plain(quant: &str) -> String {
    match quant.to_ascii_uppercase().as_str() {
        "FP16" => "F16".to_owned(),
        "FP32" => "F32".to_owned(),
        upper => upper.to_owned(),
    }
}

/// A quantization without the quantizer's prefix.
pub(super) fn kind(quant: &str) -> String {
    let plain = plain(quant);
    ["UD-", "I1-"].iter().find_map(|prefix| plain.strip_prefix(prefix)).map_or(plain.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> RepoFile {
        RepoFile { path: InnerPath::parse(path).expect("a path"), size: 10, content: None }
    }

    #[test]
    fn names_tell_model_quantization_and_part() {
        let cases = [
            ("SmolVLM2-2.2B-Instruct-Q4_K_M.gguf", "SmolVLM2-2.2B-Instruct", "Q4_K_M", (1, 1)),
            ("SmolVLM2-500M-Video-Instruct-f16.gguf", "SmolVLM2-500M-Video-Instruct", "f16", (1, 1)),
            ("ggml-model-IQ4_XS.gguf", "ggml-model", "IQ4_XS", (1, 1)),
            ("Model.i1-Q5_K_S.gguf", "Model", "i1-Q5_K_S", (1, 1)),
            ("Model-UD-Q4_K_XL.gguf", "Model", "UD-Q4_K_XL", (1, 1)),
            ("model_q8_0.GGUF", "model", "q8_0", (1, 1)),
            ("MiniCPM-V-2_6.gguf", "MiniCPM-V-2_6", "", (1, 1)),
            ("Q4_K_M/Big-Q4_K_M-00002-of-00003.gguf", "Big", "Q4_K_M", (2, 3)),
            ("BF16/Big-00001-of-00002.gguf", "Big", "BF16", (1, 2)),
            ("Big-BF16-00000-of-00002.gguf", "Big-00000-of-00002", "BF16", (1, 1)),
            ("mmproj-Qwen3VL-2B-Instruct-F16.gguf", "mmproj-Qwen3VL-2B-Instruct", "F16", (1, 1)),
            ("mmproj-BF16.gguf", "mmproj", "BF16", (1, 1)),
            ("F16.gguf", "", "F16", (1, 1)),
            ("Model-Q4_0_4_4.gguf", "Model", "Q4_0_4_4", (1, 1)),
            ("Model-Q3_K_XS.gguf", "Model", "Q3_K_XS", (1, 1)),
            ("Model-IQ1_S.gguf", "Model", "IQ1_S", (1, 1)),
            ("Model.Q6_K_H.gguf", "Model", "Q6_K_H", (1, 1)),
            ("Model-NVFP4.gguf", "Model", "NVFP4", (1, 1)),
            ("Model-MXFP4_MOE-v2.gguf", "Model-v2", "MXFP4_MOE", (1, 1)),
            ("Grüße-Q2_K.gguf", "Grüße", "Q2_K", (1, 1)),
            ("ü1-Q2_K.gguf", "ü1", "Q2_K", (1, 1)),
        ];
        for (path, model, quant, part) in cases {
            let expected = Name { model: model.into(), quant: quant.into(), part };
            assert_eq!(Name::parse(path), Some(expected), "{path}");
        }
        for path in ["README.md", "gguf", "model.safetensors", "model.gguf.part", ""] {
            assert_eq!(Name::parse(path), None, "{path}");
        }
    }

    #[test]
    fn parts_are_put_together_and_other_files_left_out() {
        let files = Files::new(
            [
                "Q4_K_M/Big-Q4_K_M-00002-of-00002.gguf",
                "Q4_K_M/Big-Q4_K_M-00001-of-00002.gguf",
                "Q8_0/Big-Q8_0-00001-of-00003.gguf",
                "Q8_0/Big-Q8_0-00003-of-00003.gguf",
                "Big-imatrix.gguf",
                "Big-lora-F16.gguf",
                "mmproj-Big-F16.gguf",
                "README.md",
            ]
            .map(file),
        );
        let [weights] = files.weights.as_slice() else { panic!("{:?}", files.weights) };
        let parts: Vec<&str> = weights.parts.iter().map(|part| &*part.path).collect();
        assert_eq!(parts, ["Q4_K_M/Big-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/Big-Q4_K_M-00002-of-00002.gguf"]);
        assert_eq!((weights.bytes(), weights.label()), (20, "Q4_K_M"));
        assert_eq!(files.incomplete, ["Q8_0 (2 of 3 parts)"]);
        assert_eq!(files.projectors.len(), 1);
    }
}
