//! Forged saved sessions with a correct checksum. Each must be rejected before llama.cpp reads its state, or do no
//! harm.
//!
//! A child process loads the files, because the tests check that it does not crash.

use crate::support::families;
use crate::support::lcg::Lcg;
use crate::support::memory::{peak, reset_peak};
use crate::support::saved_session::Parts;

use sharpv::chat::{EvictMode, EvictParams};
use sharpv::{Session, SessionParams, VideoOptions};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Environment variables of the child: the family of its model, a file that lists sessions, one per line, and a folder
/// of frames.
const FAMILY: &str = "SHARPV_TEST_FORGED_FAMILY";
const LIST: &str = "SHARPV_TEST_FORGED_LIST";
const CLIP: &str = "SHARPV_TEST_FORGED_CLIP";

/// A suffix of a family's name: its sessions evict all layers but one.
const EVICTS: &str = "+evicts";

/// Longer than any file takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// More memory than any of them needs.
const MAX_PEAK: u64 = 600 << 20;

/// Plain attention, M-RoPE, a sliding window.
const FAMILIES: [&str; 3] = ["smolvlm", "qwen2vl", "gemma3"];

fn open(family: &str) -> Session {
    let name = family.trim_end_matches(EVICTS);
    let mut params = SessionParams { n_predict: 3, ..SessionParams::default() };
    if name != family {
        params.evict = EvictParams { mode: Some(EvictMode::Layers), threshold: Some(1.0), early: false };
    }
    params.compute.n_threads = Some(1);
    params.vision.n_threads = Some(1);
    Session::open(&families::files(name), params, &mut ()).expect("the fixture opens")
}

/// Not a test: loads the files that the tests list, and asks a question.
#[test]
fn child() {
    let (Some(family), Some(list)) = (std::env::var_os(FAMILY), std::env::var_os(LIST)) else { return };
    let list = std::fs::read_to_string(list).expect("a list");
    let family = family.to_str().expect("a name");
    let clip = PathBuf::from(std::env::var_os(CLIP).expect("a clip"));
    let mut session = open(family);
    // Adds something new to evict in the sessions that evict.
    let go_on = |session: &mut Session| {
        if family.ends_with(EVICTS) {
            session.add_video(&clip, &VideoOptions::default(), &mut ())?;
        }
        session.ask("And then?", &mut ())
    };
    for (i, path) in list.lines().enumerate() {
        println!("begin {i}");
        reset_peak();
        let said = match session.load(Path::new(path)) {
            Err(error) => format!("refused {error}"),
            Ok(()) => match go_on(&mut session) {
                Ok(answer) => format!("answered {} rows", answer.tokens.prompt),
                Err(error) => format!("failed {error}"),
            },
        };
        println!("end {i} {} {}", peak(), said.replace('\n', " "));
    }
}

/// Loads `files` in children. Returns the peak of memory and the outcome for each.
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
        child.env(FAMILY, family).env(LIST, &list_path).env(CLIP, folder.join("clip")).stdout(both()).stderr(both());
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

/// Saves a session with a video and an answer.
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

/// Offsets in the state: the number of cells, the first cell, the bytes of a cell, what follows the cells.
struct State {
    count: usize,
    cells: usize,
    stride: usize,
    behind: usize,
}

impl State {
    fn of(family: &str, parts: &Parts) -> Self {
        let count = parts.memory() + 4;
        // Position, number of sequences, three more numbers with M-RoPE, the sequence.
        let stride = if family.starts_with("qwen2vl") { 24 } else { 12 };
        let cells = count + 4;
        let state = Self { count, cells, stride, behind: cells + stride * parts.number(count) };
        assert_eq!((parts.number(parts.memory()), parts.number(cells + 4)), (1, 1), "one stream, one sequence a cell");
        // Whether V is transposed, and the number of layers.
        assert!(parts.number(state.behind) <= 1 && parts.number(state.behind + 4) <= 8);
        state
    }
}

fn put(state: &mut [u8], at: usize, value: u32) {
    state[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// States that llama.cpp would trust, fail on, or reject itself.
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
    // Something like our part, which no session here was saved with.
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
            // An empty state means a session without a cache, but the header has rows.
            let told = said.starts_with("refused ") && (said.contains("cannot be restored") || state.is_empty());
            if !told || peak > MAX_PEAK {
                wrong.push(format!("{family}, {what}: {} MB: {said}", peak >> 20));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The path of every value in the header; in lists, of the first, the middle and the last one.
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
        // Our part is at the end, before its length and a mark. It begins with six numbers.
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

/// Our part of a state, which follows llama.cpp's: six numbers, the evicted layers, the cells, and for each evicted
/// layer the rows of keys and of values.
#[derive(Clone)]
struct Ours {
    /// Version, layers of the model, cells, cells with a row, whether V is transposed, evicted layers.
    numbers: [u32; 6],
    layers: Vec<u32>,
    /// Flags (1 visual, 2 measured, 4 has a row), and the rest: the rank in order of arrival, and the similarities.
    cells: Vec<(u8, Vec<u8>)>,
    blocks: Vec<Block>,
}

/// `lines` of an element of `size` bytes for each cell with a row.
#[derive(Clone)]
struct Block {
    kind: u32,
    size: u64,
    lines: u64,
    data: Vec<u8>,
}

const MEASURED: u8 = 2;
const HAS_ROW: u8 = 4;

impl Ours {
    /// Parses our part of a state. Returns where it begins, too.
    fn of(state: &[u8]) -> (Self, usize) {
        let end = state.len() - 16;
        let start = end - u64::from_le_bytes(state[end..end + 8].try_into().expect("8 bytes")) as usize;
        let mut rest = &state[start..end];
        let mut take = |n: usize| {
            let (bytes, left) = rest.split_at(n);
            rest = left;
            bytes.to_vec()
        };
        let word = |bytes: Vec<u8>| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        let long = |bytes: Vec<u8>| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let numbers = std::array::from_fn(|_| word(take(4)));
        let [_, n_layer, n_cells, n_rows, _, n_evicted] = numbers;
        let layers = (0..n_evicted).map(|_| word(take(4))).collect();
        let cells = (0..n_cells).map(|_| {
            let flags = take(1)[0];
            (flags, take(4 + if flags & MEASURED > 0 { 4 * n_layer as usize } else { 0 }))
        });
        let cells = cells.collect();
        let blocks = (0..2 * n_evicted).map(|_| {
            let (kind, size, lines) = (word(take(4)), long(take(8)), long(take(8)));
            Block { kind, size, lines, data: take((u64::from(n_rows) * size * lines) as usize) }
        });
        let blocks = blocks.collect();
        assert!(rest.is_empty(), "all of it is known");
        (Self { numbers, layers, cells, blocks }, start)
    }

    /// Removes the row of the `i`th cell, or adds one of zeros if it has none.
    fn toggle_row(&mut self, i: usize) {
        let n_rows = self.numbers[3] as usize;
        let row = self.cells[..i].iter().filter(|(flags, _)| flags & HAS_ROW > 0).count();
        let has = self.cells[i].0 & HAS_ROW > 0;
        self.cells[i].0 ^= HAS_ROW;
        self.numbers[3] = if has { n_rows - 1 } else { n_rows + 1 } as u32;
        for block in &mut self.blocks {
            let (size, lines) = (block.size as usize, block.lines as usize);
            for line in (0..lines).rev() {
                let at = (line * n_rows + row) * size;
                block.data.splice(at..at + if has { size } else { 0 }, vec![0; if has { 0 } else { size }]);
            }
        }
    }

    /// Returns a state that begins with `theirs`.
    fn behind(&self, theirs: &[u8]) -> Vec<u8> {
        let mut ours: Vec<u8> = self.numbers.iter().chain(&self.layers).flat_map(|n| n.to_le_bytes()).collect();
        self.cells.iter().for_each(|(flags, measured)| ours.extend([&[*flags], &measured[..]].concat()));
        for Block { kind, size, lines, data } in &self.blocks {
            ours.extend([&kind.to_le_bytes()[..], &size.to_le_bytes(), &lines.to_le_bytes(), data].concat());
        }
        let length = (ours.len() as u64).to_le_bytes();
        [theirs, &ours, &length, b"sharpv\0\x01"].concat()
    }
}

/// Eviction relies on text having rows in all layers.
#[test]
fn a_forged_part_of_evicted_layers_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    // The tiny model with a sliding window has only one layer without a window, which keeps its cells.
    for family in ["smolvlm", "qwen2vl"].map(|family| format!("{family}{EVICTS}")) {
        let good = saved(&family, folder.path());
        let (ours, start) = Ours::of(&good.state);
        let theirs = &good.state[..start];
        assert_eq!(ours.behind(theirs), good.state, "{family}");
        let text =
            |ours: &Ours| -> Vec<usize> { (0..ours.cells.len()).filter(|&i| ours.cells[i].0 == HAS_ROW).collect() };
        let places = text(&ours);
        assert!(!ours.layers.is_empty() && places.len() > 3 && places.len() < ours.cells.len(), "{family}");
        let mut forged: Vec<(&str, Ours)> = Vec::new();
        let mut forge = |what, change: &dyn Fn(&mut Ours)| {
            let mut changed = ours.clone();
            change(&mut changed);
            forged.push((what, changed));
        };
        forge("the first row of text is missing", &|ours| ours.toggle_row(places[0]));
        forge("the last row of text is missing", &|ours| ours.toggle_row(places[places.len() - 1]));
        forge("no text has rows", &|ours| places.iter().for_each(|&i| ours.toggle_row(i)));
        forge("text was measured", &|ours| {
            let measured = vec![0; 4 * ours.numbers[1] as usize];
            let (flags, rest) = &mut ours.cells[places[0]];
            *flags |= MEASURED;
            rest.extend(measured);
        });
        forge("an unknown flag", &|ours| ours.cells[places[0]].0 |= 8);
        forge("no layers, but rows", &|ours| {
            ours.numbers[5] = 0;
            ours.layers.clear();
            ours.blocks.clear();
        });
        forge("neither layers nor rows", &|ours| {
            ours.cells.iter_mut().for_each(|(flags, _)| *flags &= !HAS_ROW);
            (ours.numbers[3], ours.numbers[5]) = (0, 0);
            ours.layers.clear();
            ours.blocks.clear();
        });
        forge("bytes behind it", &|ours| ours.blocks.last_mut().expect("a layer").data.extend([0; 4]));
        forge("a cell less", &|ours| {
            ours.cells.pop();
            ours.numbers[2] -= 1;
        });
        forge("a layer that is not there", &|ours| ours.layers[0] = 1000);
        // A visual token may have a row: one that was computed after the eviction has.
        let visual = (0..ours.cells.len()).find(|&i| ours.cells[i].0 & 5 == 1).expect("a visual token without a row");
        forge("a row of a visual token more", &|ours| ours.toggle_row(visual));
        let n_refused = forged.len() - 1;
        let states = forged.iter().map(|(_, ours)| Parts { state: ours.behind(theirs), ..good.clone() });
        let files = write_all(folder.path(), states.chain([good.clone()]));
        let outcomes = outcomes(&family, &files, folder.path());
        for (i, (peak, said)) in outcomes.iter().enumerate() {
            let expected = if i < n_refused { "refused " } else { "answered " };
            let told = said.starts_with(expected) && (i >= n_refused || said.contains("cannot be restored"));
            if !told || *peak > MAX_PEAK {
                let what = forged.get(i).map_or("as it was saved", |(what, _)| what);
                wrong.push(format!("{family}, {what}: {} MB: {said}", peak >> 20));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
