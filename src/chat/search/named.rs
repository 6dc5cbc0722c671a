//! Finds the times that a text names.

/// The part of a video that a text names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Named {
    /// A moment, in seconds.
    Moment(f64),
    /// Two moments, from and to, in seconds.
    Span(f64, f64),
}

/// Words that make a span of the times before and after them.
const TO: [&str; 8] = ["to", "and", "until", "till", "through", "-", "–", "—"];

impl Named {
    /// Returns the first moment that `text` names, such as `1h 5m`, `12:30`, `1:02:03`, `90 s`, `2 minutes` or `minute
    /// 5`, or a span if a second moment follows it: `between 1:00 and 2:00`, `1:00-1:30`.
    pub fn of(text: &str) -> Option<Self> {
        let words = words(text);
        let (first, mut next) = (0..words.len()).find_map(|i| time_at(&words, i))?;
        if words.get(next).is_some_and(|word| TO.contains(&word.as_str())) {
            next += 1;
            let second = time_at(&words, next).map(|(time, _)| time);
            // `from 10 to 20 seconds` names the unit once.
            if let Some(second) = second.filter(|&second| second > first) {
                return Some(Self::Span(first, second));
            }
        }
        if let Some(from) = bare_before(&words, first) {
            return Some(Self::Span(from, first));
        }
        Some(Self::Moment(first))
    }
}

/// `from 10 to 20 seconds`: returns the number before `second`, the first time of the text, in the unit of `second`.
fn bare_before(words: &[String], second: f64) -> Option<f64> {
    let (i, _) = (0..words.len()).find_map(|i| time_at(words, i).map(|_| (i, ())))?;
    let is_to = TO.contains(&words.get(i.checked_sub(1)?)?.as_str());
    let from: f64 = number(words.get(i.checked_sub(2)?)?)?;
    let scale = second / number(&words[i])?;
    (is_to && from * scale < second).then_some(from * scale)
}

/// Returns the time that begins at word `i`, in seconds, and the index of the word after it.
fn time_at(words: &[String], i: usize) -> Option<(f64, usize)> {
    let word = words.get(i)?;
    if let Some(time) = clock(word) {
        return Some((time, i + 1));
    }
    // `minute 5`, `second 90`
    if let (Some(unit), Some(n)) = (unit(word), words.get(i + 1).and_then(|next| number(next)))
        && !word.ends_with('s')
        && word.len() > 1
        && words.get(i + 2).and_then(|next| self::unit(next)).is_none()
    {
        return Some((n * unit, i + 2));
    }
    // `1 h 5 min`: goes on while units get smaller.
    let (mut time, mut at, mut last) = (0.0, i, f64::INFINITY);
    while let (Some(n), Some(unit)) =
        (words.get(at).and_then(|word| number(word)), words.get(at + 1).and_then(|word| unit(word)))
        && unit < last
    {
        time += n * unit;
        last = unit;
        at += 2;
    }
    (at > i).then_some((time, at))
}

/// `MM:SS` or `H:MM:SS`, in seconds.
fn clock(word: &str) -> Option<f64> {
    let parts: Vec<&str> = word.split(':').collect();
    let numbers: Vec<f64> = parts.iter().map(|part| number(part)).collect::<Option<_>>()?;
    // `12:5` and `3:90` are not times.
    let good = parts[1..].iter().zip(&numbers[1..]).all(|(part, &n)| part.len() == 2 && n < 60.0);
    ((2..=3).contains(&parts.len()) && good).then(|| numbers.iter().fold(0.0, |sum, n| sum * 60.0 + n))
}

fn number(word: &str) -> Option<f64> {
    let is_number =
        word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    word.parse().ok().filter(|_| is_number)
}

/// The seconds of a unit.
fn unit(word: &str) -> Option<f64> {
    match word {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3600.0),
        _ => None,
    }
}

/// Splits `text` into lowercase words. Numbers, letters and dashes become words of their own, and punctuation is
/// dropped.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut kind = Kind::Space;
    let characters: Vec<char> = text.to_lowercase().chars().collect();
    for (i, &c) in characters.iter().enumerate() {
        let inside = |c: char| {
            (c == '.' || c == ':') && kind == Kind::Digit && characters.get(i + 1).is_some_and(char::is_ascii_digit)
        };
        let next = match c {
            c if c.is_ascii_digit() || inside(c) => Kind::Digit,
            c if c.is_alphabetic() => Kind::Letter,
            '-' | '–' | '—' => Kind::Dash,
            _ => Kind::Space,
        };
        match (next, words.last_mut()) {
            (Kind::Space, _) => {}
            (_, Some(word)) if next == kind => word.push(c),
            _ => words.push(c.to_string()),
        }
        kind = next;
    }
    words
}

/// What kind of word a character belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Digit,
    Letter,
    Dash,
    Space,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_found() {
        for (text, time) in [
            ("What happens at 12:30?", 750.0),
            ("what is at 1:02:03, roughly", 3723.0),
            ("Is there a dog (0:05)?", 5.0),
            ("after 90 s", 90.0),
            ("at 90s", 90.0),
            ("What is seen 2 minutes in?", 120.0),
            ("in minute 5", 300.0),
            ("at second 12.5", 12.5),
            ("at 1h 5m 7s, what?", 3907.0),
            ("at 1 hour and 10 minutes", 3600.0),
            ("At 2.5 min.", 150.0),
            ("Compare 0:10 with 0:50", 10.0),
        ] {
            assert_eq!(Named::of(text), Some(Named::Moment(time)), "{text}");
        }
    }

    #[test]
    fn spans_are_found() {
        for (text, from, to) in [
            ("between 1:00 and 2:00", 60.0, 120.0),
            ("What happens from 0:30 to 1:30?", 30.0, 90.0),
            ("1:00-1:30", 60.0, 90.0),
            ("1:00 – 1:30", 60.0, 90.0),
            ("from 10 s until 20 s", 10.0, 20.0),
            ("from 10 to 20 seconds", 10.0, 20.0),
            ("between 1 and 2 minutes", 60.0, 120.0),
        ] {
            assert_eq!(Named::of(text), Some(Named::Span(from, to)), "{text}");
        }
    }

    #[test]
    fn other_numbers_are_no_times() {
        for text in [
            "How many of the 3 dogs run?",
            "Is the score 3:2?",
            "Is 16:9 the format?",
            "Is it 5?",
            "What are the minutes of the meeting?",
            "In a second, what happens?",
            "1:2:3:4",
            "",
            "Is it 3:75?",
        ] {
            assert_eq!(Named::of(text), None, "{text}");
        }
    }

    #[test]
    fn spans_that_go_back_are_moments() {
        assert_eq!(Named::of("from 2:00 to 1:00"), Some(Named::Moment(120.0)));
    }
}
