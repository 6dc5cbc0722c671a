//! Parses `ORG/REPO[:QUANT]`.

use std::fmt;

/// A model on the hub: a repository and optionally one of its models. Only [`parse`](Self::parse) makes one, as the
/// name of a repository becomes part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubSpec {
    /// The repository, `ORG/REPO`.
    pub repo: String,
    /// The language model in the repository: a quantization (`Q4_K_M`, in any case) or a file name.
    pub file: Option<String>,
}

impl HubSpec {
    /// Parses `ORG/REPO` or `ORG/REPO:QUANT`, with an optional prefix `hf:`, or the address of the repository's page.
    /// `None` if it is not the name of a repository, such as `./ORG/REPO` or `folder/model.gguf`.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, is_address) = match text.split_once("://") {
            Some(("https" | "http", address)) => (address.split_once('/')?.1, true),
            Some(("hf", name)) => (name, false),
            Some(_) => return None,
            None => (text.strip_prefix("hf:").unwrap_or(text), false),
        };
        let (repo, file) = match text.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (text, None),
        };
        let mut parts = repo.split('/');
        let (org, name) = (parts.next()?, parts.next()?);
        // An address may continue after the repository: `/tree/main`.
        let is_whole = is_address || parts.next().is_none();
        let is_repo = is_whole && is_name(org) && is_name(name) && !name.to_lowercase().ends_with(".gguf");
        let names_file = file.is_none_or(|file| !file.is_empty() && !file.contains(char::is_whitespace));
        (is_repo && names_file).then(|| Self { repo: format!("{org}/{name}"), file: file.map(str::to_owned) })
    }
}

impl fmt::Display for HubSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{file}", self.repo),
            None => f.write_str(&self.repo),
        }
    }
}

/// Whether `name` is valid for an organization or a repository on the hub. It becomes part of a path.
fn is_name(name: &str) -> bool {
    name.len() <= 96
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !name.contains("..")
        && !name.contains("--")
}

#[cfg(test)]
mod tests {
    use super::HubSpec;

    #[test]
    fn names_of_repositories_are_told_from_paths() {
        let parsed = |text| HubSpec::parse(text).map(|spec| (spec.repo, spec.file));
        let plain = Some(("Org/Repo-1.5".to_owned(), None));
        let quant = Some(("Org/Repo-1.5".to_owned(), Some("q4_k_m".to_owned())));
        assert_eq!(parsed("Org/Repo-1.5"), plain);
        assert_eq!(parsed("hf:Org/Repo-1.5"), plain);
        assert_eq!(parsed("hf://Org/Repo-1.5:q4_k_m"), quant);
        assert_eq!(parsed("Org/Repo-1.5:q4_k_m"), quant);
        assert_eq!(parsed("https://hub.example/Org/Repo-1.5"), plain);
        assert_eq!(parsed("https://hub.example/Org/Repo-1.5/tree/main?x=1"), plain);
        for no in [
            "",
            "smol",
            "./a/b",
            "/a/b",
            "../b",
            "a/..",
            "a/b/c",
            "a/",
            "/b",
            "a/b.gguf",
            "a/b.GGUF",
            "a b/c",
            "a/b:",
            "a/b:x y",
            "C:\\a/b",
            "ftp://a/b",
            "https://a",
            "a--b/c",
            "a/b..c",
            "~/models",
            "a/bä",
        ] {
            assert_eq!(parsed(no), None, "{no}");
        }
        assert_eq!(HubSpec::parse("hf:a/b:Q8_0").unwrap().to_string(), "a/b:Q8_0");
    }
}
