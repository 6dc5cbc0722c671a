//! Jinja as Hugging Face sets it up for chat templates.
//!
//! minijinja differs from Jinja2 in what is mended here. `tests/data/templates` compares the two.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{ArgType, Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// Hugging Face's settings of Jinja, and what templates expect of it.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(invalid(message)) });
    environment.add_function("strftime_now", |format: String| {
        use std::fmt::Write as _;
        let mut text = String::new();
        // With `write!`, an unknown directive is an error; `to_string` would panic.
        match write!(text, "{}", chrono::Local::now().format(&format)) {
            Ok(()) => Ok(text),
            Err(_) => Err(invalid("strftime_now: bad format")),
        }
    });
    // Hugging Face passes these two to every template. A template may ask whether they are none.
    environment.add_global("tools", ());
    environment.add_global("documents", ());
    environment.add_filter("tojson", to_json);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("replace", replace);
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    Ok(environment)
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// The template as minijinja reads it: line ends as Jinja2 reads them, and no `{% generation %}` tags. These mark the
/// text to train on and print nothing. What is set inside them is not set outside, as in a `{% with %}` block.
pub(super) fn prepared(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut result = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut is_raw = false;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let len = match tag.as_bytes().get(1) {
            Some(b'%') => end_of_tag(tag, "%}"),
            Some(b'{') if !is_raw => end_of_tag(tag, "}}"),
            Some(b'#') if !is_raw => tag[2..].find("#}").map(|end| end + 4),
            _ => Some(1),
        };
        let Some(len) = len else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(len);
        rest = after;
        let name = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}")).unwrap_or_default();
        let name = name.trim_matches(['-', '+']).trim();
        is_raw = if is_raw { name != "endraw" } else { name == "raw" };
        match name {
            "generation" if !is_raw => result.push_str(&tag.replace(name, "with")),
            "endgeneration" if !is_raw => result.push_str(&tag.replace(name, "endwith")),
            _ => result.push_str(tag),
        }
    }
    result + rest
}

/// Where the tag at the beginning of `text` ends: after the first `close` that is in no string.
fn end_of_tag(text: &str, close: &str) -> Option<usize> {
    let mut quote = None;
    // The `%` of `{%}` does not end the tag.
    let mut chars = text.char_indices().skip(2);
    while let Some((i, c)) = chars.next() {
        match quote {
            Some(_) if c == '\\' => drop(chars.next()),
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if text[i..].starts_with(close) => return Some(i + close.len()),
            None => {}
        }
    }
    None
}

/// A JSON value as a template reads it.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => number.into(),
            (_, Some(number), _) => number.into(),
            (.., number) => number.unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.into(),
        Json::Array(values) => values.iter().map(value).collect(),
        Json::Object(object) => Value::from_pairs(object.iter().map(|(name, json)| (name.as_str(), value(json)))),
    }
}

/// An argument given by its place, or else by its name.
fn named<'a, T>(given: Option<T>, kwargs: &'a Kwargs, name: &'a str) -> Result<Option<T>, Error>
where
    Option<T>: ArgType<'a, Output = Option<T>>,
{
    given.map_or_else(|| kwargs.get(name), |value| Ok(Some(value)))
}

/// Python's `json.dumps` with `ensure_ascii=False`. Jinja's own filter escapes HTML.
fn to_json(value: &Value, ensure_ascii: Option<bool>, indent: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let ascii = named(ensure_ascii, &kwargs, "ensure_ascii")?.unwrap_or(false);
    let indent = match named(indent, &kwargs, "indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.chars().take(MAX_INDENT).collect(),
            None => " ".repeat(usize::try_from(indent)?.min(MAX_INDENT)),
        }),
    };
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let sort = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let (comma, colon) = match separators.as_deref() {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(invalid("tojson: separators are two texts")),
    };
    let no_kwargs = Kwargs::from_iter(std::iter::empty::<(&str, Value)>());
    let escaped = minijinja::filters::tojson(value, None, no_kwargs)?;
    // Has a limit of depth, so that writing has one.
    let json = serde_json::from_str(escaped.as_str().unwrap_or_default())
        .map_err(|e| invalid("tojson: it is nested too deeply").with_source(e))?;
    let writer = JsonWriter { ascii, sort, indent, comma, colon };
    let mut text = String::new();
    writer.write(&mut text, &json, 0);
    Ok(text)
}

/// The widest indent of a level of JSON.
const MAX_INDENT: usize = 64;

/// JSON in the format of Python's `json.dumps`.
struct JsonWriter {
    ascii: bool,
    sort: bool,
    indent: Option<String>,
    comma: String,
    colon: String,
}

impl JsonWriter {
    fn write(&self, text: &mut String, json: &Json, level: usize) {
        match json {
            Json::String(string) => self.write_string(text, string),
            Json::Number(number) if number.is_f64() => {
                text.push_str(&python_float(number.as_f64().unwrap_or(f64::NAN)))
            }
            Json::Array(values) => {
                let write = |text: &mut String, value: &Json| self.write(text, value, level + 1);
                self.write_items(text, level, ['[', ']'], values.iter(), write);
            }
            Json::Object(object) => {
                let mut members: Vec<(&String, &Json)> = object.iter().collect();
                if self.sort {
                    members.sort_by_key(|(name, _)| *name);
                }
                self.write_items(text, level, ['{', '}'], members.into_iter(), |text, (name, value)| {
                    self.write_string(text, name);
                    text.push_str(&self.colon);
                    self.write(text, value, level + 1);
                });
            }
            other => text.push_str(&other.to_string()),
        }
    }

    fn write_items<T>(
        &self,
        text: &mut String,
        level: usize,
        [open, close]: [char; 2],
        items: impl ExactSizeIterator<Item = T>,
        write: impl Fn(&mut String, T),
    ) {
        let is_empty = items.len() == 0;
        let line = |text: &mut String, level: usize| {
            if let Some(indent) = self.indent.as_ref().filter(|_| !is_empty) {
                text.push('\n');
                text.push_str(&indent.repeat(level));
            }
        };
        text.push(open);
        for (i, item) in items.enumerate() {
            if i > 0 {
                text.push_str(&self.comma);
            }
            line(text, level + 1);
            write(text, item);
        }
        line(text, level);
        text.push(close);
    }

    fn write_string(&self, text: &mut String, string: &str) {
        for c in Json::from(string).to_string().chars() {
            if self.ascii && !(' '..='~').contains(&c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                text.push(c);
            }
        }
    }
}

/// A float as Python writes it.
fn python_float(number: f64) -> String {
    let (text, size) = (format!("{number:?}"), number.abs());
    match text.split_once('e') {
        // Python's exponents have a sign and two digits.
        Some((digits, exponent)) if size >= 1e16 => format!("{digits}e+{exponent:0>2}").replace(".0e", "e"),
        Some((digits, exponent)) => format!("{digits}e-{:0>2}", exponent.trim_start_matches('-')).replace(".0e", "e"),
        None => text,
    }
}

/// With names for its arguments.
fn default(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let [other, boolean] =
        [(0, "default_value"), (1, "boolean")].map(|(i, name)| args.get(i).cloned().or_else(|| kwargs.get(name).ok()));
    kwargs.assert_all_used()?;
    let is_missing = value.is_undefined() || (!value.is_true() && boolean.is_some_and(|on| on.is_true()));
    Ok(if is_missing { other.unwrap_or_else(|| "".into()) } else { value.clone() })
}

/// What is undefined has a length.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { minijinja::filters::length(value) }
}

/// With a count.
fn replace(text: &Value, from: &Value, to: &Value, count: Option<usize>, kwargs: Kwargs) -> Result<String, Error> {
    let count = named(count, &kwargs, "count")?.unwrap_or(usize::MAX);
    kwargs.assert_all_used()?;
    Ok(text.to_string().replacen(&from.to_string(), &to.to_string(), count))
}

/// Methods of Python's strings that minijinja-contrib lacks, then those that it has.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let other = |state: &mut State, args: &[Value]| {
        minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
    };
    let Some(text) = value.as_str() else { return other(state, args) };
    let separator = |separator: &str| match separator {
        "" => Err(invalid(format!("{name}: the separator is empty"))),
        _ => Ok(()),
    };
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" | "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            separator(by)?;
            let parts = match (name, text.split_once(by), text.rsplit_once(by)) {
                ("partition", Some((before, after)), _) | ("rpartition", _, Some((before, after))) => {
                    [before, by, after]
                }
                ("partition", ..) => [text, "", ""],
                _ => ["", "", text],
            };
            Ok(Tuple::from(parts.map(Value::from)).into())
        }
        "split" | "rsplit" => {
            let (by, max, kwargs): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let (by, max) = (named(by, &kwargs, "sep")?, named(max, &kwargs, "maxsplit")?);
            kwargs.assert_all_used()?;
            // A negative number is no limit.
            let max = max.and_then(|max| usize::try_from(max).ok());
            if let Some(by) = by {
                separator(by)?;
            }
            match (by, max) {
                (Some(by), Some(max)) if name == "rsplit" => {
                    let mut parts: Vec<Value> = text.rsplitn(max.saturating_add(1), by).map(Value::from).collect();
                    parts.reverse();
                    Ok(parts.into())
                }
                (None, Some(_)) if name == "rsplit" => Err(invalid("rsplit: a limit needs a separator")),
                (Some(by), None) => Ok(text.split(by).map(Value::from).collect()),
                (Some(by), Some(max)) => Ok(text.splitn(max.saturating_add(1), by).map(Value::from).collect()),
                (None, None) => Ok(text.split_whitespace().map(Value::from).collect()),
                (None, Some(max)) => other(state, &[().into(), max.into()]),
            }
        }
        "index" => {
            let (what,): (&str,) = from_args(args)?;
            let at = text.find(what).ok_or_else(|| invalid("index: substring not found"))?;
            Ok(text[..at].chars().count().into())
        }
        _ => other(state, args),
    }
}
