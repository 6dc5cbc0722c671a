//! HEIF files (ISO 23008-12), including AVIF and HEIC: what a file contains, and the orientation of its image.
//!
//! FFmpeg reads the single AV1 image of an AVIF file, and the track of an image sequence. Before version 7, it does not
//! read HEIC and ignores orientation. Of a tiled image, which phones write, every version decodes only one tile.

use std::io::Read;

/// Bytes that are read at most to find the description of the images.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// What a HEIF file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heif {
    /// An AV1 image, to be shown with this orientation.
    Avif(Turn),
    /// A track of images, like a video.
    Sequence,
    /// An image of this unsupported kind.
    Unsupported(&'static str),
}

/// An orientation: the point `(p, q)` of the stored image (q downward) is shown at `(a·p + c·q, b·p + d·q)`, up to a
/// shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) a: i64,
    pub(super) b: i64,
    pub(super) c: i64,
    pub(super) d: i64,
}

impl Turn {
    const NONE: Self = Self { a: 1, b: 0, c: 0, d: 1 };
    /// A rotation by 90° anticlockwise.
    const ANTICLOCKWISE: Self = Self { a: 0, b: -1, c: 1, d: 0 };
    /// Top and bottom swapped.
    const UPSIDE_DOWN: Self = Self { a: 1, b: 0, c: 0, d: -1 };
    /// Left and right swapped.
    const MIRRORED: Self = Self { a: -1, b: 0, c: 0, d: 1 };

    /// `self` followed by `next`.
    fn then(self, next: Self) -> Self {
        Self {
            a: next.a * self.a + next.c * self.b,
            b: next.b * self.a + next.d * self.b,
            c: next.a * self.c + next.c * self.d,
            d: next.b * self.c + next.d * self.d,
        }
    }

    /// The orientation that the property `name` with this content describes.
    fn of_property(name: [u8; 4], content: &[u8]) -> Self {
        match (&name, content.first()) {
            (b"irot", Some(angle)) => (0..angle & 3).fold(Self::NONE, |turn, _| turn.then(Self::ANTICLOCKWISE)),
            (b"imir", Some(axis)) => {
                if axis & 1 == 0 {
                    Self::UPSIDE_DOWN
                } else {
                    Self::MIRRORED
                }
            }
            _ => Self::NONE,
        }
    }
}

/// The content of a HEIF file that begins with `head`; `None` if it is not a HEIF file. Reads `file`, from its
/// beginning, if `head` does not suffice.
pub(super) fn look(head: &[u8], file: impl Read) -> Option<Heif> {
    let (_, brands) = Boxes(head).next().filter(|(name, _)| name == b"ftyp")?;
    let major = brands.get(..4)?;
    let others = || brands.get(8..).unwrap_or_default().chunks_exact(4);
    let is_also = |names: &[&[u8; 4]]| others().any(|brand| names.iter().any(|name| brand == name.as_slice()));
    Some(match major {
        b"avif" => avif(file),
        b"avis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" | b"msf1" => Heif::Sequence,
        b"heic" | b"heix" | b"heim" | b"heis" => Heif::Unsupported("a HEIC image"),
        b"mif1" | b"mif2" if is_also(&[b"avif"]) => avif(file),
        b"mif1" | b"mif2" if is_also(&[b"heic", b"heix"]) => Heif::Unsupported("a HEIC image"),
        b"mif1" | b"mif2" | b"avci" | b"j2ki" | b"vvic" | b"evbi" => Heif::Unsupported("a HEIF image"),
        _ => return None,
    })
}

/// The primary image of an AVIF file. A file without a description is left to FFmpeg.
fn avif(file: impl Read) -> Heif {
    let mut bytes = Vec::new();
    // The decoder will report what cannot be read.
    let _ = file.take(MAX_DESCRIPTION).read_to_end(&mut bytes);
    let main = Boxes(&bytes).find(|(name, _)| name == b"meta").and_then(|(_, meta)| Main::of(meta.get(4..)?));
    match main {
        Some(Main { kind, turn }) if &kind == b"av01" => Heif::Avif(turn),
        Some(Main { kind, .. }) if &kind == b"grid" => Heif::Unsupported("a tiled AVIF image"),
        Some(_) => Heif::Unsupported("an AVIF image that is derived from others"),
        None => Heif::Avif(Turn::NONE),
    }
}

/// The primary image of a file, as opposed to thumbnails and layers.
struct Main {
    kind: [u8; 4],
    turn: Turn,
}

impl Main {
    /// Reads the content of the box `meta`.
    fn of(meta: &[u8]) -> Option<Self> {
        let of = |wanted: &[u8; 4]| Boxes(meta).find(|(name, _)| name == wanted).map(|(_, content)| Fields(content));
        let mut pitm = of(b"pitm")?;
        let version = pitm.version()?;
        let id = if version == 0 { u32::from(pitm.u16()?) } else { pitm.u32()? };

        let mut iinf = of(b"iinf")?;
        let _count = if iinf.version()? == 0 { u32::from(iinf.u16()?) } else { iinf.u32()? };
        let kind = Boxes(iinf.0).find_map(|(_, entry)| {
            let mut entry = Fields(entry);
            let entry_id = if entry.version()? < 3 { u32::from(entry.u16()?) } else { entry.u32()? };
            let _protection = entry.u16()?;
            (entry_id == id).then(|| entry.name()).flatten()
        })?;

        let properties = of(b"iprp")?.0;
        let shared: Vec<_> =
            Boxes(properties).filter(|(name, _)| name == b"ipco").flat_map(|(_, all)| Boxes(all)).collect();
        let mut turn = Turn::NONE;
        for (_, associations) in Boxes(properties).filter(|(name, _)| name == b"ipma") {
            for index in indices_of(id, Fields(associations)).unwrap_or_default() {
                // Properties are numbered from 1; 0 stands for none.
                let Some(&(name, content)) = index.checked_sub(1).and_then(|i| shared.get(i)) else { continue };
                turn = turn.then(Turn::of_property(name, content));
            }
        }
        Some(Self { kind, turn })
    }
}

/// The numbers of the properties of the image `id`, in the order of application.
fn indices_of(id: u32, mut ipma: Fields<'_>) -> Option<Vec<usize>> {
    let head = ipma.u32()?;
    let (long_ids, long_indices) = (head >> 24 > 0, head & 1 > 0);
    let n_images = ipma.u32()?;
    for _ in 0..n_images {
        let of = if long_ids { ipma.u32()? } else { u32::from(ipma.u16()?) };
        let n = ipma.u8()?;
        // The highest bit marks essential properties.
        let mut index =
            || Some(if long_indices { usize::from(ipma.u16()? & 0x7fff) } else { usize::from(ipma.u8()? & 0x7f) });
        let indices: Option<Vec<usize>> = (0..n).map(|_| index()).collect();
        if of == id {
            return indices;
        }
    }
    None
}

/// Iterates over the boxes in a file or a box, with the name and content of each. The last may be cut off.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = Fields(self.0);
        let (short, name) = (fields.u32()?, fields.name()?);
        let (length, header) = match short {
            // To the end of the file.
            0 => (self.0.len() as u64, 8),
            1 => (u64::from(fields.u32()?) << 32 | u64::from(fields.u32()?), 16),
            short => (u64::from(short), 8),
        };
        let end = usize::try_from(length).unwrap_or(usize::MAX).min(self.0.len());
        let content = self.0.get(header..end)?;
        self.0 = &self.0[end..];
        Some((name, content))
    }
}

/// Reads numbers and names from the rest of a box.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Option<[u8; 4]> {
        self.take()
    }

    /// Reads the version of a full box, and skips its flags.
    fn version(&mut self) -> Option<u8> {
        self.u32().map(|head| (head >> 24) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(major: &[u8; 4], others: &[&[u8; 4]]) -> Option<Heif> {
        let mut head = vec![0, 0, 0, 16 + 4 * others.len() as u8];
        head.extend([b"ftyp", major, &[0; 4]].into_iter().chain(others.iter().copied()).flatten());
        look(&head, &head[..])
    }

    #[test]
    fn kinds_are_told_by_their_brands() {
        let heic = Some(Heif::Unsupported("a HEIC image"));
        assert_eq!(name_of(b"heic", &[b"mif1"]), heic);
        assert_eq!(name_of(b"mif1", &[b"miaf", b"heic"]), heic);
        assert_eq!(name_of(b"mif1", &[b"avif"]), Some(Heif::Avif(Turn::NONE)));
        assert_eq!(name_of(b"avis", &[b"avif"]), Some(Heif::Sequence));
        assert_eq!(name_of(b"mif1", &[b"jpeg"]), Some(Heif::Unsupported("a HEIF image")));
        assert_eq!(name_of(b"isom", &[b"mif1"]), None);
        assert_eq!(name_of(b"qt  ", &[]), None);
    }

    #[test]
    fn what_is_cut_off_is_no_fault() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/heif/turned-6.avif");
        let whole = std::fs::read(path).expect("an image");
        assert_eq!(look(&whole, &whole[..]), Some(Heif::Avif(Turn { a: 0, b: 1, c: -1, d: 0 })));
        for n in 0..whole.len() {
            look(&whole[..n], &whole[..n]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                look(&damaged, &damaged[..]);
            }
        }
    }

    #[test]
    fn four_turns_are_none() {
        let turned = (0..4).fold(Turn::NONE, |turn, _| turn.then(Turn::ANTICLOCKWISE));
        assert_eq!(turned, Turn::NONE);
        assert_eq!(Turn::of_property(*b"irot", &[3]).then(Turn::ANTICLOCKWISE), Turn::NONE);
    }
}
