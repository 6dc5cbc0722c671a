//! Model files with values at which llama.cpp ends the process, or which it silently accepts: each is rejected with one
//! line that names file and value.
//!
//! The files are those of the families with one value or name changed in place. A child process opens them, as a
//! failure would end it.

use crate::support::lcg::Lcg;
use crate::support::{families, gguf, memory, smol};

use sharpv::models::{self, ModelFiles};
use sharpv::{Session, SessionParams, VideoOptions};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The environment variable of the child: a model, its mmproj and a folder of frames.
const FILES: [&str; 3] = ["SHARPV_TEST_FILES_MODEL", "SHARPV_TEST_FILES_MMPROJ", "SHARPV_TEST_FILES_FRAMES"];

const FAMILIES: [&str; 8] =
    ["smolvlm", "internvl", "qwen2vl", "qwen2.5vl", "qwen3vl", "gemma3", "minicpmv", "llava-onevision"];

/// Longer than it takes to reject a file, or to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Not a test by itself: opens the files that other tests name.
#[test]
fn child() {
    let Some([model, mmproj, frames]) = FILES
        .map(std::env::var_os)
        .into_iter()
        .collect::<Option<Vec<OsString>>>()
        .and_then(|files| <[_; 3]>::try_from(files).ok())
    else {
        return;
    };
    let files =
        ModelFiles { name: "broken".into(), model: model.into(), mmproj: Some(mmproj.into()), lora: Vec::new() };
    match answer(&files, Path::new(&frames)) {
        Ok(()) => println!("answered"),
        Err(error) => println!("error: {error}"),
    }
}

/// The environment variable of the child that opens many files: a file with pairs of model and mmproj, one path per
/// line.
const LIST: &str = "SHARPV_TEST_FILES_LIST";

/// More memory than the fixtures take, or reading a file before it is rejected.
const MAX_PEAK: u64 = 2 << 30;

/// Not a test by itself: opens the files that another test lists.
#[test]
fn child_of_many() {
    let (Some(list), Some(frames)) = (std::env::var_os(LIST), std::env::var_os(FILES[2])) else { return };
    let list = std::fs::read_to_string(list).expect("a list");
    let lines: Vec<&str> = list.lines().collect();
    for (i, pair) in lines.chunks(2).enumerate() {
        println!("begin {i}");
        memory::reset_peak();
        let files =
            ModelFiles { name: "broken".into(), model: pair[0].into(), mmproj: Some(pair[1].into()), lora: Vec::new() };
        let checked = [pair[0], pair[1]].iter().try_for_each(|path| models::check(Path::new(path)));
        let said = match (checked, answer(&files, Path::new(&frames))) {
            (Err(error), Err(_)) => format!("refused {error}"),
            (Err(error), Ok(())) => format!("wrong: answered, though {error}"),
            (Ok(()), Err(error)) => format!("failed {error}"),
            (Ok(()), Ok(())) => "answered".to_owned(),
        };
        println!("end {i} {} {}", memory::peak(), said.replace('\n', " "));
    }
}

/// The result for each pair of files: the peak of memory, and the message. If the child crashes or takes too long,
/// another one continues with the next pair.
fn outcomes(pairs: &[[PathBuf; 2]], folder: &Path, frames: &Path) -> Vec<(u64, String)> {
    use std::io::{Read as _, Seek as _};
    let mut outcomes: Vec<(u64, String)> = Vec::new();
    while outcomes.len() < pairs.len() {
        let left = &pairs[outcomes.len()..];
        let list: String = left.iter().flatten().map(|path| format!("{}\n", path.display())).collect();
        let list_path = folder.join("list");
        std::fs::write(&list_path, list).expect("a list");
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "model_files::child_of_many", "--nocapture"]).env("GGML_NO_BACKTRACE", "1");
        let mut output = tempfile::tempfile().expect("a file");
        let both = || Stdio::from(output.try_clone().expect("a handle"));
        child.env(LIST, &list_path).env(FILES[2], frames).stdout(both()).stderr(both());
        let mut child = child.spawn().expect("it runs");
        let mut seen = (0, Instant::now());
        let status = loop {
            if let Some(status) = child.try_wait().expect("a status") {
                break status.to_string();
            }
            let length = output.metadata().expect("a file").len();
            if length != seen.0 {
                seen = (length, Instant::now());
            } else if seen.1.elapsed() > LIMIT {
                child.kill().and_then(|()| child.wait()).expect("it is killed");
                break format!("nothing for {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = Vec::new();
        output.rewind().and_then(|()| output.read_to_end(&mut said)).expect("what it said");
        let said = String::from_utf8_lossy(&said);
        for line in said.lines().filter_map(|line| line.strip_prefix("end ")) {
            let mut words = line.splitn(3, ' ').skip(1);
            let peak = words.next().and_then(|peak| peak.parse().ok()).expect("a peak");
            outcomes.push((peak, words.next().unwrap_or_default().to_owned()));
        }
        if outcomes.len() < pairs.len() {
            let tail: Vec<_> = said.lines().rev().take(8).collect();
            outcomes.push((0, format!("died: {status}: {tail:?}")));
        }
    }
    outcomes
}

fn answer(files: &ModelFiles, frames: &Path) -> sharpv::Result<()> {
    let mut params = SessionParams { n_predict: 2, ..SessionParams::default() };
    params.compute.n_threads = Some(1);
    params.vision.n_threads = Some(1);
    let mut session = Session::open(files, params, &mut ())?;
    session.add_video(
        frames,
        &VideoOptions { fps: Some(1.0), folder_fps: Some(1.0), ..VideoOptions::default() },
        &mut (),
    )?;
    session.ask("What is it?", &mut ()).map(|_| ())
}

/// How a child that opened `files` ended, and its output.
fn run(files: &ModelFiles, frames: &Path) -> (ExitStatus, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "model_files::child", "--nocapture"]).env("GGML_NO_BACKTRACE", "1");
    let paths = [&files.model, files.mmproj.as_ref().expect("an mmproj"), &frames.to_owned()];
    command.envs(FILES.into_iter().zip(paths));
    let output = tempfile::tempfile().expect("a file");
    let both = || Stdio::from(output.try_clone().expect("a handle"));
    let mut child = command.stdout(both()).stderr(both()).spawn().expect("it runs");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a status") {
            Some(status) => break status,
            None if start.elapsed() > LIMIT => {
                child.kill().expect("it is killed");
                break child.wait().expect("a status");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    use std::io::{Read as _, Seek as _};
    let (mut output, mut said) = (output, Vec::new());
    output.rewind().and_then(|()| output.read_to_end(&mut said)).expect("what it said");
    (status, String::from_utf8_lossy(&said).into_owned())
}

/// A value of fixed size, or the name of a tensor.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    /// The number of the value's type in GGUF; `None` for the name of a tensor.
    value: Option<u32>,
    at: usize,
    len: usize,
}

/// The places of values and names in a GGUF file of the fixtures.
struct Places<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Vec<Place>,
}

impl<'a> Places<'a> {
    /// The length of the header.
    fn header(bytes: &'a [u8]) -> usize {
        Self::read(bytes).at
    }

    fn of(bytes: &'a [u8]) -> Vec<Place> {
        Self::read(bytes).found
    }

    fn read(bytes: &'a [u8]) -> Self {
        let mut places = Self { bytes, at: 8, found: Vec::new() };
        let (n_tensors, n_values) = (places.number(8), places.number(8));
        for _ in 0..n_values {
            let name = places.string().0;
            let kind = places.number(4) as u32;
            let at = places.at;
            places.skip(kind);
            if kind != 8 && kind != 9 {
                places.found.push(Place { name, value: Some(kind), at, len: places.at - at });
            }
        }
        for _ in 0..n_tensors {
            let (name, at) = places.string();
            places.found.push(Place { len: name.len(), name, value: None, at });
            let n_dims = places.number(4) as usize;
            places.at += 8 * n_dims + 12;
        }
        places
    }

    fn number(&mut self, width: usize) -> u64 {
        self.at += width;
        self.bytes[self.at - width..self.at].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn string(&mut self) -> (String, usize) {
        let len = self.number(8) as usize;
        self.at += len;
        (String::from_utf8_lossy(&self.bytes[self.at - len..self.at]).into_owned(), self.at - len)
    }

    fn skip(&mut self, kind: u32) {
        match kind {
            8 => drop(self.string()),
            9 => {
                let (element, len) = (self.number(4) as u32, self.number(8));
                (0..len).for_each(|_| self.skip(element));
            }
            _ => self.at += [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][kind as usize],
        }
    }
}

/// A change in a file.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Int(u32),
    Float(f32),
    /// Another type of the same size.
    Type(u32),
    /// One letter of a tensor's name changes.
    Name,
}

impl Wrong {
    fn put(self, place: &Place, bytes: &mut [u8]) {
        if let Self::Type(kind) = self {
            bytes[place.at - 4..place.at].copy_from_slice(&kind.to_le_bytes());
        }
        let bytes = &mut bytes[place.at..place.at + place.len];
        match self {
            Self::Int(value) => bytes.copy_from_slice(&value.to_le_bytes()[..place.len]),
            Self::Float(value) => bytes.copy_from_slice(&value.to_le_bytes()),
            Self::Type(_) => (),
            Self::Name => bytes[place.len - 4] = b'x',
        }
    }
}

/// The files of a family, one of them with `wrong` at the place of `name`.
fn broken(family: &str, in_mmproj: bool, name: &str, wrong: Wrong, folder: &Path) -> (ModelFiles, PathBuf) {
    let mut files = families::files(family);
    let file = if in_mmproj { files.mmproj.as_mut().expect("an mmproj") } else { &mut files.model };
    let mut bytes = std::fs::read(&*file).expect("a fixture");
    let places = Places::of(&bytes);
    let place = places.iter().find(|place| place.name == name).unwrap_or_else(|| panic!("{family} has no {name}"));
    wrong.put(place, &mut bytes);
    *file = folder.join("broken.gguf");
    std::fs::write(&*file, bytes).expect("a file");
    let broken = file.clone();
    (files, broken)
}

fn frames() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    families::write_frames(folder.path(), (160, 120), 2);
    folder
}

#[test]
fn what_llama_cpp_would_die_of_is_told() {
    use Wrong::{Float, Int, Name, Type};
    const MAX: u32 = i32::MAX as u32;
    let mmproj = [
        ("internvl", "clip.vision.attention.head_count", Int(0)),
        ("internvl", "clip.vision.attention.head_count", Int(3)),
        ("internvl", "clip.vision.attention.head_count", Int(MAX)),
        ("internvl", "clip.vision.preproc_min_tiles", Int(0)),
        ("internvl", "clip.vision.preproc_min_tiles", Int(7)),
        ("internvl", "clip.vision.preproc_max_tiles", Int(0)),
        ("internvl", "clip.vision.preproc_max_tiles", Int(MAX)),
        ("internvl", "clip.vision.embedding_length", Int(3)),
        ("internvl", "clip.vision.projector.scale_factor", Int(3)),
        ("internvl", "clip.vision.image_size", Int(3)),
        ("internvl", "clip.vision.image_size", Int(0)),
        ("internvl", "clip.vision.patch_size", Int(0)),
        ("internvl", "clip.vision.attention.layer_norm_epsilon", Float(-1e38)),
        ("internvl", "clip.vision.attention.layer_norm_epsilon", Float(f32::NAN)),
        ("internvl", "clip.vision.block_count", Int(0)),
        ("internvl", "clip.vision.block_count", Int(MAX)),
        ("internvl", "clip.vision.image_size", Type(6)),
        ("internvl", "clip.vision.attention.layer_norm_epsilon", Type(4)),
        ("internvl", "clip.use_gelu", Type(0)),
        ("smolvlm", "clip.vision.attention.head_count", Int(0)),
        ("smolvlm", "clip.vision.projector.scale_factor", Int(3)),
        ("smolvlm", "clip.vision.image_size", Int(0)),
        ("smolvlm", "clip.vision.image_size", Int(3)),
        ("smolvlm", "clip.vision.embedding_length", Int(3)),
        ("smolvlm", "clip.vision.preproc_image_size", Int(MAX)),
        ("qwen2vl", "clip.vision.attention.head_count", Int(0)),
        ("qwen2vl", "clip.vision.spatial_merge_size", Int(3)),
        ("qwen2vl", "clip.vision.patch_size", Int(3)),
        ("qwen2.5vl", "clip.vision.projection_dim", Int(3)),
        ("qwen3vl", "clip.vision.patch_size", Int(2)),
        ("qwen3vl", "clip.vision.block_count", Int(2)),
        ("gemma3", "clip.vision.image_size", Int(3)),
        ("minicpmv", "clip.minicpmv_query_num", Int(3)),
        ("minicpmv", "clip.vision.image_size", Int(4097)),
        ("llava-onevision", "clip.vision.attention.head_count", Int(5)),
        ("smolvlm", "v.blk.1.attn_k.weight", Name),
        ("smolvlm", "v.blk.1.attn_k.bias", Name),
        ("qwen2vl", "v.blk.0.attn_q.bias", Name),
        ("qwen2.5vl", "v.post_ln.weight", Name),
        ("internvl", "v.blk.2.ffn_up.bias", Name),
        ("internvl", "v.patch_embd.weight", Name),
        ("internvl", "v.position_embd.weight", Name),
        ("qwen3vl", "v.deepstack.1.fc2.bias", Name),
        ("llava-onevision", "mm.2.weight", Name),
    ];
    let model = [
        ("smolvlm", "llama.block_count", Int(0)),
        ("smolvlm", "llama.block_count", Int(MAX)),
        ("smolvlm", "llama.block_count", Int(u32::MAX)),
        ("smolvlm", "llama.attention.layer_norm_rms_epsilon", Float(-1e38)),
        ("smolvlm", "llama.attention.layer_norm_rms_epsilon", Float(f32::INFINITY)),
        ("smolvlm", "llama.context_length", Int(u32::MAX)),
        ("smolvlm", "llama.context_length", Int(0)),
        ("smolvlm", "tokenizer.ggml.bos_token_id", Int(MAX)),
        ("smolvlm", "tokenizer.ggml.eos_token_id", Int(369)),
        ("internvl", "qwen2.attention.head_count", Int(1)),
        ("internvl", "qwen2.rope.dimension_count", Int(30)),
        ("internvl", "qwen2.rope.dimension_count", Int(0)),
        ("gemma3", "gemma3.rope.dimension_count", Int(7)),
        ("gemma3", "gemma3.rope.freq_base_swa", Float(f32::INFINITY)),
        ("gemma3", "gemma3.attention.sliding_window", Int(u32::MAX)),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let frames = frames();
    let cases = mmproj.map(|case| (true, case)).into_iter().chain(model.map(|case| (false, case)));
    let failures: Vec<_> = cases
        .filter_map(|(in_mmproj, (family, name, wrong))| {
            let (files, _) = broken(family, in_mmproj, name, wrong, folder.path());
            let (status, said) = run(&files, frames.path());
            let told = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
            // The message names a tensor by its original name, and a value by its key.
            let ok = status.success() && told.contains("broken.gguf") && told.contains(name);
            (!ok)
                .then(|| format!("{family} {name} {wrong:?}: {status}: {}", if told.is_empty() { &said } else { told }))
        })
        .collect();
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn no_value_and_no_name_ends_the_process() {
    let count = std::env::var("SHARPV_TEST_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    let mut random = Lcg(std::env::var("SHARPV_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7));
    let folder = tempfile::tempdir().expect("a folder");
    let frames = frames();
    let mut failures = Vec::new();
    for _ in 0..count {
        let family = FAMILIES[random.below(FAMILIES.len())];
        let in_mmproj = random.below(3) > 0;
        let files = families::files(family);
        let bytes = std::fs::read(if in_mmproj { files.mmproj.as_ref().expect("an mmproj") } else { &files.model });
        let mut places = Places::of(&bytes.expect("a fixture"));
        let names = random.below(4) == 0;
        places.retain(|place| place.value.is_none() == names && (names || place.len == 4));
        let place = &places[random.below(places.len())];
        let wrong = match place.value {
            None => Wrong::Name,
            Some(6) => Wrong::Float([0.0, -1.0, -1e38, 1e38, f32::NAN, f32::INFINITY, 1e-30][random.below(7)]),
            Some(_) => {
                let any =
                    [0, 1, 2, 3, 5, 7, 16, 33, 64, 100, 255, 1000, 4097, 65_536, 1 << 24, i32::MAX as u32, u32::MAX];
                Wrong::Int(any[random.below(any.len())])
            }
        };
        let (files, _) = broken(family, in_mmproj, &place.name, wrong, folder.path());
        let (status, said) = run(&files, frames.path());
        let said = said
            .lines()
            .find(|line| line.starts_with("error: ") || *line == "answered")
            .map_or(said.clone(), str::to_owned);
        if std::env::var_os("SHARPV_TEST_SEED").is_some() {
            println!("{family} {} {wrong:?}: {status}: {said}", place.name);
        }
        if !status.success() {
            failures.push(format!("{family} {} {wrong:?}: {status}: {said}", place.name));
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// Random changes of a value or any byte in a header: numbers, lengths, counts, types, names, shapes, offsets.
fn change(bytes: &mut Vec<u8>, header: usize, random: &mut Lcg) {
    if random.below(2) == 0 {
        let places = Places::of(bytes);
        let place = &places[random.below(places.len())];
        let small = [0, 1, 2, 3, 5, 7, 8, 16, 33, 64, 100, 255, 1000, 4097, 65_536, 1 << 24][random.below(16)];
        let number = if random.below(3) == 0 {
            [i32::MAX as u64, u64::from(u32::MAX), u64::MAX][random.below(3)]
        } else {
            small
        };
        let float = [0.0, -1.0, -1e38, 1e38, f32::NAN, f32::INFINITY, 1e-30][random.below(7)];
        match place.value {
            None => bytes[place.at + random.below(place.len)] = b'x',
            Some(6) => bytes[place.at..place.at + 4].copy_from_slice(&f32::to_le_bytes(float)),
            Some(_) => bytes[place.at..place.at + place.len].copy_from_slice(&number.to_le_bytes()[..place.len]),
        }
        return;
    }
    for _ in 0..1 + random.below(3) {
        // In a small file, the descriptions of tensors are the second half of the header.
        let at = if random.below(3) == 0 { random.below(256) } else { random.below(header) }.min(bytes.len() - 9);
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff][random.below(6)],
            2 => bytes[at] = random.below(256) as u8,
            3 => bytes[at..at + 4].fill([0, 0xff][random.below(2)]),
            4 => bytes[at..at + 8].fill([0, 0x7f, 0xff][random.below(3)]),
            5 => {
                let value = [1_u64 << 20, 1 << 32, 1 << 40, 1 << 62, i64::MAX as u64, u64::MAX][random.below(6)];
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            _ => bytes.truncate(at + 9 + random.below(bytes.len() - at - 9)),
        }
        if bytes.len() < 300 {
            return;
        }
    }
}

#[test]
fn no_changed_header_ends_the_process() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
    let count = number("SHARPV_TEST_HEADERS").unwrap_or(300);
    let mut random = Lcg(number("SHARPV_TEST_SEED").unwrap_or(7) as u64);
    let folder = tempfile::tempdir().expect("a folder");
    let frames = frames();
    let (mut wrong, mut tally, mut peak) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new(), 0);
    let mut done = 0;
    while done < count {
        let n = (count - done).min(100);
        let pairs: Vec<_> = (0..n)
            .map(|i| {
                let family = FAMILIES[random.below(FAMILIES.len())];
                let mut files = families::files(family);
                let file =
                    if random.below(2) == 0 { files.mmproj.as_mut().expect("an mmproj") } else { &mut files.model };
                let mut bytes = std::fs::read(&*file).expect("a fixture");
                let header = Places::header(&bytes);
                change(&mut bytes, header, &mut random);
                *file = folder.path().join(format!("{family}-{i}.gguf"));
                std::fs::write(&*file, bytes).expect("a file");
                [files.model, files.mmproj.expect("an mmproj")]
            })
            .collect();
        for (pair, (took, said)) in pairs.iter().zip(outcomes(&pairs, folder.path(), frames.path())) {
            peak = peak.max(took);
            let word = said.split(' ').next().unwrap_or_default().to_owned();
            let good = ["refused", "failed", "answered"].contains(&word.as_str()) && took < MAX_PEAK;
            *tally.entry(word).or_default() += 1;
            if !good {
                let broken = pair.iter().find(|path| path.starts_with(folder.path())).expect("one is broken");
                if let Some(keep) = std::env::var_os("SHARPV_TEST_KEEP") {
                    let name = format!("{}-{}", done, broken.file_name().expect("a name").to_string_lossy());
                    std::fs::copy(broken, Path::new(&keep).join(name)).expect("a copy");
                }
                wrong.push(format!("{}: {} MB: {said}", broken.display(), took >> 20));
            }
        }
        done += n;
    }
    println!("{tally:?}, peak {} MB", peak >> 20);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The original that a file names must not become part of a path.
#[test]
fn a_copy_of_what_is_no_digest_is_refused() {
    const KEY: &str = "sharpv.copy_of";
    let folder = tempfile::tempdir().expect("a folder");
    let files = families::files("internvl");
    let path = folder.path().join("copy.gguf");
    let look_at = |source: &Path, change: &dyn Fn(&[u8]) -> Vec<u8>| {
        std::fs::write(&path, change(&std::fs::read(source).expect("a fixture"))).expect("a file");
        let copy = ModelFiles { model: path.clone(), ..ModelFiles::default() };
        (models::check(&path), models::digest(&copy))
    };
    let good = "0123456789abcdef0123456789abcdef";
    let upper = good.to_uppercase();
    for source in [&files.model, files.mmproj.as_ref().expect("an mmproj")] {
        let (checked, digest) = look_at(source, &|file| gguf::with_text(file, KEY, good));
        checked.expect("a copy");
        assert_eq!(&*digest.expect("a digest"), good);
        for bad in
            ["/etc", "../../../../../../../../../../etc", "", &good[1..], &upper, "0123456789abcdef/123456789abcdef"]
        {
            let (checked, digest) = look_at(source, &|file| gguf::with_text(file, KEY, bad));
            for error in [checked.expect_err(bad).to_string(), digest.expect_err(bad).to_string()] {
                let expected = format!("sharpv.copy_of is {bad:?}, but must be 32 hexadecimal digits");
                assert!(error.contains(&expected) && error.contains("copy.gguf"), "{error}");
            }
        }
        let (checked, digest) = look_at(source, &|file| gguf::with_number(file, KEY, 7));
        assert!(checked.is_err() && digest.is_err());
    }
}

/// A header that claims more parts than memory can hold names.
#[test]
fn a_model_of_billions_of_parts_is_one_of_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = std::fs::read(families::files("internvl").model).expect("a fixture");
    let path = folder.path().join("a-00001-of-4000000000.gguf");
    std::fs::write(&path, gguf::with_number(&file, "split.count", 4_000_000_000)).expect("a file");
    let files = ModelFiles { model: path, ..ModelFiles::default() };
    assert_eq!(models::digest(&files).expect("a digest").len(), 32);
}

#[test]
fn what_is_whole_is_taken() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut checked = 0;
    for folder in [families::folder(), fixtures] {
        for entry in folder.read_dir().expect("the fixtures") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "gguf") {
                models::check(&path).unwrap_or_else(|error| panic!("{error}"));
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "{checked}");
    let smol = smol::files();
    for path in [&smol.model].into_iter().chain(&smol.mmproj).chain(&smol.lora) {
        models::check(path).unwrap_or_else(|error| panic!("{error}"));
    }
}
