//! The clips that the example `make_clips` makes, short and long: always the same, and what their answers say.

#[path = "../../examples/make_clips/clips/mod.rs"]
mod clips;

use clips::long::{self, Kind, LongClip, long_clip};
use clips::{CATEGORIES, Clip, FRAMES, SIDE, clip};
use image::RgbImage;
use sha2::{Digest, Sha256};
use sharpv::video::{FrameSource, Sampling};
use std::collections::{BTreeMap, HashSet};

/// As many as the example makes unasked.
const COUNT: u64 = 320;

fn frames(clip: &Clip) -> Vec<RgbImage> {
    clip.scene.frames().collect()
}

/// The first `n` clips of a category.
fn of_category(category: &str, n: usize) -> impl Iterator<Item = Clip> {
    (0..COUNT).map(|index| clip(0, index)).filter(move |clip| clip.category == category).take(n)
}

fn answer<'a>(clip: &'a Clip, question: &str) -> Option<&'a str> {
    clip.questions.iter().find(|q| q.question.starts_with(question)).map(|q| q.answer.as_str())
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Mean difference of two frames, of 255.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// After which frames the image changes.
fn changes(frames: &[RgbImage]) -> Vec<usize> {
    (1..frames.len()).filter(|&t| frames[t] != frames[t - 1]).collect()
}

/// The middle of the pixels in which two frames differ.
fn where_they_differ(a: &RgbImage, b: &RgbImage) -> [f64; 2] {
    let places: Vec<(u32, u32)> =
        a.enumerate_pixels().filter(|&(x, y, pixel)| b.get_pixel(x, y) != pixel).map(|(x, y, _)| (x, y)).collect();
    assert!(!places.is_empty(), "nothing differs");
    let mean = |of: fn(&(u32, u32)) -> u32| places.iter().map(|p| f64::from(of(p))).sum::<f64>() / places.len() as f64;
    [mean(|p| p.0), mean(|p| p.1)]
}

#[test]
fn a_seed_means_the_same_clips_on_every_machine() {
    let rows: String =
        (0..COUNT).map(|index| clip(0, index)).map(|clip| clip.rows() + &clip.rows_with_choices()).collect();
    assert_eq!(sum(rows.as_bytes()), "151c5230bcd1475f", "the questions");
    let sums: Vec<String> = (0..2 * CATEGORIES.len() as u64)
        .map(|index| {
            let clip = clip(0, index);
            let bytes: Vec<u8> = clip.scene.frames().step_by(9).flat_map(RgbImage::into_raw).collect();
            format!("{} {}", clip.video, sum(&bytes))
        })
        .collect();
    assert_eq!(sum(sums.join("\n").as_bytes()), "eb9be14533750b22", "the frames: {sums:#?}");
    assert_ne!(clip(1, 0).rows(), clip(0, 0).rows(), "another seed");
}

#[test]
fn there_are_enough_questions_of_every_category_and_each_has_its_answer() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut asked = HashSet::new();
    let mut choices = [0; 11];
    for clip in (0..COUNT).map(|index| clip(0, index)) {
        *counts.entry(clip.category).or_default() += clip.questions.len();
        for q in &clip.questions {
            assert!(asked.insert((clip.video.clone(), q.question.clone())), "{}: {} twice", clip.video, q.question);
            assert!(q.choices.is_empty() || q.choices.contains(&q.answer), "{}: {q:?}", clip.video);
            choices[q.choices.len()] += 1;
        }
    }
    assert_eq!(counts.len(), CATEGORIES.len());
    assert!(counts.values().all(|&n| n >= 100), "{counts:?}");
    assert!(counts.values().sum::<usize>() >= 1000, "{counts:?}");
    // Open, yes or no and one of two things, directions, colors.
    assert!([0, 2, 5, 10].iter().all(|&n| choices[n] >= 50), "{choices:?}");
}

#[test]
fn what_does_not_move_does_not_change() {
    for clip in of_category("still", 4).chain(of_category("two", 4)) {
        assert!(changes(&frames(&clip)).is_empty(), "{}", clip.video);
    }
}

#[test]
fn what_enters_or_takes_a_place_does_so_once_in_the_middle() {
    for clip in of_category("enter", 4).chain(of_category("order", 4)) {
        let changes = changes(&frames(&clip));
        assert!(
            matches!(changes[..], [t] if (FRAMES / 3..=FRAMES * 2 / 3).contains(&t)),
            "{}: {changes:?}",
            clip.video
        );
    }
}

#[test]
fn a_cut_changes_the_whole_image_once() {
    for clip in of_category("cut", 6) {
        let frames = frames(&clip);
        let whole = |a: &RgbImage, b: &RgbImage| a.pixels().zip(b.pixels()).filter(|(a, b)| a != b).count();
        let cuts = frames.windows(2).filter(|pair| whole(&pair[0], &pair[1]) > (SIDE * SIDE * 9 / 10) as usize).count();
        assert_eq!(cuts, 1, "{}", clip.video);
    }
}

#[test]
fn things_move_the_way_that_the_answer_says() {
    for clip in of_category("move", 12) {
        let frames = frames(&clip);
        let from = where_they_differ(&frames[0], &frames[3]);
        let to = where_they_differ(&frames[FRAMES - 4], &frames[FRAMES - 1]);
        let [right, down] = [to[0] - from[0], to[1] - from[1]];
        let way = match right.abs() > down.abs() {
            true if right > 0.0 => "right.",
            true => "left.",
            false if down > 0.0 => "down.",
            false => "up.",
        };
        assert!(right.abs().max(down.abs()) > 40.0, "{}: {right} right, {down} down", clip.video);
        let said = answer(&clip, "Which way").expect("it is asked");
        assert!(said.ends_with(way), "{}: {said}, but it goes {way}", clip.video);
    }
}

#[test]
fn a_panning_camera_and_a_noisy_one_change_most_of_the_image() {
    for clip in of_category("pan", 6).chain(of_category("noise", 4)) {
        let frames = frames(&clip);
        let changed = frames[0].pixels().zip(frames[FRAMES / 2].pixels()).filter(|(a, b)| a != b).count();
        assert!(changed > (SIDE * SIDE / 2) as usize, "{}: {changed} pixels", clip.video);
    }
    // A still scene with noise never shows the same frame twice.
    let noisy = of_category("noise", 1).next().expect("there is one");
    assert!(answer(&noisy, "Which way").is_some_and(|said| said.ends_with("does not move.")), "{}", noisy.video);
    assert_eq!(changes(&frames(&noisy)).len(), FRAMES - 1);
}

#[test]
fn a_written_clip_shows_the_scene() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = clip(0, 0);
    let path = folder.path().join(&clip.video);
    clips::film::write(&path, &clips::FILM, clip.scene.frames()).expect("ffmpeg writes the clip");
    let shown: Vec<_> = FrameSource::open(&path, &Sampling::uniform(1000))
        .expect("the clip opens")
        .collect::<sharpv::Result<_>>()
        .expect("its frames decode");
    let drawn = frames(&clip);
    assert_eq!((shown.len(), drawn.len()), (FRAMES, FRAMES));
    for (shown, drawn) in shown.iter().zip(&drawn) {
        assert_eq!((shown.width, shown.height), (SIDE, SIDE));
        let off = difference(&shown.rgb, drawn);
        assert!(off < 6.0, "{} s: {off} of 255 off", shown.time_s);
    }
}

/// The lengths of long clips in minutes that are looked at, and two clips of each.
fn long_clips() -> impl Iterator<Item = (u32, LongClip)> {
    [5, 10, 60, 180].into_iter().flat_map(|minutes| (0..2).map(move |index| (minutes, long_clip(minutes, 0, index))))
}

/// How many pixels differ by a lot, more than light, noise and shades change between neighboring frames.
fn strong_changes(a: &RgbImage, b: &RgbImage) -> usize {
    let is_strong = |(a, b): (&image::Rgb<u8>, &image::Rgb<u8>)| a.0.iter().zip(b.0).any(|(a, b)| a.abs_diff(b) > 40);
    a.pixels().zip(b.pixels()).filter(|&pair| is_strong(pair)).count()
}

#[test]
fn a_seed_means_the_same_long_clips_on_every_machine() {
    let mut rows = String::new();
    for (_, clip) in long_clips() {
        rows += &(clip.rows() + &clip.rows_of_cuts() + &clip.rows_of_needles());
    }
    assert_eq!(sum(rows.as_bytes()), "251312569d212e0e", "the questions and needles");
    let clip = long_clip(10, 0, 0);
    let shown = clip.needles.iter().map(|needle| needle.frames.start + 3);
    let bytes: Vec<u8> = shown.chain([0, 1000, 2999]).flat_map(|t| clip.frame(t).into_raw()).collect();
    assert_eq!(sum(&bytes), "9ddad2ad61f64010", "the frames");
    assert_ne!(long_clip(10, 1, 0).rows(), clip.rows(), "another seed");
    assert_ne!(long_clip(20, 0, 0).rows(), clip.rows().replace("010min", "020min"), "another length");
}

#[test]
fn a_needle_is_in_a_long_clip_once_for_some_seconds() {
    for (minutes, clip) in long_clips() {
        let video = &clip.video;
        assert_eq!(clip.frames, minutes as usize * 60 * long::FPS as usize);
        assert!((5..=8).contains(&clip.needles.len()), "{video}: {}", clip.needles.len());
        let things: HashSet<&str> = clip.needles.iter().map(|needle| needle.thing).collect();
        assert_eq!(things.len(), clip.needles.len(), "{video}");
        let mut before = 0.0;
        for needle in &clip.needles {
            let [start, end] = needle.seconds();
            assert!((4.0..=8.0).contains(&(end - start)), "{video}: {start} to {end}");
            assert!(start >= before + 2.0 && end + 2.0 <= f64::from(minutes * 60), "{video}: {start} to {end}");
            before = end;
        }
    }
}

#[test]
fn needles_of_long_clips_are_seen_when_their_rows_say_and_nothing_else_comes_or_goes() {
    // The first minutes of some clips, frame by frame.
    for (index, needles) in [(0, 2), (1, 1), (2, 1)] {
        let clip = long_clip(10, 0, index);
        let end = clip.needles[needles - 1].frames.end + 20;
        let frames: Vec<RgbImage> = (0..end).map(|t| clip.frame(t)).collect();
        let mut expected = Vec::new();
        for needle in &clip.needles[..needles] {
            expected.extend([needle.frames.start, needle.frames.end]);
        }
        let whole = (SIDE * SIDE / 2) as usize;
        let changes: Vec<(usize, usize)> = (1..end).map(|t| (t, strong_changes(&frames[t - 1], &frames[t]))).collect();
        // Scenes change, too.
        let come_or_go = changes.iter().filter(|(t, n)| {
            let moves = clip.needles.iter().any(|needle| (needle.frames.start + 1..needle.frames.end).contains(t));
            *n > 300 && *n < whole && !moves
        });
        assert_eq!(come_or_go.map(|(t, _)| *t).collect::<Vec<_>>(), expected, "{}: {changes:?}", clip.video);
    }
}

#[test]
fn questions_about_long_clips_have_their_answers_and_cuts_show_the_needle() {
    for (_, clip) in long_clips() {
        let names: Vec<String> = clip.needles.iter().map(|needle| format!(" {} in", needle.thing)).collect();
        let (rows, cuts) = (clip.rows(), clip.rows_of_cuts());
        assert_eq!((rows.lines().count(), cuts.lines().count()), (2 * names.len() + 1, 2 * names.len()));
        let mut asked = HashSet::new();
        for ((ask, row), cut) in clip.asked.iter().zip(rows.lines()).zip(cuts.lines()) {
            let [row, cut]: [serde_json::Value; 2] = [row, cut].map(|line| line.parse().expect("a row is JSON"));
            let question = row["question"].as_str().expect("there is a question");
            assert!(asked.insert(question.to_owned()), "{}: {question} twice", clip.video);
            let (answer, is_there) = match ask.kind {
                Kind::Needle => ("Yes.", question.contains(&names[ask.needle])),
                Kind::Absent => ("No.", !names.iter().any(|name| question.contains(name))),
                Kind::Last => panic!("{row}: there are cuts of what is there or not"),
            };
            assert!(is_there && row["answer"] == answer && cut["answer"] == answer, "{row} {cut}");
            assert_eq!((&row["video"], &row["question"]), (&cut["video"], &cut["question"]));
            assert_eq!(row["video"], clip.video.as_str());
            let [start, end] = ["start", "end"].map(|key| cut[key].as_f64().expect("a cut has its ends"));
            let [from, to] = clip.needles[ask.needle].seconds();
            assert!(start <= from + 1e-9 && to <= end + 1e-9, "{cut}: the needle is seen from {from} to {to}");
            assert!((end - start - 8.0).abs() < 1e-9 && start >= 0.0, "{cut}");
            assert!(end <= clip.frames as f64 / f64::from(long::FPS) + 1e-9, "{cut}");
        }
        let last: serde_json::Value = rows.lines().last().expect("there is one").parse().expect("a row is JSON");
        assert_eq!(last["question"], "What appears last?");
        let thing = clip.needles.iter().max_by_key(|needle| needle.frames.start).expect("there is one").thing;
        assert_eq!(last["answer"], format!("The {thing} appears last."));
        let needles = clip.rows_of_needles();
        for (line, needle) in needles.lines().zip(&clip.needles) {
            let row: serde_json::Value = line.parse().expect("a row is JSON");
            let seconds = ["start", "end"].map(|key| row[key].as_f64().expect("a needle has its time"));
            assert_eq!((row["thing"].as_str(), seconds), (Some(needle.thing), needle.seconds()));
        }
        assert_eq!(needles.lines().count(), clip.needles.len());
    }
}

#[test]
fn a_written_long_clip_shows_its_needles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = long_clip(5, 0, 0);
    let path = folder.path().join(&clip.video);
    clips::film::write(&path, &long::FILM, clip.frames()).expect("ffmpeg writes the clip");
    for needle in &clip.needles {
        let [start, end] = needle.seconds();
        let sampling = Sampling { start_s: Some(start), end_s: Some(end), ..Sampling::uniform(3) };
        let source = FrameSource::open(&path, &sampling).expect("the clip opens");
        assert_eq!(source.info().duration_s, Some(300.0));
        for frame in source {
            let frame = frame.expect("its frames decode");
            let drawn = clip.frame((frame.time_s * f64::from(long::FPS) + 0.01) as usize);
            let off = difference(&frame.rgb, &drawn);
            assert!(off < 6.0, "{} at {} s: {off} of 255 off", needle.thing, frame.time_s);
        }
    }
}
