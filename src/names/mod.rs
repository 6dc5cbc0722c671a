//! Names from outside that become part of a path.
//!
//! The header of a model file, a hub's answer, a cache that other tools write to, and a row of a data set contain names
//! such as `/etc/x`, `../x` or `C:x` if their author wants them to. Joined to a folder, such a name leads out of it. So
//! a name from outside becomes part of a path only as one of these types, whose constructors check it.
//!
//! | name | type |
//! |---|---|
//! | the original of a model file, in its header; its folder of copies and its layer profile | [`ModelDigest`] |
//! | a commit and an object, in a hub's list; the commit in `refs/main` of its cache | `ObjectId` |
//! | a file, in a hub's list and in its cache | `InnerPath::parse` |
//! | a video, in a row of a data set | `InnerPath::of_this_system` |
//!
//! Files of a wheel need no such type: this library chooses their names.

#[cfg(any(feature = "hub", feature = "lab"))]
mod inner;

#[cfg(any(feature = "hub", feature = "lab"))]
pub(crate) use inner::InnerPath;

use std::fmt;
use std::ops::Deref;

/// A digest of the weights of a model: 32 lower-case hexadecimal digits. It names the files that belong to the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelDigest(String);

impl ModelDigest {
    /// Half of a SHA-256, which is enough to avoid collisions by chance.
    const DIGITS: usize = 32;

    /// `None` unless `text` is 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == Self::DIGITS && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// The digest of a SHA-256: its first half.
    pub(crate) fn of_hash(hash: &[u8; 32]) -> Self {
        Self(hash.iter().take(Self::DIGITS / 2).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Deref for ModelDigest {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hub's name for a commit or for the content of a file: hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg(feature = "hub")]
pub(crate) struct ObjectId(String);

#[cfg(feature = "hub")]
impl ObjectId {
    /// `None` unless `text` is hexadecimal digits, from an abbreviated git id (7) to a SHA-256 (64).
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_32_lower_case_digits() {
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(ModelDigest::parse(good).as_deref(), Some(good));
        assert_eq!(&*ModelDigest::of_hash(&[0xa5; 32]), "a5".repeat(16));
        let upper = good.to_uppercase();
        let long = format!("{good}0");
        for bad in [
            "",
            "/",
            &good[1..],
            &long,
            &upper,
            "../../../../../../../../../../tmp",
            "0123456789abcdef0123456789abcde\n",
        ] {
            assert_eq!(ModelDigest::parse(bad), None, "{bad:?}");
        }
        // 32 bytes, but not digits.
        assert_eq!(ModelDigest::parse(&"é".repeat(16)), None);
    }

    #[cfg(feature = "hub")]
    #[test]
    fn object_ids_are_digits() {
        for good in ["0123456", "0123456789ABCDEF0123456789abcdef01234567", &"f".repeat(64)] {
            assert_eq!(ObjectId::parse(good).map(|id| id.as_str().to_owned()).as_deref(), Some(good));
        }
        for bad in ["", "012345", &"f".repeat(65), "../../evil", "/etc/passwd", "main", "0123456/../x", "01234567\n"] {
            assert_eq!(ObjectId::parse(bad), None, "{bad:?}");
        }
    }
}
