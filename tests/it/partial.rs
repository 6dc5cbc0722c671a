//! The vision encoder computes parts of images, with the tiny model of each family.

use crate::support::families::{self, distance};
use crate::support::gpu;

use sharpv::runtime::{
    Bitmap, CellState, Chunks, FlashAttention, Model, ModelParams, Part, Vision, VisionParams, VisionStream,
};

/// The families, the sizes of their encoders' images in pixels, and how many frames they merge.
const FAMILIES: [(&str, (u32, u32), usize); 8] = [
    ("smolvlm", (128, 128), 1),
    ("qwen2vl", (112, 84), 2),
    ("qwen2.5vl", (112, 84), 2),
    ("qwen3vl", (128, 96), 2),
    ("llava-onevision", (126, 126), 1),
    ("internvl", (112, 112), 1),
    ("minicpmv", (224, 224), 1),
    ("gemma3", (224, 224), 1),
];

struct Encoder {
    family: &'static str,
    model: Model,
    vision: Vision,
    size: (u32, u32),
    merged: usize,
}

impl Encoder {
    fn of(family: (&'static str, (u32, u32), usize)) -> Self {
        Self::with(family, FlashAttention::Auto)
    }

    fn with((family, size, merged): (&'static str, (u32, u32), usize), flash_attention: FlashAttention) -> Self {
        let files = families::files(family);
        let model = Model::load(&files.model, &ModelParams::default(), |_| ()).expect("the model");
        let mmproj = files.mmproj.expect("an mmproj");
        let params = VisionParams { n_threads: Some(2), flash_attention, ..VisionParams::default() };
        let vision = Vision::load(&mmproj, &model, &params, |_| ()).expect("the mmproj");
        Self { family, model, vision, size, merged }
    }

    /// A slice of images. Pixels for which `paint` returns true are painted over.
    fn chunks(&self, number: u32, paint: impl Fn(u32, u32) -> bool) -> Chunks {
        let frames = (0..self.merged as u32).map(|i| {
            let mut image = families::image(self.size, number + i);
            for (x, y, pixel) in image.enumerate_pixels_mut() {
                if paint(x, y) {
                    pixel.0 = [250, (40 * x) as u8, 3];
                }
            }
            Bitmap::rgb(self.size.0, self.size.1, image.as_raw(), self.merged > 1).expect("an image")
        });
        let bitmaps: Vec<Bitmap> = frames.collect();
        let parts: Vec<Part<'_>> = bitmaps.iter().map(Part::Image).collect();
        self.vision.tokenize_whole(&parts).expect("chunks")
    }

    fn exact(&mut self, chunks: &Chunks) -> Vec<f32> {
        self.vision.encode(&chunks.images().last().expect("a chunk")).expect("it is encoded").to_vec()
    }
}

/// The encoders of all families.
fn encoders() -> impl Iterator<Item = Encoder> {
    FAMILIES.into_iter().map(Encoder::of)
}

fn plain(encoder: &Encoder, number: u32) -> Chunks {
    encoder.chunks(number, |_, _| false)
}

#[test]
fn a_gpu_encodes_what_the_processor_does() {
    if gpu::or_skip("a_gpu_encodes_what_the_processor_does").is_none() {
        return;
    }
    for family in FAMILIES {
        let mut there = Encoder::of(family);
        let files = families::files(family.0);
        let params = VisionParams { use_gpu: false, ..VisionParams::default() };
        let mmproj = files.mmproj.expect("an mmproj");
        let vision = Vision::load(&mmproj, &there.model, &params, |_| ()).expect("the mmproj");
        let mut here = Encoder { model: there.model.clone(), vision, ..Encoder::of(family) };
        for number in [0, 5] {
            let (there_chunks, here_chunks) = (plain(&there, number), plain(&here, number));
            let (there, here) = (there.exact(&there_chunks), here.exact(&here_chunks));
            let distance = distance(&there, &here);
            eprintln!("{}: {distance:.5} from the processor", family.0);
            assert!(distance < 0.03, "{}: {distance}", family.0);
        }
    }
}

#[test]
fn all_cells_are_the_whole_image() {
    for mut encoder in encoders() {
        let mut stream = VisionStream::new().expect("a stream");
        for number in [0, 5] {
            let chunks = plain(&encoder, number);
            let exact = encoder.exact(&chunks);
            let chunk = chunks.images().last().expect("a chunk");
            let image = stream
                .look(&mut encoder.vision, &chunk)
                .expect("a look")
                .unwrap_or_else(|| panic!("{}", encoder.family));
            let cells: Vec<u32> = (0..image.n_cells() as u32).collect();
            let rows = stream.encode(&mut encoder.vision, &chunk, &cells).expect("it is encoded");
            assert!(distance(rows, &exact) < gpu::near(1e-3), "{}: {}", encoder.family, distance(rows, &exact));

            let (n, layers) = (image.n_cells(), image.n_layers());
            for layer in 1..layers {
                stream.begin(&mut encoder.vision, &chunk, &cells, layer).expect("it is begun");
                let states = vec![CellState::Computed; n];
                let rows = stream.finish(&mut encoder.vision, &chunk, &states).expect("it is finished");
                let distance = distance(rows, &exact);
                assert!(distance < gpu::near(1e-3), "{}, layer {layer} of {layers}: {distance}", encoder.family);
            }
        }
    }
}

#[test]
fn a_side_that_is_no_multiple_of_the_patch_is_cut_as_the_encoder_cuts_it() {
    const KEY: &[u8] = b"clip.vision.image_size";
    let files = families::files("llava-onevision");
    let mut bytes = std::fs::read(files.mmproj.expect("an mmproj")).expect("a file");
    // The key is followed by the value's type and the value, four bytes each.
    let at = bytes.windows(KEY.len()).position(|window| window == KEY).expect("the key") + KEY.len() + 4;
    assert_eq!(bytes[at..at + 4], 126_u32.to_le_bytes());
    // Nine patches of 14 pixels and six more pixels. 384 pixels are 27 patches and also six more pixels.
    bytes[at..at + 4].copy_from_slice(&132_u32.to_le_bytes());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mmproj.gguf");
    std::fs::write(&path, bytes).expect("a file");
    let model = Model::load(&files.model, &ModelParams::default(), |_| ()).expect("the model");
    let vision = Vision::load(&path, &model, &VisionParams::default(), |_| ()).expect("the mmproj");
    let mut encoder = Encoder { family: "llava-onevision", model, vision, size: (132, 132), merged: 1 };

    let mut stream = VisionStream::new().expect("a stream");
    let chunks = plain(&encoder, 0);
    let exact = encoder.exact(&chunks);
    let chunk = chunks.images().last().expect("a chunk");
    let image = stream.look(&mut encoder.vision, &chunk).expect("a look").expect("an encoder that can");
    assert_eq!((image.n_cells(), image.cells_x()), (81, 9));
    let cells: Vec<u32> = (0..81).collect();
    let rows = stream.encode(&mut encoder.vision, &chunk, &cells).expect("it is encoded");
    assert!(distance(rows, &exact) < gpu::near(1e-3), "{}", distance(rows, &exact));
    // The pixels after the last patch belong to no patch.
    let edge = encoder.chunks(0, |x, y| x >= 126 || y >= 126);
    assert!(distance(&encoder.exact(&edge), &exact) < 1e-6);
}

#[test]
fn what_is_left_out_of_the_same_image_changes_nothing() {
    for mut encoder in encoders() {
        let family = encoder.family;
        let mut stream = VisionStream::new().expect("a stream");
        let chunks = plain(&encoder, 3);
        let exact = encoder.exact(&chunks);
        let chunk = chunks.images().last().expect("a chunk");
        let image =
            stream.look(&mut encoder.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{}", encoder.family));
        let all: Vec<u32> = (0..image.n_cells() as u32).collect();
        stream.encode(&mut encoder.vision, &chunk, &all).expect("it is encoded");
        let last = image.n_cells() as u32 - 1;
        for cells in [vec![], vec![0], vec![last], vec![1, 2, last], all[1..].to_vec()] {
            let rows = stream.encode(&mut encoder.vision, &chunk, &cells).expect("it is encoded");
            assert!(distance(rows, &exact) < gpu::near(1e-3), "{family}, {cells:?}: {}", distance(rows, &exact));
        }
        let middle = stream.begin(&mut encoder.vision, &chunk, &all, 1).expect("it is begun");
        for cells in [vec![0], vec![1, 2, last]] {
            let some = stream.begin(&mut encoder.vision, &chunk, &cells, 1).expect("it is begun");
            let len = image.cell_len();
            let same: Vec<f32> = cells.iter().flat_map(|&c| &middle[c as usize * len..][..len]).copied().collect();
            assert!(distance(&some, &same) < gpu::near(1e-3), "{family}, {cells:?}: {}", distance(&some, &same));
        }
    }
}

#[test]
fn a_cell_is_the_token_at_its_place() {
    for mut encoder in encoders() {
        let family = encoder.family;
        let mut stream = VisionStream::new().expect("a stream");
        let before = plain(&encoder, 1);
        let chunk = before.images().last().expect("a chunk");
        let image =
            stream.look(&mut encoder.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{}", encoder.family));
        let (n, side) = (image.n_cells(), (image.patch() * image.merge()) as u32);
        let (cells_x, tokens) = (image.cells_x() as u32, image.cells_are_tokens());
        assert_eq!((image.width() as u32, image.height() as u32), encoder.size, "{family}");
        if !tokens {
            assert_eq!(family, "minicpmv");
            continue;
        }
        assert_eq!(chunk.n_tokens(), n, "{family}");
        let all: Vec<u32> = (0..n as u32).collect();
        for cell in all.clone() {
            let old = stream.encode(&mut encoder.vision, &chunk, &all).expect("it is encoded").to_vec();
            let painted = encoder.chunks(1, |x, y| y / side * cells_x + x / side == cell);
            let painted = painted.images().last().expect("a chunk");
            let new = stream.encode(&mut encoder.vision, &painted, &[cell]).expect("it is encoded");
            let width = encoder.model.n_embd_inp();
            let changed = old.chunks(width).zip(new.chunks(width)).map(|(old, new)| distance(new, old) > 1e-3);
            let changed: Vec<usize> = changed.enumerate().filter_map(|(i, changed)| changed.then_some(i)).collect();
            assert_eq!(changed, [cell as usize], "{family}");
        }
    }
}

#[test]
fn those_that_stop_are_seen_by_none_and_get_what_another_gained() {
    for mut encoder in encoders() {
        let family = encoder.family;
        let mut stream = VisionStream::new().expect("a stream");
        let chunks = plain(&encoder, 1);
        let chunk = chunks.images().last().expect("a chunk");
        let image =
            stream.look(&mut encoder.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{}", encoder.family));
        if !image.cells_are_tokens() || image.n_layers() < 2 {
            continue;
        }
        let n = image.n_cells();
        let all: Vec<u32> = (0..n as u32).collect();
        let width = encoder.model.n_embd_inp();
        stream.begin(&mut encoder.vision, &chunk, &all, 1).expect("it is begun");
        let mut states = vec![CellState::Filled; n];
        states[1] = CellState::Computed;
        states[2] = CellState::Computed;
        let one = stream.finish(&mut encoder.vision, &chunk, &states).expect("it is finished").to_vec();
        // The computed cells attend neither to filled cells nor to stopped ones.
        states[3..].fill(CellState::Stopped);
        let two = stream.finish(&mut encoder.vision, &chunk, &states).expect("it is finished").to_vec();
        assert!(distance(&one[width..3 * width], &two[width..3 * width]) < gpu::near(1e-3), "{family}");
        states[3..].fill(CellState::Kept);
        let seen = stream.finish(&mut encoder.vision, &chunk, &states).expect("it is finished").to_vec();
        assert!(distance(&one[width..3 * width], &seen[width..3 * width]) > 1e-4, "{family}");
        assert!(one.iter().all(|x| x.is_finite()), "{family}");
    }
}

#[test]
fn mistakes_are_errors_and_cost_nothing_else() {
    let mut encoder = Encoder::of(FAMILIES[0]);
    let chunks = plain(&encoder, 1);
    let exact = encoder.exact(&chunks);
    let chunk = chunks.images().last().expect("a chunk");
    let mut stream = VisionStream::new().expect("a stream");
    // `encode` before `look`.
    assert!(stream.encode(&mut encoder.vision, &chunk, &[0]).is_err());
    let image =
        stream.look(&mut encoder.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{}", encoder.family));
    let n = image.n_cells() as u32;
    let all: Vec<u32> = (0..n).collect();
    // Only a part of the first image; missing cells, out of order, or duplicate; missing layers.
    for cells in [vec![0], vec![n], vec![1, 0], vec![0, 0]] {
        assert!(stream.encode(&mut encoder.vision, &chunk, &cells).is_err(), "{cells:?}");
    }
    for layer in [0, image.n_layers(), usize::MAX] {
        assert!(stream.begin(&mut encoder.vision, &chunk, &all, layer).is_err(), "{layer}");
    }
    assert!(stream.finish(&mut encoder.vision, &chunk, &[CellState::Computed]).is_err());
    let placeholder = Bitmap::placeholder(128, 128, false).expect("a placeholder");
    let empty = encoder.vision.tokenize_whole(&[Part::Image(&placeholder)]).expect("chunks");
    assert!(stream.look(&mut encoder.vision, &empty.images().last().expect("a chunk")).is_err());

    stream.look(&mut encoder.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{}", encoder.family));
    let rows = stream.encode(&mut encoder.vision, &chunk, &all).expect("it is encoded");
    assert!(distance(rows, &exact) < gpu::near(1e-3));
    assert_eq!(encoder.exact(&chunks), exact, "without a stream, as before");
}

/// The states of cells have the size of the image passed to `look`. No caller can change that, and the encoder writes
/// no more for another image.
#[test]
fn states_of_another_image_are_an_error() {
    let mut encoder = Encoder::of(FAMILIES[1]);
    let [small, large] = [(56, 56), (112, 84)].map(|size| {
        encoder.size = size;
        plain(&encoder, 1)
    });
    let [small, large] = [&small, &large].map(|chunks| chunks.images().last().expect("a chunk"));
    let mut stream = VisionStream::new().expect("a stream");
    for cells in [&[][..], &[0]] {
        assert!(stream.begin(&mut encoder.vision, &small, cells, 1).is_err(), "nothing was looked at");
    }
    let image = stream.look(&mut encoder.vision, &small).expect("a look").expect("an encoder that can");
    let all: Vec<u32> = (0..image.n_cells() as u32).collect();
    let len = all.len() * image.cell_len();
    assert!(stream.begin(&mut encoder.vision, &large, &all, 1).is_err(), "more rows than were looked at");
    stream.look(&mut encoder.vision, &small).expect("a look").expect("an encoder that can");
    assert_eq!(stream.begin(&mut encoder.vision, &small, &all, 1).expect("it is begun").len(), len);
}

#[test]
fn an_image_of_another_size_and_another_encoder_begin_anew() {
    let mut encoder = Encoder::of(FAMILIES[1]);
    let mut stream = VisionStream::new().expect("a stream");
    for size in [(112, 84), (84, 112), (56, 56)] {
        encoder.size = size;
        let chunks = plain(&encoder, 1);
        let exact = encoder.exact(&chunks);
        let chunk = chunks.images().last().expect("a chunk");
        let image =
            stream.look(&mut encoder.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{}", encoder.family));
        assert!(stream.encode(&mut encoder.vision, &chunk, &[0]).is_err(), "nothing is left of the one before");
        stream.look(&mut encoder.vision, &chunk).expect("a look");
        let all: Vec<u32> = (0..image.n_cells() as u32).collect();
        let rows = stream.encode(&mut encoder.vision, &chunk, &all).expect("it is encoded");
        assert!(distance(rows, &exact) < gpu::near(1e-3), "{size:?}");
    }
    // An encoder with other weights cannot continue without `look`.
    let mut other = Encoder::of(FAMILIES[1]);
    other.size = encoder.size;
    let chunks = plain(&other, 1);
    let chunk = chunks.images().last().expect("a chunk");
    assert!(stream.encode(&mut other.vision, &chunk, &[0]).is_err());
    assert!(stream.look(&mut other.vision, &chunk).expect("a look").is_some());
    assert!(stream.encode(&mut other.vision, &chunk, &[0]).is_err());
}

/// Plain attention computes with 32 bits, but keys and values are kept in 16 bits.
#[test]
fn plain_attention_does_the_same() {
    for family in FAMILIES {
        let mut encoder = Encoder::with(family, FlashAttention::Off);
        let family = encoder.family;
        let mut stream = VisionStream::new().expect("a stream");
        let chunks = plain(&encoder, 2);
        let exact = encoder.exact(&chunks);
        let chunk = chunks.images().last().expect("a chunk");
        let image = stream.look(&mut encoder.vision, &chunk).expect("a look").expect("an image");
        let all: Vec<u32> = (0..image.n_cells() as u32).collect();
        let rows = stream.encode(&mut encoder.vision, &chunk, &all).expect("it is encoded");
        assert!(distance(rows, &exact) < gpu::near(1e-2), "{family}: {}", distance(rows, &exact));
        stream.begin(&mut encoder.vision, &chunk, &[0, 1], 1).expect("it is begun");
        let mut states = vec![CellState::Kept; all.len()];
        states[..2].fill(CellState::Computed);
        states[2] = CellState::Stopped;
        let rows = stream.finish(&mut encoder.vision, &chunk, &states).expect("it is finished");
        assert!(rows.iter().all(|x| x.is_finite()), "{family}");
        let width = encoder.model.n_embd_inp();
        let (rows, exact) = (&rows[3 * width..], &exact[3 * width..]);
        assert!(
            !image.cells_are_tokens() || distance(rows, exact) < gpu::near(1e-2),
            "{family}: {}",
            distance(rows, exact)
        );
    }
}
