//! Videos as a stranger might send them, made by code: intact files of many formats, and what can be wrong with them.

use super::lcg::Lcg;
use super::video_clips::Clips;
use std::fs;
use std::path::PathBuf;

/// A moving image, small enough to be truncated a hundred times.
const SOURCE: &str = "testsrc2=s=64x48:r=10:d=1.6";

/// Name and arguments of an intact file of each format.
pub const WHOLE: [(&str, &str); 20] = [
    ("h264.mp4", "-c:v libx264 -pix_fmt yuv420p -g 8"),
    ("start.mp4", "-c:v libx264 -pix_fmt yuv420p -g 8 -movflags +faststart"),
    ("fragments.mp4", "-c:v libx264 -pix_fmt yuv420p -g 8 -movflags +frag_keyframe+empty_moov"),
    ("h264.mkv", "-c:v libx264 -pix_fmt yuv420p -g 8"),
    ("h264.ts", "-c:v libx264 -pix_fmt yuv420p -g 8"),
    ("h264.flv", "-c:v libx264 -pix_fmt yuv420p -g 8"),
    ("raw.h264", "-c:v libx264 -pix_fmt yuv420p -g 8"),
    ("ten-bit.mp4", "-c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le -g 8"),
    ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    ("vp8-alpha.webm", "-c:v libvpx -pix_fmt yuva420p -auto-alt-ref 0"),
    ("mpeg4.avi", "-c:v mpeg4"),
    ("jpeg.mov", "-c:v mjpeg -pix_fmt yuvj420p"),
    ("interlaced.mpg", "-c:v mpeg2video -flags +ilme+ildct"),
    ("theora.ogv", "-c:v libtheora"),
    ("windows.wmv", "-c:v wmv2"),
    ("alpha.mov", "-c:v png -pix_fmt rgba"),
    ("a.gif", ""),
    ("a.webp", "-c:v libwebp_anim -lossless 1"),
    ("moving.avif", "-c:v libaom-av1 -cpu-used 8 -g 8"),
    ("still.avif", "-frames:v 1 -c:v libaom-av1 -cpu-used 8 -still-picture 1"),
];

/// Makes the intact files.
pub fn whole(clips: &Clips) -> Vec<PathBuf> {
    let mut files: Vec<_> = WHOLE.iter().map(|(name, how)| clips.draw(SOURCE, how, name)).collect();
    files.push(clips.draw(SOURCE, "-c:v apng -plays 0 -f apng", "a.png"));
    files
}

/// The file truncated to each of `percents` of its length.
pub fn cut(whole: &[u8], percents: impl Iterator<Item = usize>) -> impl Iterator<Item = (String, Vec<u8>)> {
    percents.map(|percent| (format!("cut at {percent} %"), whole[..whole.len() * percent / 100].to_vec()))
}

/// Makes `n` copies with a few bits flipped, or a few bytes replaced by extreme values; half of the changes are at the
/// beginning, where the headers are.
pub fn damaged(whole: &[u8], n: usize, seed: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..n as u64).map(move |i| {
        let mut random = Lcg(seed.wrapping_mul(1000).wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = whole.to_vec();
        for _ in 0..1 + random.below(6) {
            let reach = if random.below(2) == 0 { bytes.len().min(1024) } else { bytes.len() };
            let at = random.below(reach);
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                _ => {
                    let to = (at + 4).min(bytes.len());
                    bytes[at..to].fill([0, 0x7f, 0xff][random.below(3)]);
                }
            }
        }
        (format!("damaged, seed {seed}, {i}"), bytes)
    })
}

/// Replaces what is `offset` bytes after the first `name` in a file.
pub fn patched(whole: &[u8], name: &[u8], offset: usize, with: &[u8]) -> Vec<u8> {
    let found = whole.windows(name.len()).position(|window| window == name).expect("the name is in the file");
    let start = found + name.len() + offset;
    let mut bytes = whole.to_vec();
    bytes[start..start + with.len()].copy_from_slice(with);
    bytes
}

/// As [`patched`], after every `name`.
pub fn patched_all(whole: &[u8], name: &[u8], offset: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for found in 0..whole.len() - name.len() {
        let start = found + name.len() + offset;
        if &whole[found..found + name.len()] == name && start + with.len() <= whole.len() {
            bytes[start..start + with.len()].copy_from_slice(with);
        }
    }
    bytes
}

/// A PNG file that claims a size and has no pixels.
pub fn hollow_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    for (name, data) in [(b"IHDR", &header[..]), (b"IDAT", &[])] {
        let chunk = [name, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

/// The CRC of PNG (ISO 15948, annex D).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// Files with one lie each: in sizes, times, tables, settings of the codec.
pub fn lies(clips: &Clips) -> Vec<(String, Vec<u8>)> {
    let read = |name: &str| fs::read(clips.path(name)).expect("a whole file");
    let (mp4, mov, gif, webp) = (read("h264.mp4"), read("jpeg.mov"), read("a.gif"), read("a.webp"));
    let mut lies = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| lies.push((name.to_owned(), bytes));
    for side in [0_u16, 1, 16_000, 65_535] {
        let sides = [side.to_be_bytes(), side.to_be_bytes()].concat();
        // Formats: ISO 14496-12, `VisualSampleEntry`; JPEG, `SOF0`; GIF, logical screen.
        add(&format!("h264-size-{side}.mp4"), patched(&mp4, b"avc1", 24, &sides));
        add(&format!("jpeg-size-{side}.mov"), patched_all(&mov, &[0xff, 0xc0, 0, 17], 1, &sides));
        add(
            &format!("screen-{side}.gif"),
            patched(&gif, b"GIF89a", 0, &[side.to_le_bytes(), side.to_le_bytes()].concat()),
        );
        add(&format!("hollow-{side}.png"), hollow_png(side.into(), side.into()));
    }
    for side in [16_000_u32, 16_384, 1 << 24] {
        let sides = [&(side - 1).to_le_bytes()[..3], &(side - 1).to_le_bytes()[..3]].concat();
        add(&format!("canvas-{side}.webp"), patched(&webp, b"VP8X", 8, &sides));
    }
    for (name, offset) in
        [("mvhd", 12), ("mvhd", 16), ("mdhd", 12), ("mdhd", 16), ("stts", 4), ("stts", 8), ("stts", 12)]
            .into_iter()
            .chain([
                ("stsz", 4),
                ("stsz", 8),
                ("stsz", 12),
                ("stsc", 4),
                ("stsc", 8),
                ("stco", 4),
                ("stco", 8),
                ("elst", 4),
            ])
    {
        for (what, value) in [("zero", 0), ("most", u32::MAX), ("half", i32::MAX as u32)] {
            add(&format!("{name}-{offset}-{what}.mp4"), patched(&mp4, name.as_bytes(), offset, &value.to_be_bytes()));
        }
    }
    for (what, with) in [("zero", [0; 12]), ("ones", [0xff; 12])] {
        // Profile, level, lengths, and the beginning of the sequence parameter set.
        add(&format!("extradata-{what}.mp4"), patched(&mp4, b"avcC", 0, &with));
    }
    let mkv = read("h264.mkv");
    add("extradata-of-another.mkv", patched(&mkv, b"V_MPEG4/ISO/AVC", 0, b"V_MPEGH"));
    lies
}

/// Intact files of unusual kinds, which all have frames.
pub fn odd(clips: &Clips) -> Vec<PathBuf> {
    let h264 = "-c:v libx264 -pix_fmt yuv420p";
    let mut files = vec![
        clips.draw("testsrc2=s=64x48:r=10:d=1,scale=1:1,format=gbrp", "-c:v ffv1", "one-pixel.mkv"),
        clips.draw("color=red:s=1x2000:r=5:d=1,format=gbrp", "-c:v ffv1", "thin.mkv"),
        clips.draw("color=red:s=2000x1:r=5:d=1,format=gbrp", "-c:v ffv1", "flat.mkv"),
        clips.draw(
            "testsrc2=s=96x64:r=10:d=1.6",
            &format!("{h264} -flags +ilme+ildct -x264opts tff=1"),
            "interlaced.mp4",
        ),
        clips.draw("color=red:s=64x48:r=10:d=1", h264, "1.h264"),
        clips.draw("color=lime:s=48x96:r=10:d=1", h264, "2.h264"),
    ];
    let [one, two] = [files.remove(4), files.remove(4)];
    let both = [one.as_path(), &two, &one].map(|path| fs::read(path).expect("a stream")).concat();
    files.push(clips.write("changing-size.h264", &both));
    files.push(clips.ffmpeg("-i {}/h264.mp4 -c copy -metadata:s:v rotate=37", "turned.mp4"));
    files
}
