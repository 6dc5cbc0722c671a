//! Model files with values that llama.cpp ends the process over, or takes without a word: each is refused in one line
//! that names file and value.
//!
//! The files are those of the families with a value or a name changed in place. They are opened in a child process,
//! since what is tested is that it does not die.

use crate::support::{families, smol};

use sharpv::models::{self, ModelFiles};
use sharpv::{Session, SessionParams, VideoOptions};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// In the environment of the child: a model, its mmproj and a folder of frames.
const FILES: [&str; 3] = ["SHARPV_TEST_FILES_MODEL", "SHARPV_TEST_FILES_MMPROJ", "SHARPV_TEST_FILES_FRAMES"];

/// Longer than any file takes to be refused, or to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Not a test of its own: it opens the files that the others name.
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

/// How a child ended that opened `files`, and what it said.
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

/// A value that takes a fixed number of bytes, or a tensor's name.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    /// GGUF's number for the type of a value; none for a tensor's name.
    value: Option<u32>,
    at: usize,
    len: usize,
}

/// What stands where in a GGUF file of ours.
struct Places<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Vec<Place>,
}

impl<'a> Places<'a> {
    fn of(bytes: &'a [u8]) -> Vec<Place> {
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
        places.found
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

/// What stands in a file in place of what should.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Int(u32),
    Float(f32),
    /// Another type, of values as wide.
    Type(u32),
    /// One letter of a tensor's name is another.
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
            // A tensor is named by what it was called, a value by its key.
            let ok = status.success() && told.contains("broken.gguf") && told.contains(name);
            (!ok)
                .then(|| format!("{family} {name} {wrong:?}: {status}: {}", if told.is_empty() { &said } else { told }))
        })
        .collect();
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// Numbers that look random.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn no_value_and_no_name_ends_the_process() {
    let count = std::env::var("SHARPV_TEST_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    let mut random = Lcg(std::env::var("SHARPV_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7));
    let folder = tempfile::tempdir().expect("a folder");
    let frames = frames();
    let mut failures = Vec::new();
    for _ in 0..count {
        let family =
            ["smolvlm", "internvl", "qwen2vl", "qwen2.5vl", "qwen3vl", "gemma3", "minicpmv", "llava-onevision"]
                [random.below(8)];
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
