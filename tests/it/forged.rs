//! Saved sessions that somebody forged, with a right checksum: each is refused before llama.cpp reads its state, or
//! does no harm.
//!
//! The files are loaded in a child process, since what is tested is that it does not die.

use crate::support::families;
use crate::support::lcg::Lcg;
use crate::support::memory::{peak, reset_peak};
use crate::support::saved_session::Parts;

use sharpv::{Session, SessionParams, VideoOptions};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// In the environment of the child: the family of its model, and a file that names sessions, one a line.
const FAMILY: &str = "SHARPV_TEST_FORGED_FAMILY";
const LIST: &str = "SHARPV_TEST_FORGED_LIST";

/// Longer than any file takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// More than any of them takes.
const MAX_PEAK: u64 = 600 << 20;

/// One with plain attention, one with positions of three parts, one with a sliding window.
const FAMILIES: [&str; 3] = ["smolvlm", "qwen2vl", "gemma3"];

fn open(family: &str) -> Session {
    let mut params = SessionParams { n_predict: 3, ..SessionParams::default() };
    params.compute.n_threads = Some(1);
    params.vision.n_threads = Some(1);
    Session::open(&families::files(family), params, &mut ()).expect("the fixture opens")
}

/// Not a test of its own: it loads the files that the others name, and asks on.
#[test]
fn child() {
    let (Some(family), Some(list)) = (std::env::var_os(FAMILY), std::env::var_os(LIST)) else { return };
    let list = std::fs::read_to_string(list).expect("a list");
    let mut session = open(family.to_str().expect("a name"));
    for (i, path) in list.lines().enumerate() {
        println!("begin {i}");
        reset_peak();
        let said = match session.load(Path::new(path)) {
            Err(error) => format!("refused {error}"),
            Ok(()) => match session.ask("And then?", &mut ()) {
                Ok(answer) => format!("answered {} rows", answer.tokens.prompt),
                Err(error) => format!("failed {error}"),
            },
        };
        println!("end {i} {} {}", peak(), said.replace('\n', " "));
    }
}

/// What became of each of `files`: the peak of memory, and what was said.
fn outcomes(family: &str, files: &[PathBuf], folder: &Path) -> Vec<(u64, String)> {
    let mut outcomes: Vec<(u64, String)> = Vec::new();
    while outcomes.len() < files.len() {
        let first = outcomes.len();
        let list: String = files[first..].iter().map(|path| format!("{}\n", path.display())).collect();
        let list_path = folder.join("list");
        std::fs::write(&list_path, list).expect("a list");
        let mut output = tempfile::tempfile().expect("a file");
        let both = || Stdio::from(output.try_clone().expect("a handle"));
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "forged::child", "--nocapture"]).env("GGML_NO_BACKTRACE", "1");
        child.env(FAMILY, family).env(LIST, &list_path).stdout(both()).stderr(both());
        let mut child = child.spawn().expect("it runs");
        let limit = LIMIT + Duration::from_millis(200) * (files.len() - first) as u32;
        let start = Instant::now();
        let status = loop {
            match child.try_wait().expect("a status") {
                Some(status) => break status,
                None if start.elapsed() > limit => {
                    child.kill().expect("it is killed");
                    break child.wait().expect("a status");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut said = String::new();
        output.rewind().and_then(|()| output.read_to_string(&mut said)).expect("what it said");
        for line in said.lines().filter_map(|line| line.strip_prefix("end ")) {
            let mut words = line.splitn(3, ' ').skip(1);
            let peak = words.next().and_then(|peak| peak.parse().ok()).expect("a peak");
            outcomes.push((peak, words.next().unwrap_or_default().to_owned()));
        }
        if outcomes.len() < files.len() {
            let tail: Vec<_> = said.lines().rev().take(6).collect();
            outcomes.push((0, format!("died: {status}: {tail:?}")));
        }
    }
    outcomes
}

/// A session with a video and an answer, saved.
fn saved(family: &str, folder: &Path) -> Parts {
    let clip = folder.join("clip");
    if !clip.exists() {
        std::fs::create_dir(&clip).expect("a folder");
        families::write_frames(&clip, (160, 120), 2);
    }
    let mut session = open(family);
    session.add_video(&clip, &VideoOptions::default(), &mut ()).expect("the frames are read");
    session.ask("What is it?", &mut ()).expect("an answer");
    let path = folder.join("good.session");
    session.save(&path).expect("saved");
    Parts::read(&path)
}

/// Where things stand in the state: the number of cells, the first cell, bytes of a cell, what is behind the cells.
struct State {
    count: usize,
    cells: usize,
    stride: usize,
    behind: usize,
}

impl State {
    fn of(family: &str, parts: &Parts) -> Self {
        let count = parts.memory() + 4;
        // Position, number of sequences, for positions of three parts three numbers more, the sequence.
        let stride = if family.starts_with("qwen2vl") { 24 } else { 12 };
        let cells = count + 4;
        let state = Self { count, cells, stride, behind: cells + stride * parts.number(count) };
        assert_eq!((parts.number(parts.memory()), parts.number(cells + 4)), (1, 1), "one stream, one sequence a cell");
        // Whether V is transposed, layers.
        assert!(parts.number(state.behind) <= 1 && parts.number(state.behind + 4) <= 8);
        state
    }
}

fn put(state: &mut [u8], at: usize, value: u32) {
    state[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// What a forger can write into the state that llama.cpp would believe, trip over, or refuse by itself.
fn forged_states(family: &str, parts: &Parts) -> Vec<(String, Vec<u8>)> {
    let at = State::of(family, parts);
    let n_cells = parts.number(at.count) as u32;
    let last = at.behind - at.stride;
    let mut forged = Vec::new();
    let mut word = |what: &str, place: usize, values: &[u32]| {
        for &value in values {
            let mut state = parts.state.clone();
            put(&mut state, place, value);
            if state != parts.state {
                forged.push((format!("{what} {value}"), state));
            }
        }
    };
    let any = [0, 1, 2, 3, 0x7f, 1000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX];
    word("streams", parts.memory(), &any);
    word("cells", at.count, &any);
    word("cells", at.count, &[n_cells - 1, n_cells + 1, 2 * n_cells]);
    for (which, cell) in [("first", at.cells), ("second", at.cells + at.stride), ("last", last)] {
        let positions = [n_cells / 2, 100_000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX];
        word(&format!("position of the {which} cell"), cell, &positions);
        word(&format!("sequences of the {which} cell"), cell + 4, &[0, 2, 3, 64, 0x7fff_ffff, u32::MAX]);
        word(&format!("sequence of the {which} cell"), cell + at.stride - 4, &[1, 63, 256, 0x7fff_ffff, u32::MAX]);
    }
    word("V transposed", at.behind, &any);
    word("layers", at.behind + 4, &any);
    word("K rotation", at.behind + 8, &any[1..]);
    word("V rotation", at.behind + 12, &any[1..]);
    word("type of K", at.behind + 16, &any);
    word("row of K", at.behind + 20, &any);
    word("row of K, high", at.behind + 24, &any);
    let mut twice = parts.state.clone();
    twice.copy_within(at.cells..at.cells + at.stride, at.cells + at.stride);
    forged.push(("a cell twice".into(), twice));
    for length in
        [0, 3, 4, at.count, at.cells + 1, at.behind, at.behind + 17, parts.state.len() / 2, parts.state.len() - 1]
    {
        forged.push((format!("only {length} bytes"), parts.state[..length].to_vec()));
    }
    for more in [1, 16, 100_000] {
        forged.push((format!("{more} bytes more"), [&parts.state[..], &vec![0; more]].concat()));
    }
    // A part as ours, which none was saved with.
    for length in [0_u64, 8, u64::MAX, parts.state.len() as u64] {
        let ours = [&parts.state[..], &[0; 24], &length.to_le_bytes(), b"sharpv\0\x01"].concat();
        forged.push((format!("a part of ours of {length} bytes"), ours));
    }
    forged
}

fn write_all(folder: &Path, files: impl Iterator<Item = Parts>) -> Vec<PathBuf> {
    let write = |(i, parts): (usize, Parts)| {
        let path = folder.join(format!("{i}.session"));
        parts.write(&path);
        path
    };
    files.enumerate().map(write).collect()
}

#[test]
fn a_forged_state_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    let mut n = 0;
    for family in FAMILIES {
        let good = saved(family, folder.path());
        let forged = forged_states(family, &good);
        let files = forged.iter().map(|(_, state)| Parts { state: state.clone(), ..good.clone() });
        let files = write_all(folder.path(), files.chain([good.clone()]));
        let mut outcomes = outcomes(family, &files, folder.path());
        let (_, unchanged) = outcomes.pop().expect("the good one");
        assert!(unchanged.starts_with("answered "), "{family}: {unchanged}");
        n += forged.len();
        for ((what, state), (peak, said)) in forged.iter().zip(outcomes) {
            // An empty one is a session without a cache, of which there are rows: the header's part.
            let told = said.starts_with("refused ") && (said.contains("cannot be restored") || state.is_empty());
            if !told || peak > MAX_PEAK {
                wrong.push(format!("{family}, {what}: {} MB: {said}", peak >> 20));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every value of the header, of lists the first, one in the middle and the last.
fn places(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        serde_json::Value::Array(items) => {
            let mut few = vec![0, items.len() / 2, items.len().saturating_sub(1)];
            few.dedup();
            few.iter().filter(|&&i| i < items.len()).for_each(|&i| places(&items[i], &format!("{at}/{i}"), found));
        }
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

#[test]
fn no_value_of_a_forged_header_does_harm() {
    use serde_json::json;
    let folder = tempfile::tempdir().expect("a folder");
    let every = std::env::var("SHARPV_TEST_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_usize);
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(i32::MAX),
        json!(i32::MIN),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(-0.5),
        json!(true),
        json!(""),
        json!("x"),
        json!("x".repeat(1 << 20)),
        json!("\u{0}\u{1b}[2J<|im_end|>"),
        json!([]),
        json!({}),
        json!([0]),
        json!([[0, 0, 0]]),
        json!(vec![0; 100_000]),
    ];
    let mut wrong = Vec::new();
    let (mut n, mut n_taken) = (0, 0);
    for family in FAMILIES {
        let good = saved(family, folder.path());
        let mut found = Vec::new();
        places(&good.header, "", &mut found);
        let mut forged = Vec::new();
        let mut random = Lcg(7);
        for place in &found {
            for value in &values {
                let mut parts = good.clone();
                if random.below(every) == 0 && parts.header.pointer(place) != Some(value) {
                    *parts.header.pointer_mut(place).expect("a place") = value.clone();
                    let shown: String = value.to_string().chars().take(40).collect();
                    forged.push((format!("{place} {shown}"), parts));
                }
            }
        }
        for batch in forged.chunks(200) {
            let files: Vec<_> = (0..batch.len()).map(|i| folder.path().join(format!("{i}.session"))).collect();
            batch.iter().zip(&files).for_each(|((_, parts), path)| parts.write_as_is(path));
            for ((what, _), (peak, said)) in batch.iter().zip(outcomes(family, &files, folder.path())) {
                n += 1;
                n_taken += usize::from(said.starts_with("answered "));
                let ended = ["refused ", "answered ", "failed "].iter().any(|start| said.starts_with(start));
                if !ended || peak > MAX_PEAK {
                    wrong.push(format!("{family}, {what}: {} MB: {said}", peak >> 20));
                }
            }
        }
    }
    println!("{n} headers, {n_taken} of them harmless");
    assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn random_bytes_in_a_forged_session_do_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let count = std::env::var("SHARPV_TEST_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(40_usize);
    let mut random = Lcg(std::env::var("SHARPV_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7));
    let mut wrong = Vec::new();
    for family in FAMILIES {
        let good = saved(family, folder.path());
        let behind = State::of(family, &good).behind + 64;
        // Our part stands at the end: six numbers, of what is in it, before its length and a mark.
        let end = good.state.len() - 16;
        let ours = end - u64::from_le_bytes(good.state[end..end + 8].try_into().expect("8 bytes")) as usize;
        let words = (0..6).flat_map(|word| [0, 1, 2, 7, 1000, 0x7fff_ffff, u32::MAX].map(|value| (word, value)));
        let counts = words.map(|(word, value)| {
            let mut parts = good.clone();
            put(&mut parts.state, ours + 4 * word, value);
            parts
        });
        let random: Vec<_> = (0..count)
            .map(|_| {
                let mut parts = good.clone();
                for _ in 0..1 + random.below(4) {
                    let (bytes, reach) = match random.below(5) {
                        0 => (&mut parts.embeddings, usize::MAX),
                        1 => (&mut parts.state, usize::MAX),
                        _ => (&mut parts.state, behind),
                    };
                    let at = random.below(bytes.len().min(reach));
                    match random.below(4) {
                        0 => bytes[at] ^= 1 << random.below(8),
                        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                        2 => {
                            let to = (at + 1 + random.below(64)).min(bytes.len());
                            bytes[at..to].fill_with(|| random.below(256) as u8);
                        }
                        _ => {
                            let to = (at + 1 + random.below(64)).min(bytes.len());
                            bytes.drain(at..to);
                        }
                    }
                }
                parts
            })
            .collect();
        let files = write_all(folder.path(), counts.chain(random));
        for (i, (peak, said)) in outcomes(family, &files, folder.path()).into_iter().enumerate() {
            let ended = ["refused ", "answered ", "failed "].iter().any(|start| said.starts_with(start));
            if !ended || peak > MAX_PEAK {
                wrong.push(format!("{family}, {i}: {} MB: {said}", peak >> 20));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
