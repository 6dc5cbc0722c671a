//! Untrusted videos. Whatever a file contains, opening it yields frames or an error that names the file, in little time
//! and memory, and reads nothing but the file.
//!
//! A child process opens the files, because the tests check that it survives.

use crate::support::broken_videos as broken;
use crate::support::families;
use crate::support::memory::{peak, reset_peak};
use crate::support::video_clips::{Clips, within};

use sharpv::error::{FileKind, MediaProblem};
use sharpv::video::{FrameSource, Sampling};
use sharpv::{Error, Session, SessionParams, VideoOptions};
use std::fs;
use std::io::{Read as _, Seek as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The child's environment variable for a file that lists videos, one per line.
const LIST: &str = "SHARPV_TEST_HOSTILE_VIDEOS";

/// More time than any file needs, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// More bytes than any file needs: the decoder holds several images of the largest supported size.
const MAX_PEAK: u64 = 1 << 30;

/// The child process, not a test: opens the files that the other tests list.
#[test]
fn child() {
    let Some(list) = std::env::var_os(LIST) else { return };
    let list = fs::read_to_string(list).expect("a list");
    std::thread::spawn(|| {
        // Turns a hang into a crash.
        let mut seen = (usize::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = AT.load(std::sync::atomic::Ordering::Relaxed);
            if now != seen.0 {
                seen = (now, Instant::now());
            } else if seen.1.elapsed() > LIMIT {
                println!("it hangs");
                std::process::abort();
            }
        }
    });
    for (i, path) in list.lines().enumerate() {
        AT.store(i, std::sync::atomic::Ordering::Relaxed);
        println!("begin {i}");
        reset_peak();
        let said = open(Path::new(path)).replace('\n', " ");
        println!("end {i} {} {said}", peak());
    }
}

static AT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// The outcome for a file: `frames N`, or `error: …`. Anything else is wrong.
fn open(path: &Path) -> String {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let told = |error: Error| {
        let text = error.to_string();
        if text.contains(&name) { format!("error: {text}") } else { format!("names no file: {text}") }
    };
    let mut source = match FrameSource::open(path, &Sampling::uniform(6)) {
        Ok(source) => source.decode_ahead(),
        Err(error) => return told(error),
    };
    let size = (source.info().width, source.info().height);
    let mut n_frames = 0;
    for frame in &mut source {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return told(error),
        };
        if (frame.width, frame.height) != size || frame.rgb.len() != size.0 as usize * size.1 as usize * 3 {
            return format!("{frame:?} with {} bytes in a video of {size:?}", frame.rgb.len());
        }
        n_frames += 1;
    }
    format!("frames {n_frames} of {}x{}", size.0, size.1)
}

/// The outcome for each of `files`, with the peak of memory. If a file kills the child process, another child continues
/// with the next file.
fn outcomes(clips: &Clips, files: &[PathBuf]) -> Vec<(u64, String)> {
    let mut outcomes: Vec<(u64, String)> = Vec::new();
    while outcomes.len() < files.len() {
        let first = outcomes.len();
        let list: String = files[first..].iter().map(|path| format!("{}\n", path.display())).collect();
        let list = clips.write("list", list.as_bytes());
        let mut output = tempfile::tempfile().expect("a file");
        let both = || Stdio::from(output.try_clone().expect("a handle"));
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "hostile_videos::child", "--nocapture"]).env(LIST, list);
        let status = child.stdout(both()).stderr(both()).status().expect("it runs");
        let mut said = String::new();
        output.rewind().and_then(|()| output.read_to_string(&mut said)).expect("what it said");
        for line in said.lines().filter_map(|line| line.strip_prefix("end ")) {
            let mut words = line.splitn(3, ' ').skip(1);
            let peak = words.next().and_then(|peak| peak.parse().ok()).expect("a peak");
            outcomes.push((peak, words.next().unwrap_or_default().to_owned()));
        }
        if outcomes.len() < files.len() {
            outcomes.push((0, format!("{status}: {said}")));
        }
    }
    outcomes
}

fn is_good((peak, said): &(u64, String)) -> bool {
    (said.starts_with("frames ") || said.starts_with("error: ")) && *peak < MAX_PEAK
}

/// Opens all of `broken` in batches, and counts the outcomes.
fn no_harm(clips: &Clips, extension: &str, broken: impl Iterator<Item = (String, Vec<u8>)>, tally: &mut Tally) {
    let mut broken = broken.peekable();
    while broken.peek().is_some() {
        let batch: Vec<_> = broken.by_ref().take(200).collect();
        let files: Vec<_> =
            (0..).zip(&batch).map(|(i, (_, bytes))| clips.write(&format!("b{i}.{extension}"), bytes)).collect();
        for ((what, bytes), outcome) in batch.iter().zip(outcomes(clips, &files)) {
            tally.count(extension, what, bytes, &outcome);
        }
    }
}

#[derive(Default)]
struct Tally {
    n: usize,
    n_frames: usize,
    peak: u64,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, kind: &str, what: &str, bytes: &[u8], outcome: &(u64, String)) {
        self.n += 1;
        self.n_frames += usize::from(outcome.1.starts_with("frames "));
        self.peak = self.peak.max(outcome.0);
        if !is_good(outcome) {
            if let Some(keep) = std::env::var_os("SHARPV_TEST_KEEP") {
                let path = Path::new(&keep).join(format!("{}-{what}.{kind}", self.wrong.len()));
                fs::write(path, bytes).expect("a copy");
            }
            self.wrong.push(format!("{kind}, {what}: {} MB: {}", outcome.0 >> 20, outcome.1));
        }
    }

    fn finish(self) {
        println!("{} files, {} with frames, peak {} MB", self.n, self.n_frames, self.peak >> 20);
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.n, self.wrong.join("\n"));
    }
}

fn extension(path: &Path) -> String {
    path.extension().expect("an extension").to_string_lossy().into_owned()
}

/// How many times more files to test than usual (`SHARPV_TEST_HOSTILE`). From 2 on, tests all cuts.
fn thoroughness() -> usize {
    std::env::var("SHARPV_TEST_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

#[test]
fn a_broken_video_does_no_harm() {
    let clips = Clips::new();
    let times = thoroughness();
    let seed = std::env::var("SHARPV_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut tally = Tally::default();
    for path in broken::whole(&clips) {
        let whole = fs::read(&path).expect("a whole file");
        let cuts = (1..100).step_by(if times > 1 { 1 } else { 19 });
        no_harm(&clips, &extension(&path), broken::cut(&whole, cuts), &mut tally);
        no_harm(&clips, &extension(&path), broken::damaged(&whole, 6 * times, seed), &mut tally);
    }
    let lies = broken::lies(&clips);
    let files: Vec<_> = lies.iter().map(|(name, bytes)| clips.write(name, bytes)).collect();
    for (((name, bytes), path), outcome) in lies.iter().zip(&files).zip(outcomes(&clips, &files)) {
        tally.count(&extension(path), name, bytes, &outcome);
    }
    tally.finish();
}

#[test]
fn an_odd_video_is_shown() {
    let clips = Clips::new();
    clips.draw("testsrc2=s=64x48:r=10:d=1.6", "-c:v libx264 -pix_fmt yuv420p", "h264.mp4");
    let files = broken::odd(&clips);
    for (path, outcome) in files.iter().zip(outcomes(&clips, &files)) {
        assert!(is_good(&outcome) && outcome.1.starts_with("frames "), "{}: {outcome:?}", path.display());
    }
    // One file has no keyframes, and the other lacks the first.
    let dropped = clips.ffmpeg("-i {}/h264.mp4 -c copy -bsf:v noise=drop=key", "no-keyframe.mkv");
    let late = "-i {}/h264.mp4 -c copy -bsf:v noise=drop=lt(n\\,1)";
    let late = clips.ffmpeg(late, "late-keyframe.mkv");
    for outcome in outcomes(&clips, &[dropped, late]) {
        assert!(is_good(&outcome), "{outcome:?}");
    }
}

fn open_error(path: &Path) -> Error {
    let error = FrameSource::open(path, &Sampling::default()).expect_err("this should not open");
    assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()), "names no file: {error}");
    error
}

#[test]
fn an_image_that_is_too_large_is_refused_before_it_takes_memory() {
    let clips = Clips::new();
    for (name, how) in [("a.mov", "-c:v mjpeg -pix_fmt yuvj420p"), ("a.gif", ""), ("a.webp", "-c:v libwebp_anim")] {
        clips.draw("testsrc2=s=64x48:r=10:d=0.5", how, name);
    }
    let read = |name: &str| fs::read(clips.path(name)).unwrap();
    let side = 16_000_u16;
    let (big, little) = ([side.to_be_bytes(); 2].concat(), [side.to_le_bytes(); 2].concat());
    let canvas = [&(u32::from(side) - 1).to_le_bytes()[..3]; 2].concat();
    let jpeg = broken::patched_all(&read("a.mov"), &[0xff, 0xc0, 0, 17], 1, &big);
    // A decompression bomb: 12 kB become 135 million pixels.
    let gray = clips.draw("color=gray:s=11600x11600:r=1:d=1,format=gray", "-frames:v 1 -c:v png", "gray.png");
    assert!(fs::metadata(&gray).unwrap().len() < 1 << 20);
    let files = [
        clips.write("jpeg.mov", &broken::patched(&jpeg, b"jpeg", 24, &big)),
        clips.write("screen.gif", &broken::patched(&read("a.gif"), b"GIF89a", 0, &little)),
        clips.write("canvas.webp", &broken::patched(&read("a.webp"), b"VP8X", 8, &canvas)),
        clips.write("hollow.png", &broken::hollow_png(16_000, 16_000)),
        gray,
    ];
    for (path, (peak, said)) in files.iter().zip(outcomes(&clips, &files)) {
        assert!(said.starts_with("error: ") && said.contains("too large"), "{}: {said}", path.display());
        assert!(peak < 700 << 20, "{}: {} MB", path.display(), peak >> 20);
        let error = open_error(path);
        assert!(matches!(error, Error::Media { problem: MediaProblem::TooLarge, .. }), "{error:?}");
    }
    // The container claims a smaller size than the packets have.
    let hidden = clips.write("hidden.mov", &jpeg);
    let outcome = outcomes_of_one(&clips, hidden);
    assert!(is_good(&outcome) && outcome.1.starts_with("error: "), "{outcome:?}");
}

#[test]
fn pixels_made_square_do_not_multiply() {
    let clips = Clips::new();
    let wide = clips.draw("color=red:s=8000x1000:r=1:d=2,format=yuvj420p,setsar=16/1", "-c:v mjpeg", "wide.mkv");
    let outcome = outcomes_of_one(&clips, wide.clone());
    assert!(is_good(&outcome), "{} MB: {}", outcome.0 >> 20, outcome.1);
    let info = sharpv::video::probe(&wide).expect("it opens");
    let shape = f64::from(info.width) / f64::from(info.height);
    assert!((shape / 128.0 - 1.0).abs() < 0.01, "{info:?}");
}

fn outcomes_of_one(clips: &Clips, path: PathBuf) -> (u64, String) {
    outcomes(clips, &[path]).remove(0)
}

// --- nothing but the file itself -------------------------------------------------------------------------------------

#[test]
fn a_playlist_reads_no_other_file_and_no_network() {
    let clips = Clips::new();
    clips.draw("color=red:s=64x48:r=10:d=1", "-c:v libx264 -pix_fmt yuv420p", "secret.ts");
    clips.ffmpeg("-i {}/secret.ts -c copy", "secret.mp4");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a setting");
    let port = listener.local_addr().expect("an address").port();
    let hls = |what: &str| {
        format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{what}\n#EXT-X-ENDLIST\n")
    };
    let dash = |base: &str| {
        format!(
            "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" \
             mediaPresentationDuration=\"PT1S\" profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\"><Period>\
             <AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\" codecs=\"avc1\">\
             <BaseURL>{base}</BaseURL></Representation></AdaptationSet></Period></MPD>"
        )
    };
    let http = |name: &str| format!("http://127.0.0.1:{port}/{name}");
    let absolute = clips.path("secret.ts").display().to_string();
    let playlists = [
        ("file.m3u8", hls("secret.ts"), "HLS"),
        ("absolute.mp4", hls(&absolute), "HLS"),
        ("scheme.m3u8", hls(&format!("file://{absolute}")), "HLS"),
        ("network.m3u8", hls(&http("a.ts")), "HLS"),
        ("crypto.m3u8", hls(&format!("crypto:{}", http("a.ts"))), "HLS"),
        ("master.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfile.m3u8\n".to_owned(), "HLS"),
        ("marked.m3u8", format!("\u{feff}{}", hls("secret.ts")), "HLS"),
        ("dash.mpd", dash("secret.mp4"), "DASH"),
        ("dash-network.mpd", dash(&http("a.mp4")), "DASH"),
        ("list.ffconcat", "ffconcat version 1.0\nfile secret.ts\n".to_owned(), "concat"),
        (
            "stream.sdp",
            format!(
                "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
            ),
            "SDP",
        ),
    ];
    for (name, text, kind) in playlists {
        let path = clips.write(name, text.as_bytes());
        let error = within(20, move || open_error(&path));
        assert!(matches!(error, Error::Unusable { what: FileKind::Video, .. }), "{name}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(kind) && text.contains("give the video itself"), "{text}");
    }
    // The beginnings of these files look harmless. FFmpeg itself rejects them.
    for (name, text) in [
        ("spaces.m3u8", format!("{}{}", " ".repeat(2000), hls("secret.ts"))),
        (
            "image.svg",
            format!(
                "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' width='64' height='48'><image xlink:href='{}' width='64' height='48'/></svg>",
                http("a.png")
            ),
        ),
    ] {
        let path = clips.write(name, text.as_bytes());
        let error = within(20, move || open_error(&path));
        assert!(matches!(error, Error::Media { problem: MediaProblem::NotAVideo, .. }), "{name}: {error:?}");
    }
    // A file name with a pattern names only that file.
    for i in 1..4 {
        clips.draw("color=red:s=64x48", "-frames:v 1", &format!("image{i}.bmp"));
    }
    let text = clips.write("image%d.bmp", b"no image at all, but a text");
    let error = open_error(&text);
    assert!(matches!(error, Error::Media { problem: MediaProblem::NotAVideo, .. }), "{error:?}");
    let error = listener.accept().expect_err("nobody calls");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

// --- in a session ----------------------------------------------------------------------------------------------------

#[test]
fn a_session_takes_odd_videos_or_says_why_not() {
    let clips = Clips::new();
    clips.draw("testsrc2=s=64x48:r=10:d=1.6", "-c:v libx264 -pix_fmt yuv420p", "h264.mp4");
    let mut files = broken::odd(&clips);
    let whole = fs::read(clips.path("h264.mp4")).unwrap();
    files.extend(
        broken::damaged(&whole, 6, 3).enumerate().map(|(i, (_, bytes))| clips.write(&format!("d{i}.mp4"), &bytes)),
    );
    for family in ["smolvlm", "internvl", "qwen2vl", "gemma3", "minicpmv", "llava-onevision"] {
        let mut params = SessionParams { n_predict: 2, ..SessionParams::default() };
        params.compute.n_threads = Some(1);
        params.vision.n_threads = Some(1);
        let mut session = Session::open(&families::files(family), params, &mut ()).expect("the fixture opens");
        let options = VideoOptions { max_frames: Some(2), ..VideoOptions::default() };
        let mut taken = 0;
        for path in &files {
            session.clear();
            let answer = session
                .add_video(path, &options, &mut ())
                .map(|_| ())
                .and_then(|()| session.ask("What is it?", &mut ()).map(|_| ()));
            match answer {
                Ok(()) => taken += 1,
                Err(error) => assert!(error.to_string().contains("/"), "names no file: {error}"),
            }
        }
        assert!(taken >= 6, "{family}: {taken} of {}", files.len());
    }
}
