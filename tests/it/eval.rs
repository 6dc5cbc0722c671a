//! Benchmarks: datasets in their published form, and runs of the program on them.
#![cfg(feature = "cli")]

use crate::support::families;
use crate::support::smol;

use sharpv::chat::{Session, SessionParams, VideoOptions};
use sharpv::lab::eval::{Dataset, Letters, Paired, Question, RightAnswer, Task, wilson};
use sharpv::lab::methods;
use sharpv::lab::results::Summary;
use sharpv::prune::{Budget, PruneParams};
use sharpv::runtime::SamplerParams;
use sharpv::skip::{EncodeMode, EncodeParams};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

// --- datasets ---------------------------------------------------------------------------------------

/// A folder with these files. Contents that begin with a slash name a file or folder that gets a link of that name.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
        match Path::new(content).is_absolute() {
            true => link(Path::new(content), &path),
            false => fs::write(&path, content).expect("a file is written"),
        }
    }
    folder
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) {
    std::os::unix::fs::symlink(target, path).expect("a link is made");
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder of 8 frames.
fn golden(name: &str) -> String {
    repository("tests/data/golden").join(name).to_str().expect("a path in UTF-8").to_owned()
}

fn load(task: Task, path: &Path) -> Dataset {
    task.load(path, None).unwrap_or_else(|error| panic!("{error}"))
}

fn reasons(dataset: &Dataset) -> Vec<&str> {
    dataset.bad_rows.iter().map(|bad| bad.reason.as_str()).collect()
}

fn categories(question: &Question) -> Vec<String> {
    question.categories.iter().map(|(kind, value)| format!("{kind}={value}")).collect()
}

/// The content of the parquet file of `tests/data/eval/make.py`, as TSV.
const VIDEOMME_TSV: &str = "index\tvideo\tvideo_path\tduration\tdomain\tcandidates\tsub_category\ttask_type\tsubtitle_path\tquestion\tanswer\n\
    0\tclip_001\t./video/clip_001.mp4\tshort\tLife Record\t\
    \"['A. A donut.', 'B. A tractor.', 'C. A guitar.', \"\"D. A tent, and it's red.\"\"]\"\tTravel\tObject Recognition\t\
    ./subtitle/clip_001.srt\tWhat is in the video?\tB\n\
    1\tclip_001\t./video/clip_001.mp4\tshort\tLife Record\t['A. Up.', 'B. Left.', 'C. Right.', 'D. Down.']\tTravel\t\
    Action Recognition\t\tWhich way does it move?\tD\n\
    2\tclip_002\t./video/clip_002.mp4\tlong\tLife Record\tnone\tTravel\tCounting Problem\t\tHow many?\tB\n\
    3\tclip_002\tlong\n";

fn videomme_parquet(content: &[(&str, &str)]) -> TempDir {
    let folder = folder(content);
    fs::create_dir_all(folder.path().join("videomme")).expect("a folder is made");
    let to = folder.path().join("videomme/test-00000-of-00001.parquet");
    fs::copy(repository("tests/data/eval/videomme.parquet"), to).expect("the parquet file is copied");
    folder
}

#[test]
fn videomme_is_read_from_parquet_and_tsv_alike() {
    let parquet = videomme_parquet(&[("data/clip_001.MP4", "x"), ("data/clip_002.mkv", "x")]);
    let tsv = folder(&[("Video-MME.tsv", VIDEOMME_TSV), ("video/clip_001.mp4", "x")]);
    let (parquet, parquet_folder) = (load(Task::VideoMme, parquet.path()), parquet);
    let (tsv, tsv_folder) = (load(Task::VideoMme, tsv.path()), tsv);

    let ids = |dataset: &Dataset| dataset.questions.iter().map(|q| q.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&parquet), ["001-1", "001-2", "002-1"]);
    assert_eq!(ids(&tsv), ["0", "1"]);
    assert_eq!(
        reasons(&parquet),
        ["the answer \"E\" is not the letter of an option", "the column \"question\" is missing or empty"]
    );
    assert!(parquet.bad_rows[0].place.ends_with("test-00000-of-00001.parquet, row 4"), "{}", parquet.bad_rows[0].place);
    assert_eq!(reasons(&tsv), ["the candidates are not a list: none", "there are 3 columns in place of 11"]);
    assert!(tsv.bad_rows[1].place.ends_with("Video-MME.tsv:5"), "{}", tsv.bad_rows[1].place);

    for (a, b) in parquet.questions.iter().zip(&tsv.questions) {
        assert_eq!(
            (&a.question, &a.choices, &a.answer, &a.categories),
            (&b.question, &b.choices, &b.answer, &b.categories)
        );
    }
    let first = &parquet.questions[0];
    assert_eq!(first.answer, RightAnswer::Choice(1));
    assert_eq!(
        categories(first),
        ["domain=Life Record", "duration=short", "sub_category=Travel", "task_type=Object Recognition"]
    );
    assert_eq!(first.clip.path, parquet_folder.path().join("data/clip_001.MP4"));
    assert_eq!(parquet.questions[2].clip.path, parquet_folder.path().join("data/clip_002.mkv"));
    assert!(tsv.questions[0].clip.path.ends_with("video/clip_001.mp4") && tsv.questions[0].clip.path.exists());
    drop(tsv_folder);
    assert_eq!(
        Task::VideoMme.prompt(first),
        "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond with only \
         the letter (A, B, C, or D) of the correct option.\nWhat is in the video?\nA. A donut.\nB. A tractor.\nC. A guitar.\n\
         D. A tent, and it's red.\nThe best answer is:"
    );
}

const MVBENCH_MOVING: &str = r#"[
  {"video": "video_10009.mp4", "question": "Which way?", "candidates": ["Up.", "Down."], "answer": "Down."},
  {"video": "video_10010.mp4", "question": "Which way?", "candidates": ["Up.", "Down."], "answer": "Left."},
  {"video": "../../etc/passwd", "question": "Which way?", "candidates": ["Up.", "Down."], "answer": "Up."}
]"#;

const MVBENCH_BOUND: &str = r#"[
  {"video": "ZS9XR.mp4", "question": "What happened?", "candidates": ["a", "b", "c"], "answer": "c", "start": 11.1, "end": 18.4},
  {"video": "ZS9XR.mp4", "question": "What happened?", "candidates": ["a", "b", "c"], "answer": "c", "start": 8, "end": 8}
]"#;

const MVBENCH_FRAMES: &str = r#"[
  {"video": "friends_s03e09", "question": "Why?", "candidates": ["a", "b"], "answer": "a", "start": 0, "end": 2.4}
]"#;

#[test]
fn mvbench_has_bounds_and_folders_of_frames() {
    let enter = golden("enter-2");
    let folder = folder(&[
        ("json/moving_direction.json", MVBENCH_MOVING),
        ("json/action_sequence.json", MVBENCH_BOUND),
        ("json/episodic_reasoning.json", MVBENCH_FRAMES),
        ("video/clevrer/video_validation/video_10009.mp4", "x"),
        ("video/star/Charades_v1_480/ZS9XR.mp4", "x"),
        ("video/tvqa/frames_fps3_hq/friends_s03e09", &enter),
    ]);
    let dataset = load(Task::MvBench, folder.path());
    let ids: Vec<&str> = dataset.questions.iter().map(|question| question.id.as_str()).collect();
    assert_eq!(ids, ["action_sequence/0", "episodic_reasoning/0", "moving_direction/0"]);
    assert_eq!(
        reasons(&dataset),
        [
            "the start, 8 s, is not before the end, 8 s",
            "the answer \"Left.\" is none of the candidates",
            "the video \"../../etc/passwd\" is not within the dataset's folder: the name leads out of its folder"
        ]
    );
    let [bound, frames, moving] = dataset.questions.as_slice() else { panic!("three questions") };
    assert_eq!((bound.clip.start_s, bound.clip.end_s), (Some(11.1), Some(18.4)));
    assert_eq!(frames.clip.folder_fps, Some(3.0));
    for question in [bound, frames, moving] {
        assert!(question.clip.path.exists(), "{}", question.clip.path.display());
    }
    assert_eq!(categories(moving), ["task=moving_direction"]);
    assert_eq!(
        Task::MvBench.prompt(moving),
        "Question:Which way?\nOption:\n(A) Up.\n(B) Down.\nOnly give the best option.\n"
    );
    assert_eq!(Task::MvBench.answer_start(), "Best option:(");
}

#[test]
fn mvbench_videos_that_are_cut_already_have_no_bounds() {
    let folder = folder(&[("json/action_sequence.json", MVBENCH_BOUND), ("star/Charades_segment/ZS9XR.mp4", "x")]);
    let clip = load(Task::MvBench, folder.path()).questions.remove(0).clip;
    assert!(clip.path.exists());
    assert_eq!((clip.start_s, clip.end_s), (None, None));
}

const NEXTQA_MC: &str = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n\
    4010069381,369,640,480,how do the two men play the instrument,4,6,CH,roll the handle,tap their feet,strum,\"hit, with sticks\",pat\n\
    4010069381,369,640,480,why,5,7,CW,a,b,c,d,e\n\
    4010069381,369,640,480,why,0,8,CW,a,b,c,d,\n\
    4010069381,369,640,480,how again,0,6,CH,a,b,c,d,e\n";

const NEXTQA_OE: &str = "video,frame_count,width,height,question,answer,qid,type,additional_ref_answer\n\
    4010069381,369,640,480,what is on the table,cups,3,DO,glasses\n";

const NEXTQA_MAP: &str = r#"{"4010069381": "1164/4010069381", "2": "0/2"}"#;

#[test]
fn nextqa_is_multiple_choice_or_open() {
    let files =
        [("map_vid_vidorID.json", NEXTQA_MAP), ("NExTVideo/1164/4010069381.mp4", "x"), ("oe/test.csv", NEXTQA_OE)];
    let folder = folder(&[files.as_slice(), &[("test.csv", NEXTQA_MC), ("train.csv", "nothing")]].concat());
    let dataset = load(Task::NextQa, folder.path());
    assert_eq!(
        reasons(&dataset),
        [
            "the answer \"5\" is not a number from 0 to 4",
            "1 of the choices a0 to a4 are missing",
            "an earlier question has the same id"
        ]
    );
    let [question] = dataset.questions.as_slice() else { panic!("one question") };
    assert_eq!((question.id.as_str(), &question.answer), ("4010069381_6", &RightAnswer::Choice(4)));
    assert!(question.clip.path.ends_with("NExTVideo/1164/4010069381.mp4"), "{}", question.clip.path.display());
    assert_eq!(categories(question), ["type=CH"]);
    assert_eq!(
        Task::NextQa.prompt(question),
        "how do the two men play the instrument\nA. roll the handle\nB. tap their feet\nC. strum\nD. hit, with sticks\nE. pat\n\
         Answer with the option's letter from the given choices directly."
    );

    let open = load(Task::NextQa, &folder.path().join("oe/test.csv")).questions.remove(0);
    assert_eq!(open.answer, RightAnswer::Text(vec!["cups".into(), "glasses".into()]));
    // The map is in the parent folder.
    assert!(open.clip.path.ends_with("NExTVideo/1164/4010069381.mp4"), "{}", open.clip.path.display());
    assert_eq!(Task::NextQa.prompt(&open), "what is on the table\nAnswer a question using a short phrase or sentence.");
}

const ACTIVITYNET_Q: &str = r#"[
  {"video_name": "1QIUV7WYKXg", "question": "is the athlete wearing trousers", "question_id": "v_1QIUV7WYKXg_3"},
  {"video_name": "1QIUV7WYKXg", "question": "how many people are there", "question_id": "v_1QIUV7WYKXg_4"},
  {"video_name": "1QIUV7WYKXg", "question": "where", "question_id": "v_1QIUV7WYKXg_9"}
]"#;

const ACTIVITYNET_A: &str = r#"[
  {"answer": "yes", "type": 3, "question_id": "v_1QIUV7WYKXg_3"},
  {"answer": "2", "type": 7, "question_id": "v_1QIUV7WYKXg_4"}
]"#;

#[test]
fn activitynet_qa_joins_questions_and_answers() {
    let folder = folder(&[
        ("test_q.json", ACTIVITYNET_Q),
        ("test_a.json", ACTIVITYNET_A),
        ("val_q.json", "[]"),
        ("all_test/v_1QIUV7WYKXg.webm", "x"),
    ]);
    let dataset = load(Task::ActivityNetQa, folder.path());
    assert_eq!(reasons(&dataset), ["there is no answer to question v_1QIUV7WYKXg_9"]);
    let [wearing, number] = dataset.questions.as_slice() else { panic!("two questions") };
    assert_eq!(categories(wearing), ["type=yes/no"]);
    assert!(wearing.clip.path.ends_with("all_test/v_1QIUV7WYKXg.webm"));
    assert_eq!(
        Task::ActivityNetQa.prompt(wearing),
        "is the athlete wearing trousers? Answer the question using a single word or phrase."
    );
    assert!(wearing.judge("Yes, he is.").correct && !wearing.judge("No.").correct);
    assert!(number.judge("Two").correct && !number.judge("").correct);
}

#[test]
fn rows_of_ones_own_are_checked() {
    let lines = [
        r#"{"video": "a.mp4", "question": "What?", "choices": ["a cat", "B"], "answer": "B", "start": 1, "end": 2.5, "category": "x"}"#,
        r#"{"video": "a.mp4", "question": "What?", "choices": ["a cat", "a car"], "answer": "b"}"#,
        r#"{"video": "a.mp4", "question": "What?", "answer": ["a cat", "a tabby"], "id": "mine"}"#,
        "",
        r#"{"video": "a.mp4", "question": "What?", "choices": ["a cat", "a car"], "answer": "a dog"}"#,
        r#"{"video": "a.mp4", "question": "What?", "choices": ["a cat"], "answer": "A"}"#,
        r#"{"video": "a.mp4", "question": "What?", "answer": "x", "choises": []}"#,
        r#"{"video": "a.mp4", "question": "What?", "answer": "x", "start": "soon"}"#,
        r#"{"video": "a.mp4", "question": "What?"}"#,
        "[1]",
        "{",
    ];
    let folder = folder(&[("my.jsonl", &lines.join("\n"))]);
    let dataset = load(Task::Jsonl, &folder.path().join("my.jsonl"));
    let answers: Vec<_> = dataset.questions.iter().map(|q| (q.id.as_str(), q.right_answer())).collect();
    assert_eq!(answers, [("1", "B".to_owned()), ("2", "B".to_owned()), ("mine", "a cat | a tabby".to_owned())]);
    assert_eq!(dataset.questions[0].clip.path, folder.path().join("a.mp4"));
    assert_eq!((dataset.questions[0].clip.start_s, dataset.questions[0].clip.end_s), (Some(1.0), Some(2.5)));
    assert_eq!(dataset.bad_rows.len(), 7, "{:?}", dataset.bad_rows);
    assert!(dataset.bad_rows[0].place.ends_with("my.jsonl:5"), "{}", dataset.bad_rows[0].place);
    assert!(dataset.bad_rows[2].reason.contains("\"choises\" is not a known key"), "{}", dataset.bad_rows[2].reason);
    assert_eq!(Task::Jsonl.prompt(&dataset.questions[2]), "What?");
}

/// Questions from somebody else must not open other files of the disk.
#[test]
fn videos_stay_in_the_folders_of_the_data_set() {
    let folder = folder(&[("set/a.mp4", "x"), ("mine/b.mp4", "x"), ("mine/deep/c.mp4", "x"), ("d.mp4", "x")]);
    let at = |path: &str| folder.path().join(path).to_str().expect("UTF-8").to_owned();
    let row = |video: &str| serde_json::json!({"video": video, "question": "What?", "answer": "x"}).to_string();
    let rows = [
        "a.mp4".to_owned(),
        "./a.mp4".to_owned(),
        at("set/a.mp4"),
        at("mine/deep/c.mp4"),
        "../d.mp4".to_owned(),
        "x/../../d.mp4".to_owned(),
        at("d.mp4"),
        at("set/../d.mp4"),
        "/etc/passwd".to_owned(),
        String::new(),
        "a\0.mp4".to_owned(),
    ];
    let lines: Vec<String> = rows.iter().map(|video| row(video)).collect();
    let data = folder.path().join("set/q.jsonl");
    fs::write(&data, lines.join("\n")).expect("a file is written");
    let found = |videos: Option<&str>| {
        let videos = videos.map(|name| folder.path().join(name));
        let dataset = Task::Jsonl.load(&data, videos.as_deref()).expect("questions");
        let paths: Vec<PathBuf> = dataset.questions.iter().map(|question| question.clip.path.clone()).collect();
        (paths, dataset.bad_rows)
    };
    let (paths, bad) = found(None);
    assert_eq!(paths, [0, 1, 2].map(|_| folder.path().join("set/a.mp4")));
    assert_eq!(bad.len(), rows.len() - 3);
    for (bad, (line, video)) in bad.iter().zip(rows.iter().enumerate().skip(3)) {
        assert_eq!(bad.place, format!("{}:{}", data.display(), line + 1));
        assert!(bad.reason.contains(&format!("the video \"{video}\" is not within")), "{}", bad.reason);
    }
    assert!(bad[0].reason.contains(&at("set")), "{}", bad[0].reason);
    // A folder of the user's own beside it: absolute paths may point there, and nowhere else.
    let (paths, bad) = found(Some("mine"));
    assert_eq!(paths[3], folder.path().join("mine/deep/c.mp4"));
    assert_eq!((paths.len(), bad.len()), (4, rows.len() - 4));
    // Unless the user allows the common parent.
    let (paths, bad) = found(Some(""));
    assert_eq!(paths[4], folder.path().join("d.mp4"));
    assert_eq!((paths.len(), bad.len()), (5, rows.len() - 5));
}

#[test]
fn videos_of_every_format_stay_in_its_folders() {
    let outside = "../../d";
    let nextqa = format!(
        "video,question,answer,qid,type,a0,a1,a2,a3,a4\n{outside},What?,0,1,CH,a,b,c,d,e\n1,What?,0,1,CH,a,b,c,d,e\n"
    );
    let videomme = format!(
        "index\tvideo\tvideo_path\tcandidates\tquestion\tanswer\n0\t{outside}\t\t\"['A. a', 'B. b']\"\tWhat?\tA\n1\tv\t/etc/passwd\t\"['A. a', 'B. b']\"\tWhat?\tA\n"
    );
    let mvbench = serde_json::json!([
        {"video": format!("{outside}.mp4"), "question": "What?", "candidates": ["a", "b"], "answer": "a"},
        {"video": "/etc/passwd", "question": "What?", "candidates": ["a", "b"], "answer": "a"},
        {"video": "v.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "a"},
    ]);
    let questions = serde_json::json!([
        {"video_name": "x/../../../d", "question_id": "1", "question": "is it"},
        {"video_name": "v", "question_id": "2", "question": "is it"},
    ]);
    let answers = serde_json::json!([
        {"question_id": "1", "answer": "yes", "type": 3}, {"question_id": "2", "answer": "yes", "type": 3},
    ]);
    for (task, files, n_bad) in [
        (Task::NextQa, vec![("s/q/val.csv", nextqa)], 1),
        (Task::VideoMme, vec![("s/q/v.tsv", videomme)], 1),
        (Task::MvBench, vec![("s/q/json/moving_count.json", mvbench.to_string())], 2),
        (
            Task::ActivityNetQa,
            vec![("s/q/test_q.json", questions.to_string()), ("s/q/test_a.json", answers.to_string())],
            1,
        ),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let folder = folder(&files);
        let dataset = load(task, &folder.path().join("s/q"));
        assert_eq!(dataset.questions.len(), 1, "{task:?}: {:?}", dataset.bad_rows);
        assert!(dataset.questions[0].clip.path.starts_with(folder.path().join("s")), "{:?}", dataset.questions[0]);
        assert_eq!(dataset.bad_rows.len(), n_bad, "{task:?}: {:?}", dataset.bad_rows);
        assert!(dataset.bad_rows.iter().all(|bad| bad.reason.contains("is not within")), "{:?}", dataset.bad_rows);
    }
}

/// Links in the folder are the user's own: large videos are often elsewhere, and linked.
#[cfg(unix)]
#[test]
fn links_in_the_folder_of_a_data_set_are_followed() {
    let folder = folder(&[("disk/a.mp4", "x")]);
    let data = folder.path().join("set/q.jsonl");
    fs::create_dir(folder.path().join("set")).expect("a folder");
    std::os::unix::fs::symlink(folder.path().join("disk"), folder.path().join("set/videos")).expect("a link");
    let real = folder.path().canonicalize().expect("it is there").join("set/videos/a.mp4");
    for video in ["videos/a.mp4", real.to_str().expect("UTF-8")] {
        let row = serde_json::json!({"video": video, "question": "What?", "answer": "x"});
        fs::write(&data, row.to_string()).expect("a file is written");
        let path = load(Task::Jsonl, &data).questions[0].clip.path.clone();
        assert_eq!(fs::read(&path).expect("the video"), b"x", "{}", path.display());
    }
}

#[test]
fn a_folder_that_is_no_dataset_is_told() {
    let folder = folder(&[("notes.txt", "x"), ("q.jsonl", "{}\n"), ("x.json", "{}"), ("test.csv", "a,b\n1,2\n")]);
    let error = |task: Task, path: &Path| task.load(path, None).unwrap_err().to_string();
    assert!(error(Task::VideoMme, folder.path()).contains("no .parquet and no .tsv"));
    assert!(error(Task::MvBench, folder.path()).contains("not an array of rows"));
    assert!(error(Task::NextQa, folder.path()).contains("no column \"video\", but a, b"));
    assert!(error(Task::ActivityNetQa, folder.path()).contains("no file *_q.json"));
    assert!(error(Task::Jsonl, &folder.path().join("q.jsonl")).contains("no row can be asked"));
    assert!(error(Task::Jsonl, &folder.path().join("missing")).contains("missing"));
    fs::write(folder.path().join("x.parquet"), "PAR1 no more").expect("a file is written");
    assert!(error(Task::VideoMme, folder.path()).contains("cannot be read"));
}

// --- statistics -------------------------------------------------------------------------------------

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// Values of SciPy 1.16: `binomtest(k, n).proportion_ci(0.95, method="wilson")`.
#[test]
fn intervals_are_wilsons() {
    for (right, n, low, high) in [
        (0, 10, 0.0, 0.27753279986288926),
        (3, 4, 0.30064184258240184, 0.9544127391902995),
        (81, 263, 0.2552885198782742, 0.36620957698280004),
        (1000, 1000, 0.9961732415144449, 1.0),
    ] {
        let found = wilson(right, n);
        assert!(close(found[0], low) && close(found[1], high), "{right}/{n}: {found:?}");
    }
    assert_eq!(wilson(0, 0), [0.0, 1.0]);
}

/// Values of SciPy 1.16: `binomtest(min(a, b), a + b, 0.5).pvalue`.
#[test]
fn p_values_are_mcnemars() {
    for (only_a, only_b, p) in [
        (5, 15, 0.04138946533203125),
        (0, 3, 0.25),
        (10, 10, 1.0),
        (121, 59, 4.4344492637551645e-06),
        (1200, 1300, 0.047681865221043444),
        (0, 0, 1.0),
    ] {
        let found = Paired { n: only_a + only_b, only_a, only_b }.p_value();
        assert!((found - p).abs() <= 1e-9 * p, "{only_a} {only_b}: {found}");
    }
}

/// Values computed in Python from the formula of Bonett and Price (2012), with SciPy's normal quantile.
#[test]
fn intervals_of_differences_are_bonetts_and_prices() {
    for (only_a, only_b, n, low, high) in
        [(5, 15, 100, 0.009942397356103375, 0.18613603401644563), (10, 10, 50, -0.1767893454187114, 0.1767893454187114)]
    {
        let paired = Paired { n, only_a, only_b };
        let found = paired.interval();
        assert!(close(found[0], low) && close(found[1], high), "{found:?}");
        assert!(close(paired.difference(), (only_b as f64 - only_a as f64) / n as f64));
    }
    // The bound never exceeds 1.
    assert_eq!(Paired { n: 4, only_a: 0, only_b: 3 }.interval()[1], 1.0);
}

// --- selecting anew ---------------------------------------------------------------------------------

fn open(files: &sharpv::models::ModelFiles, prune: PruneParams, keep_unpruned: bool) -> Session {
    // A partial encoding depends on the selection.
    let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
    let params = SessionParams { prune, keep_unpruned, encode, n_predict: 8, ..SessionParams::default() };
    Session::open(files, params, &mut ()).expect("the model opens")
}

/// A changed selection equals that of a new session, down to the bits of the logits, also after an answer with another
/// selection.
#[test]
fn selecting_anew_equals_a_new_session() {
    let selections = [
        PruneParams::default(),
        PruneParams::off(),
        PruneParams { budget: Budget::Keep(0.2), ..PruneParams::default() },
        PruneParams { method: methods::RANDOM, seed: 3, budget: Budget::Keep(0.4), ..PruneParams::default() },
        PruneParams { method: methods::UNIFORM, budget: Budget::MaxTokens(9), ..PruneParams::default() },
        PruneParams::default(),
    ];
    for family in ["internvl", "qwen2.5vl", "qwen3vl", "llava-onevision"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        families::write_frames(folder.path(), (56, 56), 4);
        let files = families::files(family);
        let ask = |session: &mut Session| {
            session.restart();
            session.first_logits("What is it?", &mut ()).expect("logits")
        };
        let add = |session: &mut Session| {
            session.add_video(folder.path(), &VideoOptions::default(), &mut ()).expect("a video");
        };
        let mut session = open(&files, PruneParams { method: methods::RANDOM, ..PruneParams::default() }, true);
        add(&mut session);
        ask(&mut session);
        for prune in &selections {
            session.set_prune(prune.clone()).expect("a selection");
            let found = ask(&mut session);
            let mut fresh = open(&files, prune.clone(), false);
            add(&mut fresh);
            assert_eq!(session.visual_tokens(), fresh.visual_tokens(), "{family} {prune:?}");
            assert_eq!(
                session.prompt_rows("x").expect("rows").iter().map(|row| row.position).collect::<Vec<_>>(),
                fresh.prompt_rows("x").expect("rows").iter().map(|row| row.position).collect::<Vec<_>>(),
                "{family} {prune:?}"
            );
            let expected = ask(&mut fresh);
            assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{family} {prune:?}");
            // With an answer in the cache, and perhaps an eviction after it.
            session.ask("And then?", &mut ()).expect("an answer");
        }
    }
}

#[test]
fn selecting_anew_needs_the_tokens_that_were_left_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    families::write_frames(folder.path(), (56, 56), 2);
    let files = families::files("internvl");
    let mut session = open(&files, PruneParams::default(), false);
    session.add_video(folder.path(), &VideoOptions::default(), &mut ()).expect("a video");
    let before = session.visual_tokens();
    let error = session.set_prune(PruneParams::off()).unwrap_err().to_string();
    assert!(error.contains("keep_unpruned is false"), "{error}");
    assert_eq!(session.visual_tokens(), before);

    // A saved session holds only the kept tokens.
    let file = folder.path().join("saved");
    session.save(&file).expect("it is saved");
    let mut session = open(&files, PruneParams::default(), true);
    session.load(&file).expect("it is loaded");
    let error = session.set_prune(PruneParams::off()).unwrap_err().to_string();
    assert!(error.contains("add it again"), "{error}");
    session.clear();
    session.set_prune(PruneParams::off()).expect("no video is in the way");
    assert!(session.set_prune(PruneParams { spatial_weight: -1.0, ..PruneParams::default() }).is_err());
}

#[test]
fn an_answer_can_be_begun() {
    let mut session = open(&families::files("internvl"), PruneParams::default(), false);
    let plain = session.prompt_text("Which?").expect("a prompt");
    session.set_answer_start("Best option:(");
    assert_eq!(session.prompt_text("Which?").expect("a prompt"), format!("{plain}Best option:("));
    let answer = session.ask("Which?", &mut ()).expect("an answer");
    assert!(!answer.answer.contains("Best option"), "{}", answer.answer);
    assert!(session.messages()[1].content.starts_with("Best option:("), "{}", session.messages()[1].content);
}

/// If a greedy answer begins with a letter, it is the likeliest one.
#[test]
fn the_likeliest_letter_is_the_one_that_the_model_writes() {
    let params = SessionParams {
        sampler: SamplerParams { grammar: Some("root ::= [A-D]".into()), ..SamplerParams::default() },
        n_predict: 1,
        ..SessionParams::default()
    };
    let mut session = Session::open(&families::files("qwen2.5vl"), params, &mut ()).expect("the model opens");
    let letters = Letters::new(session.model()).expect("a model with letters");
    for question in ["Which?", "Where?", "Who is it?", "When?", "Why so?", "How many are there?"] {
        session.clear();
        let logits = session.first_logits(question, &mut ()).expect("logits");
        let found = letters.log_probabilities(&logits, 4);
        let best = (0..4).max_by(|&a, &b| found[a].total_cmp(&found[b])).expect("four letters");
        let answer = session.ask(question, &mut ()).expect("an answer").answer;
        assert_eq!(answer, ["A", "B", "C", "D"][best], "{question}: {found:?}");
        assert!(found.iter().map(|p| p.exp()).sum::<f64>() <= 1.0 + 1e-9);
    }
}

// --- the program ------------------------------------------------------------------------------------

fn sharpv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.env_remove("SHARPV_LOG").args(args).stdin(Stdio::null());
    command
}

/// `sharpv eval` with a tiny model, whose answers are nonsense.
fn eval(task: &str, data: &Path, out: &Path, options: &str) -> Output {
    let model = families::files("internvl");
    let mmproj = model.mmproj.expect("a projector");
    let mut command = sharpv(&["eval", task]);
    command.arg("--data").arg(data).arg("--out").arg(out).arg("-m").arg(&model.model).arg("--mmproj").arg(&mmproj);
    if task == "jsonl" {
        // The rows have absolute paths of the golden clips.
        command.arg("--videos").arg(golden(""));
    }
    command.args(options.split_whitespace()).output().expect("the program runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

fn results(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("results.jsonl")).expect("results");
    text.lines().skip(1).map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn summary(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(out.join("summary.json")).expect("a summary")).expect("JSON")
}

/// Questions about the golden clips, with the answers that `smol` gives.
fn golden_questions() -> String {
    [
        ("enter-2", "What is in the video?", "There is a guitar and a donut.", "still"),
        ("move-0", "Which way does the hamburger move?", "The hamburger moves up.", "move"),
        ("move-0", "Which way does the hamburger move?", "The hamburger moves down.", "move"),
        ("order-1", "What appears first?", "The tent appears first.", "order"),
    ]
    .map(|(clip, question, answer, category)| {
        let row =
            serde_json::json!({"video": golden(clip), "question": question, "answer": answer, "category": category});
        row.to_string() + "\n"
    })
    .concat()
}

/// `sharpv eval` with `smol` on the golden clips.
fn eval_golden(data: &Path, out: &Path, options: &str) -> Command {
    smol::files();
    let mut command = sharpv(&["eval", "jsonl", "--data"]);
    command.arg(data).arg("--out").arg(out).arg("--videos").arg(golden("")).args(options.split_whitespace());
    command
}

#[test]
fn a_run_counts_what_is_right() {
    let folder = folder(&[("q.jsonl", &golden_questions())]);
    let out = folder.path().join("out");
    // As in the reference, which gave these answers. `smol` does not see directions: one token more or less changes its
    // choice.
    let methods = "--methods dense,sharpv-paper,uniform";
    let run = eval_golden(&folder.path().join("q.jsonl"), &out, methods).output().expect("it runs");
    succeeds(&run);
    let text = fs::read_to_string(out.join("summary.json")).expect("a summary");
    let read: Summary = serde_json::from_str(&text).expect("a summary");
    assert_eq!(serde_json::to_string_pretty(&read).unwrap() + "\n", text, "what is read is what was written");
    let summary = summary(&out);
    let names: Vec<_> =
        summary["variants"].as_array().expect("variants").iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dense", "sharpv-paper@auto", "uniform@auto"]);
    assert_eq!(summary["complete"], true);
    for variant in 0..2 {
        let variant = &summary["variants"][variant];
        assert_eq!((&variant["n"], &variant["correct"]), (&4.into(), &3.into()), "{variant}");
        assert_eq!(variant["categories"]["category"]["move"]["correct"], 1, "{variant}");
        let interval = wilson(3, 4);
        assert!(close(variant["interval"][0].as_f64().unwrap(), interval[0]), "{variant}");
    }
    assert_eq!(summary["variants"][0]["kept_share"], 1.0);
    let (sharpv, uniform) = (&summary["variants"][1], &summary["variants"][2]);
    assert_eq!(sharpv["kept_mean"], uniform["kept_mean"]);
    assert!(sharpv["kept_share"].as_f64().unwrap() < 0.2, "{sharpv}");
    let pairs: Vec<_> =
        summary["comparisons"].as_array().unwrap().iter().map(|c| (c["a"].as_str(), c["b"].as_str())).collect();
    assert_eq!(pairs.len(), 3, "{pairs:?}");
    assert_eq!((&summary["comparisons"][0]["difference"], &summary["comparisons"][0]["p"]), (&0.0.into(), &1.0.into()));
    let table = String::from_utf8_lossy(&run.stdout);
    assert!(table.contains("dense") && table.contains("75.0 %") && table.contains("30.1–95.4 %"), "{table}");
    assert!(stderr(&run).contains("12/12 answers"), "{}", stderr(&run));
}

fn wait_for_rows(out: &Path, n: usize) {
    let start = std::time::Instant::now();
    let lines = || fs::read_to_string(out.join("results.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < n + 1 {
        assert!(start.elapsed().as_secs() < 300, "no answers came");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_was_killed_goes_on() {
    let folder = folder(&[("q.jsonl", &golden_questions())]);
    let (data, out) = (folder.path().join("q.jsonl"), folder.path().join("out"));
    let options = "--methods dense,sharpv --budgets 0.1";
    let start =
        || eval_golden(&data, &out, options).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    let mut killed = start();
    wait_for_rows(&out, 1);
    killed.kill().expect("it is killed");
    killed.wait().expect("it ends");
    let first = fs::read_to_string(out.join("results.jsonl")).expect("results");
    assert!(first.lines().count() < 9, "it was killed too late");
    assert!(!out.join("summary.json").exists());

    let mut stopped = start();
    wait_for_rows(&out, first.lines().count());
    let interrupt = Command::new("kill").args(["-INT", &stopped.id().to_string()]).status();
    assert!(interrupt.expect("kill runs").success());
    assert_eq!(stopped.wait().expect("it ends").code(), Some(130));
    let second = fs::read_to_string(out.join("results.jsonl")).expect("results");
    assert!(second.ends_with('\n') && second.lines().count() < 9, "{second}");

    let last = eval_golden(&data, &out, options).output().expect("it runs");
    succeeds(&last);
    assert!(stderr(&last).contains("of 8 answers are in"), "{}", stderr(&last));
    let whole = fs::read_to_string(out.join("results.jsonl")).expect("results");
    let finished = first.rfind('\n').map_or(0, |end| end + 1);
    assert!(whole.starts_with(&first[..finished]), "what was there is left as it was");
    let mut keys: Vec<String> =
        results(&out).iter().map(|row| format!("{} {} {}", row["id"], row["method"], row["budget"])).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), results(&out).len()), (8, 8));
    assert_eq!(summary(&out)["variants"][0]["correct"], 3);

    // All answers exist, so nothing is asked again.
    let again = eval_golden(&data, &out, options).output().expect("it runs");
    succeeds(&again);
    assert_eq!(again.stdout, last.stdout);
    assert_eq!(fs::read_to_string(out.join("results.jsonl")).expect("results"), whole);
}

#[test]
fn videos_side_by_side_give_the_same_answers() {
    let broken = serde_json::json!({"video": "broken.mp4", "question": "What is in the video?", "answer": "Nothing."});
    let questions = format!("{broken}\n{}", golden_questions());
    let folder = folder(&[("q.jsonl", &questions), ("broken.mp4", "no video")]);
    let data = folder.path().join("q.jsonl");
    // The same number of threads for each job, so that sums are rounded the same way.
    let run = |jobs: &str| {
        let out = folder.path().join(jobs);
        let options = format!("--methods dense,sharpv --threads 1 --jobs {jobs}");
        let run = eval_golden(&data, &out, &options).output().expect("it runs");
        succeeds(&run);
        assert!(stderr(&run).contains("broken.mp4"), "{}", stderr(&run));
        let mut rows: Vec<String> = results(&out).iter().map(ToString::to_string).collect();
        rows.sort();
        (rows, summary(&out), run.stdout)
    };
    let (alone, side_by_side) = (run("1"), run("3"));
    assert_eq!(alone.0.len(), 8);
    assert_eq!(alone.1["bad_rows"].as_array().map(Vec::len), Some(1), "{}", alone.1["bad_rows"]);
    assert_eq!(alone, side_by_side);
}

#[test]
fn results_of_other_settings_are_refused_and_methods_can_be_added() {
    let folder = folder(&[("q.jsonl", &golden_questions())]);
    let (data, out) = (folder.path().join("q.jsonl"), folder.path().join("out"));
    succeeds(&eval("jsonl", &data, &out, "--methods sharpv --max-frames 2 --limit 2"));
    let before = fs::read(out.join("results.jsonl")).expect("results");
    let refused = eval("jsonl", &data, &out, "--methods sharpv --max-frames 4 -n 8");
    assert_eq!(refused.status.code(), Some(1));
    let message = stderr(&refused);
    assert!(
        message.contains("max_frames 2 there, 4 here") && message.contains("n_predict 64 there, 8 here"),
        "{message}"
    );
    assert_eq!(fs::read(out.join("results.jsonl")).expect("results"), before);

    succeeds(&eval("jsonl", &data, &out, "--methods sharpv,random --max-frames 2"));
    assert_eq!(results(&out).len(), 8);
    assert!(fs::read(out.join("results.jsonl")).expect("results").starts_with(&before));
    // Other questions.
    fs::write(&data, golden_questions().replace("hamburger", "tent")).expect("a file is written");
    assert_eq!(eval("jsonl", &data, &out, "--methods sharpv --max-frames 2").status.code(), Some(1));
}

#[test]
fn questions_that_cannot_be_asked_are_left_out() {
    let clip = golden("move-0");
    let rows = [
        serde_json::json!({"video": clip, "question": "Which?", "choices": ["up", "down"], "answer": "A"}),
        serde_json::json!({"video": "missing.mp4", "question": "Which?", "choices": ["up", "down"], "answer": "A"}),
        serde_json::json!({"video": "broken.mp4", "question": "Which?", "choices": ["up", "down"], "answer": "A"}),
        serde_json::json!({"video": clip, "question": "Which?", "choices": ["up", "down"], "answer": "C"}),
        serde_json::json!({"video": clip, "question": "Which?", "choices": ["up", "down"], "answer": "A", "start": 3600}),
    ]
    .map(|row| row.to_string());
    let folder = folder(&[("q.jsonl", &rows.join("\n")), ("broken.mp4", "no video")]);
    let (data, out) = (folder.path().join("q.jsonl"), folder.path().join("out"));
    let run = eval("jsonl", &data, &out, "--methods dense,sharpv --max-frames 2");
    succeeds(&run);
    let (warnings, summary) = (stderr(&run), summary(&out));
    let places: Vec<_> =
        summary["bad_rows"].as_array().unwrap().iter().map(|bad| bad["place"].as_str().unwrap()).collect();
    assert_eq!(places[1..], ["question 2", "question 3", "question 5"]);
    assert!(places[0].ends_with("q.jsonl:4"), "{places:?}");
    for reason in ["neither one of the choices", "missing.mp4", "broken.mp4", "beyond the end"] {
        assert!(warnings.contains(reason), "{reason}: {warnings}");
    }
    assert_eq!((&summary["complete"], &summary["variants"][0]["n"]), (&false.into(), &1.into()));
    // A video that was added meanwhile.
    fs::remove_file(folder.path().join("broken.mp4")).expect("it is removed");
    fs::copy(repository("demo/clip.mp4"), folder.path().join("broken.mp4")).expect("it is copied");
    succeeds(&eval("jsonl", &data, &out, "--methods dense,sharpv --max-frames 2"));
    assert_eq!(results(&out).len(), 4);

    fs::write(&data, &rows[1]).expect("a file is written");
    let none = eval("jsonl", &data, &folder.path().join("other"), "--methods dense");
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("no question could be asked"), "{}", stderr(&none));
}

#[test]
fn every_benchmark_runs() {
    let demo = repository("demo/clip.mp4").to_str().expect("a path in UTF-8").to_owned();
    let clips = [("data/clip_001.mp4", demo.as_str()), ("data/clip_002.mp4", demo.as_str())];
    let enter = golden("enter-2");
    let data = [
        ("videomme", videomme_parquet(&clips), 3, "likelihood"),
        ("videomme", folder(&[("Video-MME.tsv", VIDEOMME_TSV), ("video/clip_001.mp4", &demo)]), 2, "generate"),
        (
            "mvbench",
            folder(&[
                ("json/moving_direction.json", MVBENCH_MOVING),
                ("json/action_sequence.json", &MVBENCH_BOUND.replace("11.1", "0.1").replace("18.4", "0.9")),
                ("json/episodic_reasoning.json", MVBENCH_FRAMES),
                ("video/clevrer/video_validation/video_10009.mp4", &demo),
                ("video/star/Charades_v1_480/ZS9XR.mp4", &demo),
                ("video/tvqa/frames_fps3_hq/friends_s03e09", &enter),
            ]),
            3,
            "likelihood",
        ),
        (
            "nextqa",
            folder(&[
                ("test.csv", NEXTQA_MC),
                ("map_vid_vidorID.json", NEXTQA_MAP),
                ("NExTVideo/1164/4010069381.mp4", &demo),
            ]),
            1,
            "likelihood",
        ),
        ("nextqa", folder(&[("test.csv", NEXTQA_OE), ("videos/4010069381.mp4", &demo)]), 1, "generate"),
        (
            "activitynetqa",
            folder(&[("test_q.json", ACTIVITYNET_Q), ("test_a.json", ACTIVITYNET_A), ("v_1QIUV7WYKXg.mp4", &demo)]),
            2,
            "generate",
        ),
    ];
    for (task, data, n, score) in data {
        let out = data.path().join("out");
        let options = format!("--methods dense,sharpv --budgets 0.25 --score {score} --max-frames 4");
        let run = eval(task, data.path(), &out, &options);
        succeeds(&run);
        let (rows, summary) = (results(&out), summary(&out));
        assert_eq!(rows.len(), 2 * n, "{task}: {}", stderr(&run));
        assert_eq!((&summary["task"], &summary["complete"]), (&task.into(), &true.into()));
        assert!(!summary["variants"][1]["categories"].as_object().expect("categories").is_empty(), "{task}");
        for row in rows {
            let (kept, total) = (row["kept"].as_u64().unwrap(), row["visual_tokens"].as_u64().unwrap());
            let expected = if row["method"] == "dense" { total } else { (total as f64 / 4.0).round() as u64 };
            assert_eq!(kept, expected, "{row}");
            if score == "likelihood" {
                let found: Vec<f64> =
                    row["log_probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
                let best = (0..found.len()).fold(0, |best, i| if found[i] > found[best] { i } else { best });
                assert_eq!(row["predicted"], char::from(b'A' + best as u8).to_string(), "{row}");
                assert_eq!(row["correct"], row["predicted"] == row["answer"], "{row}");
            } else {
                assert!(row["text"].is_string(), "{row}");
            }
        }
    }
}

/// The eviction that a question causes must not affect the next one.
#[test]
fn with_eviction_the_order_of_the_questions_changes_nothing() {
    let clip = golden("move-0");
    let rows = ["What?", "Which way does it move?", "Is it so?"]
        .map(|question| serde_json::json!({"video": clip, "question": question, "answer": "x"}).to_string());
    let folder = folder(&[("q.jsonl", &rows.join("\n"))]);
    let answers = |name: &str, options: &str| {
        let out = folder.path().join(name);
        let options =
            format!("--methods sharpv,dense --max-frames 2 -n 6 --evict layers --evict-threshold 1 {options}");
        succeeds(&eval("jsonl", &folder.path().join("q.jsonl"), &out, &options));
        let mut found: Vec<String> =
            results(&out).iter().map(|row| format!("{} {} {}", row["id"], row["method"], row["text"])).collect();
        let order = found.clone();
        found.sort();
        (order, found)
    };
    let (plain, shuffled) = (answers("a", ""), answers("b", "--shuffle 2"));
    assert_ne!(plain.0, shuffled.0, "another order");
    assert_eq!(plain.1, shuffled.1);
    assert_eq!(plain.1.len(), 6);
}

#[test]
fn a_part_of_the_questions_can_be_asked() {
    let folder = folder(&[("q.jsonl", &golden_questions())]);
    let data = folder.path().join("q.jsonl");
    let ids = |name: &str, options: &str| {
        let out = folder.path().join(name);
        succeeds(&eval("jsonl", &data, &out, &format!("--methods sharpv --max-frames 1 -n 1 {options}")));
        results(&out).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("a", "--category move"), ["2", "3"]);
    assert_eq!(ids("b", "--category category=move --limit 1"), ["2"]);
    let shuffled = ids("c", "--shuffle 7 --limit 3");
    assert_eq!((shuffled.len(), ids("d", "--shuffle 7 --limit 3")), (3, shuffled));
    let wrong = eval("jsonl", &data, &folder.path().join("e"), "--category nonsense");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("move, order, still"), "{}", stderr(&wrong));
}

/// A category is arbitrary text: it may be longer than any width that a format can pad to.
#[test]
fn a_category_of_any_length_leaves_the_table_readable() {
    let long = "é".repeat(70_000);
    let row = serde_json::json!({"video": golden("move-0"), "question": "What?", "answer": "x", "category": long});
    let folder = folder(&[("q.jsonl", &row.to_string())]);
    let out = folder.path().join("out");
    // Categories below each other, then side by side.
    for methods in ["sharpv", "dense,sharpv"] {
        let options = format!("--methods {methods} --max-frames 1 -n 1");
        let run = eval("jsonl", &folder.path().join("q.jsonl"), &out, &options);
        succeeds(&run);
        let table = String::from_utf8(run.stdout).expect("text");
        let shown = table.lines().find(|line| line.contains("éé")).expect("the category");
        assert!(shown.contains('…') && shown.chars().count() < 120, "{shown}");
        let accuracy = &summary(&out)["variants"][0]["categories"]["category"][&long];
        assert_eq!(accuracy["n"], 1, "the summary has all of the name");
    }
}

#[test]
fn wrong_use_ends_with_2() {
    let folder = folder(&[("q.jsonl", &golden_questions())]);
    let (data, out) = (folder.path().join("q.jsonl"), folder.path().join("out"));
    for options in [
        "--methods best",
        "--methods dense,",
        "--budgets 0",
        "--budgets 2",
        "--budgets some",
        "--score guess",
        "--score likelihood",
        "--limit 0",
        "--evict-threshold 0.1",
        "--evict layers --score likelihood",
        "--spatial-weight -1",
    ] {
        let run = eval("jsonl", &data, &out, options);
        assert_eq!(run.status.code(), Some(2), "{options}: {}", stderr(&run));
    }
    assert_eq!(eval("nonsense", &data, &out, "").status.code(), Some(2));
    assert!(!out.exists(), "nothing was written");
    assert_eq!(eval("jsonl", &folder.path().join("missing"), &out, "").status.code(), Some(1));
}
