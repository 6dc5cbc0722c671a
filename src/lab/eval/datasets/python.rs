//! Lists of texts as Python prints them: pandas writes them into TSV files.

/// The entries of a list such as `['A. It\'s red', "B. It isn't"]`; `None` if it is none.
pub fn list(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut chars = inner.chars().peekable();
    let mut found = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(quote) = chars.next() else { return Some(found) };
        if !matches!(quote, '\'' | '"') {
            return None;
        }
        found.push(quoted(&mut chars, quote)?);
        // numpy omits the commas.
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        chars.next_if_eq(&',');
    }
}

fn quoted(chars: &mut impl Iterator<Item = char>, quote: char) -> Option<String> {
    let mut entry = String::new();
    loop {
        match chars.next()? {
            c if c == quote => return Some(entry),
            '\\' => match chars.next()? {
                'n' => entry.push('\n'),
                't' => entry.push('\t'),
                'r' => entry.push('\r'),
                'x' => entry.push(code(chars, 2)?),
                'u' => entry.push(code(chars, 4)?),
                'U' => entry.push(code(chars, 8)?),
                c @ ('\\' | '\'' | '"') => entry.push(c),
                other => entry.extend(['\\', other]),
            },
            c => entry.push(c),
        }
    }
}

fn code(chars: &mut impl Iterator<Item = char>, digits: usize) -> Option<char> {
    let hex: String = chars.take(digits).collect();
    (hex.len() == digits).then(|| u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_python_prints_them() {
        let read = |text| list(text).map(|entries| entries.join("|"));
        assert_eq!(read("['A. one', 'B. two, three']").as_deref(), Some("A. one|B. two, three"));
        assert_eq!(read(r#"["A. it's", 'B. "no"', 'C. it\'s']"#).as_deref(), Some("A. it's|B. \"no\"|C. it's"));
        assert_eq!(read(r"['a\\b\n\xe9\u4e2d']").as_deref(), Some("a\\b\n\u{e9}\u{4e2d}"));
        assert_eq!(read("['A. one' 'B. two'\n 'C.']").as_deref(), Some("A. one|B. two|C."));
        assert_eq!(read("[]").as_deref(), Some(""));
        for wrong in ["", "A. one", "['open", "[one]", "['a'", r"['\x4']"] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
    }
}
