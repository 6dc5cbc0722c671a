//! Layers on other machines: servers are processes of their own, at loopback addresses.

#![cfg(feature = "cli")]

#[cfg(feature = "rpc")]
#[path = "it/support/smol.rs"]
mod smol;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most time that anything here may take.
const LIMIT: Duration = Duration::from_secs(600);

fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/order-1")
}

fn sharpv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.env_remove("SHARPV_LOG").args(args).timeout(LIMIT);
    command
}

fn doctor(rpc: &str) -> Assert {
    sharpv(&["doctor", "--json", "--rpc", rpc]).assert()
}

#[test]
fn an_address_that_does_not_parse_is_wrong_use() {
    for wrong in ["box", "box:0", ":50052", "box:port", "[::1]:50052"] {
        doctor(wrong).code(2).stderr(contains("HOST:PORT").and(contains(wrong)));
    }
}

#[cfg(not(feature = "rpc"))]
#[test]
fn a_build_without_rpc_names_the_feature() {
    let clip = clip();
    let clip = clip.to_str().expect("UTF-8");
    sharpv(&["ask", clip, "What moves?", "--rpc", "127.0.0.1:50052"])
        .assert()
        .code(1)
        .stderr(contains("--features rpc"));
    sharpv(&["rpc-server", "--port", "0"]).assert().code(1).stderr(contains("--features rpc"));
}

#[cfg(feature = "rpc")]
mod with_servers {
    use super::*;
    use serde_json::Value;
    use sharpv::chat::{Session, SessionParams, VideoOptions};
    use sharpv::runtime::{self, CancelToken, Context, ContextParams, DeviceMemory, Model, ModelNeed, ModelParams};
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Stdio};
    use std::thread;

    const FIRST: &str = "What appears first?";
    const NEXT: &str = "What appears last?";
    const LAYERS: usize = 30;

    /// A server of the program; ended with the value.
    struct Server {
        child: Child,
        address: String,
    }

    impl Server {
        fn start(port: &str) -> Self {
            let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_sharpv"))
                .args(["rpc-server", "--port", port, "--device", "CPU", "--threads", "1"])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts");
            let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
            let line = lines.find(|line| line.starts_with("Serving")).expect("the server says where it is");
            let address = line.split([' ', ';']).nth(3).expect("an address").to_owned();
            thread::spawn(move || lines.for_each(drop));
            // It says so before it listens.
            for _ in 0..100 {
                if TcpStream::connect(&address).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
            }
            Self { child, address }
        }

        fn end(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    /// Asks about the clip: what `--json` prints, and how many layers (of the model's and the output) llama.cpp gave to
    /// each of two servers.
    fn ask(options: &str) -> (Value, [usize; 2]) {
        smol::files();
        let clip = clip();
        let mut args = vec![
            "ask",
            clip.to_str().expect("UTF-8"),
            FIRST,
            "--json",
            "-vv",
            "--temp",
            "0",
            "-n",
            "16",
            "-t",
            "1",
            "--max-frames",
            "4",
            // A device elsewhere would take the file, and the CPU a faster copy.
            "--weights",
            "exact",
        ];
        args.extend(words(options));
        let output = sharpv(&args).assert().success().get_output().clone();
        let log = String::from_utf8_lossy(&output.stderr);
        let layers_of = |name: &str| {
            log.lines()
                .filter(|line| line.contains("layer ") && line.contains(&format!("assigned to device {name}")))
                .count()
        };
        (serde_json::from_slice(&output.stdout).expect("JSON"), [layers_of("RPC0"), layers_of("RPC1")])
    }

    /// The same answer, tokens and eviction.
    fn assert_same(remote: &Value, local: &Value, how: &str) {
        for part in [
            "/answer",
            "/stop",
            "/visual_tokens",
            "/slices",
            "/tokens",
            "/kv/cells_used",
            "/kv/layers_evicted",
            "/kv/tokens_evicted",
        ] {
            assert!(local.pointer(part).is_some(), "{part}");
            assert_eq!(remote.pointer(part), local.pointer(part), "{part}, {how}");
        }
        let curve = |answer: &Value| -> Vec<f64> {
            answer["similarity"]
                .as_array()
                .expect("a curve")
                .iter()
                .map(|value| value.as_f64().expect("a number"))
                .collect()
        };
        let (remote, local) = (curve(remote), curve(local));
        assert_eq!(remote.len(), local.len());
        for (il, (remote, local)) in remote.iter().zip(&local).enumerate() {
            // Weights of this machine are laid out for its processor; those of a server are not, and are summed up in
            // another order.
            assert!((remote - local).abs() < 0.02, "layer {il}: {remote} instead of {local}, {how}");
        }
    }

    #[test]
    fn layers_elsewhere_answer_as_here() {
        let (a, b) = (Server::start("0"), Server::start("0"));
        let whole = format!("--rpc {}", a.address);
        let part = format!("--rpc {} -ngl 12", a.address);
        let two = format!("--rpc {},{} -ngl 99", a.address, b.address);
        let second = format!("--rpc {} --rpc {} --device RPC1", a.address, b.address);
        let cases = [
            ("--prune off", vec![&part]),
            ("--evict layers --evict-threshold 0.2", vec![&whole, &part, &two, &second]),
            ("--prune off --evict tokens --evict-threshold 0.11", vec![&whole, &two]),
        ];
        for (method, places) in cases {
            let (local, layers) = ask(method);
            assert_eq!(layers, [0, 0]);
            assert_eq!(
                local.pointer("/kv/layers_evicted"),
                Some(&Value::from(if method.contains("layers") { 29 } else { 0 }))
            );
            assert_eq!(local["kv"]["tokens_evicted"].as_u64() > Some(0), method.contains("tokens"), "{}", local["kv"]);
            for place in places {
                let how = format!("{method} {place}");
                let (remote, layers) = ask(&how);
                match layers {
                    [n, 0] if place == &whole => assert_eq!(n, LAYERS + 1),
                    [n, 0] if place == &part => assert_eq!(n, 12),
                    [0, n] if place == &second => assert_eq!(n, LAYERS + 1),
                    [m, n] => assert!(place == &two && m > 0 && n > 0 && m + n == LAYERS + 1, "{layers:?}, {how}"),
                }
                assert_same(&remote, &local, &how);
            }
        }
    }

    /// Layers without visual tokens from the beginning, of which some are here and some there: their rows are padded to
    /// other steps in each kind of memory, and have to be as many.
    #[test]
    fn windows_in_two_kinds_of_memory_answer_as_in_one() {
        let server = Server::start("0");
        let early = "--evict layers --evict-early";
        let (local, layers) = ask(early);
        assert_eq!(layers, [0, 0]);
        let n_evicted = local["kv"]["layers_evicted"].as_u64().expect("a number");
        assert!(n_evicted > 12, "some of the layers on each side: {n_evicted}");
        for n in [12, 20] {
            let how = format!("{early} --rpc {} -ngl {n}", server.address);
            let (remote, layers) = ask(&how);
            assert_eq!(layers, [n, 0], "{how}");
            assert_same(&remote, &local, &how);
        }
    }

    /// The smallest and the largest margin: all layers, and none.
    #[test]
    fn layers_go_where_there_is_room_beside_the_margin() {
        let server = Server::start("0");
        let (here, _) = ask("--prune off");
        for (margin, n) in [("0", LAYERS + 1), ("100000G", 0)] {
            let how = format!("--prune off --rpc {} --gpu-margin {margin}", server.address);
            let (answer, layers) = ask(&how);
            assert_eq!(layers, [n, 0], "{how}");
            assert_eq!(answer["answer"], here["answer"], "{how}");
            let clip = clip();
            let mut args = vec!["plan", clip.to_str().expect("UTF-8")];
            let how = how.replace("--prune off ", "");
            args.extend(words(&how));
            let told = contains("0 of 31 layers go to RPC0").and(contains("slower"));
            let plan = sharpv(&args).assert().success();
            if n == 0 {
                plan.stderr(told)
            } else {
                plan.stderr(told.not())
            };
        }
    }

    /// What is planned without loading anything is what is there afterwards.
    #[test]
    fn what_a_device_will_hold_is_told_before() {
        let files = smol::files();
        let server = Server::start("0");
        runtime::add_rpc_server(&server.address).expect("the server");
        let device = runtime::devices().into_iter().find(|device| device.description == server.address);
        let device = device.expect("its device").name;
        let context = ContextParams { n_ctx: 1024, ..ContextParams::default() };
        for n_gpu_layers in [1, 12, 31] {
            let devices = vec![device.clone()];
            let n_gpu_layers = Some(n_gpu_layers);
            let params = ModelParams { n_gpu_layers, devices, mmap: false, ..ModelParams::default() };
            let need = ModelNeed::of(&files.model, &params, &context).expect("a plan");
            assert_eq!(need.n_layers as usize, LAYERS + 1);
            let model = Model::load(&files.model, &params, |_| {}).expect("the model");
            let real = Context::new(&model, &context, &[], &CancelToken::new()).expect("a context");
            let on_device = |devices: &[DeviceMemory]| {
                devices.iter().find(|entry| entry.device == device).expect("something there").usage
            };
            let real = real.memory_by_device().expect("what it takes");
            assert_eq!(on_device(&need.devices), on_device(&real), "{n_gpu_layers:?}");
        }
    }

    /// What a chat prints.
    fn chat(options: &str, lines: &[String]) -> String {
        let mut args =
            vec!["chat", "-q", "--temp", "0", "-n", "16", "-t", "1", "--max-frames", "4", "--weights", "exact"];
        args.extend(words(options));
        let output = sharpv(&args).write_stdin(lines.join("\n") + "\n").assert().success();
        String::from_utf8_lossy(&output.get_output().stdout).into_owned()
    }

    #[test]
    fn a_session_saved_there_goes_on_there_and_here() {
        smol::files();
        let server = Server::start("0");
        let remote = format!("--rpc {}", server.address);
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, evict) in [
            ("layers", "--evict layers --evict-threshold 0.2"),
            ("tokens", "--prune off --evict tokens --evict-threshold 0.11"),
        ] {
            let file = folder.path().join(name);
            let (video, file) = (format!("/video {}", clip().display()), file.display());
            let start = [video, FIRST.to_owned(), format!("/save {file}"), NEXT.to_owned()];
            let printed = chat(&format!("{evict} {remote}"), &start);
            let next = printed.lines().last().expect("an answer");
            assert!(!next.trim().is_empty(), "{printed}");
            let go_on = [format!("/load {file}"), NEXT.to_owned()];
            for place in [remote.as_str(), ""] {
                let printed = chat(&format!("{evict} {place}"), &go_on);
                assert_eq!(printed.lines().last(), Some(next), "{evict} {place}");
            }
        }
    }

    #[test]
    fn the_devices_of_a_server_are_listed() {
        let server = Server::start("0");
        let output = doctor(&server.address).success().get_output().stdout.clone();
        let report: Value = serde_json::from_slice(&output).expect("JSON");
        let devices = report["devices"].as_array().expect("devices");
        let remote: Vec<_> = devices.iter().filter(|device| device["description"] == server.address.as_str()).collect();
        assert_eq!(remote.len(), 1, "{devices:?}");
        assert_eq!((remote[0]["name"].as_str(), remote[0]["kind"].as_str()), (Some("RPC0"), Some("gpu")));
        assert!(remote[0]["memory_total"].as_u64() > Some(1 << 20));
    }

    #[test]
    fn what_cannot_be_reached_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let free = free.to_string();
        doctor(&free).code(1).stderr(contains(&free).and(contains("sharpv rpc-server")));
        doctor("no-such-host.invalid:50052")
            .code(1)
            .stderr(contains("no-such-host.invalid:50052").and(contains("IPv4")));

        // Something else listens there.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            }
        });
        doctor(&address).code(1).stderr(contains(&address).and(contains("no llama.cpp RPC server")));

        // A server that has a client already.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        doctor(&address).code(1).stderr(contains(&address).and(contains("one client at a time")));
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let server = Server::start("0");
        let port = server.address.rsplit(':').next().expect("a port");
        sharpv(&["rpc-server", "--port", port])
            .assert()
            .code(1)
            .stderr(contains(&server.address).and(contains("port")));
        sharpv(&["rpc-server", "--port", "0", "--device", "GPU77"]).assert().code(2).stderr(contains("GPU77"));
    }

    #[test]
    fn other_machines_are_let_in_with_a_warning() {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_sharpv"))
            .args(["rpc-server", "--host", "0.0.0.0", "--port", "0", "--device", "CPU"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
        let mut before = Vec::new();
        for line in lines {
            if line.starts_with("Serving") {
                break;
            }
            before.push(line);
        }
        let _ = child.kill();
        let _ = child.wait();
        assert!(before.iter().any(|line| line.contains("trusted network")), "{before:?}");
    }

    /// The only test that uses servers in this process: what is added stays.
    #[test]
    fn a_lost_server_is_an_error_and_a_new_one_is_used() {
        let mut server = Server::start("0");
        let address = server.address.clone();
        let devices = runtime::add_rpc_server(&address).expect("a server");
        assert_eq!(devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["RPC0"]);
        let open = || {
            let model = ModelParams { devices: vec!["RPC0".into()], ..ModelParams::default() };
            let params = SessionParams { model, n_predict: 8, ..SessionParams::default() };
            let mut session = Session::open(&smol::files(), params, &mut ())?;
            let options = VideoOptions { max_frames: Some(4), ..VideoOptions::default() };
            session.add_video(clip(), &options, &mut ())?;
            Ok::<_, sharpv::Error>(session)
        };
        let mut session = open().expect("a session");
        let answer = session.ask(FIRST, &mut ()).expect("an answer").answer;
        server.end();
        for _ in 0..2 {
            let error = session.ask(NEXT, &mut ()).expect_err("no server").to_string();
            assert!(error.contains(&address) && error.contains("broke"), "{error}");
        }
        assert_eq!(
            runtime::devices().iter().find(|device| device.name == "RPC0").map(|device| device.memory_total),
            Some(0)
        );
        drop(session);
        let error = open().map(drop).expect_err("no server").to_string();
        assert!(error.contains(&address), "{error}");

        let _server = Server::start(address.rsplit(':').next().expect("a port"));
        let mut session = open().expect("a session");
        assert_eq!(session.ask(FIRST, &mut ()).expect("an answer").answer, answer);
        assert_eq!(runtime::add_rpc_server(&address).expect("known").len(), 1);
    }
}
