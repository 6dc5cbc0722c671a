//! What the GGUF files of a repository are, as far as their names tell.

use std::collections::BTreeMap;

use crate::names::{InnerPath, ObjectId};

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub path: InnerPath,
    /// Bytes.
    pub size: u64,
    /// What it holds, as the hub tells. Files of a cache say nothing of it.
    pub content: Option<Content>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// What the hub and its caches call it: the SHA-256, or git's name for it.
    pub id: ObjectId,
    /// In lower-case hexadecimal. Small files that are kept in git itself have none.
    pub sha256: Option<String>,
}

impl RepoFile {
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that it is in; empty where it is in none.
    fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// One language model in one quantization: a file, or all parts of one that is split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weights {
    /// The model's name: the file's, less quantization and part.
    pub model: String,
    /// The quantization as the file's name has it; empty when it has none.
    pub quant: String,
    /// In the order of the parts. llama.cpp is given the first.
    pub parts: Vec<RepoFile>,
}

impl Weights {
    pub fn bytes(&self) -> u64 {
        // A hub may claim any sizes.
        self.parts.iter().fold(0, |bytes, part| bytes.saturating_add(part.size))
    }

    /// The quantization, or the model's name where that is all there is: what follows `ORG/REPO:`.
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

/// The GGUF files of a repository that are of use here.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// The language model, or several.
    pub weights: Vec<Weights>,
    /// What else may be one, and is not meant by the repository's name alone: drafts, adapters, what speaks, older
    /// versions in folders.
    pub beside: Vec<Weights>,
    pub projectors: Vec<Projector>,
    /// Split models that lack a part: their names, as one would write them.
    pub incomplete: Vec<String>,
}

/// What a file's name says.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    model: String,
    quant: String,
    /// Number of the part and how many there are, from 1.
    part: (usize, usize),
}

/// How likely a file is the language model that a repository is about, the likeliest first. Any word of a name can be
/// part of a model's own, so a file is set aside for one only where a likelier is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Where models lie: in no folder, or in one for its quantization.
    Plain,
    /// In a folder of another name.
    InFolder,
    /// Named as something that goes with a model.
    Marked,
    /// In a folder for a part that is no language model. Never taken unless it is named.
    Part,
}

/// Words in the names of files that go with a model: an adapter, a bare vocabulary, a smaller model that drafts.
const MARKS: [&str; 9] = ["lora", "adapter", "adapters", "vocab", "mtp", "draft", "drafter", "eagle", "eagle3"];

/// Words in the names of folders for parts of a larger system, and for what goes with a model.
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
            // Statistics for quantizing have no quantization themselves; what was quantized by them has.
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

    /// Tells the language model from what lies beside it.
    fn sort_out(&mut self, groups: BTreeMap<Group, Weights>) {
        // They come in the order of their standing.
        let best = groups.keys().next().map(|group| group.standing).filter(|standing| *standing < Standing::Part);
        let mut taken: Vec<(String, String, usize)> = Vec::new();
        for (group, mut weights) in groups {
            let same_model = taken.iter().any(|(model, _, _)| *model == group.model);
            let is_there = taken.contains(&(group.model.clone(), group.quant.clone(), group.n_parts));
            // A folder may have further quantizations of the model that lies before it.
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
        // Quantizations of a model beside each other, wherever they lie.
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

/// Vision encoders of repositories that keep each part of a model in a folder and call none of them `mmproj`.
fn encoders(groups: &BTreeMap<Group, Weights>) -> Vec<Projector> {
    let of_vision = groups.iter().filter(|(group, _)| has_word(&group.folder, &["vision"]) && group.n_parts == 1);
    let projectors = of_vision.flat_map(|(_, weights)| {
        let Weights { model, quant, parts } = weights;
        parts.iter().map(|file| Projector { model: model.clone(), quant: quant.clone(), file: file.clone() })
    });
    projectors.collect()
}

/// Whether one of the words that `name` consists of is one of `words`.
fn has_word(name: &str, words: &[&str]) -> bool {
    let name = name.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word))
}

/// The number of the part that a file is.
fn number_of(file: &RepoFile) -> Option<usize> {
    Name::parse(&file.path).map(|name| name.part.0)
}

impl Name {
    /// `None` for what is no GGUF file.
    fn parse(path: &str) -> Option<Self> {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (stem, extension) = file.rsplit_once('.')?;
        if !extension.eq_ignore_ascii_case("gguf") {
            return None;
        }
        let (stem, part) = split_part(stem);
        let (model, quant) = split_quant(stem);
        let quant = match quant {
            // The folder may say what the file's name does not.
            "" => split_quant(folder.rsplit('/').next().unwrap_or_default()).1,
            quant => quant,
        };
        Some(Self { model, quant: quant.to_owned(), part })
    }
}

/// Takes `-00002-of-00003` from the end.
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

/// Parts a name into what is before and behind its last quantization, and that quantization.
fn split_quant(stem: &str) -> (String, &str) {
    let is_separator = |c| matches!(c, '-' | '.');
    let mut end = stem.len();
    loop {
        let start = stem[..end].rfind(is_separator).map_or(0, |at| at + 1);
        let token = &stem[start..end];
        // A name may use `_` between its words, which quantizations have inside.
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

/// Whether a word is a name that llama.cpp or a well-known quantizer has for a type.
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
        // `H` mixes types from layer to layer; two digits are the block of what is laid out for a processor.
        && kinds.all(|kind| matches!(kind, "XXS" | "XS" | "S" | "M" | "L" | "XL" | "XXL" | "H" | "P" | "4" | "8"))
}

/// One spelling for a quantization, to compare by.
pub(super) fn plain(quant: &str) -> String {
    match quant.to_ascii_uppercase().as_str() {
        "FP16" => "F16".to_owned(),
        "FP32" => "F32".to_owned(),
        upper => upper.to_owned(),
    }
}

/// A quantization without what the quantizer put before it.
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
