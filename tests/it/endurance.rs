//! What must hold for long, and when the process is killed: memory stays flat, and files are whole.
//!
//! The short forms run with the others; `SHARPV_TEST_ENDURANCE=200` makes it 200 videos, 50 sessions and 200 kills.
#![cfg(target_os = "linux")]

use crate::support::families;
use crate::support::lcg::Lcg;
use crate::support::video_clips::Clips;

use sharpv::{Session, SessionParams, VideoOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// In the environment of a child: what it does, and where.
const WORK: &str = "SHARPV_TEST_ENDURANCE_WORK";
const FOLDER: &str = "SHARPV_TEST_ENDURANCE_FOLDER";

/// Videos and kills; a quarter as many sessions.
fn count() -> usize {
    std::env::var("SHARPV_TEST_ENDURANCE").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

fn open(family: &str) -> Session {
    let mut params = SessionParams { n_predict: 4, ..SessionParams::default() };
    params.compute.n_threads = Some(1);
    params.vision.n_threads = Some(1);
    Session::open(&families::files(family), params, &mut ()).expect("the fixture opens")
}

fn ask_about(session: &mut Session, video: &Path) {
    let options = VideoOptions { max_frames: Some(4), ..VideoOptions::default() };
    session.add_video(video, &options, &mut ()).expect("the video is read");
    session.ask("What is it?", &mut ()).expect("an answer");
}

/// Not a test of its own: what the others let a process do that they kill, or whose size they look at.
#[test]
fn child() {
    let (Some(work), Some(folder)) = (std::env::var_os(WORK), std::env::var_os(FOLDER)) else { return };
    let folder = PathBuf::from(folder);
    let videos: Vec<PathBuf> = ["a.mp4", "b.webm", "c.gif"].map(|name| folder.join(name)).into();
    match work.to_str().expect("a word") {
        "videos" => {
            let mut session = open("smolvlm");
            told(count(), |i| {
                session.clear();
                ask_about(&mut session, &videos[i % videos.len()]);
            });
        }
        "sessions" => told(count() / 4, |i| {
            let family = ["smolvlm", "qwen2vl", "gemma3", "minicpmv"][i % 4];
            ask_about(&mut open(family), &videos[i % videos.len()]);
        }),
        "save" => {
            let mut session = open("smolvlm");
            ask_about(&mut session, &videos[0]);
            loop {
                session.save(&folder.join("chat.session")).expect("saved");
                println!("saved");
            }
        }
        other => panic!("{other}"),
    }
}

/// Does `step` so often, and says how large the process is after each tenth.
fn told(n: usize, mut step: impl FnMut(usize)) {
    for i in 0..n {
        step(i);
        if (i + 1) * 10 / n > i * 10 / n {
            println!("rss {} {}", i + 1, rss());
        }
    }
}

fn child_for(work: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "endurance::child", "--nocapture"]).env(WORK, work).env(FOLDER, folder);
    command
}

fn clips() -> Clips {
    let clips = Clips::new();
    let source = "testsrc2=s=160x120:r=10:d=2";
    clips.draw(source, "-c:v libx264 -pix_fmt yuv420p", "a.mp4");
    clips.draw(source, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8", "b.webm");
    clips.draw(source, "", "c.gif");
    clips
}

fn stays_flat(work: &str) {
    let clips = clips();
    let output = child_for(work, &clips.path("")).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let sizes: Vec<(usize, u64)> = said
        .lines()
        .filter_map(|line| {
            let mut words = line.split("rss ").nth(1)?.split(' ').map(|word| word.parse::<u64>());
            Some((words.next()?.ok()? as usize, words.next()?.ok()?))
        })
        .collect();
    let shown: Vec<_> = sizes.iter().map(|(n, bytes)| format!("{n}: {:.1} MB", *bytes as f64 / 1e6)).collect();
    println!("{work}: {}", shown.join(", "));
    // The allocator keeps some of what was freed, and gives it back now and then: what grows is the least of each half.
    let (first, second) = sizes.split_at(sizes.len() / 2);
    let largest = first.iter().map(|(_, bytes)| *bytes).max().expect("the first half");
    let least = second.iter().map(|(_, bytes)| *bytes).min().expect("the second half");
    assert!(least < largest + largest / 20 + (4 << 20), "{work}: {}", shown.join(", "));
}

#[test]
fn many_videos_in_a_session_take_no_more_memory() {
    stays_flat("videos");
}

#[test]
fn many_sessions_in_a_process_take_no_more_memory() {
    stays_flat("sessions");
}

#[test]
fn a_process_killed_while_it_saves_leaves_a_whole_session() {
    let clips = clips();
    let folder = clips.path("");
    let path = clips.path("chat.session");
    let mut random = Lcg(7);
    let mut session = open("smolvlm");
    for _ in 0..count() / 4 {
        let mut child = child_for("save", &folder).stdout(Stdio::piped()).spawn().expect("it runs");
        // From the first save on, at any point of one of the next.
        let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("saved") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut output, &mut line).expect("a line") > 0, "it saves");
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        child.kill().and_then(|()| child.wait()).expect("it is killed");
        session.load(&path).expect("the last session that was saved is whole");
        assert_eq!(session.messages().len(), 2);
    }
    // What was being written has another name, and the next save works.
    session.save(&path).expect("saved");
    session.load(&path).expect("and loaded");
}

/// A disk that is full behind 8 kB: a limit on the size of files does what a full disk does.
#[cfg(feature = "cli")]
#[test]
fn a_save_that_finds_no_room_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let files = families::files("smolvlm");
    let chat = |limit: &str, lines: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sharpv"), "chat", "-n", "4"]);
        command.arg("-m").arg(&files.model).arg("--mmproj").arg(files.mmproj.as_ref().unwrap());
        assert_cmd::Command::from_std(command).write_stdin(lines.replace("FILE", saved.to_str().unwrap())).assert()
    };
    chat("", "What is it?\n/save FILE\n").success();
    let before = std::fs::read(&saved).unwrap();
    assert!(before.len() > 8192);
    // What is over the limit is an error, and not a signal that ends the program.
    let failed = chat("trap '' XFSZ; ulimit -f 16;", "What is it? And why?\n/save FILE\n").code(1);
    let said = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
    assert!(said.contains("saving the session") && said.contains(saved.to_str().unwrap()), "{said}");
    assert!(std::fs::read(&saved).unwrap() == before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    chat("", "/load FILE\nAnd now?\n").success();
}

#[cfg(feature = "cli")]
#[test]
fn an_evaluation_killed_again_and_again_has_every_answer_once() {
    let clips = clips();
    let rows: String = (0..40)
        .map(|i| {
            let video = ["a.mp4", "b.webm", "c.gif"][i % 3];
            format!("{{\"id\": \"{i}\", \"video\": \"{video}\", \"question\": \"What is {i}?\", \"answer\": \"x\"}}\n")
        })
        .collect();
    let data = clips.write("q.jsonl", rows.as_bytes());
    let files = families::files("smolvlm");
    let start = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
        command.args("eval jsonl --methods dense,sharpv --budgets 0.3 --max-frames 4 -n 4".split(' '));
        // Row by row: what is computed beside others differs in its last bits, and a question that a run goes on with
        // is computed beside the video, which it shares with the one before otherwise.
        command.args(["--ubatch-size", "1"]);
        command.arg("--data").arg(&data).arg("--out").arg(out).arg("-m").arg(&files.model);
        command.arg("--mmproj").arg(files.mmproj.as_ref().expect("an mmproj"));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let answers = |out: &Path| {
        let text = std::fs::read_to_string(out.join("results.jsonl")).expect("results");
        let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole row"));
        let mut answers: Vec<_> = rows
            .filter(|row| row["id"].is_string())
            .map(|row| format!("{} {} {} {}", row["id"], row["method"], row["budget"], row["text"]))
            .collect();
        answers.sort();
        answers
    };
    let (at_once, killed) = (clips.path("at-once"), clips.path("killed"));
    let output = start(&at_once).wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Killed a moment after it has written some more lines, or none: at any point, however fast the machine is.
    let lines =
        || std::fs::read(killed.join("results.jsonl")).map_or(0, |all| all.iter().filter(|b| **b == b'\n').count());
    let mut random = Lcg(11);
    let mut kills = 0;
    let finished = loop {
        let mut child = start(&killed);
        let enough = lines() + random.below(8);
        let status = loop {
            match child.try_wait().expect("a status") {
                Some(status) => break Some(status),
                None if kills < count() && lines() >= enough => break None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        if let Some(status) = status {
            break status;
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        child.kill().and_then(|()| child.wait()).map(drop).expect("it is killed");
        kills += 1;
    };
    assert!(finished.success());
    assert!(kills > 0, "it was killed");
    println!("{kills} kills");
    assert_eq!(answers(&killed), answers(&at_once));
    assert_eq!(answers(&killed).len(), 80);
}
