//! The width of the code. The formatter wraps code; this test checks comments, which it does not wrap.

use std::path::{Path, PathBuf};

/// `max_width` in rustfmt.toml.
fn width(root: &Path) -> usize {
    let settings = std::fs::read_to_string(root.join("rustfmt.toml")).expect("rustfmt.toml");
    let line = settings.lines().find_map(|line| line.strip_prefix("max_width = ")).expect("a width");
    line.parse().expect("a number")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        // The desktop example is a workspace of its own, with its own target folder.
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| ["rs", "cpp", "h"].iter().any(|known| extension == *known)) {
            found.push(path);
        }
    }
}

#[test]
fn comments_are_no_wider_than_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let width = width(root);
    let mut files = Vec::new();
    for folder in ["benches", "build", "examples", "models", "src", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "{} files", files.len());
    let mut wide = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for (i, line) in text.lines().enumerate() {
            let comment = line.trim_start().strip_prefix("//");
            // A row of a table cannot be wrapped.
            let is_table = |text: &str| text.trim_start_matches(['/', '!', ' ']).starts_with('|');
            if line.chars().count() > width && comment.is_some_and(|text| !is_table(text)) {
                wide.push(format!("{}:{}", file.display(), i + 1));
            }
        }
    }
    assert!(wide.is_empty(), "wrap these comments: {}", wide.join(", "));
}
