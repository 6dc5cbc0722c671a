//! Data sets and results from strangers: whatever is in them, they give rows or an error that names the file.

use crate::support::lcg::Lcg;

use sharpv::lab::eval::Task;
use sharpv::lab::report::Report;
use std::fs;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Bytes changed, cut out, doubled; in texts often those that mean something.
fn change(whole: &[u8], random: &mut Lcg) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        let to = (at + 1 + random.below(32)).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
            2 => bytes[at] = b"\"\\,\n\t[]{}:-0e9'"[random.below(15)],
            3 => drop(bytes.drain(at..to)),
            4 => {
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let words: [&[u8]; 8] = [
                    b"1e999",
                    b"-1",
                    b"18446744073709551616",
                    b"null",
                    b"[[[[[[[[",
                    b"\"\\ud800\"",
                    b"\xef\xbb\xbf",
                    b"../",
                ];
                bytes.splice(at..to, words[random.below(8)].iter().copied());
            }
            _ => bytes.truncate(at),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

const JSONL: &str = r#"{"id": "1", "video": "a.mp4", "question": "What?", "answer": "A dog.", "choices": ["A dog.", "A cat."]}
{"video": "b.mp4", "question": "Is it?", "answer": "yes", "start_s": 1.5, "end_s": "3"}
"#;

const NEXTQA: &str = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n\
    4010069381,369,640,480,\"how do the two man play, the instrument\",0,6,CH,roll,tap,strum,hit,pat\n\
    4010069382,369,640,480,what,3,7,TN,a,b,\"c \"\"d\"\"\",d,e\n";

const VIDEOMME: &str = "index\tvideo\tvideo_path\tduration\tdomain\tcandidates\tsub_category\ttask_type\tsubtitle_path\tquestion\tanswer\n\
    0\tclip_001\t./video/clip_001.mp4\tshort\tLife Record\t\"['A. A donut.', \"\"B. It's red.\"\"]\"\tTravel\tObject Recognition\t\
    ./subtitle/clip_001.srt\tWhat is in the video?\tB\n";

const QUESTIONS: &str = r#"[{"video_name": "a", "question_id": "a_1", "question": "is it"}, {"video_name": "b", "question_id": "b_1", "question": "what"}]"#;
const ANSWERS: &str =
    r#"[{"answer": "yes", "type": 3, "question_id": "a_1"}, {"answer": "dog", "type": 4, "question_id": "b_1"}]"#;

fn loads(task: Task, path: &Path, whole: &[u8], what: &str, count: u64, wrong: &mut Vec<String>) {
    let seed = number("SHARPV_TEST_SEED").unwrap_or(7);
    for i in 0..count {
        let bytes = change(whole, &mut Lcg(seed * 1_000_003 + i * 7919));
        fs::write(path, &bytes).expect("a test file");
        let at = std::time::Instant::now();
        match std::panic::catch_unwind(|| task.load(path, None)) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.to_string().contains(&path.display().to_string()) => {}
            Ok(Err(error)) => wrong.push(format!("{what}, {i}: names no file: {error}")),
            Err(_) => wrong.push(format!("{what}, {i}: it panics")),
        }
        if at.elapsed().as_secs() > 20 {
            wrong.push(format!("{what}, {i}: {:?}", at.elapsed()));
        }
    }
}

#[test]
fn a_broken_data_set_gives_rows_or_an_error() {
    let count = number("SHARPV_TEST_MUTATIONS").unwrap_or(150);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut wrong = Vec::new();
    for (task, name, whole) in [
        (Task::Jsonl, "a.jsonl", JSONL.as_bytes()),
        (Task::NextQa, "test.csv", NEXTQA.as_bytes()),
        (Task::VideoMme, "a.tsv", VIDEOMME.as_bytes()),
    ] {
        fs::write(at(name), whole).expect("a test file");
        let dataset = task.load(&at(name), None).unwrap_or_else(|error| panic!("{error}"));
        assert!(!dataset.questions.is_empty());
        loads(task, &at(name), whole, name, count, &mut wrong);
    }
    let parquet = fs::read(repository("tests/data/eval/videomme.parquet")).expect("the parquet file");
    loads(Task::VideoMme, &at("a.parquet"), &parquet, "parquet", 4 * count, &mut wrong);
    let (questions, answers) = (at("test_q.json"), at("test_a.json"));
    fs::write(&questions, QUESTIONS).expect("a test file");
    fs::write(&answers, ANSWERS).expect("a test file");
    let dataset = Task::ActivityNetQa.load(&questions, None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(dataset.questions.len(), 2);
    loads(Task::ActivityNetQa, &questions, QUESTIONS.as_bytes(), "questions", count, &mut wrong);
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn broken_results_give_images_or_an_error() {
    let count = number("SHARPV_TEST_MUTATIONS").unwrap_or(60);
    let seed = number("SHARPV_TEST_SEED").unwrap_or(7);
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    for name in ["bench.json", "summary.json"] {
        let whole = fs::read(repository("tests/data/report").join(name)).expect("results");
        let path = folder.path().join(name);
        for i in 0..count {
            fs::write(&path, change(&whole, &mut Lcg(seed * 1_000_003 + i * 7919))).expect("a test file");
            let drawn =
                std::panic::catch_unwind(|| Report::read(std::slice::from_ref(&path)).and_then(|report| report.html()));
            match drawn {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.to_string().contains(name) => {}
                Ok(Err(error)) => wrong.push(format!("{name}, {i}: names no file: {error}")),
                Err(_) => wrong.push(format!("{name}, {i}: it panics")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
