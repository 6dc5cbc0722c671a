//! `sharpv inspect`: the page, the images and the video compared with the kept tokens.
#![cfg(feature = "cli")]

use crate::support::families;
use crate::support::program::{sharpv, with_smol};
use crate::support::video_clips;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use sharpv::chat::{Area, Grid, Session, SessionParams, VideoInspection, VideoOptions};
use sharpv::prune::PruneParams;
use sharpv::video::{Frame, FrameSource, Sampling, VideoWriter};
use std::path::{Path, PathBuf};

const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/clip.mp4");
const QUESTION: &str = "What is in the video?";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// More frames than the video has: each of them once.
fn every_frame() -> Sampling {
    Sampling::uniform(1000)
}

/// The data in a page.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").expect("a page with data");
    serde_json::from_str(rest.split_once("</script>").expect("its end").0).expect("JSON")
}

/// Runs `inspect` with a tiny model on a folder of `n` frames; returns the page and its path.
fn tiny(folder: &Path, family: &str, n: usize, more: &[&str]) -> (String, PathBuf) {
    let (frames, page) = (folder.join("frames"), folder.join("page.html"));
    if !frames.exists() {
        std::fs::create_dir(&frames).unwrap();
        families::write_frames(&frames, (96, 64), n);
    }
    let files = families::files(family);
    let mmproj = files.mmproj.expect("an mmproj");
    let count = n.to_string();
    let mut args = vec!["inspect", text(&frames), "-m", text(&files.model), "--mmproj", text(&mmproj)];
    args.extend(["--folder-fps", "1", "--fps", "1", "--max-frames", &count, "-o", text(&page)]);
    args.extend(more);
    sharpv(&args).assert().success();
    (std::fs::read_to_string(&page).expect("a page"), page)
}

#[test]
fn the_page_tells_what_ask_reports() {
    let out = tempfile::tempdir().unwrap();
    let (page, folder, film) = (out.path().join("a.html"), out.path().join("new/png"), out.path().join("kept.mp4"));
    let settings = ["-m", "smol", "--seed", "1", "--temp", "0", "-n", "16"];
    let args =
        ["inspect", CLIP, "-q", QUESTION, "-o", text(&page), "--png", text(&folder), "--video", text(&film), "--json"];
    let run = with_smol(&[&args[..], &settings].concat()).assert().success();
    let printed: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    let asked = with_smol(&[&["ask", CLIP, QUESTION, "--json"][..], &settings].concat()).assert().success();
    let asked: Value = serde_json::from_slice(&asked.get_output().stdout).expect("JSON");

    let html = std::fs::read_to_string(&page).unwrap();
    let data = data(&html);
    assert_eq!(data, printed, "--json is what is in the page");
    let slices = data["slices"].as_array().expect("slices");
    let expected = asked["slices"].as_array().expect("slices");
    assert_eq!(slices.len(), expected.len());
    for (slice, expected) in slices.iter().zip(expected) {
        assert_eq!(slice["kept"].as_array().map(Vec::len), expected["kept"].as_u64().map(|n| n as usize));
        assert_eq!(slice["total"], expected["total"]);
        assert_eq!(slice["times_s"][0], expected["time_s"]);
        assert_eq!(slice["computed"], expected["computed"]);
        let total = expected["total"].as_u64().map(|n| n as usize);
        for map in ["spatial", "combined"] {
            assert_eq!(slice[map].as_array().map(Vec::len), total, "{map}");
        }
    }
    assert_eq!(data["visual_tokens"], asked["visual_tokens"]);
    assert_eq!(data["asked"]["answer"], asked["answer"]);
    assert_eq!(data["asked"]["similarity"], asked["similarity"]);
    assert_eq!(data["settings"], asked["settings"]);
    assert_eq!(data["asked"]["layers_evicted"].as_array().map(Vec::len), asked["similarity"].as_array().map(Vec::len));
    // The dense run.
    assert_eq!(data["dense"]["visual_tokens"]["kept"], asked["visual_tokens"]["total"]);
    assert!(data["dense"]["timings_ms"]["ttft"].as_f64().is_some_and(|ms| ms > 0.0));

    assert!(!html.contains("http:") && !html.contains("https:"), "nothing is fetched");
    assert!(html.contains("default-src 'none'") && !html.contains("unsafe-inline"));
    assert!(html.contains("sharpv inspect") && html.contains("--seed 1"), "the command is there");
    assert_eq!(html.matches("<button type=\"button\" class=\"slice").count(), slices.len());

    let n_images = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(n_images, slices.len());
    let mut video = FrameSource::open(&film, &every_frame()).expect("a video");
    let frames = video_clips::take_all(&mut video);
    assert_eq!(frames.len(), slices.len());
    assert_eq!(video.info().n_frames, Some(slices.len() as u64));
    // A quarter of a second apart, the last as long as the others.
    let length = video.info().duration_s.expect("a length");
    assert!((length - 2.0).abs() < 0.02, "{length}");
}

#[test]
fn what_is_dropped_is_dimmed_in_images_and_video_and_the_rest_is_not() {
    let out = tempfile::tempdir().unwrap();
    let (page, folder, film) = (out.path().join("a.html"), out.path().join("png"), out.path().join("kept.mov"));
    let args =
        ["inspect", CLIP, "-m", "smol", "--keep", "0.3", "--no-dense", "-o", text(&page), "--png", text(&folder)];
    with_smol(&[&args[..], &["--video", text(&film)]].concat()).assert().success();
    let data = data(&std::fs::read_to_string(&page).unwrap());
    let slices = data["slices"].as_array().unwrap();
    let originals = video_clips::frames(Path::new(CLIP), &Sampling::uniform(slices.len()));
    let videos = video_clips::frames(&film, &every_frame());
    let (mut n_kept, mut n_dropped) = (0, 0);
    for (i, (slice, original)) in slices.iter().zip(&originals).enumerate() {
        assert_eq!(slice["times_s"][0], original.time_s);
        let png = image::open(folder.join(format!("frame-{:04}.png", i + 1))).expect("a PNG").to_rgb8();
        assert_eq!((png.width(), png.height()), (original.width, original.height));
        let part = &slice["panels"][0]["parts"][0];
        let (columns, rows) = (part["columns"].as_u64().unwrap() as u32, part["rows"].as_u64().unwrap() as u32);
        assert_eq!(u64::from(columns * rows), slice["total"].as_u64().unwrap());
        let kept: Vec<u64> = slice["kept"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
        for cell in 0..columns * rows {
            // The middle of the cell, away from its neighbors.
            let x = (2 * (cell % columns) + 1) * png.width() / (2 * columns);
            let y = (2 * (cell / columns) + 1) * png.height() / (2 * rows);
            let at = (y * png.width() + x) as usize * 3;
            let original: [u8; 3] = original.rgb[at..at + 3].try_into().unwrap();
            let dimmed = std::array::from_fn(|c| {
                let veil = [40, 44, 52][c];
                ((u32::from(original[c]) * 56 + veil * 200) / 256) as u8
            });
            let is_kept = kept.contains(&u64::from(cell));
            let expected = if is_kept { original } else { dimmed };
            assert_eq!(png.get_pixel(x, y).0, expected, "frame {i}, cell {cell}, kept: {is_kept}");
            // Lossy, and with one color for two by two pixels.
            let shown: [u8; 3] = videos[i].rgb[at..at + 3].try_into().unwrap();
            let away = shown.iter().zip(expected).map(|(&a, b)| a.abs_diff(b)).max().unwrap();
            if dimmed.iter().zip(original).any(|(&a, b)| a.abs_diff(b) > 120) {
                assert!(away < 60, "frame {i}, cell {cell} of the video: {shown:?}, not {expected:?}");
            }
            if is_kept { n_kept += 1 } else { n_dropped += 1 }
        }
    }
    assert!(n_kept > 50 && n_dropped > 200, "{n_kept} kept, {n_dropped} dropped");
}

#[test]
fn videos_of_odd_sizes_are_written() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "b.mkv", "c.MOV"] {
        let path = folder.path().join(name);
        let frame = |rgb: [u8; 3], time_s| Frame { width: 33, height: 21, rgb: rgb.repeat(33 * 21), time_s };
        let colors = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];
        let mut writer = VideoWriter::create(&path, 33, 21).expect("it begins");
        for (i, color) in colors.into_iter().enumerate() {
            writer.push(&frame(color, 0.5 * i as f64)).expect("a frame");
        }
        let other = Frame { width: 32, height: 21, rgb: vec![0; 32 * 21 * 3], time_s: 9.0 };
        assert!(matches!(writer.push(&other), Err(sharpv::Error::InvalidParameter { .. })));
        writer.finish().expect("it is written");
        assert_eq!(video_clips::frames(&path, &Sampling::uniform(3)).len(), 3, "{name}");
        // Matroska does not store how long a frame is shown, so the video ends right after the beginning of the last
        // one.
        let times = if name == "b.mkv" { 2 } else { 3 };
        for (time_s, color) in [(0.1, "red"), (0.6, "lime"), (1.1, "blue")].into_iter().take(times) {
            let one = Sampling { start_s: Some(time_s), end_s: Some(time_s + 0.2), ..Sampling::uniform(1) };
            let shown = video_clips::frames(&path, &one);
            assert_eq!((shown[0].width, shown[0].height), (34, 22), "{name}");
            assert_eq!(video_clips::quarters(&shown[0]), [color; 4], "{name} at {time_s} s");
        }
    }
    let wrong = VideoWriter::create(&folder.path().join("d.avi"), 32, 20);
    assert!(matches!(wrong, Err(sharpv::Error::InvalidParameter { .. })));
    assert!(!folder.path().join("d.avi").exists());
}

#[test]
fn without_a_question_nothing_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (page, _) = tiny(folder.path(), "smolvlm", 3, &[]);
    let data = data(&page);
    assert_eq!(data["asked"], Value::Null);
    assert_eq!(data["dense"]["answer"], Value::Null);
    assert!(page.contains("Nothing was asked."));
    assert!(page.contains("id=\"retention\"") && !page.contains("id=\"similarity\""));
}

#[test]
fn texts_stay_texts() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("<script>alert(1)<!-- & \"a\".png");
    families::image((96, 64), 1).save(&video).unwrap();
    let (files, page) = (families::files("smolvlm"), folder.path().join("p.html"));
    let (mmproj, question) = (files.mmproj.expect("an mmproj"), "</script><script>alert(2)</script> 'b' \"c\" & d?");
    let args = ["inspect", text(&video), "-q", question, "-o", text(&page), "-m", text(&files.model)];
    sharpv(&[&args[..], &["--mmproj", text(&mmproj), "-n", "4"]].concat()).assert().success();
    let html = std::fs::read_to_string(&page).unwrap();
    // The data, and the page's script.
    assert_eq!(html.matches("<script").count(), 2);
    assert_eq!(html.matches("</script").count(), 2);
    assert!(!html.contains("<!--"));
    assert!(html.contains("&lt;/script&gt;&lt;script&gt;alert(2)"));
    assert!(html.contains("<h1>&lt;script&gt;alert(1)&lt;!-- &amp; &quot;a&quot;.png</h1>"));
    assert_eq!(data(&html)["asked"]["question"], question);
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = families::files("smolvlm");
    let (mmproj, frames) = (files.mmproj.expect("an mmproj"), folder.path().join("frames"));
    std::fs::create_dir(&frames).unwrap();
    families::write_frames(&frames, (96, 64), 2);
    let run = |more: &[&str]| {
        let args = ["inspect", text(&frames), "-m", text(&files.model), "--mmproj", text(&mmproj), "--no-dense"];
        sharpv(&[&args[..], more].concat()).assert()
    };
    run(&[]).code(2).stderr(contains("--out"));
    let path = |name: &str| folder.path().join(name);
    let (text_file, missing) = (path("a.txt"), path("missing/a.html"));
    run(&["--video", text(&text_file)]).code(2).stderr(contains(".mp4").and(contains(".mkv")));
    run(&["-o", text(&frames)]).code(2).stderr(contains("folder"));
    run(&["-o", text(&missing)]).code(1).stderr(contains("missing"));
    std::fs::write(&text_file, "mine").unwrap();
    run(&["--png", text(&text_file)]).code(2).stderr(contains("file, not a folder"));
    run(&["-o", text(&path("a.html")), "-q", " "]).code(2).stderr(contains("question"));
    // A folder in place of an image. The page is written last, so it does not exist either.
    std::fs::create_dir_all(path("png/frame-0002.png/full")).unwrap();
    run(&["--png", text(&path("png")), "-o", text(&path("a.html"))]).code(1).stderr(contains("frame-0002.png"));
    assert!(path("png/frame-0001.png").is_file() && !path("a.html").exists());
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.txt", "frames", "png"]);
    assert_eq!(std::fs::read_dir(path("png")).unwrap().count(), 2);
    // An existing file is replaced, as with a report.
    std::fs::write(path("a.html"), "before").unwrap();
    run(&["-o", text(&path("a.html"))]).success();
    assert!(std::fs::read_to_string(path("a.html")).unwrap().starts_with("<!doctype html>"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let (frames, page, film) =
        (folder.path().join("frames"), folder.path().join("p.html"), folder.path().join("kept.mp4"));
    std::fs::create_dir(&frames).unwrap();
    families::write_frames(&frames, (96, 64), 400);
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("an mmproj");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.args(["inspect", text(&frames), "-m", text(&files.model), "--mmproj", text(&mmproj), "-o", text(&page)]);
    command.args(["--video", text(&film), "--folder-fps", "1", "--fps", "1", "--max-frames", "400", "-vv"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    // llama.cpp prints this while the model is loaded: all of the work is still to come, on a fast machine too.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    assert!(stderr.read_line(&mut said).unwrap() > 0);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_page_can_be_read_by_whoever_may_read_other_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (_, page) = tiny(folder.path(), "smolvlm", 1, &["--no-dense"]);
    std::fs::write(folder.path().join("other"), "").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&page), mode(&folder.path().join("other")));
}

fn inspect(family: &str, tile: bool, inspect: bool) -> (Vec<VideoInspection>, Vec<(usize, usize)>) {
    let folder = tempfile::tempdir().unwrap();
    families::write_frames(folder.path(), (160, 90), 5);
    let params = SessionParams { inspect, tile, ..SessionParams::default() };
    let mut session = Session::open(&families::files(family), params, &mut ()).expect("it opens");
    let options = VideoOptions { fps: Some(1.0), folder_fps: Some(1.0), ..VideoOptions::default() };
    let report = session.add_video(folder.path(), &options, &mut ()).expect("it is encoded");
    (session.inspect(), report.slices.iter().map(|slice| (slice.kept, slice.total)).collect())
}

/// For every family: all tokens are on grids, and inspecting changes nothing.
#[test]
fn tokens_of_every_family_have_their_places() {
    for family in ["smolvlm", "qwen2vl", "qwen2.5vl", "qwen3vl", "llava-onevision", "internvl", "minicpmv", "gemma3"] {
        let (videos, counts) = inspect(family, false, true);
        let (none, plain) = inspect(family, false, false);
        assert!(none.is_empty() && counts == plain, "{family}");
        let [video] = &videos[..] else { panic!("{family}: {} videos", videos.len()) };
        assert_eq!(video.slices.len(), counts.len(), "{family}");
        let pairs = family.starts_with("qwen");
        for (slice, (kept, total)) in video.slices.iter().zip(counts) {
            assert_eq!((slice.kept.len(), slice.n_tokens), (kept, total), "{family}");
            assert_eq!(slice.grids.iter().map(|grid| grid.n_tokens).sum::<usize>(), total, "{family}");
            assert_eq!(slice.scores.combined.len(), total, "{family}");
            for grid in &slice.grids {
                assert_eq!(grid.shape.is_some(), family != "minicpmv", "{family}");
                assert!(grid.shape.is_none_or(|(columns, rows)| columns * rows == grid.n_tokens), "{family}");
                let area = grid.area;
                match family {
                    "minicpmv" => assert_eq!(area, None),
                    // 160 × 90 in a square.
                    "gemma3" => assert!(area.is_some_and(|a| (a.top + 35.0 / 90.0).abs() < 1e-9 && a.left == 0.0)),
                    _ => assert_eq!(area, Some(Area::WHOLE), "{family}"),
                }
            }
            if let Some(cells) = &slice.cells {
                assert_eq!(cells.work.len(), cells.columns * cells.rows, "{family}");
            }
        }
        let frames: Vec<usize> = video.slices.iter().map(|slice| slice.times_s.len()).collect();
        assert_eq!(frames, if pairs { vec![2, 2, 1] } else { vec![1; 5] }, "{family}");
        assert!(video.slices[0].opens_scene && video.slices[0].scores.temporal.is_empty(), "{family}");
        assert_eq!(video.slices[1].scores.temporal.len(), video.slices[1].n_tokens, "{family}");
    }
}

#[test]
fn tiles_lie_where_they_were_cut_out() {
    let (videos, _) = inspect("smolvlm", true, true);
    for slice in &videos[0].slices {
        let (whole, tiles): (Vec<Grid>, Vec<Grid>) =
            slice.grids.iter().copied().partition(|grid| grid.area == Some(Area::WHOLE));
        assert_eq!(whole.len(), 1, "{:?}", slice.grids);
        let share = |area: Area| (area.right - area.left) * (area.bottom - area.top);
        let covered: f64 = tiles.iter().filter_map(|grid| grid.area).map(share).sum();
        assert!(tiles.len() > 1 && (covered - 1.0).abs() < 1e-9, "{:?}", slice.grids);
    }
}

/// The scores are SharpV's with any method; the method's own importance is added.
#[test]
fn importance_is_that_of_the_method() {
    let folder = tempfile::tempdir().unwrap();
    let (page, _) = tiny(folder.path(), "smolvlm", 4, &["--no-dense"]);
    let sharpv = data(&page);
    let (page, _) = tiny(folder.path(), "smolvlm", 4, &["--no-dense", "--prune", "evs"]);
    let evs = data(&page);
    assert_eq!(sharpv["slices"][1]["importance"], Value::Null);
    assert!(evs["slices"][1]["importance"].is_array());
    assert_ne!(evs["slices"][1]["importance"], evs["slices"][1]["combined"]);
    let number = |slice: &Value, map: &str, token: usize| slice[map][token].as_f64().expect("a number");
    for (i, slice) in sharpv["slices"].as_array().unwrap().iter().enumerate() {
        let weight = f64::from(PruneParams::default().spatial_weight);
        for token in 0..slice["total"].as_u64().unwrap() as usize {
            let temporal = if i == 0 { 0.0 } else { number(slice, "temporal", token) };
            let spatial = number(slice, "spatial", token);
            let expected = temporal + if i == 0 { spatial } else { weight * spatial };
            assert!((number(slice, "combined", token) - expected).abs() < 2e-4, "slice {i}, token {token}");
        }
    }
}

#[test]
fn a_chat_lists_frames_where_it_can_draw_none() {
    let files = families::files("smolvlm");
    let folder = tempfile::tempdir().unwrap();
    families::write_frames(folder.path(), (96, 64), 3);
    let mmproj = files.mmproj.expect("an mmproj");
    let args = ["chat", text(folder.path()), "-m", text(&files.model), "--mmproj", text(&mmproj)];
    let run = sharpv(&args)
        .env("TERM", "xterm-kitty")
        .env("SHARPV_IMAGES", "kitty")
        .write_stdin("/frames\n/clear\n/frames\n")
        .assert()
        .success()
        .stdout("")
        .stderr(contains("of 16 tokens kept").count(3).and(contains("There is no video yet")));
    assert!(!run.get_output().stderr.contains(&0x1b));
}

/// With `script`, which gives the program a terminal.
#[cfg(target_os = "linux")]
#[test]
fn a_chat_draws_frames_in_a_terminal() {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    families::write_frames(&frames, (96, 64), 3);
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("an mmproj");
    let (model, mmproj, frames) = (text(&files.model), text(&mmproj), text(&frames));
    let line = format!("{} chat '{frames}' -m '{model}' --mmproj '{mmproj}'", env!("CARGO_BIN_EXE_sharpv"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-kitty").env_remove("NO_COLOR").env_remove("TMUX");
    command.env("SHARPV_HOME", folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("script, of util-linux");
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        // Waits for the prompt, and then for the image.
        let mut until = |what: &str| loop {
            if String::from_utf8_lossy(&seen).contains(what) {
                return String::from_utf8_lossy(&seen).into_owned();
            }
            let n = from.read(&mut buffer).expect("the terminal is read");
            assert!(n > 0, "it ended before {what:?}: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..n]);
        };
        until("/help lists the commands");
        to.write_all(b"/frames\r").unwrap();
        let text = until("/16");
        to.write_all(b"/exit\r").unwrap();
        text
    });
    let text = reader.join().expect("the frames are drawn");
    let _ = child.wait();
    assert!(text.contains("\x1b_Ga=T,f=100"), "{text}");
}

#[cfg(unix)]
mod in_a_browser {
    use super::*;
    use crate::support::browser::{self, Browser};

    const FACTS: &str = "document.getElementById('frame-name').textContent";
    const CURRENT: &str = "document.querySelector('.slice[aria-pressed=\"true\"]').dataset.slice";

    /// Clicks and keys on a page of `n` frames.
    fn walk(program: &Path, n: usize, scheme: &str) {
        let folder = tempfile::tempdir().unwrap();
        let (html, page) = tiny(folder.path(), "smolvlm", n, &["-q", "What <b>is</b> it?", "-n", "6"]);
        let data = data(&html);
        let mut browser = Browser::open(program, &page, scheme);
        let shown = |browser: &mut Browser, index: usize| {
            let kept = data["slices"][index]["kept"].as_array().unwrap().len();
            let total = &data["slices"][index]["total"];
            browser.until(&format!("{FACTS}.startsWith('Frame {} of {n} ')", index + 1));
            let facts = browser.eval(FACTS);
            assert!(facts.as_str().unwrap().contains(&format!("{kept} of {total} tokens kept")), "{facts}");
            assert_eq!(browser.eval(CURRENT), index.to_string());
            assert_eq!(browser.eval("document.querySelectorAll('.slice[aria-pressed=\"true\"]').length"), 1);
            assert_eq!(browser.eval("document.querySelectorAll('.slice[tabindex=\"0\"]').length"), 1);
            // The layer over the image is dark where tokens are dropped, and transparent where they are kept.
            let veiled = browser.eval(
                "(() => { const canvas = document.querySelector('[data-map=\"kept\"] canvas'); const pixels = \
                 canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data; const found = []; for \
                 (let i = 3; i < pixels.length; i += 4) if (pixels[i] === 0) found.push((i - 3) / 4); return found; })()",
            );
            assert_eq!(veiled, data["slices"][index]["kept"], "frame {index}");
        };
        assert_eq!(browser.eval("document.querySelectorAll('#strip .slice').length"), n);
        shown(&mut browser, 0);
        assert_eq!(browser.eval("document.querySelectorAll('[data-map=\"temporal\"]').length"), 0);

        browser.click(".slice[data-slice=\"2\"]");
        shown(&mut browser, 2);
        for map in ["kept", "spatial", "temporal", "combined"] {
            let selector = format!("document.querySelectorAll('[data-map=\"{map}\"] canvas').length");
            assert_eq!(browser.eval(&selector), 1, "{map}");
        }
        let focused = "document.activeElement.dataset.slice";
        browser.eval("document.querySelector('.slice[data-slice=\"2\"]').focus()");
        browser.press("ArrowRight");
        shown(&mut browser, 3);
        assert_eq!(browser.eval(focused), "3");
        browser.press("End");
        shown(&mut browser, n - 1);
        browser.press("ArrowRight");
        shown(&mut browser, n - 1);
        let in_sight = "(() => { const box = document.activeElement.getBoundingClientRect(); const strip = \
            document.getElementById('strip').getBoundingClientRect(); return box.left >= strip.left - 1 && box.right <= \
            strip.right + 1; })()";
        browser.until(in_sight);
        browser.press("Home");
        shown(&mut browser, 0);
        browser.press("PageDown");
        shown(&mut browser, 10.min(n - 1));
        // The strip is one stop of the Tab key.
        browser.press("Tab");
        assert_ne!(browser.eval("document.activeElement.className"), "slice");

        // A dot of the curve selects its frame, too.
        browser.eval("document.querySelectorAll('#retention circle')[1].dispatchEvent(new MouseEvent('click'))");
        shown(&mut browser, 1);
        browser.eval("document.querySelector('#frame-numbers').open = true");
        let rows = "document.querySelectorAll('#frame-numbers tbody tr').length";
        browser.until(&format!("{rows} === {}", data["slices"][1]["total"]));
        // The labels for screen readers.
        let named = "Array.from(document.querySelectorAll('button, [role=\"img\"], [role=\"toolbar\"]')).every((element) \
            => element.getAttribute('aria-label'))";
        assert_eq!(browser.eval(named), true);
        assert_eq!(browser.eval("document.querySelectorAll('img:not([alt])').length"), 0);
        assert_eq!(browser.eval("document.querySelectorAll('#retention-table tbody tr').length"), n);
        assert_eq!(browser.eval("document.querySelector('.said').textContent"), "What <b>is</b> it?");
        // Wide parts scroll separately: the page does not.
        assert_eq!(browser.eval("document.documentElement.scrollWidth <= innerWidth"), true);

        assert_eq!(browser.requests(), Vec::<String>::new());
        assert_eq!(browser.errors(), Vec::<String>::new());
        // The policy forbids fetching.
        let fetched = browser.eval("fetch('data:text/plain,x').then(() => 'fetched', () => 'refused')");
        assert_eq!(fetched, "refused");

        let image = browser.screenshot();
        let paper = image.get_pixel(2, 2).0;
        assert_eq!(paper, if scheme == "dark" { [22, 24, 27] } else { [255; 3] }, "{scheme}");
        let ink = image.pixels().filter(|pixel| pixel.0.iter().zip(paper).any(|(&a, b)| a.abs_diff(b) > 100)).count();
        assert!(ink > 1000, "{scheme}: {ink} pixels differ from the paper");
    }

    #[test]
    fn frames_are_chosen_with_clicks_and_keys_among_8() {
        let Some(program) = browser::find("frames_are_chosen_with_clicks_and_keys_among_8") else { return };
        walk(&program, 8, "light");
    }

    #[test]
    fn frames_are_chosen_with_clicks_and_keys_among_256() {
        let Some(program) = browser::find("frames_are_chosen_with_clicks_and_keys_among_256") else { return };
        walk(&program, 256, "dark");
    }

    #[test]
    fn pairs_share_tokens_and_some_tokens_have_no_place() {
        let Some(program) = browser::find("pairs_share_tokens_and_some_tokens_have_no_place") else { return };
        // Maps of the kept tokens, and how many of them are on an image.
        for (family, maps, images) in [("qwen2vl", 2, 2), ("minicpmv", 1, 0), ("gemma3", 1, 1)] {
            let folder = tempfile::tempdir().unwrap();
            let (html, page) = tiny(folder.path(), family, 4, &["--no-dense"]);
            let data = data(&html);
            let mut browser = Browser::open(&program, &page, "light");
            browser.click(".slice[data-slice=\"1\"]");
            browser.until("document.querySelectorAll('[data-map=\"temporal\"]').length === 1");
            let count = |browser: &mut Browser, selector: &str| {
                browser.eval(&format!("document.querySelectorAll('{selector}').length"))
            };
            assert_eq!(count(&mut browser, "[data-map=\"kept\"] canvas"), maps, "{family}");
            assert_eq!(count(&mut browser, "[data-map=\"kept\"] img"), images, "{family}");
            let in_strip = if family == "minicpmv" { ".tokens" } else { ".veil" };
            assert_eq!(count(&mut browser, &format!(".slice[data-slice=\"1\"] {in_strip}")), maps, "{family}");
            // The box of the tokens in the image: the image has the borders beyond the frame.
            let area = &data["slices"][1]["panels"][0]["parts"][0]["box"];
            assert_eq!(*area, serde_json::json!([0.0, 0.0, 1.0, 1.0]), "{family}");
            let shape = browser.eval(
                "(() => { const img = document.querySelector('.slice img'); return \
                img.naturalWidth / img.naturalHeight; })()",
            );
            let expected = if family == "gemma3" { 1.0 } else { 1.5 };
            assert!((shape.as_f64().unwrap() - expected).abs() < 0.05, "{family}: {shape}");
            assert_eq!(browser.errors(), Vec::<String>::new());
        }
    }

    /// A printed page has all frames, one after the other.
    #[test]
    fn on_paper_all_frames_are_seen() {
        let Some(program) = browser::find("on_paper_all_frames_are_seen") else { return };
        let folder = tempfile::tempdir().unwrap();
        let (_, page) = tiny(folder.path(), "qwen2vl", 24, &["--no-dense"]);
        let mut browser = Browser::open(&program, &page, "light");
        let widest = "Math.max(...Array.from(document.querySelectorAll('.slice'), (slice) => \
            slice.getBoundingClientRect().right))";
        let out_of_sight = browser.eval(widest).as_f64().unwrap() > 1280.0;
        assert!(out_of_sight, "on a screen the strip scrolls");
        browser.call("Emulation.setEmulatedMedia", serde_json::json!({ "media": "print" }));
        assert!(browser.eval(widest).as_f64().unwrap() <= 1280.0);
        assert_eq!(browser.eval("document.querySelectorAll('.slice img').length"), 24);
        let pdf = browser.call("Page.printToPDF", serde_json::json!({ "printBackground": false }));
        assert!(pdf["data"].as_str().is_some_and(|data| data.len() > 10_000));
        assert_eq!(browser.errors(), Vec::<String>::new());
    }
}
