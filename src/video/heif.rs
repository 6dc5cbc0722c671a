//! HEIF files (ISO 23008-12), of which AVIF and HEIC are kinds: what is in one, and how its image is turned.
//!
//! FFmpeg reads the single AV1 image of an AVIF file and the track of a sequence. Before version 7 it neither reads
//! HEIC nor turns an image, and of an image in tiles, as phones make them, no version gives more than a tile.

use std::io::Read;

/// How much of a file is looked at for what describes its images.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// What a HEIF file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heif {
    /// An image in AV1, to be shown turned.
    Avif(Turn),
    /// Images in a track, as those of a video.
    Sequence,
    /// An image that is not read: of this kind.
    NotRead(&'static str),
}

/// Where a point `(p, q)` of the stored image (q downwards) is shown, shift aside: at `(a·p + c·q, b·p + d·q)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) a: i64,
    pub(super) b: i64,
    pub(super) c: i64,
    pub(super) d: i64,
}

impl Turn {
    const NONE: Self = Self { a: 1, b: 0, c: 0, d: 1 };
    /// Anticlockwise, by a right angle.
    const ANTICLOCKWISE: Self = Self { a: 0, b: -1, c: 1, d: 0 };
    /// Top and bottom are swapped,
    const UPSIDE_DOWN: Self = Self { a: 1, b: 0, c: 0, d: -1 };
    /// or left and right.
    const MIRRORED: Self = Self { a: -1, b: 0, c: 0, d: 1 };

    /// This, and then `next`.
    fn then(self, next: Self) -> Self {
        Self {
            a: next.a * self.a + next.c * self.b,
            b: next.b * self.a + next.d * self.b,
            c: next.a * self.c + next.c * self.d,
            d: next.b * self.c + next.d * self.d,
        }
    }

    /// By the property `name` of an image, with this content.
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

/// What kind of HEIF file begins with `head`, if it is one. `file` is read from its beginning where `head` does not
/// tell.
pub(super) fn look(head: &[u8], file: impl Read) -> Option<Heif> {
    let (_, brands) = Boxes(head).next().filter(|(name, _)| name == b"ftyp")?;
    let major = brands.get(..4)?;
    let others = || brands.get(8..).unwrap_or_default().chunks_exact(4);
    let is_also = |names: &[&[u8; 4]]| others().any(|brand| names.iter().any(|name| brand == name.as_slice()));
    Some(match major {
        b"avif" => avif(file),
        b"avis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" | b"msf1" => Heif::Sequence,
        b"heic" | b"heix" | b"heim" | b"heis" => Heif::NotRead("a HEIC image"),
        b"mif1" | b"mif2" if is_also(&[b"avif"]) => avif(file),
        b"mif1" | b"mif2" if is_also(&[b"heic", b"heix"]) => Heif::NotRead("a HEIC image"),
        b"mif1" | b"mif2" | b"avci" | b"j2ki" | b"vvic" | b"evbi" => Heif::NotRead("a HEIF image"),
        _ => return None,
    })
}

/// What an AVIF file says of its main image. What says nothing is left to FFmpeg.
fn avif(file: impl Read) -> Heif {
    let mut bytes = Vec::new();
    // What cannot be read is told by who decodes it.
    let _ = file.take(MAX_DESCRIPTION).read_to_end(&mut bytes);
    let main = Boxes(&bytes).find(|(name, _)| name == b"meta").and_then(|(_, meta)| Main::of(meta.get(4..)?));
    match main {
        Some(Main { kind, turn }) if &kind == b"av01" => Heif::Avif(turn),
        Some(Main { kind, .. }) if &kind == b"grid" => Heif::NotRead("an AVIF image in tiles"),
        Some(_) => Heif::NotRead("an AVIF image that is put together from others"),
        None => Heif::Avif(Turn::NONE),
    }
}

/// The image that a file is about, among thumbnails and layers.
struct Main {
    kind: [u8; 4],
    turn: Turn,
}

impl Main {
    /// By what is in the box `meta`.
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
                // Numbered from 1; 0 is none.
                let Some(&(name, content)) = index.checked_sub(1).and_then(|i| shared.get(i)) else { continue };
                turn = turn.then(Turn::of_property(name, content));
            }
        }
        Some(Self { kind, turn })
    }
}

/// The numbers of the properties of the image `id`, in the order in which they apply.
fn indices_of(id: u32, mut ipma: Fields<'_>) -> Option<Vec<usize>> {
    let head = ipma.u32()?;
    let (long_ids, long_indices) = (head >> 24 > 0, head & 1 > 0);
    let n_images = ipma.u32()?;
    for _ in 0..n_images {
        let of = if long_ids { ipma.u32()? } else { u32::from(ipma.u16()?) };
        let n = ipma.u8()?;
        // The highest bit says that whoever does not know the property must not show the image.
        let mut index =
            || Some(if long_indices { usize::from(ipma.u16()? & 0x7fff) } else { usize::from(ipma.u8()? & 0x7f) });
        let indices: Option<Vec<usize>> = (0..n).map(|_| index()).collect();
        if of == id {
            return indices;
        }
    }
    None
}

/// The boxes that stand one after the other in a file or a box: the name of each, and what is in it. The last may be
/// cut off.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = Fields(self.0);
        let (short, name) = (fields.u32()?, fields.name()?);
        let (length, header) = match short {
            // Up to the end.
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

/// Numbers and names one after the other, of what is left of a box.
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

    /// The version of a box that has one, and flags, which are skipped.
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
        let heic = Some(Heif::NotRead("a HEIC image"));
        assert_eq!(name_of(b"heic", &[b"mif1"]), heic);
        assert_eq!(name_of(b"mif1", &[b"miaf", b"heic"]), heic);
        assert_eq!(name_of(b"mif1", &[b"avif"]), Some(Heif::Avif(Turn::NONE)));
        assert_eq!(name_of(b"avis", &[b"avif"]), Some(Heif::Sequence));
        assert_eq!(name_of(b"mif1", &[b"jpeg"]), Some(Heif::NotRead("a HEIF image")));
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
