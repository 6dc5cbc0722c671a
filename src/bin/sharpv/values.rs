//! Parsers for the values of options.

use anyhow::Context as _;
use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use serde_json::Value;
use sharpv::chat::Thinking;
use sharpv::lab::methods;
use sharpv::layout;
use sharpv::prune::Method;
use sharpv::video::VideoWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use strum::VariantNames;

/// A time in a video: seconds, `MM:SS` or `H:MM:SS`; the seconds may have a fraction. Returns seconds.
pub fn moment(text: &str) -> Result<f64, String> {
    const EXPECTED: &str = "give seconds (90.5), MM:SS (1:30.5) or H:MM:SS (0:01:30.5)";
    let wrong = || EXPECTED.to_owned();
    let mut parts = text.rsplit(':');
    let seconds = parts.next().filter(|s| s.starts_with(|c: char| c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
    let mut total: f64 = seconds.parse().map_err(|_| wrong())?;
    let higher: Vec<&str> = parts.collect();
    if higher.len() > 2 || (!higher.is_empty() && total >= 60.0) {
        return Err(wrong());
    }
    for (i, part) in higher.iter().enumerate() {
        let value: u32 = part.parse().map_err(|_| wrong())?;
        // Without hours, there may be more than 59 minutes.
        if i == 0 && higher.len() == 2 && value >= 60 {
            return Err(wrong());
        }
        total += f64::from(value) * if i == 0 { 60.0 } else { 3600.0 };
    }
    if total.is_finite() { Ok(total) } else { Err(wrong()) }
}

/// A duration above 0: seconds (10, 10s, 0.5s), minutes (2m), hours (1h), or as for [`moment`]. Returns seconds.
pub fn duration(text: &str) -> Result<f64, String> {
    let wrong = || "give a time above 0: 10s, 2m, 1h, 1:30".to_owned();
    let (number, unit) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1.0),
        Some('m') => (&text[..text.len() - 1], 60.0),
        Some('h') => (&text[..text.len() - 1], 3600.0),
        _ => (text, 1.0),
    };
    let plain = number.parse::<f64>().ok().map(|number| number * unit);
    let seconds = plain.or_else(|| moment(text).ok()).ok_or_else(wrong)?;
    if seconds.is_finite() && seconds > 0.0 { Ok(seconds) } else { Err(wrong()) }
}

/// A rate in frames per second.
pub fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0).ok_or_else(|| "give a number above 0".into())
}

/// A share. The library checks its range.
pub fn share(text: &str) -> Result<f32, String> {
    let wrong = || match text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f32>().ok()) {
        Some(percent) => format!("give a share of 1: {}", percent / 100.0),
        None => "give a share of 1, such as 0.3".to_owned(),
    };
    text.parse().map_err(|_| wrong())
}

/// A text that is not blank.
pub fn some_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("give some text".to_owned()) } else { Ok(text.to_owned()) }
}

/// Whether a model thinks.
pub fn thinking(text: &str) -> Result<Thinking, String> {
    text.parse().map_err(|_| "give auto, on, off, or the most tokens of a thought".to_owned())
}

/// Values for a chat template.
pub type TemplateKwargs = serde_json::Map<String, Value>;

/// A JSON object.
pub fn template_kwargs(text: &str) -> Result<TemplateKwargs, String> {
    const EXPECTED: &str = "give a JSON object, such as '{\"reasoning_effort\": \"low\"}'";
    let kind = match serde_json::from_str(text) {
        Ok(Value::Object(kwargs)) => return Ok(kwargs),
        Ok(Value::Array(_)) => "this is an array",
        Ok(Value::String(_)) => "this is a string",
        Ok(Value::Number(_)) => "this is a number",
        Ok(Value::Bool(_) | Value::Null) => "this is a single word",
        Err(error) => return Err(format!("this is not JSON ({error}); {EXPECTED}")),
    };
    Err(format!("{kind}; {EXPECTED}"))
}

/// Like [`bytes`], but may be 0.
pub fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { bytes(text) }
}

/// A number of bytes, or a number with K, M or G (powers of 1024).
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "give bytes, or a number with K, M or G (500M, 1.5G)".to_owned();
    let unit = text.trim_end_matches(['B', 'b', 'i']);
    let (number, shift) = match unit.chars().last().map(|c| c.to_ascii_uppercase()) {
        Some('K') => (&unit[..unit.len() - 1], 10),
        Some('M') => (&unit[..unit.len() - 1], 20),
        Some('G') => (&unit[..unit.len() - 1], 30),
        _ => (unit, 0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * f64::from(1_u32 << shift);
    if bytes.is_finite() && bytes >= 1.0 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// The size of a cache in bytes; 0 is no cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize(pub u64);

impl FromStr for CacheSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes_or_none(text).map(Self)
    }
}

/// More layers than any model has.
const ALL_LAYERS: u32 = i32::MAX as u32;

/// How many layers go to the GPU; `None` is as many as fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuLayers(pub Option<u32>);

impl FromStr for GpuLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            // In llama.cpp, -1 is auto.
            "auto" | "-1" => Ok(Self(None)),
            "all" => Ok(Self(Some(ALL_LAYERS))),
            number => number.parse().map(|n| Self(Some(n))).map_err(|_| "give a number of layers, all, or auto".into()),
        }
    }
}

/// A seed; `None` is a new one each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub Option<u32>);

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-1" => Ok(Self(None)),
            // For llama.cpp, the largest number means no seed.
            number => match number.parse() {
                Ok(n) if n < u32::MAX => Ok(Self(Some(n))),
                _ => Err(format!("give 0 to {}, or -1", u32::MAX - 1)),
            },
        }
    }
}

/// The content of the file at `path`, if any; errors call it `what`.
pub fn text_of(what: &str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{}: reading the {what} failed", path.display()))
    };
    path.map(read).transpose()
}

/// A folder to write to, which may not exist yet.
pub fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let is_other = path.exists() && !path.is_dir();
        if is_other { Err("this is a file, not a folder; give a folder") } else { Ok(path) }
    })
}

/// A file to write.
pub fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new()
        .try_map(|path| if path.is_dir() { Err("this is a folder; give a file") } else { Ok(path) })
}

/// A video file to write.
pub fn film() -> impl TypedValueParser<Value = PathBuf> {
    file().try_map(|path| VideoWriter::check_name(&path).map(|()| path))
}

/// One of the names of `T`. Help and errors list them.
pub fn one_of<T>() -> impl TypedValueParser<Value = T>
where
    T: VariantNames + FromStr<Err = sharpv::Error> + Clone + Send + Sync + 'static,
{
    one_of_shown(T::VARIANTS)
}

/// One of the names of `T`. Help and errors list only those that are `shown`; the others are for comparisons.
pub fn one_of_shown<T>(shown: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: VariantNames + FromStr<Err = sharpv::Error> + Clone + Send + Sync + 'static,
{
    let value = |name: &'static str| PossibleValue::new(name).hide(!shown.contains(&name));
    PossibleValuesParser::new(T::VARIANTS.iter().copied().map(value)).try_map(|name| name.parse::<T>())
}

/// How many jobs run in parallel.
pub fn jobs() -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..=64)
}

/// A method of the library's core. The methods to compare with are known, and rejected.
pub fn method() -> impl TypedValueParser<Value = Method> {
    let core = Method::ALL.map(|method| PossibleValue::new(method.name()));
    let compared = methods::COMPARED.map(|method| PossibleValue::new(method.name()).hide(true));
    PossibleValuesParser::new(core.into_iter().chain(compared)).try_map(|name| {
        let advice =
            "only `sharpv eval`, `bench` and `inspect` compare with this method: use sharpv, sharpv-paper or off";
        name.parse::<Method>().map_err(|_| advice)
    })
}

/// A method of `sharpv inspect`: one of [`method`], or one to compare with.
pub fn inspect_method() -> impl TypedValueParser<Value = Method> {
    PossibleValuesParser::new(methods::all().map(Method::name)).try_map(|name| methods::by_name(&name))
}

/// A method of `sharpv bench`: as in its results, `dense` is the one that keeps all tokens.
pub fn bench_method() -> impl TypedValueParser<Value = Method> {
    let names = methods::all().map(methods::name).map(PossibleValue::new);
    let off = PossibleValue::new(Method::OFF.name()).hide(true);
    PossibleValuesParser::new(names.chain([off])).try_map(|name| methods::by_name(&name))
}

/// The name of a layout.
pub fn layout_name() -> PossibleValuesParser {
    PossibleValuesParser::new(layout::NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        for (text, seconds) in
            [("0", 0.0), ("90.5", 90.5), (".5", 0.5), ("1:30.5", 90.5), ("75:00", 4500.0), ("1:02:03", 3723.0)]
        {
            assert_eq!(moment(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_rejected() {
        for text in ["", "x", "-5", "nan", "inf", "1:60", "1:99:00", "1:2:3:4", "1:-2", "1:", ":", "1:x", "1e999"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time_are_read() {
        for (text, seconds) in
            [("10", 10.0), ("10s", 10.0), ("0.5s", 0.5), ("2m", 120.0), ("1h", 3600.0), ("1:30", 90.0)]
        {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        for text in ["", "s", "0", "-1s", "nan", "inf", "10x", "1:30m", "ms"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_read_and_percentages_explained() {
        assert_eq!(share("0.3"), Ok(0.3));
        assert_eq!(share("30%"), Err("give a share of 1: 0.3".into()));
        for text in ["", "%", "x%", "a third"] {
            assert!(share(text).is_err_and(|error| error.contains("0.3")), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, n) in
            [("1000", 1000), ("2K", 2048), ("1.5g", 3 << 29), ("500M", 500 << 20), ("4GiB", 4 << 30), ("1GB", 1 << 30)]
        {
            assert_eq!(bytes(text), Ok(n), "{text}");
        }
        for text in ["", "G", "x", "-1", "0", "nan", "infG", "1T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn thinking_is_a_word_or_a_number() {
        for (text, expected) in [
            ("auto", Thinking::Auto),
            ("on", Thinking::On),
            ("off", Thinking::Off),
            ("0", Thinking::Off),
            ("128", Thinking::Budget(128)),
        ] {
            assert_eq!(thinking(text), Ok(expected), "{text}");
        }
        for text in ["", "-1", "yes", "1.5", "1e3", "99999999999999999999999"] {
            let told = thinking(text).expect_err(text);
            assert!(["auto", "on", "off", "tokens"].iter().all(|word| told.contains(word)), "{told}");
        }
    }

    #[test]
    fn values_for_a_template_are_an_object() {
        let kwargs = template_kwargs(r#"{"enable_thinking": true, "n": 3}"#).expect("an object");
        assert_eq!((&kwargs["enable_thinking"], &kwargs["n"]), (&true.into(), &3.into()));
        assert_eq!(template_kwargs("{}"), Ok(TemplateKwargs::new()));
        let deep = "[".repeat(100_000);
        for (text, expected) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("{'a': 1}", "not JSON"),
            ("enable_thinking=true", "not JSON"),
            (&deep, "not JSON"),
            ("[1]", "an array"),
            ("\"a\"", "a string"),
            ("7", "a number"),
            ("true", "a single word"),
            ("null", "a single word"),
        ] {
            let told = template_kwargs(text).expect_err(text);
            assert!(told.contains(expected) && told.contains("give a JSON object"), "{told}");
        }
    }

    #[test]
    fn layers_and_seeds_have_their_special_values() {
        assert_eq!("auto".parse(), Ok(GpuLayers(None)));
        assert_eq!("all".parse(), Ok(GpuLayers(Some(ALL_LAYERS))));
        assert_eq!("0".parse(), Ok(GpuLayers(Some(0))));
        assert!("-2".parse::<GpuLayers>().is_err());
        assert_eq!("-1".parse(), Ok(Seed(None)));
        assert_eq!("4294967294".parse(), Ok(Seed(Some(u32::MAX - 1))));
        assert!("4294967295".parse::<Seed>().is_err());
    }
}
