//! The patch machinery of the build script, and the patch series itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../build/patch.rs"]
mod patch;

use patch::{Patch, apply_series, read_series, series_names};

const PIN: &str = "some-package 1.2.3";

/// A patch to one file, with the frame that `git format-patch` gives it.
fn patch(name: &str, path: &str, hunks: &str) -> Patch {
    mail(
        name,
        &format!("diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\n--- a/{path}\n+++ b/{path}\n{hunks}"),
    )
}

fn mail(name: &str, diff: &str) -> Patch {
    let head = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n\
                From: Somebody <somebody@localhost>\n\
                Date: Sun, 1 Jan 2023 00:00:00 +0000\n\
                Subject: [PATCH] area: what it does\n\n\
                Why it does it.\n---\n 1 file changed, 1 insertion(+)\n\n";
    Patch { name: name.to_owned(), text: format!("{head}{diff}-- \n2.39.2\n\n") }
}

fn tree(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect()
}

/// Applies the patches and gives the tree, or the message.
fn applied(files: &[(&str, &str)], patches: &[Patch]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut tree = tree(files);
    apply_series(patches, PIN, &mut tree).map(|()| tree)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

const INSERT_X: &str = "@@ -1,2 +1,3 @@\n one\n+x\n two\n";

#[test]
fn inserts_removes_and_replaces_lines_and_leaves_other_files_alone() {
    let hunks = "@@ -1,3 +1,4 @@\n one\n-two\n+TWO\n+two and a half\n three\n@@ -5,2 +6,1 @@\n five\n-six\n";
    let files = [("src/a.cpp", "one\ntwo\nthree\nfour\nfive\nsix\n"), ("src/b.cpp", "one\ntwo\n")];
    let after = applied(&files, &[patch("a.patch", "src/a.cpp", hunks)]).unwrap();
    assert_eq!(
        after,
        tree(&[("src/a.cpp", "one\nTWO\ntwo and a half\nthree\nfour\nfive\n"), ("src/b.cpp", "one\ntwo\n")])
    );
}

#[test]
fn one_patch_may_change_several_files_and_add_new_ones() {
    let patch = mail(
        "two.patch",
        "diff --git a/a b/a\nindex 1111111..2222222 100644\n--- a/a\n+++ b/a\n@@ -1,2 +1,3 @@\n one\n+x\n two\n\
         diff --git a/new/c.h b/new/c.h\nnew file mode 100644\nindex 0000000..3333333\n--- /dev/null\n+++ b/new/c.h\n\
         @@ -0,0 +1,2 @@\n+first\n+second\n",
    );
    let after = applied(&[("a", "one\ntwo\n")], &[patch]).unwrap();
    assert_eq!(after, tree(&[("a", "one\nx\ntwo\n"), ("new/c.h", "first\nsecond\n")]));
}

#[test]
fn patches_build_on_each_other_in_the_order_of_the_series() {
    let first = || patch("first.patch", "a", INSERT_X);
    let second = || patch("second.patch", "a", "@@ -1,3 +1,4 @@\n one\n x\n+y\n two\n");
    let files = [("a", "one\ntwo\n")];
    assert_eq!(applied(&files, &[first(), second()]).unwrap(), tree(&[("a", "one\nx\ny\ntwo\n")]));
    let message = applied(&files, &[second(), first()]).unwrap_err();
    assert!(message.contains("second.patch"), "{message}");
}

#[test]
fn lines_that_moved_are_found() {
    let moved = "0\n".repeat(40) + "one\ntwo\n";
    let after = applied(&[("a", &moved)], &[patch("a.patch", "a", INSERT_X)]).unwrap();
    assert_eq!(after["a"], ("0\n".repeat(40) + "one\nx\ntwo\n").into_bytes());
}

#[test]
fn a_patch_that_does_not_apply_says_which_where_and_what_to_do() {
    let hunks = format!("{INSERT_X}@@ -7,2 +8,3 @@\n seven\n+x\n eight\n");
    let message =
        applied(&[("src/a.cpp", "one\ntwo\nthree\n")], &[patch("fix.patch", "src/a.cpp", &hunks)]).unwrap_err();
    for part in ["patches/fix.patch", PIN, "src/a.cpp", "hunk 2 (line 7 of the source)", "patches/README.md"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains("already"), "{message}");
}

#[test]
fn context_that_fits_several_places_is_refused() {
    let message = applied(&[("a", "one\ntwo\none\ntwo\n")], &[patch("a.patch", "a", INSERT_X)]).unwrap_err();
    assert!(message.contains("matches 2 places"), "{message}");
}

#[test]
fn a_change_that_is_in_the_source_already_is_recognised() {
    let message = applied(&[("a", "one\nx\ntwo\n")], &[patch("a.patch", "a", INSERT_X)]).unwrap_err();
    assert!(message.contains("already has the change"), "{message}");
    let twice = [patch("a.patch", "a", INSERT_X), patch("again.patch", "a", INSERT_X)];
    let message = applied(&[("a", "one\ntwo\n")], &twice).unwrap_err();
    assert!(message.contains("again.patch") && message.contains("already has the change"), "{message}");
}

#[test]
fn line_endings_are_part_of_the_line() {
    let crlf = INSERT_X.replace("one\n", "one\r\n").replace("x\n", "x\r\n").replace("two\n", "two\r\n");
    let after = applied(&[("a", "one\r\ntwo\r\n")], &[patch("a.patch", "a", &crlf)]).unwrap();
    assert_eq!(after["a"], b"one\r\nx\r\ntwo\r\n");
    let message = applied(&[("a", "one\r\ntwo\r\n")], &[patch("a.patch", "a", INSERT_X)]).unwrap_err();
    assert!(message.contains("does not match"), "{message}");
}

#[test]
fn a_file_without_a_newline_at_its_end_can_be_patched() {
    let hunks = "@@ -1,2 +1,3 @@\n one\n+x\n two\n\\ No newline at end of file\n";
    let after = applied(&[("a", "one\ntwo")], &[patch("a.patch", "a", hunks)]).unwrap();
    assert_eq!(after["a"], b"one\nx\ntwo");
}

#[test]
fn a_patch_cannot_leave_the_source() {
    for path in ["../a", "src/../../a", "/etc/a", "src/../a"] {
        let message = applied(&[(path, "one\ntwo\n")], &[patch("a.patch", path, INSERT_X)]).unwrap_err();
        assert!(message.contains("outside of the source"), "{path}: {message}");
    }
}

#[test]
fn what_a_patch_may_not_do_is_refused() {
    let cases = [
        (patch("a.patch", "other", INSERT_X), "other is not in the source"),
        (
            mail(
                "a.patch",
                "diff --git a/a b/a\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n+++ b/a\n\
                 @@ -0,0 +1 @@\n+x\n",
            ),
            "already in the source",
        ),
        (
            mail(
                "a.patch",
                "diff --git a/a b/a\ndeleted file mode 100644\nindex 1111111..0000000\n--- a/a\n+++ /dev/null\n\
                 @@ -1,2 +0,0 @@\n-one\n-two\n",
            ),
            "removes, renames or copies",
        ),
        (
            mail("a.patch", "diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n"),
            "removes, renames or copies",
        ),
        (
            mail("a.patch", "diff --git a/a b/a\nindex 1111111..2222222 100644\nBinary files a/a and b/a differ\n"),
            "binary",
        ),
        (Patch { name: "a.patch".into(), text: "not a patch\n".into() }, "not a patch"),
        (Patch { name: "a.patch".into(), text: String::new() }, "not a patch"),
        (patch("a.patch", "a", "@@ -1,9 +1,9 @@\n one\n"), "not a patch"),
    ];
    for (patch, expected) in cases {
        let text = patch.text.clone();
        let message = applied(&[("a", "one\ntwo\n")], &[patch]).unwrap_err();
        assert!(message.contains(expected), "`{expected}` is not in: {message}\n{text}");
    }
}

#[test]
fn the_series_is_read_in_order_without_comments() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("series"), "# why\n\nb.patch\n  a.patch  \n").unwrap();
    fs::write(dir.path().join("a.patch"), "A").unwrap();
    fs::write(dir.path().join("b.patch"), "B").unwrap();
    let patches = read_series(dir.path()).unwrap();
    let found: Vec<(&str, &str)> = patches.iter().map(|patch| (patch.name.as_str(), patch.text.as_str())).collect();
    assert_eq!(found, [("b.patch", "B"), ("a.patch", "A")]);
}

#[test]
fn a_patch_that_the_series_names_but_nobody_wrote_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("series"), "gone.patch\n").unwrap();
    let message = read_series(dir.path()).err().unwrap();
    assert!(message.contains("gone.patch") && message.contains("series"), "{message}");
    let message = read_series(&dir.path().join("nowhere")).err().unwrap();
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn folder_series_and_table_name_the_same_patches() {
    let folder = folder("patches");
    let series = fs::read_to_string(folder.join("series")).unwrap();
    let series: Vec<&str> = series_names(&series).collect();

    let files: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md" && name != "series")
        .collect();
    assert_eq!(files, series.iter().map(|name| name.to_string()).collect(), "files in patches/ ≠ patches/series");

    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let table: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(name, _)| name).collect();
    assert_eq!(table, series, "table in patches/README.md ≠ patches/series");
}

/// Each row of the table must name the files that its patch changes, and say how many hunks it has.
#[test]
fn the_table_names_the_files_that_a_patch_changes_and_counts_its_hunks() {
    let readme = fs::read_to_string(folder("patches/README.md")).unwrap();
    for patch in read_series(&folder("patches")).unwrap() {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}`", patch.name))).unwrap();
        for file in patch.text.lines().filter_map(|line| line.strip_prefix("+++ b/")) {
            assert!(row.contains(&format!("`{file}`")), "{}: `{file}` is not in its row", patch.name);
        }
        let hunks = patch.text.lines().filter(|line| line.starts_with("@@ ")).count();
        assert!(
            row.contains(&format!(" | {hunks} | ")),
            "{}: it has {hunks} hunks, its row says otherwise",
            patch.name
        );
    }
}

/// What a patch calls is declared in `src/ffi/hooks`, which the build includes everywhere.
#[test]
fn a_patch_adds_no_file_and_includes_no_header_of_ours() {
    for patch in read_series(&folder("patches")).unwrap() {
        let (_, diff) = patch.text.split_once("\ndiff --git").unwrap();
        assert!(!diff.contains("\n--- /dev/null"), "{} adds a file", patch.name);
        assert!(!diff.contains("\n+#include \""), "{} includes a header of ours", patch.name);
    }
}

#[test]
fn every_patch_says_why_it_exists_and_when_it_can_go() {
    for patch in read_series(&folder("patches")).unwrap() {
        let (message, _) = patch.text.split_once("\n---\n").unwrap();
        assert!(message.starts_with("From ") && message.contains("\nSubject: [PATCH"), "{}", patch.name);
        let (_, body) = message.split_once("\nSubject: ").unwrap().1.split_once("\n\n").unwrap();
        assert!(body.split_whitespace().count() >= 15, "{}: its message does not say why", patch.name);
        assert!(body.contains("\nDrop when: "), "{}: its message does not say when to drop it", patch.name);
    }
}

/// A copy of what `./x patches` reads, so that a failing test does not write into the repository.
struct Workplace(tempfile::TempDir);

impl Workplace {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x", "patches", "vendor/llama.cpp"] {
            let (from, to) = (folder(name), dir.path().join(name));
            if from.is_file() {
                fs::copy(from, to).unwrap();
                continue;
            }
            fs::create_dir_all(&to).unwrap();
            for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        Self(dir)
    }

    /// `./x patches …`: whether it succeeded, and what it said.
    fn x(&self, command: &str) -> (bool, String) {
        let mut sh = Command::new("sh");
        let output = sh.args(["x", "patches", command, "tree"]).current_dir(self.0.path()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.0.path().join("tree")).args(["-c", "user.name=a", "-c", "user.email=a@localhost"]);
        assert!(git.args(arguments).status().unwrap().success(), "git {arguments:?}");
    }

    /// Every file of `patches/`, by name.
    fn patches(&self) -> BTreeMap<String, String> {
        let read =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        fs::read_dir(self.0.path().join("patches")).unwrap().map(|entry| read(entry.unwrap())).collect()
    }
}

#[test]
fn opening_and_saving_the_patches_changes_nothing_and_a_commit_becomes_a_patch() {
    let place = Workplace::new();
    let before = place.patches();
    for command in ["open", "save"] {
        let (done, said) = place.x(command);
        assert!(done, "{said}");
    }
    assert_eq!(place.patches(), before);

    // A commit that was changed, and a new one: only these two files change, and the series.
    let tree = place.0.path().join("tree");
    let file = tree.join("tools/mtmd/mtmd-image.cpp");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("sharpv_longest_edge(", "sharpv_other_edge(")).unwrap();
    place.git(&["commit", "-q", "-a", "--amend", "--no-edit"]);
    fs::write(
        tree.join("include/llama.h"),
        "// first line\n".to_owned() + &fs::read_to_string(tree.join("include/llama.h")).unwrap(),
    )
    .unwrap();
    place.git(&["commit", "-q", "-a", "-m", "llama: add a line\n\nDrop when: now.\n\nPatch: first-line.patch"]);
    let (done, said) = place.x("save");
    assert!(!done && said.contains("no row for first-line.patch"), "the table was not checked: {said}");
    let after = place.patches();
    let last = series_names(&before["series"]).last().unwrap();
    let changed: Vec<&String> =
        after.iter().filter(|(name, text)| before.get(*name) != Some(text)).map(|(name, _)| name).collect();
    let mut expected = ["first-line.patch", "series", last];
    expected.sort_unstable();
    assert_eq!(changed, expected);
    assert_eq!(series_names(&after["series"]).last(), Some("first-line.patch"));
    let (_, diff) =
        after["first-line.patch"].split_once("\nDrop when: now.\n---\n").expect("the message is not as written");
    assert!(diff.contains("\n+// first line\n"), "{diff}");
    assert!(after[last].contains("sharpv_other_edge("));

    // What nobody can have meant: a commit without a name, patches that changed behind its back.
    place.git(&["commit", "-q", "--allow-empty", "-m", "llama: nothing"]);
    let (done, said) = place.x("save");
    assert!(!done && said.contains("Patch: NAME.patch"), "{said}");
    fs::write(place.0.path().join("patches").join(last), "edited").unwrap();
    let (done, said) = place.x("save");
    assert!(!done && said.contains("changed since"), "{said}");
}
