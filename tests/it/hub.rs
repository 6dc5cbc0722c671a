//! Models from a hub: the choice of files, downloads, and errors. The hub is a server in this process.
#![cfg(feature = "cli")]

use crate::support::tls::{Authority, Proxy, TlsServer};
use crate::support::{gguf, hub_server, smol};

use assert_cmd::Command;
use hub_server::{Fault, HubServer, sha256};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::Value;
use sharpv::Error;
use sharpv::Observer;
use sharpv::error::RemoteKind;
use sharpv::models::hub::{Hub, HubSpec, Wish};
use sharpv::models::{ModelFiles, Origin};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const REPO: &str = "org/Tiny-GGUF";
const MODEL: &str = "Tiny-Q8_0.gguf";
const MMPROJ: &str = "mmproj-Tiny-f16.gguf";

/// The variables that set certificate authorities.
const AUTHORITIES: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Models without a projector are accepted.
const BLIND: Wish = Wish { memory: None, mmproj: false };

fn within(memory: Option<u64>) -> Wish {
    Wish { memory, ..Wish::default() }
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn mmproj() -> Vec<u8> {
    // Begins like a projector; the rest is not read.
    match sharpv::models::known()[0].mmproj.origin {
        Origin::Assembled(_, Some(recipe)) => recipe.own.to_vec(),
        ref other => panic!("{other:?}"),
    }
}

/// A hub with one repository, and an empty cache.
struct Setup {
    server: HubServer,
    home: TempDir,
}

impl Setup {
    fn new() -> Self {
        let server = HubServer::start();
        server.publish(REPO, &[("README.md", b"# Tiny".to_vec()), (MODEL, fixture("llama.gguf")), (MMPROJ, mmproj())]);
        Self { server, home: TempDir::new().expect("a temporary folder") }
    }

    fn cache(&self) -> PathBuf {
        self.home.path().join("hub")
    }

    fn hub(&self) -> Hub {
        Hub::at(self.cache()).with_endpoint(&self.server.endpoint)
    }

    fn pull(&self, name: &str) -> Result<ModelFiles, Error> {
        self.hub().pull(&spec(name), Wish::default(), &mut ())
    }

    fn error(&self, name: &str) -> String {
        self.pull(name).expect_err("it cannot be pulled").to_string()
    }

    /// The program with this hub and this cache, without other settings of the user.
    fn sharpv(&self, args: &[&str]) -> Command {
        let mut command = Command::from_std(self.std_command(args));
        command.timeout(Duration::from_secs(120));
        command
    }

    fn std_command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sharpv"));
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "SHARPV_LOG"] {
            command.env_remove(name);
        }
        for name in ["all_proxy", "https_proxy", "http_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        for name in AUTHORITIES {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.server.endpoint).args(args);
        command
    }

    fn folder(&self) -> PathBuf {
        self.cache().join("models--org--Tiny-GGUF")
    }

    fn blob(&self, content: &[u8]) -> PathBuf {
        self.folder().join("blobs").join(sha256(content))
    }

    fn part(&self, content: &[u8]) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.part", sha256(content)))
    }
}

fn spec(name: &str) -> HubSpec {
    HubSpec::parse(name).unwrap_or_else(|| panic!("{name} is a name"))
}

fn ranges(server: &HubServer, file: &str) -> Vec<Option<String>> {
    server.content_requests(file).iter().map(|request| request.header("range").map(str::to_owned)).collect()
}

/// Records messages.
#[derive(Default)]
struct Messages(Vec<String>);

impl Observer for Messages {
    fn message(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

// --- downloads --------------------------------------------------------------------------------------

#[test]
fn model_and_projector_are_fetched_once_into_the_shared_cache() {
    let setup = Setup::new();
    let files = setup.pull(REPO).unwrap();
    let snapshot = setup.folder().join("snapshots").join(&setup.server.state().commit);
    assert_eq!(files.name, "org/Tiny-GGUF:Q8_0");
    assert_eq!((&files.model, files.mmproj.as_ref()), (&snapshot.join(MODEL), Some(&snapshot.join(MMPROJ))));
    assert_eq!(fs::read(&files.model).unwrap(), fixture("llama.gguf"));
    assert_eq!(fs::read(snapshot.join(MMPROJ)).unwrap(), mmproj());
    // As the hub's own tools do: contents by checksum, relative links, the commit without a line break.
    #[cfg(unix)]
    assert_eq!(fs::read_link(&files.model).unwrap(), Path::new("../../blobs").join(sha256(&fixture("llama.gguf"))));
    assert_eq!(fs::read_to_string(setup.folder().join("refs/main")).unwrap(), setup.server.state().commit);
    assert!(!setup.part(&fixture("llama.gguf")).exists());
    assert_eq!(setup.server.content_requests("README.md").len(), 0);

    let mut messages = Messages::default();
    let again = setup.hub().pull(&spec(REPO), Wish::default(), &mut messages).unwrap();
    assert_eq!(again, files);
    assert_eq!(setup.server.content_requests(MODEL).len(), 1, "what is here is not fetched again");
    assert_eq!(
        messages.0.iter().filter(|text| text.contains("already here and intact")).count(),
        2,
        "{:?}",
        messages.0
    );
    assert_eq!(setup.hub().cached(), [files]);
}

#[test]
fn a_new_commit_reuses_contents_that_stayed() {
    let setup = Setup::new();
    setup.pull(REPO).unwrap();
    setup.server.state().commit = "fedcba9876543210fedcba9876543210fedcba98".into();
    setup.server.publish(REPO, &[(MODEL, fixture("qwen2.gguf")), (MMPROJ, mmproj())]);
    let files = setup.pull(REPO).unwrap();
    assert_eq!(fs::read(&files.model).unwrap(), fixture("qwen2.gguf"));
    assert_eq!(fs::read(files.mmproj.unwrap()).unwrap(), mmproj());
    let fetched = [MODEL, MMPROJ].map(|file| setup.server.content_requests(file).len());
    assert_eq!(fetched, [2, 1]);
}

#[test]
fn a_split_model_comes_with_all_its_parts() {
    let setup = Setup::new();
    let part = |number: usize| format!("Q4_K_M/Big-Q4_K_M-0000{number}-of-00003.gguf");
    let files: Vec<(String, Vec<u8>)> = (1..=3).map(|n| (part(n), vec![n as u8; 1000 * n])).collect();
    let mut published: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    published.push(("mmproj.gguf", mmproj()));
    setup.server.publish("org/Big", &published);
    let pulled = setup.pull("org/Big").unwrap();
    assert!(pulled.model.ends_with(part(1)), "{:?}", pulled.model);
    for (path, bytes) in &files {
        let name = Path::new(path).file_name().expect("a name");
        assert_eq!(&fs::read(pulled.model.with_file_name(name)).unwrap(), bytes);
    }
    assert_eq!(setup.hub().find(&spec("org/Big"), Wish::default()), Some(pulled.clone()));

    fs::remove_file(pulled.model.with_file_name("Big-Q4_K_M-00002-of-00003.gguf")).unwrap();
    assert_eq!(setup.hub().find(&spec("org/Big"), Wish::default()), None, "a part is missing");
    published.remove(1);
    setup.server.publish("org/Big", &published);
    assert!(setup.error("org/Big").contains("org/Big: parts of its language model are missing: Q4_K_M (2 of 3 parts)"));
}

#[test]
fn the_quantization_is_named_or_chosen_by_memory() {
    let setup = Setup::new();
    let sized = |megabytes: usize| vec![b'w'; megabytes << 20];
    setup.server.publish(
        "org/M",
        &[
            ("M-Q4_K_M.gguf", sized(5)),
            ("M-Q8_0.gguf", sized(9)),
            ("M-Q2_K.gguf", sized(3)),
            ("M-imatrix.gguf", sized(1)),
            ("mmproj-M-BF16.gguf", sized(1)),
            ("mmproj-M-Q8_0.gguf", vec![b'p'; 10]),
        ],
    );
    let pulled = |name: &str, memory: Option<u64>| {
        let mut messages = Messages::default();
        let files = setup.hub().pull(&spec(name), within(memory), &mut messages)?;
        Ok::<_, Error>((files.name, messages.0[0].clone()))
    };
    // Memory suffices for all: 8 bits, as the model is small.
    let (name, said) = pulled("org/M", Some(1 << 40)).unwrap();
    assert_eq!(name, "org/M:Q8_0");
    for part in [
        "org/M: Q8_0 (9.44 MB) with mmproj-M-BF16.gguf (1.05 MB): the usual choice, and it fits",
        "sharpv pull org/M:Q4_K_M",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let mebibytes = |n: u64| Some(n << 20);
    assert_eq!(pulled("org/M", mebibytes(521)).unwrap().0, "org/M:Q4_K_M");
    assert_eq!(pulled("org/M:q2_k", mebibytes(521)).unwrap().0, "org/M:Q2_K");
    let error = pulled("org/M", mebibytes(500)).unwrap_err();
    assert!(matches!(error, Error::Remote { kind: RemoteKind::Repository, .. }), "{error:?}");
    assert!(
        error.to_string().contains("nothing in it fits 524.29 MB of memory: the smallest, Q2_K, needs about"),
        "{error}"
    );
    let (name, said) = pulled("org/M:Q4_K_M", mebibytes(500)).unwrap();
    assert!(name == "org/M:Q4_K_M" && said.contains("but this machine has 524.29 MB for it"), "{said}");
    // Models in the cache are used, the preferred one first.
    assert_eq!(setup.hub().find(&spec("org/M"), within(mebibytes(521))).unwrap().name, "org/M:Q4_K_M");
    assert_eq!(setup.hub().find(&spec("org/M"), within(mebibytes(1))).unwrap().name, "org/M:Q8_0");
    let names: Vec<String> = setup.hub().cached().into_iter().map(|files| files.name).collect();
    assert_eq!(names, ["org/M:Q2_K", "org/M:Q4_K_M", "org/M:Q8_0"]);
}

#[test]
fn repositories_without_the_right_files_are_told() {
    let setup = Setup::new();
    let gguf = || fixture("llama.gguf");
    setup.server.publish("org/Tensors", &[("model.safetensors", b"x".to_vec()), ("config.json", b"{}".to_vec())]);
    setup.server.publish("org/Blind", &[("Blind-Q4_K_M.gguf", gguf())]);
    setup.server.publish("org/Two", &[("A-Q8_0.gguf", gguf()), ("B-Q8_0.gguf", gguf()), ("mmproj.gguf", mmproj())]);
    let cases = [
        ("org/Tensors", "it contains no language model in GGUF"),
        ("org/Blind", "it contains no multimodal projector (*mmproj*.gguf), so the model could not see images"),
        ("org/Blind", "or give a projector for it"),
        ("org/Two", "several language models: A, B; name one: org/Two:A"),
        ("org/Tiny-GGUF:Q3_K_M", "org/Tiny-GGUF: it has no Q3_K_M; it has Q8_0"),
    ];
    for (name, expected) in cases {
        let error = setup.error(name);
        assert!(error.contains(expected), "{expected} in {error}");
    }
    assert_eq!(setup.pull("org/Two:b").unwrap().model.file_name().unwrap(), "B-Q8_0.gguf");
    // With the user's own projector, only the language model is required.
    let files = setup.hub().pull(&spec("org/Blind"), BLIND, &mut ()).unwrap();
    assert_eq!(files.mmproj, None);
}

/// Real listings: companions of a model are next to it, in folders and under names of all kinds.
#[test]
fn what_lies_beside_a_model_is_not_taken_for_one() {
    let setup = Setup::new();
    let taken = |repo: &str, files: &[&str]| {
        let content = |path: &&str| if path.contains("mmproj") { mmproj() } else { fixture("llama.gguf") };
        let files: Vec<_> = files.iter().map(|path| (*path, content(path))).collect();
        setup.server.publish(repo, &files);
        let pulled = setup.sharpv(&["pull", repo]).env("SHARPV_HOME", setup.home.path().join("sharpv")).assert();
        let said = String::from_utf8_lossy(&pulled.get_output().stderr).into_owned();
        assert!(pulled.get_output().status.success(), "{said}");
        said
    };
    let omni = taken(
        "org/Omni-GGUF",
        &[
            "Omni-Q4_0.gguf",
            "Omni-Q4_K_M.gguf",
            "Omni-F16.gguf",
            "audio/Omni-audio-F16.gguf",
            "tts/Omni-projector-F16.gguf",
            "tts/Omni-tts-F16.gguf",
            "vision/Omni-vision-F16.gguf",
            "token2wav-gguf/encoder.gguf",
            "mmproj-model-f16.gguf",
        ],
    );
    assert!(omni.contains("org/Omni-GGUF: Q4_K_M (") && omni.contains("with mmproj-model-f16.gguf"), "{omni}");
    assert!(!omni.contains("audio") && !omni.contains("tts"), "{omni}");

    let explora = taken("org/Explora-VL", &["Explora-VL-Q4_K_M.gguf", "mmproj-Explora-VL-F16.gguf"]);
    assert!(explora.contains("org/Explora-VL: Q4_K_M ("), "{explora}");

    let steps = ["Q2_K", "Q3_K_XS", "Q3_K_M", "Q4_K_M", "Q5_K_M"].map(|quant| format!("Big-{quant}.gguf"));
    let steps: Vec<&str> = steps.iter().map(String::as_str).chain(["mmproj-F16.gguf"]).collect();
    let big = taken("org/Big", &steps);
    // The next preferred quantization is suggested, not the smallest.
    assert!(big.contains("org/Big: Q4_K_M (") && big.contains("sharpv pull org/Big:Q5_K_M"), "{big}");
}

// --- untrusted names --------------------------------------------------------------------------------

/// A folder outside the cache, with files that a careless cache would use.
struct Outside {
    folder: PathBuf,
}

impl Outside {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        for name in ["mine.partial", "mine.txt"] {
            fs::write(folder.join(name), name).unwrap();
        }
        Self { folder }
    }

    fn is_untouched(&self) {
        let mut names: Vec<_> = self.folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["mine.partial", "mine.txt"]);
    }
}

/// A model's header names the original of a copy, and must not become part of a path.
#[test]
fn a_header_makes_and_deletes_nothing_outside_the_cache() {
    let setup = Setup::new();
    let outside = Outside::new(setup.home.path().join("outside"));
    let smol = smol::files();
    let [weights, projector] =
        [&smol.model, smol.mmproj.as_ref().expect("a projector")].map(|path| fs::read(path).unwrap());
    for name in [outside.folder.to_str().expect("UTF-8"), "../../outside", ""] {
        // Which of the files is copied depends on the processor.
        let [model, mmproj] = [&weights, &projector].map(|file| gguf::with_text(file, "sharpv.copy_of", name));
        setup.server.publish("org/Evil", &[("Evil-Q4_1.gguf", model), ("mmproj-Evil-Q8_0.gguf", mmproj)]);
        let mut pull = setup.sharpv(&["pull", "org/Evil"]);
        pull.env("SHARPV_HOME", setup.home.path().join("sharpv")).assert().success();
        outside.is_untouched();
    }
    let files = setup.hub().find(&spec("org/Evil"), Wish::default()).expect("it was pulled");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/order-1");
    for more in [&["--evict", "off"], &["--evict", "layers"]] {
        let ask = setup.sharpv(&["ask", clip.to_str().unwrap(), "q", "-m", "org/Evil"]).args(more).assert().code(1);
        // The smaller file is checked first.
        let mmproj = files.mmproj.as_ref().expect("a projector").display();
        ask.stderr(contains(format!("{mmproj}: not a usable model: sharpv.copy_of is \"\"")));
    }
    outside.is_untouched();
}

/// A list of files is not trusted.
#[test]
fn a_list_of_files_makes_nothing_outside_the_cache() {
    let setup = Setup::new();
    let outside = Outside::new(setup.home.path().join("outside"));
    let absolute = outside.folder.join("evil-Q8_0.gguf").to_str().expect("UTF-8").to_owned();
    let evil = [
        "../../../../outside/evil-Q8_0.gguf",
        "a/../../../../../outside/evil-Q8_0.gguf",
        absolute.as_str(),
        "..\\..\\evil-Q8_0.gguf",
        "C:\\evil-Q8_0.gguf",
        "C:evil-Q8_0.gguf",
        "evil\0-Q8_0.gguf",
        "evil\n-Q8_0.gguf",
        "./evil-Q8_0.gguf",
        ".. /evil-Q8_0.gguf",
        "nul-Q8_0/nul.gguf",
    ];
    let mut published: Vec<(&str, Vec<u8>)> = evil.iter().map(|name| (*name, fixture("llama.gguf"))).collect();
    published.push(("../../../../outside/mmproj.gguf", mmproj()));
    setup.server.publish("org/Evil", &published);
    assert!(setup.error("org/Evil").contains("no language model in GGUF"));
    published.extend([("Good-Q8_0.gguf", fixture("llama.gguf")), ("mmproj-Good.gguf", mmproj())]);
    setup.server.publish("org/Evil", &published);
    let pulled = setup.pull("org/Evil").unwrap();
    assert!(pulled.model.ends_with("Good-Q8_0.gguf"), "{pulled:?}");
    assert!(pulled.mmproj.is_some_and(|mmproj| mmproj.ends_with("mmproj-Good.gguf")));
    outside.is_untouched();
}

/// Other tools, and whoever a cache was copied from, write to it as well.
#[test]
fn a_cache_names_no_folder_outside() {
    let setup = Setup::new();
    let outside = Outside::new(setup.home.path().join("outside"));
    let model = setup.pull(REPO).unwrap();
    for (from, to) in [(&model.model, MODEL), (model.mmproj.as_ref().unwrap(), MMPROJ)] {
        fs::copy(from, outside.folder.join(to)).unwrap();
    }
    let main = setup.folder().join("refs/main");
    let offline = setup.hub().with_offline(true);
    for name in [outside.folder.to_str().expect("UTF-8"), "../../../outside", "..", "", "main"] {
        fs::write(&main, name).unwrap();
        let found = offline.find(&spec(REPO), Wish::default());
        assert_eq!(found.as_ref(), Some(&model), "{name:?}: what is in the cache");
        assert_eq!(setup.hub().cached(), std::slice::from_ref(&model), "{name:?}");
    }
    fs::remove_dir_all(setup.folder().join("snapshots")).unwrap();
    fs::write(&main, outside.folder.to_str().unwrap()).unwrap();
    assert_eq!(offline.find(&spec(REPO), Wish::default()), None);
}

// --- certificates and proxies -----------------------------------------------------------------------

#[test]
fn a_hub_with_an_authority_of_its_own_is_trusted_where_a_variable_names_it() {
    let setup = Setup::new();
    let authority = Authority::new();
    let tls = TlsServer::start(&authority, &["127.0.0.1"], &setup.server.endpoint);
    let endpoint = format!("https://127.0.0.1:{}", tls.port);
    let [certificates, others] = ["certificates", "others"].map(|name| setup.home.path().join(name));
    for (folder, authority) in [(&certificates, &authority), (&others, &Authority::new())] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("authority.pem"), &authority.pem).unwrap();
    }
    let file = certificates.join("authority.pem");
    let pull = |variables: &[(&str, &Path)]| {
        let mut command = setup.sharpv(&["pull", REPO]);
        command.env("HF_ENDPOINT", &endpoint).env("SHARPV_HOME", setup.home.path().join("sharpv"));
        command.envs(variables.iter().copied());
        command.assert()
    };

    // The certificate authority is unknown.
    let told = contains("error: org/Tiny-GGUF: ")
        .and(contains(format!("the certificate of {endpoint} is not trusted: UnknownIssuer")))
        .and(contains("set SSL_CERT_FILE to a PEM file with the certificate of its authority"));
    pull(&[]).code(1).stderr(told);
    assert_eq!(tls.connections(), 1, "another try is of no use");
    // Only the named authorities are trusted.
    let other = others.join("authority.pem");
    pull(&[("SSL_CERT_FILE", &other)])
        .code(1)
        .stderr(contains(format!("trusted are the authorities of SSL_CERT_FILE ({})", other.display())));
    // The file is missing, or contains no certificate.
    let missing = setup.home.path().join("missing.pem");
    fs::write(setup.home.path().join("empty.pem"), "no certificate").unwrap();
    for wrong in [missing, setup.home.path().join("empty.pem")] {
        let told = format!("no certificate authority can be read from SSL_CERT_FILE ({})", wrong.display());
        pull(&[("SSL_CERT_FILE", &wrong)]).code(1).stderr(contains(told));
    }

    for (i, name) in AUTHORITIES.into_iter().enumerate() {
        let value = if name == "SSL_CERT_DIR" { &certificates } else { &file };
        pull(&[(name, value)]).success().stderr(contains(if i == 0 {
            "downloading"
        } else {
            "already here and intact"
        }));
    }
    // The variables of pip and the hub may name a folder; OpenSSL's take precedence.
    pull(&[("REQUESTS_CA_BUNDLE", &certificates)]).success();
    pull(&[("REQUESTS_CA_BUNDLE", &other), ("SSL_CERT_FILE", &file)]).success();
}

#[test]
fn a_certificate_of_another_name_is_refused() {
    let setup = Setup::new();
    let authority = Authority::new();
    let tls = TlsServer::start(&authority, &["hub.example"], &setup.server.endpoint);
    let file = setup.home.path().join("authority.pem");
    fs::write(&file, &authority.pem).unwrap();
    let mut pull = setup.sharpv(&["pull", REPO]);
    pull.env("HF_ENDPOINT", format!("https://127.0.0.1:{}", tls.port)).env("SSL_CERT_FILE", &file);
    pull.assert().code(1).stderr(contains("is not trusted").and(contains("check the clock of this machine")));
}

/// A company network: only the proxy knows the hub's name, and it has its own certificate.
#[test]
fn the_proxy_of_the_environment_is_used() {
    let setup = Setup::new();
    let authority = Authority::new();
    let tls = TlsServer::start(&authority, &["hub.example"], &setup.server.endpoint);
    let file = setup.home.path().join("authority.pem");
    fs::write(&file, &authority.pem).unwrap();
    let pull = |variables: &[(&str, &str)]| {
        let mut command = setup.sharpv(&["pull", REPO]);
        command.env("HF_ENDPOINT", format!("https://hub.example:{}", tls.port)).env("SSL_CERT_FILE", &file);
        command.env("SHARPV_HOME", setup.home.path().join("sharpv")).envs(variables.iter().copied());
        command.assert()
    };
    let unreachable = format!("https://hub.example:{} cannot be reached", tls.port);
    pull(&[]).code(1).stderr(contains(unreachable.as_str()));
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let proxy = Proxy::start("hub.example");
        pull(&[(name, &proxy.address)]).success();
        let asked = proxy.asked();
        assert!(asked[0].starts_with(&format!("CONNECT hub.example:{} ", tls.port)), "{name}: {asked:?}");
    }
    let proxy = Proxy::start("hub.example");
    pull(&[("HTTPS_PROXY", &proxy.address), ("NO_PROXY", "hub.example")])
        .code(1)
        .stderr(contains(unreachable.as_str()));
    assert_eq!(proxy.asked(), [""; 0]);
    // The error names an unreachable proxy.
    pull(&[("HTTPS_PROXY", "http://127.0.0.1:9")])
        .code(1)
        .stderr(contains(format!("{unreachable} through the proxy 127.0.0.1:9")));
}

// --- errors -----------------------------------------------------------------------------------------

#[test]
fn a_cut_connection_goes_on_where_it_broke() {
    let setup = Setup::new();
    setup.server.fault(MODEL, &[Fault::Cut(100_000), Fault::Cut(50_000)]);
    let files = setup.pull(REPO).unwrap();
    assert_eq!(fs::read(&files.model).unwrap(), fixture("llama.gguf"));
    let expected = [None, Some("bytes=100000-".to_owned()), Some("bytes=150000-".to_owned())];
    assert_eq!(ranges(&setup.server, MODEL), expected);
}

#[test]
fn a_download_that_failed_goes_on_in_the_next_call() {
    let setup = Setup::new();
    let mut faults = vec![Fault::Cut(100_000)];
    faults.extend(vec![Fault::Cut(0); 3]);
    setup.server.fault(MODEL, &faults);
    let error = setup.error(REPO);
    assert!(
        error.contains("Tiny-Q8_0.gguf of org/Tiny-GGUF: the download ended after 100.00 kB of 362.08 kB"),
        "{error}"
    );
    assert!(error.contains("run it again to resume"), "{error}");
    assert_eq!(setup.part(&fixture("llama.gguf")).metadata().unwrap().len(), 100_000);
    assert_eq!(setup.hub().find(&spec(REPO), BLIND), None, "half a model is none");

    let mut messages = Messages::default();
    setup.hub().pull(&spec(REPO), Wish::default(), &mut messages).unwrap();
    assert!(messages.0.iter().any(|text| text.contains("100.00 kB already here")), "{:?}", messages.0);
    assert_eq!(ranges(&setup.server, MODEL).last(), Some(&Some("bytes=100000-".to_owned())));
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let setup = Setup::new();
    setup.server.fault(MODEL, &[Fault::Cut(100_000), Fault::NoRange]);
    let files = setup.pull(REPO).unwrap();
    assert_eq!(fs::read(&files.model).unwrap(), fixture("llama.gguf"));
}

/// After a restart, the progress of each attempt counts, not what was there before.
#[test]
fn a_download_that_began_anew_has_all_its_tries() {
    let setup = Setup::new();
    let cut = || Fault::Cut(20_000);
    setup.server.fault(MODEL, &[Fault::Cut(300_000), Fault::NoRangeCut(20_000), cut(), cut(), cut(), cut(), cut()]);
    let files = setup.pull(REPO).unwrap();
    assert_eq!(fs::read(&files.model).unwrap(), fixture("llama.gguf"));
    assert_eq!(ranges(&setup.server, MODEL).last(), Some(&Some("bytes=120000-".to_owned())));
}

#[test]
fn a_server_that_always_begins_anew_and_breaks_off_is_given_up() {
    let setup = Setup::new();
    setup.server.fault(MODEL, &vec![Fault::NoRangeCut(100_000); 20]);
    assert!(setup.error(REPO).contains("the download ended after 100.00 kB"));
    assert!(setup.server.content_requests(MODEL).len() < 8);
}

/// The sizes in a list are not trusted.
#[test]
fn sizes_beyond_all_bounds_fit_nowhere() {
    let setup = Setup::new();
    // Sums that are small if they wrap.
    let parts = ["Huge-Q8_0-00001-of-00002.gguf", "Huge-Q8_0-00002-of-00002.gguf"].map(|name| (name, 1 << 63));
    for (weights, projector) in [(parts.as_slice(), 1000), (&[("Huge-Q8_0.gguf", 1000)], u64::MAX)] {
        let files: Vec<_> = weights.iter().copied().chain([("mmproj.gguf", projector)]).collect();
        setup.server.claim("org/Huge", &files);
        let error = setup.hub().pull(&spec("org/Huge"), within(Some(8 << 30)), &mut ()).unwrap_err();
        assert!(matches!(error, Error::Remote { kind: RemoteKind::Repository, .. }), "{error:?}");
        assert!(error.to_string().contains("nothing in it fits"), "{error}");
    }
}

#[test]
fn parts_that_are_complete_too_long_or_wrong_do_no_harm() {
    let content = fixture("llama.gguf");
    let wrong: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
    for (part, is_damaged) in [
        (content.clone(), false),
        ([content.clone(), b"more".to_vec()].concat(), false),
        (wrong[..1000].to_vec(), true),
    ] {
        let setup = Setup::new();
        fs::create_dir_all(setup.folder().join("blobs")).unwrap();
        fs::write(setup.part(&content), part).unwrap();
        if is_damaged {
            assert!(matches!(setup.pull(REPO), Err(Error::Checksum { .. })));
        }
        assert_eq!(fs::read(setup.pull(REPO).unwrap().model).unwrap(), content);
    }
}

#[test]
fn wrong_bytes_are_deleted() {
    let setup = Setup::new();
    setup.server.fault(MODEL, &[Fault::Garbage]);
    let error = setup.pull(REPO).unwrap_err();
    let Error::Checksum { what, expected, .. } = &error else { panic!("{error:?}") };
    assert_eq!((what.as_str(), expected), ("Tiny-Q8_0.gguf of org/Tiny-GGUF", &sha256(&fixture("llama.gguf"))));
    assert!(!setup.part(&fixture("llama.gguf")).exists() && !setup.blob(&fixture("llama.gguf")).exists());
    setup.pull(REPO).unwrap();
}

#[test]
fn damaged_files_of_the_cache_are_replaced() {
    let setup = Setup::new();
    let files = setup.pull(REPO).unwrap();
    let mut content = fixture("llama.gguf");
    content[5000] ^= 1;
    fs::write(setup.blob(&fixture("llama.gguf")), &content).unwrap();
    let mut messages = Messages::default();
    setup.hub().pull(&spec(REPO), Wish::default(), &mut messages).unwrap();
    assert!(messages.0.iter().any(|text| text.contains("is damaged or from another version")), "{:?}", messages.0);
    assert_eq!(fs::read(&files.model).unwrap(), fixture("llama.gguf"));
}

#[test]
fn refusals_are_told_with_what_to_do() {
    let setup = Setup::new();
    let endpoint = setup.server.endpoint.clone();
    {
        let mut state = setup.server.state();
        state.private.push("org/Secret".into());
        state.gated.insert(REPO.into(), "good".into());
        state.renamed.insert("old/Name".into(), "org/Other".into());
    }
    setup.server.publish("org/Other", &[("O-Q8_0.gguf", fixture("llama.gguf")), ("mmproj.gguf", mmproj())]);
    let with_token = |token| setup.hub().with_token(Some(token)).pull(&spec(REPO), Wish::default(), &mut ());

    let error = setup.error("org/Gone");
    assert!(
        error.contains("org/Gone: there is no such repository (HTTP 404") && error.contains("check the spelling"),
        "{error}"
    );
    let error = setup.error("org/Secret");
    assert!(error.contains("no such repository, or it is private (HTTP 401; it says: Invalid credentials"), "{error}");
    assert!(error.contains("HF_TOKEN"), "{error}");
    let error = setup.error(REPO);
    assert!(error.contains("access is restricted (HTTP 401"), "{error}");
    assert!(error.contains(&format!("accept the license on {endpoint}/{REPO}, and set HF_TOKEN")), "{error}");
    let error = with_token("bad").unwrap_err();
    assert!(matches!(error, Error::Remote { kind: RemoteKind::Hub, status: Some(403), .. }), "{error:?}");
    assert!(error.to_string().contains("check that HF_TOKEN is valid"), "{error}");

    // A token file ends with a line break.
    with_token("good\n").unwrap();
    let contents = setup.server.content_requests(MODEL);
    assert!(!contents.is_empty() && contents.iter().all(|request| request.header("authorization").is_none()));
    assert!(setup.server.requests().iter().any(|request| request.header("authorization") == Some("Bearer good")));
    assert_eq!(setup.pull("old/Name").unwrap().model.file_name().unwrap(), "O-Q8_0.gguf");
}

#[test]
fn a_server_in_trouble_gets_another_try() {
    let setup = Setup::new();
    setup.server.state().list_faults.extend([503, 500]);
    setup.server.fault(MODEL, &[Fault::Status(502)]);
    setup.pull(REPO).unwrap();

    setup.server.state().list_faults.extend([503; 4]);
    let error = setup.pull(REPO).unwrap_err();
    assert!(
        matches!(error, Error::Remote { kind: RemoteKind::Hub, status: Some(503), .. })
            && error.to_string().contains("try again later"),
        "{error}"
    );
    setup.server.state().list_faults.extend([429]);
    assert!(setup.error(REPO).contains("too many requests (HTTP 429); wait a few minutes"));
    setup.server.state().list_faults.clear();
    fs::remove_dir_all(setup.cache()).unwrap();
    setup.server.fault(MODEL, &[Fault::Status(404)]);
    assert!(setup.error(REPO).contains("Tiny-Q8_0.gguf of org/Tiny-GGUF: there is no such file (HTTP 404)"));
}

#[test]
fn a_hub_that_is_none_is_told() {
    let setup = Setup::new();
    let nobody = setup.hub().with_endpoint("http://127.0.0.1:9");
    let error = nobody.pull(&spec(REPO), Wish::default(), &mut ()).unwrap_err().to_string();
    assert!(
        error.contains("org/Tiny-GGUF: http://127.0.0.1:9 cannot be reached: ") && error.contains("HF_ENDPOINT"),
        "{error}"
    );
    setup.server.state().commit = "../../evil".into();
    assert!(setup.error(REPO).contains("does not answer as the hub does"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let setup = Setup::new();
    fs::create_dir_all(setup.folder().join("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", setup.part(&fixture("llama.gguf"))).unwrap();
    let error = setup.pull(REPO).unwrap_err();
    assert!(matches!(error, Error::CacheDir { .. }), "{error:?}");
    assert!(error.to_string().contains("No space left") && error.to_string().contains("HF_HOME"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_told() {
    let setup = Setup::new();
    fs::write(setup.cache(), b"a file in its place").unwrap();
    let error = setup.error(REPO);
    assert!(error.contains("cannot be written") && error.contains("set HF_HOME to another folder"), "{error}");
}

// --- offline ----------------------------------------------------------------------------------------

#[cfg(unix)]
#[test]
fn what_other_tools_fetched_is_found_without_a_network() {
    let setup = Setup::new();
    let (commit, folder) = ("00000000000000000000000000000000000000aa", setup.folder());
    let snapshot = folder.join("snapshots").join(commit);
    for sub in ["blobs", "refs"] {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(folder.join("refs/main"), commit).unwrap();
    let add = |name: &str, content: &[u8]| {
        fs::write(setup.blob(content), content).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{}", sha256(content)), snapshot.join(name)).unwrap();
    };
    let offline = setup.hub().with_offline(true);
    let resolve = |name: &str| offline.resolve(&spec(name), Wish::default(), &mut ());

    add(MODEL, &fixture("llama.gguf"));
    let error = resolve(REPO).unwrap_err();
    assert!(matches!(error, Error::HubOffline { .. }), "{error:?}");
    assert!(
        error.to_string().contains("the multimodal projector of org/Tiny-GGUF:Q8_0 is not in the cache"),
        "{error}"
    );
    add(MMPROJ, &mmproj());
    assert_eq!(resolve(REPO).unwrap().model, snapshot.join(MODEL));
    let error = resolve("org/Tiny-GGUF:Q4_K_M").unwrap_err().to_string();
    assert!(
        error.contains("org/Tiny-GGUF:Q4_K_M is not in the cache") && error.contains("unset HF_HUB_OFFLINE"),
        "{error}"
    );
    // A broken link is not a file.
    fs::remove_file(setup.blob(&mmproj())).unwrap();
    assert!(resolve(REPO).is_err());
    assert!(setup.server.requests().is_empty(), "{:?}", setup.server.requests());
}

/// A quantization stays at its commit when another one is downloaded at a newer commit.
#[test]
fn what_was_fetched_at_an_older_commit_is_found_without_a_network() {
    let setup = Setup::new();
    let second = "Tiny-Q4_K_M.gguf";
    let first = setup.pull("org/Tiny-GGUF:Q8_0").unwrap();
    setup.server.state().commit = "fedcba9876543210fedcba9876543210fedcba98".into();
    setup.server.publish(REPO, &[(MODEL, fixture("llama.gguf")), (second, fixture("qwen2.gguf")), (MMPROJ, mmproj())]);
    let newer = setup.pull("org/Tiny-GGUF:Q4_K_M").unwrap();

    let offline = setup.hub().with_offline(true);
    let resolve = |name: &str| offline.resolve(&spec(name), Wish::default(), &mut ());
    assert_eq!(resolve("org/Tiny-GGUF:Q8_0").unwrap(), first);
    assert_eq!(resolve("org/Tiny-GGUF:Q4_K_M").unwrap(), newer);
    // Without a quantization in the name, the newest commit decides.
    assert_eq!(resolve(REPO).unwrap(), newer);
    assert_eq!(setup.hub().cached(), [newer.clone(), first]);
    // The same quantization at two commits is one model: the newer one.
    let updated = setup.pull("org/Tiny-GGUF:Q8_0").unwrap();
    assert_eq!(resolve("org/Tiny-GGUF:Q8_0").unwrap(), updated);
    assert_eq!(setup.hub().cached(), [newer, updated]);
}

// --- the program ------------------------------------------------------------------------------------

#[test]
fn the_program_pulls_and_lists() {
    let setup = Setup::new();
    let pull = setup.sharpv(&["pull", "org/Tiny-GGUF:q8_0"]).assert().success().stdout(is_empty());
    let told = contains("org/Tiny-GGUF: Q8_0 (362.08 kB) with mmproj-Tiny-f16.gguf")
        .and(contains("downloading Tiny-Q8_0.gguf (362.08 kB)"))
        .and(contains("org/Tiny-GGUF:Q8_0 is ready: sharpv ask VIDEO QUESTION -m org/Tiny-GGUF:Q8_0"));
    pull.stderr(told);

    let home = TempDir::new().expect("a temporary folder");
    let json = |args: &[&str]| {
        let listed = setup.sharpv(args).env("SHARPV_HOME", home.path()).assert().success().stderr(is_empty());
        serde_json::from_slice::<Value>(&listed.get_output().stdout).expect("JSON")
    };
    let models = json(&["models", "--json"]);
    assert_eq!(models[1]["name"], "org/Tiny-GGUF:Q8_0");
    assert_eq!(models[1]["bytes"], (fixture("llama.gguf").len() + mmproj().len()) as u64);
    assert_eq!(models[1]["files"].as_array().map(Vec::len), Some(2));
    setup
        .sharpv(&["models"])
        .assert()
        .success()
        .stdout(contains("org/Tiny-GGUF:Q8_0").and(contains("from Hugging Face")));

    setup
        .sharpv(&["pull", "org/Gone"])
        .assert()
        .code(1)
        .stderr(contains("error: org/Gone: there is no such repository"));
    setup
        .sharpv(&["pull", "org/Gone"])
        .env("HF_HUB_OFFLINE", "1")
        .assert()
        .code(1)
        .stderr(contains("error: org/Gone is not in the cache"));
    let offline = setup.sharpv(&["pull", REPO]).env("HF_HUB_OFFLINE", "true").assert().success();
    offline.stderr(contains("org/Tiny-GGUF:Q8_0 is in the cache"));
}

#[test]
fn known_video_llms_are_listed_with_what_they_need() {
    let setup = Setup::new();
    let repo = "Qwen/Qwen3-VL-2B-Instruct-GGUF";
    setup
        .server
        .publish(repo, &[("Qwen3VL-2B-Instruct-Q4_K_M.gguf", fixture("llama.gguf")), ("mmproj-F16.gguf", mmproj())]);
    setup.pull(repo).unwrap();
    let table = setup.sharpv(&["models", "--known"]).assert().success().stderr(is_empty());
    let table = String::from_utf8_lossy(&table.get_output().stdout).into_owned();
    assert!(
        table.contains("computed from the numbers of parameters")
            && table.contains("ggml-org/SmolVLM2-500M-Video-Instruct-GGUF")
    );
    // Each column has an explanation.
    let (columns, legend) = (table.lines().next().expect("columns"), table.split("\n\n").nth(1).expect("a legend"));
    let columns = columns.split("  ").map(str::trim).filter(|name| !name.is_empty() && *name != "REPOSITORY");
    let columns: Vec<&str> = columns.collect();
    assert_eq!(columns.len(), 7, "{columns:?}");
    for column in columns {
        assert!(legend.lines().any(|line| line.starts_with(column)), "{column} in {legend}");
    }
    let json = setup.sharpv(&["models", "--known", "--json"]).assert().success();
    let known: Value = serde_json::from_slice(&json.get_output().stdout).expect("JSON");
    let known = known.as_array().expect("an array");
    for model in known {
        assert!(HubSpec::parse(model["repo"].as_str().expect("a name")).is_some(), "{model}");
        assert_eq!(model["cached"], model["repo"] == repo, "{model}");
        let bytes = |key: &str| model[key].as_u64().expect(key);
        assert!(bytes("bytes") < bytes("memory_bytes_pruned"), "{model}");
        assert!(bytes("memory_bytes_pruned") < bytes("memory_bytes_dense"), "{model}");
        assert!(["yes", "pruned", "no"].iter().any(|fits| model["fits"] == *fits), "{model}");
    }
}

#[test]
fn a_token_comes_from_the_environment_or_its_file() {
    let setup = Setup::new();
    setup.server.state().gated.insert(REPO.into(), "good".into());
    setup.sharpv(&["pull", REPO]).assert().code(1).stderr(contains("accept the license").and(contains("set HF_TOKEN")));
    fs::write(setup.home.path().join("token"), "good\n").unwrap();
    setup
        .sharpv(&["pull", REPO])
        .env("HF_TOKEN", "bad")
        .assert()
        .code(1)
        .stderr(contains("check that HF_TOKEN is valid"));
    setup.sharpv(&["pull", REPO]).assert().success();
}

#[test]
fn a_file_goes_before_a_repository_of_its_name() {
    let setup = Setup::new();
    let folder = TempDir::new().expect("a temporary folder");
    fs::create_dir(folder.path().join("org")).unwrap();
    fs::write(folder.path().join(REPO), b"no model").unwrap();
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/order-1");
    let mut ask = setup.sharpv(&["ask", clip.to_str().unwrap(), "q", "-m", REPO]);
    ask.current_dir(&folder).assert().code(1).stderr(contains("org/Tiny-GGUF: not a usable GGUF file"));
    let mut ask = setup.sharpv(&["ask", clip.to_str().unwrap(), "q", "-m", "./org/Other"]);
    ask.current_dir(&folder).assert().code(1).stderr(contains("./org/Other: opening the model file failed"));
    // Nothing is downloaded for a file that is not a video.
    let ask = setup.sharpv(&["ask", "/nonsense/v.mp4", "q", "-m", REPO]).assert().code(1);
    ask.stderr(contains("/nonsense/v.mp4: opening the video failed"));
    assert!(setup.server.requests().is_empty());
}

#[test]
fn an_answer_of_a_model_that_is_fetched_for_it() {
    let setup = Setup::new();
    let smol = smol::files();
    let read = |path: &Path| fs::read(path).unwrap();
    let (weights, projector) = (read(&smol.model), read(smol.mmproj.as_deref().expect("a projector")));
    setup.server.publish("org/Smol", &[("Smol-Q4_1.gguf", weights), ("mmproj-Smol-Q8_0.gguf", projector)]);
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/order-1");
    let lora = smol.lora[0].to_str().expect("a path in UTF-8");
    let args = ["ask", clip.to_str().unwrap(), "What appears first?", "-m", "org/Smol", "--lora", lora];
    let first = setup.sharpv(&args).assert().success().stdout("The tent appears first.\n");
    first
        .stderr(contains("org/Smol is not on this machine yet").and(contains("downloading Smol-Q4_1.gguf (98.36 MB)")));

    let requests = setup.server.requests().len();
    let second = setup.sharpv(&args).env("HF_HUB_OFFLINE", "1").assert().success().stdout("The tent appears first.\n");
    second.stderr(contains("downloading").not());
    assert_eq!(setup.server.requests().len(), requests, "what is here needs no network");
}

#[test]
fn two_programs_at_once_fetch_once() {
    let setup = Setup::new();
    setup.server.fault(MODEL, &[Fault::Slow(Duration::from_secs(2))]);
    let spawn = || {
        let mut command = setup.std_command(&["pull", REPO]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let said: Vec<String> = [spawn(), spawn()]
        .into_iter()
        .map(|child: Child| {
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        })
        .collect();
    let waited =
        said.iter().filter(|text| text.contains("waiting for another process that is working on org/Tiny-GGUF"));
    assert_eq!(waited.count(), 1, "{said:?}");
    assert_eq!([MODEL, MMPROJ].map(|file| setup.server.content_requests(file).len()), [1, 1]);
}

/// `pull` in the middle of its first file: 200 kB have arrived, and no more follow.
fn hanging_download(setup: &Setup) -> std::process::Child {
    setup.server.fault(MODEL, &[Fault::Silence(200_000)]);
    let part = setup.part(&fixture("llama.gguf"));
    let mut command = setup.std_command(&["pull", REPO]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let begun = Instant::now();
    while part.metadata().map_or(0, |meta| meta.len()) < 200_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the first bytes arrive");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Checks that what was downloaded before `child` ended is not downloaded again.
fn goes_on_behind(setup: &Setup, mut child: std::process::Child) {
    assert!(!child.wait().expect("it ends").success());
    setup.sharpv(&["pull", REPO]).assert().success().stderr(contains("200.00 kB already here"));
    assert_eq!(ranges(&setup.server, MODEL), [None, Some("bytes=200000-".to_owned())]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_part_that_goes_on() {
    let setup = Setup::new();
    let child = hanging_download(&setup);
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    goes_on_behind(&setup, child);
}

#[test]
fn a_download_that_is_killed_goes_on() {
    let setup = Setup::new();
    let mut child = hanging_download(&setup);
    child.kill().expect("it is killed");
    goes_on_behind(&setup, child);
}
