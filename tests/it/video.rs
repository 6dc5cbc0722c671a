//! Black-box tests of `sharpv::video`. The program `ffmpeg` makes clips with known images, and the tests read them.

use crate::support::broken_videos::hollow_png;
use crate::support::video_clips as clips;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clips::{Clips, color_name, colors, frames, index_of, numbered, pixel, quarters, take_all, within};
use image::{Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use sharpv::Error;
use sharpv::error::FileKind;
use sharpv::error::MediaProblem;
use sharpv::video::{Frame, FrameSource, Kind, Rate, Rounding, Sampling, Spread, probe};

const X264: &str = "-c:v libx264 -pix_fmt yuv420p";

fn part(rate: Rate, start_s: f64, end_s: f64) -> Sampling {
    Sampling { rate, start_s: Some(start_s), end_s: Some(end_s), ..Sampling::default() }
}

fn indices(path: &Path, sampling: &Sampling) -> Vec<usize> {
    frames(path, sampling).iter().map(index_of).collect()
}

fn color_names(path: &Path, sampling: &Sampling) -> Vec<&'static str> {
    frames(path, sampling).iter().map(|frame| color_name(pixel(frame, 0.5, 0.5))).collect()
}

fn assert_times(actual: &[f64], expected: &[f64]) {
    let near = actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1.5e-3);
    assert!(actual.len() == expected.len() && near, "{actual:?} instead of {expected:?}");
}

// --- sampling --------------------------------------------------------------------------------------------------------

#[test]
fn uniform_takes_the_middles_of_equal_parts() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(50, 25), X264, "a.mp4");

    let mut source = FrameSource::open(&clip, &Sampling::uniform(4)).unwrap();
    assert_times(source.planned_times(), &[0.25, 0.75, 1.25, 1.75]);
    let frames = take_all(&mut source);
    // 0.25 s is in frame 6 (0.24 to 0.28 s), and so on.
    assert_eq!(frames.iter().map(index_of).collect::<Vec<_>>(), [6, 18, 31, 43]);
    assert_times(&frames.iter().map(|frame| frame.time_s).collect::<Vec<_>>(), &[0.25, 0.75, 1.25, 1.75]);
    assert!(source.warnings().is_empty(), "{:?}", source.warnings());

    assert_eq!(indices(&clip, &part(Rate::Uniform { frames: 2 }, 1.0, 1.4)), [27, 32]);
}

#[test]
fn each_frame_is_taken_once_if_there_are_fewer_than_asked_for() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.webm"] {
        let codec = if name == "a.webm" { "-c:v libvpx-vp9 -crf 20 -b:v 0" } else { X264 };
        let clip = clips.draw(&numbered(50, 25), codec, name);
        assert_eq!(indices(&clip, &Sampling::uniform(1000)), (0..50).collect::<Vec<_>>(), "{name}");
        assert_eq!(indices(&clip, &Sampling::uniform(50)), (0..50).collect::<Vec<_>>(), "{name}");
        let middle = part(Rate::Uniform { frames: 30 }, 1.0, 1.2);
        assert_eq!(indices(&clip, &middle), [25, 26, 27, 28, 29], "{name}");
    }
}

#[test]
fn fps_takes_frames_at_a_rate() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mkv"] {
        let clip = clips.draw(&numbered(50, 25), X264, name);
        let source = FrameSource::open(&clip, &Sampling::fps(2.5, 100)).unwrap();
        assert_times(source.planned_times(), &[0.0, 0.4, 0.8, 1.2, 1.6]);
        assert_eq!(indices(&clip, &Sampling::fps(2.5, 100)), [0, 10, 20, 30, 40], "{name}");
        assert_eq!(indices(&clip, &Sampling::fps(25.0, 100)), (0..50).collect::<Vec<_>>(), "{name}");
        // Takes no frame twice, although there are more moments than frames.
        assert_eq!(indices(&clip, &Sampling::fps(100.0, 1000)), (0..50).collect::<Vec<_>>(), "{name}");
        // More than the maximum: spread evenly.
        assert_eq!(indices(&clip, &Sampling::fps(25.0, 4)), [6, 18, 31, 43], "{name}");
        assert_eq!(indices(&clip, &part(Rate::Fps { fps: 5.0, max_frames: 9 }, 0.4, 1.0)), [10, 15, 20], "{name}");
    }
}

/// The spread from the first frame to the last.
fn ends(number: Rounding, margin_s: f64) -> Spread {
    Spread::Ends { count: Rounding::Down, number, margin_s }
}

#[test]
fn frames_are_taken_by_their_numbers() {
    let clips = Clips::new();
    for name in ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.webm"] {
        let codec = if name == "a.webm" { "-c:v libvpx-vp9 -crf 20 -b:v 0" } else { X264 };
        let clip = clips.draw(&numbered(50, 25), codec, name);
        let take = |sampling: Sampling, spread: Spread| indices(&clip, &Sampling { spread, ..sampling });
        let (down, nearest) = (ends(Rounding::Down, 0.0), ends(Rounding::Nearest, 0.0));
        // 49 / 3 is 16.33.
        assert_eq!(take(Sampling::uniform(4), down), [0, 16, 32, 49], "{name}");
        assert_eq!(take(Sampling::uniform(4), nearest), [0, 16, 33, 49], "{name}");
        assert_eq!(take(Sampling::uniform(1), nearest), [0], "{name}");
        assert_eq!(take(Sampling::uniform(60), down), (0..50).collect::<Vec<_>>(), "{name}");
        assert_eq!(take(Sampling::fps(1.6, 100), nearest), [0, 24, 49], "{name}");
        assert_eq!(take(Sampling { min_frames: 5, ..Sampling::fps(0.1, 100) }, nearest), [0, 12, 24, 37, 49], "{name}");
        assert_eq!(take(Sampling { multiple_of: 2, ..Sampling::fps(1.6, 100) }, nearest), [0, 49], "{name}");
        assert_eq!(take(Sampling::fps(25.0, 4), down), [0, 16, 32, 49], "{name}");
        assert_eq!(take(part(Rate::Uniform { frames: 2 }, 1.0, 1.4), nearest), [25, 34], "{name}");
        // No frame starts in this part.
        assert_eq!(take(part(Rate::Uniform { frames: 2 }, 1.01, 1.02), nearest), [25], "{name}");
        // At 1 fps, 1.6 s have more than one frame. 1.2 s have 30 frames, from number 10 on.
        assert_eq!(take(Sampling::fps(1.0, 1), ends(Rounding::Down, 0.2)), [5], "{name}");
        assert_eq!(take(Sampling::fps(4.0, 4), ends(Rounding::Down, 0.4)), [10, 20, 30, 40], "{name}");
        assert_eq!(take(Sampling::fps(4.0, 5), ends(Rounding::Down, 0.4)), [0, 12, 24, 36, 49], "{name}");
        // 3.125 frames round to 3. The 17 frames at that step are too many for the second case.
        assert_eq!(
            take(Sampling::fps(8.0, 99), Spread::WholeSteps),
            (0..17).map(|i| 3 * i).collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(take(Sampling::fps(8.0, 4), Spread::WholeSteps), [6, 18, 30, 42], "{name}");
    }
}

#[test]
fn of_frames_at_uneven_distances_the_time_counts() {
    let clips = Clips::new();
    // One second with 25 frames, then 5 seconds with 5 frames each.
    let slow = format!("{},setpts=(N+4*max(N-25\\,0))/25/TB", numbered(50, 25));
    for name in ["a.mp4", "a.mkv", "a.ts"] {
        let clip = clips.draw(&slow, &format!("{X264} -fps_mode vfr"), name);
        let take = |n| {
            let sampling = Sampling { spread: ends(Rounding::Nearest, 0.0), ..Sampling::uniform(n) };
            indices(&clip, &sampling)
        };
        let four = take(4);
        assert_eq!((four[0], four.len()), (0, 4), "{name}");
        // At 2 s and at 4 s, within one frame.
        assert!((29..=30).contains(&four[1]) && (38..=40).contains(&four[2]), "{name}: {four:?}");
        assert!(four[3] >= 48, "{name}: {four:?}");
        // Nearly all frames, with the first and the last. None is taken twice if the file states the true rate.
        let most = take(40);
        assert!(most.is_sorted_by(|a, b| a < b || (a == b && name != "a.mp4")), "{name}: {most:?}");
        assert!(most.len() > 25 && (most[0], most[most.len() - 1]) == (0, 49), "{name}: {most:?}");
    }
}

#[test]
fn impossible_samplings_are_refused() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(50, 25), X264, "a.mp4");
    let uniform = Rate::Uniform { frames: 3 };
    let wrong = [
        (Sampling::uniform(0), "frames"),
        (Sampling::fps(0.0, 8), "fps"),
        (Sampling::fps(f64::NAN, 8), "fps"),
        (Sampling::fps(1.0, 0), "max_frames"),
        (part(uniform, -1.0, 1.0), "start"),
        (part(uniform, f64::NAN, 1.0), "start"),
        (part(uniform, 1.0, 1.0), "end"),
        (part(uniform, 1.5, 0.5), "end"),
        (Sampling { end_s: Some(0.0), ..Sampling::default() }, "end"),
        (Sampling { folder_fps: 0.0, ..Sampling::default() }, "folder_fps"),
        (Sampling { spread: ends(Rounding::Down, -1.0), ..Sampling::default() }, "margin"),
        (Sampling { spread: ends(Rounding::Down, f64::NAN), ..Sampling::default() }, "margin"),
    ];
    for (sampling, parameter) in wrong {
        match FrameSource::open(&clip, &sampling) {
            Err(Error::InvalidParameter { name, .. }) => assert_eq!(name, parameter),
            other => panic!("{sampling:?}: {other:?}"),
        }
    }

    let error = FrameSource::open(&clip, &part(uniform, 2.0, 3.0)).unwrap_err();
    assert!(matches!(error, Error::StartBeyondEnd { start_s: 2.0, .. }), "{error}");
    assert!(error.to_string().contains("2.000 s long"), "{error}");
    // An end after the video's end is capped.
    let source = FrameSource::open(&clip, &part(uniform, 1.4, 99.0)).unwrap();
    assert_times(source.planned_times(), &[1.5, 1.7, 1.9]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Uses a folder, whose frame times are exact, and of which only the first image has to be decoded.
    #[test]
    fn planned_times_are_ascending_within_the_range_and_as_many_as_possible(
        n_files in 1_usize..40,
        folder_fps in 0.2_f64..60.0,
        uniform in any::<bool>(),
        frames in 1_usize..60,
        fps in 0.1_f64..100.0,
        range in prop::option::of((0.0_f64..0.9, 0.05_f64..1.5)),
        spread in prop_oneof![
            3 => Just(Spread::Middles),
            1 => Just(Spread::WholeSteps),
            2 => (any::<bool>(), 0.0_f64..3.0).prop_map(|(down, margin)| {
                ends(if down { Rounding::Down } else { Rounding::Nearest }, margin)
            }),
        ],
    ) {
        let clips = Clips::new();
        for i in 0..n_files {
            RgbImage::new(2, 2).save(clips.path(&format!("{i}.png"))).unwrap();
        }
        let duration = n_files as f64 / folder_fps;
        let (start, end) = range.map_or((0.0, duration), |(from, length)| (from * duration, (from + length) * duration));
        let rate = if uniform { Rate::Uniform { frames } } else { Rate::Fps { fps, max_frames: frames } };
        let sampling = Sampling {
            rate,
            start_s: range.map(|_| start),
            end_s: range.map(|_| end),
            folder_fps,
            spread,
            ..Sampling::default()
        };
        let end = end.min(duration);
        let source = FrameSource::open(clips.path("").as_path(), &sampling).unwrap();
        let times = source.planned_times();

        prop_assert!(!times.is_empty() && times.len() <= frames);
        prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", times);
        prop_assert!(times.iter().all(|&t| start <= t && t < end), "{:?}", times);

        // Computed independently: the files that are shown at some time in the range, up to 2 ms at its ends.
        let visible = |slack: f64| (0..n_files)
            .filter(|&i| i as f64 / folder_fps < end - slack && (i + 1) as f64 / folder_fps > start + slack)
            .count();
        let asked_by_fps = (end - start) * fps;
        if spread != Spread::Middles {
            prop_assert!(times.len() <= visible(-0.002));
        } else if uniform || asked_by_fps > frames as f64 + 0.01 {
            prop_assert!(times.len() <= frames.min(visible(-0.002)));
            // All frames if there are too few. Otherwise as many as requested, because no two moments of a steady rate
            // show the same frame then.
            prop_assert!(times.len() + 1 >= frames.min(visible(0.002)));
        } else {
            prop_assert!(times.len() as f64 <= asked_by_fps + 1.0);
            prop_assert!(times[0] == start);
        }
        let given = source.map(Result::unwrap).count();
        prop_assert_eq!(given, FrameSource::open(clips.path("").as_path(), &sampling).unwrap().planned_times().len());
    }
}

// --- orientation and shape -------------------------------------------------------------------------------------------

/// Top left red, top right lime, bottom left blue, bottom right white.
const QUARTERS: &str = "color=red:s=64x48:r=10:d=0.5,drawbox=x=32:y=0:w=32:h=24:color=lime:t=fill,\
    drawbox=x=0:y=24:w=32:h=24:color=blue:t=fill,drawbox=x=32:y=24:w=32:h=24:color=white:t=fill";

/// Writes `a b c d` of the display matrix into the track header of an MP4 file (ISO 14496-12, `tkhd`, version 0).
fn set_display_matrix(path: &Path, [a, b, c, d]: [i32; 4]) {
    let mut bytes = fs::read(path).unwrap();
    let header = bytes.windows(4).position(|window| window == b"tkhd").expect("a track header");
    assert_eq!(bytes[header + 4], 0, "version of tkhd");
    let matrix = header + 44;
    let entries = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30];
    for (i, entry) in entries.into_iter().enumerate() {
        bytes[matrix + 4 * i..matrix + 4 * i + 4].copy_from_slice(&entry.to_be_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn rotation_metadata_turns_the_image_upright() {
    let clips = Clips::new();
    let upright = ["red", "lime", "blue", "white"];
    let cases = [
        ([1, 0, 0, 1], upright, (64, 48)),
        // Clockwise by 90°: the bottom left corner becomes the top left one.
        ([0, 1, -1, 0], ["blue", "red", "white", "lime"], (48, 64)),
        ([-1, 0, 0, -1], ["white", "blue", "lime", "red"], (64, 48)),
        ([0, -1, 1, 0], ["lime", "white", "red", "blue"], (48, 64)),
        // Mirrored horizontally, vertically, and along each diagonal.
        ([-1, 0, 0, 1], ["lime", "red", "white", "blue"], (64, 48)),
        ([1, 0, 0, -1], ["blue", "white", "red", "lime"], (64, 48)),
        ([0, 1, 1, 0], ["red", "blue", "lime", "white"], (48, 64)),
        ([0, -1, -1, 0], ["white", "lime", "blue", "red"], (48, 64)),
    ];
    let clip = clips.draw(QUARTERS, X264, "a.mp4");
    for (matrix, expected, size) in cases {
        set_display_matrix(&clip, matrix);
        let info = probe(&clip).unwrap();
        assert_eq!((info.width, info.height), size, "{matrix:?}");
        assert_eq!(quarters(&frames(&clip, &Sampling::uniform(1))[0]), expected, "{matrix:?}");
    }
}

/// FFmpeg passes on an image that needs no conversion, and a flip only reverses its rows.
#[test]
fn images_that_need_no_conversion_are_turned_too() {
    let clips = Clips::new();
    for format in ["rgb24", "rgba"] {
        let clip = clips.draw(QUARTERS, &format!("-c:v png -pix_fmt {format}"), "a.mov");
        for (matrix, expected) in [
            ([1, 0, 0, 1], ["red", "lime", "blue", "white"]),
            ([1, 0, 0, -1], ["blue", "white", "red", "lime"]),
            ([-1, 0, 0, -1], ["white", "blue", "lime", "red"]),
            ([0, 1, -1, 0], ["blue", "red", "white", "lime"]),
        ] {
            set_display_matrix(&clip, matrix);
            assert_eq!(quarters(&frames(&clip, &Sampling::uniform(1))[0]), expected, "{format} {matrix:?}");
        }
    }
}

#[test]
fn pixels_become_square_without_losing_any() {
    let clips = Clips::new();
    // The aspect ratio comes from the codec, or only from the container (VP9, QuickTime). Pixels are wide or tall.
    let cases = [
        ("h264.mp4", X264),
        ("vp9.webm", "-c:v libvpx-vp9"),
        ("prores.mov", "-c:v prores"),
        ("mpeg4.avi", "-c:v mpeg4"),
    ];
    for (name, codec) in cases {
        for (sar, size) in [("2/1", (128, 48)), ("1/2", (64, 96)), ("1/1", (64, 48))] {
            let clip = clips.draw(&format!("{QUARTERS},setsar={sar}"), codec, name);
            let frame = &frames(&clip, &Sampling::uniform(1))[0];
            assert_eq!((frame.width, frame.height), size, "{name} {sar}");
            assert_eq!(quarters(frame), ["red", "lime", "blue", "white"]);
        }
    }

    // Pixels become square before the image is turned.
    let clip = clips.draw(&format!("{QUARTERS},setsar=2/1"), X264, "turned.mp4");
    set_display_matrix(&clip, [0, 1, -1, 0]);
    let frame = &frames(&clip, &Sampling::uniform(1))[0];
    // Some versions scale the matrix by the aspect ratio. Only the shape matters.
    assert_eq!((frame.width, frame.height), (48, 128));
    assert_eq!(quarters(frame), ["blue", "red", "white", "lime"]);
}

#[test]
fn odd_sizes_are_kept() {
    let clips = Clips::new();
    for (codec, name) in [("-c:v ffv1 -pix_fmt yuv420p", "a.mkv"), ("-c:v libvpx-vp9", "a.webm"), ("-c:v png", "a.mov")]
    {
        let clip = clips.draw("color=red:s=63x47:r=5:d=1,format=gbrp", codec, name);
        let frame = &frames(&clip, &Sampling::uniform(1))[0];
        assert_eq!((frame.width, frame.height), (63, 47), "{name}");
        for (x, y) in [(0.0, 0.0), (0.999, 0.0), (0.0, 0.999), (0.999, 0.999)] {
            assert_eq!(color_name(pixel(frame, x, y)), "red", "{name} at {x}, {y}");
        }
    }
}

#[test]
fn a_change_of_size_within_a_stream_keeps_the_size_of_the_frames() {
    let clips = Clips::new();
    let wide = clips.draw("color=red:s=64x48:r=10:d=1", X264, "1.h264");
    let tall = clips.draw("color=lime:s=48x96:r=10:d=1", X264, "2.h264");
    let both = clips.write("both.h264", &[fs::read(wide).unwrap(), fs::read(tall).unwrap()].concat());

    let frames = frames(&both, &Sampling::uniform(4));
    let colors_at = |x: f64| frames.iter().map(|frame| color_name(pixel(frame, x, 0.5))).collect::<Vec<_>>();
    assert_eq!(colors_at(0.5), ["red", "red", "lime", "lime"]);
    // 48x96 fits into 64x48 with a width of 24 pixels and black borders of 20.
    assert_eq!(colors_at(0.1), ["red", "red", "black", "black"]);
    assert_eq!(colors_at(0.9), ["red", "red", "black", "black"]);
}

// --- colors ----------------------------------------------------------------------------------------------------------

/// Converts YCbCr to RGB with the weights of red and blue, as the ITU-R recommendations define it.
fn rgb_by_definition([y, cb, cr]: [f64; 3], (kr, kb): (f64, f64), full_range: bool) -> [f64; 3] {
    let (luma, chroma) = if full_range { (y / 255.0, 255.0) } else { ((y - 16.0) / 219.0, 224.0) };
    let (cb, cr) = ((cb - 128.0) / chroma, (cr - 128.0) / chroma);
    let (red, blue) = (luma + 2.0 * (1.0 - kr) * cr, luma + 2.0 * (1.0 - kb) * cb);
    let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
    [red, green, blue].map(|c| (c * 255.0).clamp(0.0, 255.0))
}

#[test]
fn matrix_and_range_of_the_colours_are_honoured() {
    const COLORS: [[i32; 3]; 3] = [[150, 60, 190], [81, 90, 200], [60, 170, 110]];
    const BT601: (f64, f64) = (0.299, 0.114);
    const BT709: (f64, f64) = (0.2126, 0.0722);
    const BT2020: (f64, f64) = (0.2627, 0.0593);
    let cases = [
        ("64x48", "-colorspace bt709 -color_range tv", BT709, false),
        ("64x48", "-colorspace smpte170m -color_range tv", BT601, false),
        ("64x48", "-colorspace bt470bg -color_range pc", BT601, true),
        ("64x48", "-colorspace bt709 -color_range pc", BT709, true),
        ("64x48", "-colorspace bt2020nc -color_range tv", BT2020, false),
        // Without tags, the height decides, as in players.
        ("64x48", "", BT601, false),
        ("64x720", "", BT709, false),
    ];
    let clips = Clips::new();
    for (format, scale) in [("yuv420p", 1), ("yuv444p", 1), ("yuv420p10le", 4), ("yuv422p10le", 4)] {
        for (size, tags, weights, full_range) in cases {
            // One frame of each color.
            let [y, cb, cr] = [0, 1, 2].map(|i| {
                let [first, second, third] = COLORS.map(|color| color[i] * scale);
                format!("if(eq(N,0),{first},if(eq(N,1),{second},{third}))")
            });
            let source = format!("color=black:s={size}:r=5:d=0.6,format={format},geq=lum='{y}':cb='{cb}':cr='{cr}'");
            let clip = clips.draw(&source, &format!("-c:v ffv1 -pix_fmt {format} {tags}"), "a.mkv");
            let frames = frames(&clip, &Sampling::uniform(3));
            assert_eq!(frames.len(), COLORS.len());
            for (frame, color) in frames.iter().zip(COLORS) {
                let actual = pixel(frame, 0.5, 0.5);
                let expected = rgb_by_definition(color.map(f64::from), weights, full_range);
                let off = (0..3).map(|i| (f64::from(actual[i]) - expected[i]).abs()).fold(0.0, f64::max);
                assert!(off <= 2.5, "{format} {size} {tags} {color:?}: {actual:?} instead of {expected:?}");
            }
        }
    }
}

#[test]
fn codecs_with_ten_bits_and_with_full_range_look_right() {
    let clips = Clips::new();
    let codecs = [
        ("-c:v libx264 -pix_fmt yuv420p10le", "x264.mp4"),
        ("-c:v libvpx-vp9 -pix_fmt yuv420p10le", "vp9.webm"),
        ("-c:v prores", "prores.mov"),
        ("-c:v mjpeg -pix_fmt yuvj420p", "mjpeg.avi"),
        ("-c:v mpeg2video", "mpeg2.mpg"),
        ("-c:v ffv1 -pix_fmt gray", "gray.mkv"),
        ("-c:v ffv1 -pix_fmt gbrp", "gbrp.mkv"),
        ("-c:v rawvideo -pix_fmt bgr24", "raw.avi"),
    ];
    for (codec, name) in codecs {
        let colors = colors(&["white", "black", "white"], 1.0, "64x48", 25);
        let clip = clips.draw(&colors, codec, name);
        assert_eq!(color_names(&clip, &Sampling::uniform(3)), ["white", "black", "white"], "{name}");
        let frames = frames(&clip, &Sampling::uniform(3));
        // Full white and black, not the 235 and 16 of the wrong range.
        assert!(pixel(&frames[0], 0.5, 0.5).iter().all(|&c| c >= 252), "{name}: {:?}", pixel(&frames[0], 0.5, 0.5));
        assert!(pixel(&frames[1], 0.5, 0.5).iter().all(|&c| c <= 3), "{name}: {:?}", pixel(&frames[1], 0.5, 0.5));
    }
}

#[test]
fn what_is_transparent_becomes_white() {
    let clips = Clips::new();
    // A red image with a transparent right half.
    let source = "color=red:s=64x48:r=5:d=1,format=rgba,geq=r=255:g=0:b=0:a='if(lt(X,32),255,0)'";
    for (codec, name) in [
        ("-c:v qtrle", "a.mov"),
        ("-c:v ffv1 -pix_fmt yuva420p", "a.mkv"),
        ("-f apng", "a.png"),
        ("-c:v libwebp_anim -lossless 1", "a.webp"),
    ] {
        let clip = clips.draw(source, codec, name);
        assert_eq!(quarters(&frames(&clip, &Sampling::uniform(1))[0]), ["red", "white", "red", "white"], "{name}");
    }
    // A half-transparent image.
    let image = clips.path("half.png");
    RgbaImage::from_pixel(4, 4, Rgba([200, 0, 100, 128])).save(&image).unwrap();
    let actual = pixel(&frames(&image, &Sampling::default())[0], 0.5, 0.5);
    let expected = [200.0, 0.0, 100.0].map(|c: f64| c * 128.0 / 255.0 + 255.0 * 127.0 / 255.0);
    assert!((0..3).all(|i| (f64::from(actual[i]) - expected[i]).abs() <= 1.0), "{actual:?} instead of {expected:?}");
}

// --- time ------------------------------------------------------------------------------------------------------------

#[test]
fn variable_frame_rates_go_by_timestamps() {
    let clips = Clips::new();
    // Frames 0 to 4 come every 0.1 s from 0 s, frames 5 to 9 every second from 1 s.
    let source = format!("{},setpts='if(lt(N,5),0.1*N,N-4)/TB'", numbered(10, 10));
    for name in ["a.mkv", "a.mp4"] {
        let clip = clips.draw(&source, &format!("{X264} -fps_mode passthrough -bf 2"), name);
        let shown_at =
            |start: f64| indices(&clip, &part(Rate::Fps { fps: 1.0, max_frames: 1 }, start, start + 0.01))[0];
        // A single moment, in the middle of 10 ms.
        assert_eq!([0.05, 0.15, 0.35, 0.6, 0.9].map(shown_at), [0, 1, 3, 4, 4], "{name}");
        assert_eq!([1.05, 1.9, 2.5, 3.98, 4.5].map(shown_at), [5, 5, 6, 7, 8], "{name}");
        assert_eq!(indices(&clip, &Sampling::uniform(99)), (0..10).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_index_may_be_at_either_end() {
    let clips = Clips::new();
    let at_end = clips.draw(&numbered(50, 25), X264, "end.mp4");
    let at_start = clips.ffmpeg("-i {}/end.mp4 -c copy -movflags +faststart", "start.mp4");
    let position = |path: &Path, name: &[u8]| fs::read(path).unwrap().windows(4).position(|window| window == name);
    assert!(position(&at_end, b"moov") > position(&at_end, b"mdat"));
    assert!(position(&at_start, b"moov") < position(&at_start, b"mdat"));
    for clip in [at_end, at_start] {
        assert_eq!(indices(&clip, &Sampling::uniform(4)), [6, 18, 31, 43]);
    }
}

#[test]
fn files_that_do_not_tell_their_length_are_measured() {
    let clips = Clips::new();
    clips.draw(&numbered(50, 25), &format!("{X264} -g 10"), "a.mp4");
    let files = [
        clips.ffmpeg("-i {}/a.mp4 -c copy", "raw.h264"),
        clips.draw(&numbered(50, 25), "-c:v mpeg2video -bf 2 -q:v 2", "raw.m2v"),
        clips.ffmpeg_piped("-i {}/a.mp4 -c copy -f matroska -live 1", "live.mkv"),
        clips.ffmpeg_piped("-i {}/a.mp4 -c copy -f mp4 -movflags frag_keyframe+empty_moov", "fragments.mp4"),
        clips.ffmpeg_piped("-i {}/a.mp4 -c copy -f mpegts", "pipe.ts"),
        clips.ffmpeg_piped("-i {}/a.mp4 -c copy -f flv", "pipe.flv"),
    ];
    for clip in files {
        let info = probe(&clip).unwrap();
        assert!((info.duration_s.unwrap() - 2.0).abs() < 0.05, "{info:?}");
        assert_eq!(indices(&clip, &Sampling::uniform(4)), [6, 18, 31, 43], "{}", clip.display());
        assert_eq!(indices(&clip, &Sampling::uniform(99)), (0..50).collect::<Vec<_>>(), "{}", clip.display());
        assert_eq!(indices(&clip, &part(Rate::Uniform { frames: 2 }, 1.0, 1.4)), [27, 32], "{}", clip.display());
    }
}

#[test]
fn a_long_fragmented_file_is_measured_to_its_end() {
    let clips = Clips::new();
    // Longer than the part that FFmpeg analyzes when it opens a file.
    clips.draw(
        &colors(&["red", "lime", "blue"], 100.0, "64x48", 5),
        &format!("{X264} -preset ultrafast -g 25"),
        "a.mp4",
    );
    let clip = clips.ffmpeg_piped("-i {}/a.mp4 -c copy -f mp4 -movflags frag_keyframe+empty_moov", "fragments.mp4");
    assert!((probe(&clip).unwrap().duration_s.unwrap() - 300.0).abs() < 1.0);
    assert_eq!(color_names(&clip, &Sampling::uniform(3)), ["red", "lime", "blue"]);
}

#[test]
fn time_begins_with_the_first_frame() {
    let clips = Clips::new();
    for name in ["a.mkv", "a.ts", "a.mp4", "a.flv"] {
        let clip = clips.draw(&numbered(50, 25), &format!("{X264} -output_ts_offset 7"), name);
        let info = probe(&clip).unwrap();
        assert!((info.duration_s.unwrap() - 2.0).abs() < 0.05, "{info:?}");
        assert_eq!(indices(&clip, &Sampling::uniform(4)), [6, 18, 31, 43], "{name}");
        assert_eq!(indices(&clip, &part(Rate::Fps { fps: 5.0, max_frames: 9 }, 0.4, 1.0)), [10, 15, 20], "{name}");
    }
}

// --- long files ------------------------------------------------------------------------------------------------------

#[test]
fn sparse_sampling_of_a_long_file_seeks() {
    const COLORS: [&str; 8] = ["red", "lime", "blue", "white", "black", "yellow", "cyan", "magenta"];
    const GOP: u64 = 50;
    let clips = Clips::new();
    // One hour: eight colors of 450 s each, at 5 frames per second.
    let encoder = format!("{X264} -preset veryfast -g {GOP} -keyint_min {GOP} -sc_threshold 0");
    clips.draw(&colors(&COLORS, 450.0, "64x48", 5), &encoder, "hour.mp4");
    let files = [
        clips.path("hour.mp4"),
        clips.ffmpeg("-i {}/hour.mp4 -c copy", "hour.mkv"),
        clips.ffmpeg("-i {}/hour.mp4 -c copy", "hour.ts"),
        clips.ffmpeg("-i {}/hour.mp4 -c copy", "hour.flv"),
        clips.ffmpeg_piped("-i {}/hour.mp4 -c copy -f matroska", "without-cues.mkv"),
    ];
    for path in files {
        for n in [8, 32] {
            let mut source = FrameSource::open(&path, &Sampling::uniform(n)).unwrap();
            let actual: Vec<_> = take_all(&mut source).iter().map(|frame| color_name(pixel(frame, 0.5, 0.5))).collect();
            let expected: Vec<_> = COLORS.iter().flat_map(|&color| vec![color; n / 8]).collect();
            assert_eq!(actual, expected, "{}", path.display());
            // Of 18,000 frames, each sampled one costs at most a whole GOP and the decoder's delay.
            let limit = n as u64 * (GOP + 20);
            assert!(source.frames_decoded() <= limit, "{}: {} frames", path.display(), source.frames_decoded());
        }
        // A part near the end.
        let last = part(Rate::Uniform { frames: 2 }, 3590.0, 3600.0);
        assert_eq!(color_names(&path, &last), ["magenta", "magenta"]);
    }
}

#[test]
fn the_right_frame_is_found_wherever_the_keyframes_are() {
    let clips = Clips::new();
    for gop in [1, 7, 48, 250] {
        // At five frames per second, frames are far enough apart for seeks.
        let clip = clips.draw(&numbered(50, 5), &format!("{X264} -g {gop} -bf 3"), "a.mp4");
        let ts = clips.ffmpeg("-i {}/a.mp4 -c copy", "a.ts");
        let mkv = clips.ffmpeg("-i {}/a.mp4 -c copy", "a.mkv");
        for clip in [clip, ts, mkv] {
            for n in [1, 2, 3, 5, 10, 24] {
                let expected: Vec<_> = (0..n).map(|i| ((i as f64 + 0.5) * 50.0 / n as f64 + 1e-9) as usize).collect();
                let mut source = FrameSource::open(&clip, &Sampling::uniform(n)).unwrap();
                let actual: Vec<_> = take_all(&mut source).iter().map(index_of).collect();
                assert_eq!(actual, expected, "gop {gop}, {n} of {}", clip.display());
                // Seeks never decode a frame twice.
                assert!(source.frames_decoded() <= 50, "gop {gop}, {n} of {}", clip.display());
            }
            let far = part(Rate::Fps { fps: 0.5, max_frames: 9 }, 5.0, 10.0);
            assert_eq!(indices(&clip, &far), [25, 35, 45], "gop {gop} of {}", clip.display());
        }
    }
}

#[test]
fn images_that_are_shown_for_long_are_found_too() {
    let clips = Clips::new();
    // Each frame lasts ten seconds. There is one keyframe, and there are B frames that no other frame refers to.
    let source = format!("{},setpts=10*N/TB", numbered(50, 5));
    let clip = clips.draw(&source, &format!("{X264} -fps_mode passthrough -g 250 -bf 3"), "a.mkv");
    // The last frame lasts a fifth of a second, as the file states.
    let duration = probe(&clip).unwrap().duration_s.unwrap();
    assert!((duration - 490.2).abs() < 0.01, "{duration}");
    for n in [1, 2, 3, 5, 7] {
        let expected: Vec<_> = (0..n).map(|i| ((i as f64 + 0.5) * duration / n as f64 / 10.0) as usize).collect();
        assert_eq!(indices(&clip, &Sampling::uniform(n)), expected);
    }
    for index in 0..49 {
        let start = index as f64 * 10.0 + 9.5;
        assert_eq!(indices(&clip, &part(Rate::Uniform { frames: 1 }, start, start + 0.1)), [index]);
    }
}

/// MPEG-TS has no index. Packets that were read ahead in search of a keyframe must not be decoded again after it.
#[test]
fn a_long_group_of_pictures_looks_the_same_in_each_container() {
    let clips = Clips::new();
    let encoder = format!("{X264} -g 250 -keyint_min 250 -sc_threshold 0");
    let mkv = clips.draw("testsrc2=s=64x48:r=25:d=40", &encoder, "a.mkv");
    let ts = clips.ffmpeg("-i {}/a.mkv -c copy", "a.ts");
    // Takes all frames in the file's order, without seeks.
    let all = frames(&mkv, &Sampling::uniform(1000));
    assert_eq!(all.len(), 1000);
    for clip in [mkv, ts] {
        let second = Rate::Fps { fps: 1.0, max_frames: 100 };
        for (sampling, n) in [
            (Sampling::fps(1.0, 100), 40),
            (Sampling::uniform(40), 40),
            (part(second, 11.0, 40.0), 29),
            (part(second, 9.5, 40.0), 31),
        ] {
            let sampled = frames(&clip, &sampling);
            assert_eq!(sampled.len(), n, "{}", clip.display());
            let is_wrong = |frame: &&Frame| frame.rgb != all[(frame.time_s * 25.0 + 0.025) as usize].rgb;
            let wrong: Vec<_> = sampled.iter().filter(is_wrong).collect();
            assert!(wrong.is_empty(), "{}, {sampling:?}: {wrong:?}", clip.display());
        }
    }
}

// --- false claims ----------------------------------------------------------------------------------------------------

/// Overwrites the bytes that are `offset` bytes after the first `name` in a file.
fn patch(path: &Path, name: &[u8], offset: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    let found = content.windows(name.len()).position(|window| window == name).expect("the name is in the file");
    let start = found + name.len() + offset;
    content[start..start + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

#[test]
fn an_immense_length_is_planned_in_no_time() {
    let clips = Clips::new();
    // Frames that last 68 years (ISO 14496-12, `mdhd` and `stts`, version 0).
    let slow = clips.draw(&numbered(50, 25), &format!("{X264} -bf 0 -use_editlist 0"), "slow.mp4");
    patch(&slow, b"mdhd", 12, &1_u32.to_be_bytes());
    patch(&slow, b"stts", 12, &0x7fff_ffff_u32.to_be_bytes());
    let path = slow.clone();
    within(60, move || probe(&path).unwrap());
    let path = slow.clone();
    let sampled = within(60, move || indices(&path, &Sampling::fps(1.0, usize::MAX)));
    assert_eq!(sampled, (0..50).collect::<Vec<_>>());

    // Matroska keeps the duration in a tag. Text that is not a number must do no harm, either.
    for tag in [
        b"10000000000001e288",
        b"99999999999999e99\0",
        b"00:00:\xff\xfe.000000000",
        b"inf\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let path = clips.draw(&numbered(50, 25), X264, "tag.mkv");
        let tag = &tag[..];
        patch(&path, b"DURATION", tag_offset(&path), tag);
        let info = within(60, {
            let path = path.clone();
            move || probe(&path).unwrap()
        });
        assert!((info.duration_s.unwrap() - 2.0).abs() < 0.05, "{info:?}");
        assert_eq!(indices(&path, &Sampling::uniform(4)), [6, 18, 31, 43]);
    }
}

/// The distance from the name of the tag `DURATION` to its text, in bytes.
fn tag_offset(path: &Path) -> usize {
    let content = fs::read(path).unwrap();
    let name = content.windows(8).position(|window| window == b"DURATION").expect("a DURATION tag");
    content[name + 8..].windows(3).position(|window| window == b"00:").expect("the text of the tag")
}

#[test]
fn damaged_times_of_a_stream_are_replaced_by_counting() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(50, 25), &format!("{X264} -bf 0 -g 10"), "a.ts");
    let whole = fs::read(&clip).unwrap();
    let headers: Vec<_> = (0..whole.len() - 3).filter(|&i| whole[i..i + 4] == [0, 0, 1, 0xe0]).collect();
    assert_eq!(headers.len(), 50);
    // Presentation timestamps have 33 bits (ISO 13818-1, 2.4.3.6). The highest are changed in images at the end, at the
    // start, and at both, so that the end comes before the start.
    for (images, bits) in [(vec![47, 48, 49], 0b1100), (vec![0], 0b0100), (vec![0, 1, 2, 49], 0b0110)] {
        let mut bytes = whole.clone();
        for &header in images.iter().map(|&image: &usize| &headers[image]) {
            assert_eq!(bytes[header + 7] >> 6, 0b10, "a presentation time only");
            bytes[header + 9] ^= bits;
        }
        let damaged = clips.write("damaged.ts", &bytes);
        let (info, indices, warnings) = within(60, move || {
            let mut source = FrameSource::open(&damaged, &Sampling::uniform(5)).unwrap_or_else(|e| panic!("{e}"));
            let indices: Vec<_> = take_all(&mut source).iter().map(index_of).collect();
            (source.info().clone(), indices, source.warnings().to_vec())
        });
        assert!((info.duration_s.unwrap() - 2.0).abs() < 0.1, "{images:?}: {info:?}");
        assert_eq!(indices, [5, 15, 25, 35, 45], "{images:?}");
        assert!(warnings.iter().any(|warning| warning.contains("times")), "{images:?}: {warnings:?}");
    }
}

#[test]
fn an_image_that_claims_an_immense_size_is_refused() {
    for side in [40_000, 1 << 20] {
        let clips = Clips::new();
        let error = open_error(&clips.write("2.png", &hollow_png(side, side)));
        assert!(matches!(error, Error::Media { problem: MediaProblem::TooLarge, .. }), "{error:?}");
        // In a folder, its neighbor is taken, as for any damaged image.
        RgbImage::from_pixel(40, 20, Rgb([255, 0, 0])).save(clips.path("1.png")).unwrap();
        assert_eq!(color_names(&clips.path(""), &Sampling::uniform(2)), ["red", "red"]);
    }
}

// --- stopping --------------------------------------------------------------------------------------------------------

/// A `stop` that returns true after `limit` more calls.
fn after(limit: u64) -> (Arc<AtomicU64>, impl Fn() -> bool + Send + Sync + 'static) {
    let left = Arc::new(AtomicU64::new(limit));
    let asked = Arc::clone(&left);
    let stop = move || asked.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err();
    (left, stop)
}

#[test]
fn opening_can_be_stopped() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(50, 5), X264, "a.mp4");
    let files = [
        clips.ffmpeg("-i {}/a.mp4 -c copy", "a.ts"),
        // A raw stream, whose packets are counted.
        clips.ffmpeg("-i {}/a.mp4 -c copy", "raw.h264"),
        clips.draw(&numbered(50, 5), "-c:v libwebp_anim -lossless 1", "a.webp"),
        clip,
    ];
    for path in files {
        let (left, stop) = after(u64::MAX);
        let source = FrameSource::open_with(&path, &part(Rate::Uniform { frames: 1 }, 8.0, 9.0), stop).unwrap();
        assert_eq!(source.count(), 1);
        let n_asked = u64::MAX - left.load(Ordering::SeqCst);
        assert!(n_asked > 20, "{}: asked {n_asked} times", path.display());
        // Stops it at different points.
        for limit in [0, 1, 2, n_asked / 4, n_asked / 2, n_asked - 2] {
            let (_, stop) = after(limit);
            let error = FrameSource::open_with(&path, &part(Rate::Uniform { frames: 1 }, 8.0, 9.0), stop).unwrap_err();
            assert!(matches!(error, Error::Cancelled), "{}, {limit} of {n_asked}: {error:?}", path.display());
        }
    }
}

#[test]
fn decoding_a_long_group_of_pictures_can_be_stopped() {
    let clips = Clips::new();
    let clip = clips.draw("testsrc2=s=64x48:r=25:d=40", &format!("{X264} -g 1000"), "a.mkv");
    let (left, stop) = after(u64::MAX);
    let mut source = FrameSource::open_with(&clip, &Sampling::uniform(2), stop).unwrap();
    assert!(source.next().unwrap().is_ok());
    let decoded = source.frames_decoded();
    left.store(20, Ordering::SeqCst);
    assert!(matches!(source.next(), Some(Err(Error::Cancelled))));
    assert!(source.frames_decoded() < decoded + 100, "{decoded}, then {}", source.frames_decoded());
    assert!(source.next().is_none());
}

#[test]
fn a_folder_can_be_stopped() {
    let clips = Clips::new();
    RgbImage::from_pixel(40, 20, Rgb([255, 0, 0])).save(clips.path("0.png")).unwrap();
    for i in 1..10 {
        clips.write(&format!("{i}.png"), b"not an image");
    }
    let (left, stop) = after(u64::MAX);
    let mut source = FrameSource::open_with(&clips.path(""), &Sampling::uniform(2), stop).unwrap();
    left.store(3, Ordering::SeqCst);
    assert!(source.next().unwrap().is_ok());
    assert!(matches!(source.next(), Some(Err(Error::Cancelled))));
}

// --- decoding ahead --------------------------------------------------------------------------------------------------

/// All frames and errors of a source, its warnings, and the number of decoded frames.
fn all_of(mut source: FrameSource) -> (Vec<Result<Frame, String>>, Vec<String>, u64) {
    let (info, times) = (source.info().clone(), source.planned_times().to_vec());
    let frames = source.by_ref().map(|frame| frame.map_err(|error| error.to_string())).collect();
    assert_eq!((source.info(), source.planned_times()), (&info, &times[..]));
    (frames, source.warnings().to_vec(), source.frames_decoded())
}

#[test]
fn decoding_ahead_gives_the_same() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(50, 5), &format!("{X264} -g 1"), "a.mp4");
    clips.ffmpeg("-i {}/a.mp4 -c copy", "a.mkv");
    let whole = fs::read(clips.path("a.mkv")).unwrap();
    let cut = clips.write("cut.mkv", &whole[..whole.len() * 7 / 10]);
    let mut bytes = fs::read(clips.ffmpeg("-i {}/a.mp4 -c copy", "a.ts")).unwrap();
    let (from, to) = (bytes.len() * 4 / 10, bytes.len() * 5 / 10);
    bytes[from..to].fill(0x55);
    let damaged = clips.write("damaged.ts", &bytes);
    let lossless = "-c:v libwebp_anim -lossless 1";
    let mut bytes =
        fs::read(clips.draw(&colors(&["red", "lime", "blue"], 1.0, "40x30", 5), lossless, "a.webp")).unwrap();
    let last = (0..bytes.len() - 4).rfind(|&i| &bytes[i..i + 4] == b"ANMF").unwrap();
    bytes[last + 24 + 8..].fill(0xff);
    let short = clips.write("short.webp", &bytes);
    let gif = clips.draw(&colors(&["red", "lime"], 1.0, "40x30", 5), "", "a.gif");
    let image = clips.path("a.png");
    RgbImage::from_pixel(40, 20, Rgb([255, 0, 0])).save(&image).unwrap();
    for path in [clip, cut, damaged, short, gif, image] {
        for n in [1, 2, 7, 100] {
            let open = || FrameSource::open(&path, &Sampling::uniform(n)).unwrap();
            let (expected, actual) = (all_of(open()), all_of(open().decode_ahead()));
            assert!(expected == actual, "{}, {n}: {expected:?}, ahead {actual:?}", path.display());
            // The same from the second frame on, and if called twice.
            let mut source = open();
            let first = source.next().unwrap().map_err(|error| error.to_string());
            assert_eq!(first, expected.0[0]);
            let (rest, warnings, n_decoded) = all_of(source.decode_ahead().decode_ahead());
            assert_eq!(
                (&rest[..], warnings, n_decoded),
                (&expected.0[1..], expected.1, expected.2),
                "{}",
                path.display()
            );
        }
    }
}

/// A folder of `n` images, each of which is decoded only when it is taken.
fn folder_of(n: u8) -> Clips {
    let clips = Clips::new();
    for i in 0..n {
        RgbImage::from_pixel(40, 20, Rgb([i, 0, 0])).save(clips.path(&format!("{i:02}.png"))).unwrap();
    }
    clips
}

#[test]
fn two_frames_are_decoded_ahead() {
    let clips = folder_of(10);
    let mut source = FrameSource::open(&clips.path(""), &Sampling::uniform(10)).unwrap().decode_ahead();
    // Opening a source decodes its first frame.
    for n_given in 0..10 {
        let expected = (n_given.max(1) + 2).min(10);
        let start = Instant::now();
        while source.frames_decoded() < expected && start.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(source.frames_decoded(), expected, "after {n_given}");
        assert_eq!(source.next().unwrap().unwrap().rgb[0], n_given as u8);
    }
    assert!(source.next().is_none());
}

#[test]
fn an_error_comes_ahead_of_nothing() {
    let clips = folder_of(10);
    for limit in 0..10 {
        let open = || {
            let (left, stop) = after(u64::MAX);
            let source = FrameSource::open_with(&clips.path(""), &Sampling::uniform(10), stop).unwrap();
            left.store(limit, Ordering::SeqCst);
            source
        };
        let (expected, actual) = (all_of(open()), all_of(open().decode_ahead()));
        assert_eq!(expected.0.last().unwrap().is_err(), limit < 9);
        assert_eq!(actual.0, expected.0, "{limit}");
    }
}

#[test]
fn dropping_a_source_ends_its_thread() {
    let clips = Clips::new();
    let long = clips.draw("testsrc2=s=640x480:r=25:d=40", &format!("{X264} -g 1000"), "a.mkv");
    let many = clips.draw(&numbered(50, 25), X264, "a.mp4");
    for (path, n_frames, n_taken) in [(&long, 2, 0), (&long, 2, 1), (&many, 50, 0), (&many, 50, 5), (&many, 50, 50)] {
        let (left, stop) = after(u64::MAX);
        let mut source = FrameSource::open_with(path, &Sampling::uniform(n_frames), stop).unwrap().decode_ahead();
        assert_eq!(source.by_ref().take(n_taken).filter(Result::is_ok).count(), n_taken);
        let decoded = source.frames_decoded();
        within(20, move || drop(source));
        // `stop` was dropped, and so was everything that reads the file.
        assert_eq!(Arc::strong_count(&left), 1, "{}", path.display());
        assert!(decoded < 1000, "{}: {decoded}", path.display());
    }
}

#[test]
fn decoding_ahead_can_be_stopped() {
    let clips = Clips::new();
    let clip = clips.draw("testsrc2=s=64x48:r=25:d=40", &format!("{X264} -g 1000"), "a.mkv");
    let (left, stop) = after(u64::MAX);
    let mut source = FrameSource::open_with(&clip, &Sampling::uniform(8), stop).unwrap().decode_ahead();
    assert!(source.next().unwrap().is_ok());
    left.store(0, Ordering::SeqCst);
    // The frames that were already decoded come first.
    let rest: Vec<_> = source.by_ref().collect();
    assert!(rest.len() <= 4, "{rest:?}");
    let (error, before) = rest.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok) && matches!(error, Err(Error::Cancelled)), "{rest:?}");
    assert!(source.next().is_none());
}

#[test]
fn the_frames_that_are_shown_are_counted() {
    let clips = Clips::new();
    // With a keyframe each second, a cut clip starts before its first shown image, and an edit list hides the rest.
    clips.draw(&numbered(50, 25), &format!("{X264} -g 25"), "whole.mp4");
    for (cut, name) in [
        ("-i {}/whole.mp4", "same.mp4"),
        ("-ss 0.7 -i {}/whole.mp4", "late.mp4"),
        ("-ss 1.4 -i {}/whole.mp4", "later.mov"),
        ("-ss 0.3 -t 1 -i {}/whole.mp4", "part.mp4"),
        ("-ss 0.7 -i {}/whole.mp4", "late.mkv"),
    ] {
        let clip = clips.ffmpeg(&format!("{cut} -c copy"), name);
        let mut source = FrameSource::open(&clip, &Sampling::uniform(1000)).unwrap();
        let told = source.info().n_frames;
        let shown = take_all(&mut source).len() as u64;
        assert!(told.is_none_or(|told| told == shown), "{name}: {shown} frames, and {told:?} are told");
        assert!(told.is_some() || name.ends_with("mkv"), "{name}: {shown} frames, and none are told");
    }
}

// --- animations, folders, images -----------------------------------------------------------------------------------

#[test]
fn animations_are_played() {
    let clips = Clips::new();
    let source = colors(&["red", "lime", "blue"], 1.0, "40x30", 5);
    for (codec, name) in [
        ("", "a.gif"),
        ("-f apng", "a.png"),
        ("-c:v libwebp_anim -lossless 1", "a.webp"),
        ("-c:v libaom-av1 -cpu-used 8", "a.avif"),
    ] {
        let clip = clips.draw(&source, codec, name);
        let info = probe(&clip).unwrap();
        assert_eq!((info.kind, info.width, info.height), (Kind::Animation, 40, 30), "{name}");
        assert!((info.duration_s.unwrap() - 3.0).abs() < 0.01, "{info:?}");
        assert!(info.n_frames.is_none_or(|n| n == 15 || name == "a.webp"), "{info:?}");
        assert_eq!(color_names(&clip, &Sampling::uniform(3)), ["red", "lime", "blue"], "{name}");
        assert_eq!(color_names(&clip, &part(Rate::Uniform { frames: 1 }, 1.0, 2.0)), ["lime"], "{name}");
    }

    // Frames of different durations: 100, 500 and 300 ms.
    let file = fs::File::create(clips.path("slow.gif")).unwrap();
    let mut encoder = image::codecs::gif::GifEncoder::new(file);
    for (color, ms) in [([255, 0, 0, 255], 100), ([0, 255, 0, 255], 500), ([0, 0, 255, 255], 300)] {
        let delay = image::Delay::from_numer_denom_ms(ms, 1);
        let image = RgbaImage::from_pixel(16, 16, Rgba(color));
        encoder.encode_frame(image::Frame::from_parts(image, 0, 0, delay)).unwrap();
    }
    drop(encoder);
    let mut source = FrameSource::open(&clips.path("slow.gif"), &Sampling::uniform(10)).unwrap();
    assert_times(source.planned_times(), &[0.0, 0.1, 0.6]);
    assert!((source.info().duration_s.unwrap() - 0.9).abs() < 1e-6);
    let names: Vec<_> = take_all(&mut source).iter().map(|frame| color_name(pixel(frame, 0.5, 0.5))).collect();
    assert_eq!(names, ["red", "lime", "blue"]);
}

#[test]
fn a_folder_of_frames_is_read_in_the_order_of_the_numbers() {
    let clips = Clips::new();
    let folder = clips.path("");
    let colors: [(&str, [u8; 3]); 5] = [
        ("frame_9.png", [255, 0, 0]),
        ("frame_10.jpg", [0, 255, 0]),
        ("frame_100.webp", [0, 0, 255]),
        ("frame_011.JPEG", [255, 255, 255]),
        ("frame_8.jpg", [0, 0, 0]),
    ];
    for (name, color) in colors {
        let image = RgbImage::from_pixel(32, 16, Rgb(color));
        let format = image::ImageFormat::from_path(name).unwrap();
        image.save_with_format(folder.join(name), format).unwrap();
    }
    // These files are not images.
    for name in ["notes.txt", ".frame_1.jpg"] {
        clips.write(name, b"text");
    }

    let sampling = Sampling { folder_fps: 2.0, ..Sampling::uniform(99) };
    let source = FrameSource::open(&folder, &sampling).unwrap();
    assert_eq!((source.info().kind, source.info().n_frames), (Kind::FrameFolder, Some(5)));
    assert_eq!((source.info().duration_s, source.info().fps), (Some(2.5), Some(2.0)));
    assert_times(source.planned_times(), &[0.0, 0.5, 1.0, 1.5, 2.0]);
    assert_eq!(color_names(&folder, &sampling), ["black", "red", "lime", "white", "blue"]);
    assert_eq!(color_names(&folder, &Sampling { start_s: Some(1.0), end_s: Some(2.0), ..sampling }), ["lime", "white"]);
    // One frame per second by default.
    assert_eq!(probe(&folder).unwrap().duration_s, Some(5.0));
}

#[test]
fn a_folder_may_hold_other_sizes_and_damaged_images() {
    let clips = Clips::new();
    let folder = clips.path("");
    RgbImage::from_pixel(40, 20, Rgb([255, 0, 0])).save(folder.join("1.png")).unwrap();
    clips.write("2.png", b"not an image");
    RgbImage::from_pixel(20, 20, Rgb([0, 255, 0])).save(folder.join("3.png")).unwrap();

    let mut source = FrameSource::open(&folder, &Sampling::uniform(3)).unwrap();
    let frames = take_all(&mut source);
    let names: Vec<_> = frames.iter().map(|frame| color_name(pixel(frame, 0.5, 0.5))).collect();
    assert_eq!(names, ["red", "red", "lime"]);
    assert_eq!(quarters(&frames[2])[0], "lime");
    assert_eq!(color_name(pixel(&frames[2], 0.1, 0.5)), "black");
    assert_eq!(source.warnings().len(), 1, "{:?}", source.warnings());
    assert!(
        source.warnings()[0].ends_with("1 of the images could not be decoded; its neighbor was taken"),
        "{:?}",
        source.warnings()
    );
}

#[test]
fn an_image_is_one_frame() {
    let clips = Clips::new();
    let av1 = "-c:v libaom-av1 -cpu-used 8";
    let kinds = [
        ("a.png", ""),
        ("a.jpg", ""),
        ("a.webp", ""),
        ("a.bmp", ""),
        ("a.tiff", ""),
        ("a.gif", ""),
        ("a.jxl", ""),
        ("a.avif", &format!("{av1} -still-picture 1")),
        // A sequence of one image.
        ("b.avif", av1),
    ];
    for (name, how) in kinds {
        let image = clips.draw(QUARTERS, &format!("-frames:v 1 {how}"), name);
        let mut source = FrameSource::open(&image, &Sampling::uniform(8)).unwrap();
        assert_eq!(source.info().kind, Kind::Image, "{name}");
        let (info, expected) = (source.info(), (None, None, Some(1)));
        assert_eq!((info.duration_s, info.fps, info.n_frames), expected, "{name}");
        assert_eq!(source.planned_times(), [0.0], "{name}");
        let frames = take_all(&mut source);
        assert_eq!(frames.len(), 1, "{name}");
        assert_eq!((frames[0].width, frames[0].height), (64, 48), "{name}");
        assert_eq!(quarters(&frames[0]), ["red", "lime", "blue", "white"], "{name}");
    }
    // The content decides, not the extension.
    fs::copy(clips.path("a.png"), clips.path("b.mp4")).unwrap();
    assert_eq!(probe(&clips.path("b.mp4")).unwrap().kind, Kind::Image);
}

/// The path of a HEIF image; `tests/data/heif/README.md` describes them.
fn heif(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/heif").join(name)
}

#[test]
fn an_avif_image_is_turned_as_its_file_says() {
    let turned = [
        ["red", "lime", "blue", "white"],
        ["lime", "red", "white", "blue"],
        ["white", "blue", "lime", "red"],
        ["blue", "white", "red", "lime"],
        ["red", "blue", "lime", "white"],
        ["blue", "red", "white", "lime"],
        ["white", "lime", "blue", "red"],
        ["lime", "white", "red", "blue"],
    ];
    for (i, expected) in turned.into_iter().enumerate() {
        let frame = &frames(&heif(&format!("turned-{}.avif", i + 1)), &Sampling::default())[0];
        assert_eq!((frame.width, frame.height), if i < 4 { (64, 48) } else { (48, 64) }, "orientation {}", i + 1);
        assert_eq!(quarters(frame), expected, "orientation {}", i + 1);
    }
}

#[test]
fn a_kind_of_image_that_is_not_read_is_named() {
    let clips = Clips::new();
    let in_tiles = fs::read(heif("turned-1.avif")).unwrap();
    let kind = in_tiles.windows(9).position(|window| window == b"av01Color").expect("what the image is");
    let in_tiles = [&in_tiles[..kind], b"grid", &in_tiles[kind + 4..]].concat();
    for (path, what) in
        [(heif("quarters.heic"), "a HEIC image"), (clips.write("a.avif", &in_tiles), "a tiled AVIF image")]
    {
        let error = open_error(&path);
        assert!(matches!(error, Error::Media { problem: MediaProblem::NotRead, .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(what) && text.contains("convert it to JPEG or PNG") && !text.contains("damaged"),
            "{text}"
        );
    }
}

#[test]
fn the_exif_orientation_of_an_image_is_honoured() {
    let clips = Clips::new();
    let jpeg = fs::read(clips.draw(QUARTERS, "-frames:v 1", "a.jpg")).unwrap();
    // EXIF 2.3, tag 0x0112: 3 is upside down; 6 must be turned by 90° clockwise, and 8 by 90° counterclockwise.
    let cases = [
        (1, ["red", "lime", "blue", "white"], (64, 48)),
        (3, ["white", "blue", "lime", "red"], (64, 48)),
        (6, ["blue", "red", "white", "lime"], (48, 64)),
        (8, ["lime", "white", "red", "blue"], (48, 64)),
    ];
    for (orientation, expected, size) in cases {
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let bytes = [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat();
        let image = clips.write("turned.jpg", &bytes);
        let frame = &frames(&image, &Sampling::default())[0];
        assert_eq!((frame.width, frame.height), size, "orientation {orientation}");
        assert_eq!(quarters(frame), expected, "orientation {orientation}");
    }
}

// --- unreadable files ------------------------------------------------------------------------------------------------

fn open_error(path: &Path) -> Error {
    let error = FrameSource::open(path, &Sampling::default()).expect_err("this should not open");
    assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()), "names no file: {error}");
    error
}

#[test]
fn what_is_no_video_is_said_so() {
    let clips = Clips::new();
    assert!(matches!(open_error(&clips.path("missing.mp4")), Error::Io { .. }));

    let text = "This is not a video. ".repeat(1000);
    let error = open_error(&clips.write("text.mp4", text.as_bytes()));
    assert!(matches!(error, Error::Media { problem: MediaProblem::NotAVideo, .. }), "{error:?}");
    let error = open_error(&clips.write("empty.mp4", b""));
    assert!(
        matches!(&error, Error::Media { problem: MediaProblem::NotAVideo, reason, .. } if reason.contains("empty")),
        "{error:?}"
    );

    fs::create_dir(clips.path("folder")).unwrap();
    let error = open_error(&clips.path("folder"));
    assert!(matches!(error, Error::NoImages { .. }), "{error:?}");

    let broken = clips.write("broken.png", b"\x89PNG\r\n\x1a\n and nothing more");
    let error = open_error(&broken);
    assert!(matches!(error, Error::Media { problem: MediaProblem::Image, .. }), "{error:?}");
}

#[test]
fn what_is_no_path_is_said_so() {
    let error = |path: &str| {
        let error = FrameSource::open(Path::new(path), &Sampling::default()).expect_err("this should not open");
        assert!(matches!(error, Error::Unusable { what: FileKind::Video, .. }), "{error:?}");
        error.to_string()
    };
    for url in ["https://example.org/a.mp4", "HTTP://example.org/a.mp4", "rtsp://camera.local:554/stream"] {
        let text = error(url);
        assert!(text.contains(url) && text.contains("URL") && text.contains("local file"), "{text}");
    }
    // Longer than a file name may be.
    assert!(error(&format!("https://example.org/{}", "a".repeat(5000))).contains("local file"));
    let text = error("file:///no/such/clip.mp4");
    assert!(text.ends_with("give its path: /no/such/clip.mp4"), "{text}");
    let text = error("file://localhost/no/such%20clip.mp4");
    assert!(text.ends_with("give its path"), "{text}");
    let text = error("-");
    assert!(text.contains("standard input") && text.contains("file"), "{text}");
}

#[test]
fn a_file_without_video_is_said_so() {
    let clips = Clips::new();
    let sound = clips.draw("sine=d=1", "-c:a aac", "sound.m4a");
    let error = open_error(&sound);
    assert!(matches!(&error, Error::NoVideoStream { found, .. } if found == "audio"), "{error:?}");

    // The cover image of an audio file is not a video.
    clips.draw(QUARTERS, "-frames:v 1", "cover.jpg");
    let cover = "-i {}/sound.m4a -i {}/cover.jpg -map 0 -map 1 -c copy -disposition:v attached_pic";
    let error = open_error(&clips.ffmpeg(cover, "music.m4a"));
    assert!(matches!(&error, Error::NoVideoStream { found, .. } if found.contains("cover")), "{error:?}");

    // Next to a video, the cover is ignored.
    clips.draw(&colors(&["lime"], 1.0, "64x48", 10), X264, "video.mp4");
    let cover =
        "-i {}/cover.jpg -i {}/video.mp4 -map 0 -map 1 -c copy -disposition:v:0 attached_pic -disposition:v:1 default";
    assert_eq!(color_names(&clips.ffmpeg(cover, "both.mp4"), &Sampling::uniform(2)), ["lime", "lime"]);
}

#[test]
fn an_mp4_without_its_index_is_said_to_be_incomplete() {
    let clips = Clips::new();
    let whole = fs::read(clips.draw(&numbered(50, 25), X264, "a.mp4")).unwrap();
    let error = open_error(&clips.write("cut.mp4", &whole[..whole.len() / 2]));
    assert!(matches!(error, Error::Media { problem: MediaProblem::CutOff, .. }), "{error:?}");
}

#[test]
fn a_codec_without_decoder_is_named() {
    let clips = Clips::new();
    // An AVI file names its codec with four letters. No codec has these.
    let clip = clips.draw("color=red:s=64x48:r=5:d=1", "-c:v rawvideo -pix_fmt yuv420p", "a.avi");
    let mut bytes = fs::read(&clip).unwrap();
    let header = bytes.windows(4).position(|window| window == b"strf").expect("a stream header");
    bytes[header + 8 + 16..header + 8 + 20].copy_from_slice(b"ZZZZ");
    let error = open_error(&clips.write("unknown.avi", &bytes));
    assert!(matches!(error, Error::UnsupportedCodec { .. }), "{error:?}");
}

#[test]
fn a_cut_off_file_gives_what_it_has_and_a_warning() {
    let clips = Clips::new();
    // Keyframes only, so that the bytes are spread evenly.
    clips.draw(&numbered(50, 5), &format!("{X264} -g 1"), "a.mp4");
    let files = [
        clips.ffmpeg("-i {}/a.mp4 -c copy -movflags +faststart", "start.mp4"),
        clips.ffmpeg("-i {}/a.mp4 -c copy", "a.mkv"),
        clips.ffmpeg("-i {}/a.mp4 -c copy", "a.flv"),
    ];
    for path in files {
        let whole = fs::read(&path).unwrap();
        let name = format!("cut-{}", path.file_name().unwrap().to_str().unwrap());
        let cut = clips.write(&name, &whole[..whole.len() * 7 / 10]);
        let mut source = FrameSource::open(&cut, &Sampling::uniform(4)).unwrap();
        let frames = take_all(&mut source);
        // The four frames are spread over what is left of the file.
        assert_eq!(frames.len(), 4, "{name}: {:?}", source.warnings());
        let indices: Vec<_> = frames.iter().map(index_of).collect();
        let end = source.info().duration_s.unwrap();
        assert!(end > 1.0 && end < 9.0, "{name}: {end}");
        for (index, time) in indices.iter().zip(source.planned_times()) {
            assert!(
                (*index as f64 - (time * 5.0).floor()).abs() < 1.5,
                "{name}: {indices:?} at {:?}",
                source.planned_times()
            );
        }
        let missing = format!("so {:.1} s ({:.0} %) are missing", 10.0 - end, 100.0 - 10.0 * end);
        let told = source.warnings().iter().any(|warning| warning.contains("cut off") && warning.contains(&missing));
        assert!(told, "{name}, {missing}: {:?}", source.warnings());
    }
}

#[test]
fn fewer_frames_than_planned_are_told() {
    let clips = Clips::new();
    let source = colors(&["red", "lime", "blue"], 1.0, "40x30", 5);
    let whole = fs::read(clips.draw(&source, "-c:v libwebp_anim -lossless 1", "a.webp")).unwrap();
    // Only the decoder notices this damage.
    let last = (0..whole.len() - 4).rfind(|&i| &whole[i..i + 4] == b"ANMF").unwrap();
    let mut bytes = whole.clone();
    bytes[last + 24 + 8..].fill(0xff);
    let damaged = clips.write("damaged.webp", &bytes);
    let mut source = FrameSource::open(&damaged, &Sampling::uniform(100)).unwrap();
    let (n_planned, times) = (source.planned_times().len(), source.planned_times().to_vec());
    let n_given = take_all(&mut source).len();
    assert_eq!(n_given, n_planned - 1, "{:?}", source.warnings());
    let expected = format!(
        "the file is cut off or damaged: only {n_given} of {n_planned} frames could be decoded, none after {:.1} s of 3.0 s",
        times[n_given - 1]
    );
    assert!(source.warnings().iter().any(|warning| warning.ends_with(&expected)), "{:?}", source.warnings());
}

#[test]
fn damage_in_the_middle_is_passed_over_with_a_warning() {
    let clips = Clips::new();
    let clip = clips.draw("testsrc=s=128x96:r=10:d=10", &format!("{X264} -g 10"), "a.ts");
    let mut bytes = fs::read(&clip).unwrap();
    let (from, to) = (bytes.len() * 4 / 10, bytes.len() * 5 / 10);
    for (i, byte) in bytes[from..to].iter_mut().enumerate() {
        *byte = (i * 37 % 251) as u8;
    }
    let damaged = clips.write("damaged.ts", &bytes);
    let mut source = FrameSource::open(&damaged, &Sampling::uniform(20)).unwrap();
    assert_eq!(take_all(&mut source).len(), 20);
    assert!(source.warnings().iter().any(|warning| warning.contains("damaged")), "{:?}", source.warnings());
}

#[test]
fn one_damaged_image_is_not_many() {
    let clips = Clips::new();
    let path = clips.draw(&numbered(10, 5), "-c:v png -pix_fmt rgb24", "a.mov");
    let mut bytes = fs::read(&path).unwrap();
    let images: Vec<_> = (0..bytes.len() - 4).filter(|&i| &bytes[i..i + 4] == b"\x89PNG").collect();
    for (damaged, warning) in [
        (5, "found 1 damaged packet or image; frames near it may look wrong"),
        (6, "found 2 damaged packets or images; frames near them may look wrong"),
    ] {
        bytes[images[damaged]..][..4].fill(0);
        fs::write(&path, &bytes).unwrap();
        let mut source = FrameSource::open(&path, &Sampling::uniform(10)).unwrap();
        take_all(&mut source);
        assert!(source.warnings().iter().any(|w| w.ends_with(warning)), "{:?}", source.warnings());
    }
}

/// By default, FFmpeg logs errors about this file to stderr.
#[test]
fn nothing_is_printed() {
    const CLIP: &str = "SHARPV_TEST_DAMAGED_CLIP";
    if let Some(clip) = std::env::var_os(CLIP) {
        // Runs in a child process, whose output the test checks.
        let n_frames = FrameSource::open(Path::new(&clip), &Sampling::uniform(20)).unwrap().count();
        println!("{n_frames} frames");
        return;
    }
    let clips = Clips::new();
    let clip = clips.draw("testsrc=s=128x96:r=10:d=4", X264, "a.mp4");
    let mut bytes = fs::read(&clip).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 400].fill(0x55);
    fs::write(&clip, bytes).unwrap();

    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "video::nothing_is_printed", "--nocapture"]).env(CLIP, &clip).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("20 frames"), "{stdout}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn odd_names_are_only_names() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(10, 5), X264, "a.mp4");
    for name in ["http:a.mp4", "concat:a|b.mp4", "100%05d.mp4", "a 'b' \"c\".mp4", "ä–日本.mp4"] {
        fs::copy(&clip, clips.path(name)).unwrap();
        assert_eq!(indices(&clips.path(name), &Sampling::uniform(2)), [2, 7], "{name}");
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        let path = clips.path("").join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff.mp4"));
        fs::copy(&clip, &path).unwrap();
        assert_eq!(indices(&path, &Sampling::uniform(2)), [2, 7]);
    }
}

#[test]
fn a_source_can_go_to_another_thread() {
    let clips = Clips::new();
    let clip = clips.draw(&numbered(10, 5), X264, "a.mp4");
    let source = FrameSource::open(&clip, &Sampling::uniform(5)).unwrap();
    let indices = std::thread::spawn(move || source.map(|frame| index_of(&frame.unwrap())).collect::<Vec<_>>());
    assert_eq!(indices.join().unwrap(), [1, 3, 5, 7, 9]);
}
