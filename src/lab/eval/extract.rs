//! Extracting the answer from the text of a model.

/// The index of the choice that `text` names, by its letter, or else by its words. `None` if the text names none, or
/// names several by their words.
///
/// The ways to write a letter are ranked as in lmms-eval: at the start, at the end, after a phrase such as "answer is",
/// `(A)`, `A.`, `A:`, `A)`, `A` as a word. The best rank that occurs counts, and of several hits of that rank the last
/// one.
pub fn choice(text: &str, choices: &[String]) -> Option<usize> {
    let text: String = text.chars().filter(|c| !matches!(c, '*' | '`' | '"')).collect();
    let text = text.trim();
    by_letter(text, choices.len()).or_else(|| by_words(text, choices))
}

fn by_letter(text: &str, n: usize) -> Option<usize> {
    let chars: Vec<char> = text.chars().collect();
    if let [only] = chars.as_slice() {
        // A lowercase letter alone is no article.
        return index_of(only.to_ascii_uppercase(), n);
    }
    let found = hits(&chars, n);
    let rank = found.iter().map(|hit| hit.rank).min()?;
    found.iter().rfind(|hit| hit.rank == rank).map(|hit| hit.choice)
}

/// How a letter is written, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Start,
    End,
    Phrase,
    InBrackets,
    Point,
    Colon,
    Bracket,
    Word,
}

struct Hit {
    choice: usize,
    rank: Rank,
}

fn index_of(letter: char, n: usize) -> Option<usize> {
    let index = (letter as usize).checked_sub('A' as usize)?;
    (index < n).then_some(index)
}

fn hits(chars: &[char], n: usize) -> Vec<Hit> {
    let at = |i: usize| chars.get(i).copied();
    let mut found = Vec::new();
    for (i, &c) in chars.iter().enumerate() {
        let Some(choice) = index_of(c, n) else { continue };
        let before = i.checked_sub(1).and_then(at);
        let after = at(i + 1);
        let is_word_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '\'' | '’'));
        if is_word_part(before) || is_word_part(after) {
            continue;
        }
        let opened = before == Some('(');
        let closed = after == Some(')');
        let first = if opened { i - 1 } else { i };
        let rest = &chars[i + 1..];
        // "A man", "D or": a letter at the start is a choice only if punctuation follows it.
        let is_marked = closed || after.is_none_or(|c| matches!(c, '.' | ':' | ',' | ';' | '\n'));
        let rank = if first == 0 && is_marked {
            Rank::Start
        } else if rest.iter().all(|c| !c.is_alphanumeric()) {
            Rank::End
        } else if follows_phrase(&chars[..first]) && (is_marked || !is_article(c, rest)) {
            Rank::Phrase
        } else if opened && closed {
            Rank::InBrackets
        } else if after == Some('.') && at(i + 2).is_none_or(|c| !c.is_alphanumeric()) {
            Rank::Point
        } else if after == Some(':') {
            Rank::Colon
        } else if closed {
            Rank::Bracket
        } else if !is_article(c, rest) {
            Rank::Word
        } else {
            continue;
        };
        found.push(Hit { choice, rank });
    }
    found
}

/// Whether the letter is an article, as in "A man".
fn is_article(letter: char, rest: &[char]) -> bool {
    letter == 'A' && rest.first() == Some(&' ') && rest.get(1).is_some_and(|c| c.is_lowercase())
}

fn follows_phrase(before: &[char]) -> bool {
    let before: String = before.iter().collect::<String>().to_lowercase();
    let before = before.trim_end().trim_end_matches(':').trim_end();
    let before = before.strip_suffix(" is").unwrap_or(before);
    ["answer", "option", "choice"].iter().any(|phrase| before.ends_with(phrase))
}

/// The only choice whose words are in `text`. A choice that is part of another matching choice does not count.
fn by_words(text: &str, choices: &[String]) -> Option<usize> {
    let text = format!(" {} ", normalized(text));
    let words: Vec<String> = choices.iter().map(|choice| format!(" {} ", normalized(choice))).collect();
    let named: Vec<usize> =
        (0..choices.len()).filter(|&i| !words[i].trim().is_empty() && text.contains(&words[i])).collect();
    let longest: Vec<usize> = named
        .iter()
        .copied()
        .filter(|&i| {
            !named
                .iter()
                .any(|&other| other != i && words[other].len() > words[i].len() && words[other].contains(&words[i]))
        })
        .collect();
    match longest.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// Lowercase, without punctuation and articles, small numbers as digits.
pub fn normalized(text: &str) -> String {
    const NUMBERS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    let lower = text.to_lowercase();
    let plain: String = lower.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
    let digits = |word: &str| match NUMBERS.iter().position(|number| *number == word) {
        Some(number) => number.to_string(),
        None => word.to_owned(),
    };
    words.map(digits).collect::<Vec<_>>().join(" ")
}

/// Whether a normalized answer equals `right`: the same words, or for yes and no the same first word.
pub fn matches(predicted: &str, right: &str) -> bool {
    let right = normalized(right);
    if matches!(right.as_str(), "yes" | "no") {
        return predicted.split(' ').next() == Some(right.as_str());
    }
    !right.is_empty() && predicted == right
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<char> {
        let choices = ["a red ball", "the ball", "two dogs", "nothing"].map(str::to_owned);
        choice(text, &choices).map(super::super::question::letter)
    }

    #[test]
    fn letters_are_found_however_they_are_written() {
        for text in [
            "B",
            "b",
            "(B)",
            "B.",
            "B. the ball",
            "(B) the ball",
            "**B**",
            "B)",
            "B: because of A.",
            "B\nnot A",
            "The answer is B.",
            "The best answer is: B",
            "Answer: (B)",
            "the correct option is B because C is absurd",
            "I think it is B",
            "A man throws it, so (B) fits",
            "It is option B here",
            "B) the ball",
        ] {
            assert_eq!(of(text), Some('B'), "{text}");
        }
    }

    #[test]
    fn the_best_rank_counts_and_in_it_the_last_hit() {
        assert_eq!(of("C. Or rather D."), Some('C'), "the start before the end");
        assert_eq!(of("either (A) or (C) it seems"), Some('C'), "the last of one rank");
        assert_eq!(of("first (A), then C. and so on"), Some('A'), "brackets before a point");
        assert_eq!(of("The answer is C. The answer is D, or so"), Some('D'));
    }

    #[test]
    fn words_of_a_choice_do_where_there_is_no_letter() {
        assert_eq!(of("There are two dogs."), Some('C'));
        assert_eq!(of("It is a red ball"), Some('A'));
        assert_eq!(of("nothing, or two dogs"), None);
        for text in ["", "E", "I do not know", "A man walks", "Being", "A's"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn open_answers_are_compared_without_dressing() {
        let right = |text: &str, right: &str| matches(&normalized(text), right);
        assert!(right("There is a tractor.", "there is the tractor"));
        assert!(right("Two", "2"));
        assert!(right("Yes, he does.", "yes"));
        assert!(!right("No, yes", "yes"));
        assert!(!right("a big tractor", "tractor"));
        assert!(!right("", "yes"));
    }
}
