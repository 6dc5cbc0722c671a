//! Numbers in English words, as Python's `num2words` writes them.

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// `n` in words: `sixty-four`, `one hundred and one`, `one thousand, two hundred and thirty-four`.
pub(super) fn in_words(n: usize) -> String {
    match n {
        0..20 => ONES[n].into(),
        20..100 => {
            let tens = TENS[n / 10 - 2];
            if n.is_multiple_of(10) { tens.into() } else { format!("{tens}-{}", ONES[n % 10]) }
        }
        100..1000 => match n % 100 {
            0 => format!("{} hundred", ONES[n / 100]),
            rest => format!("{} hundred and {}", ONES[n / 100], in_words(rest)),
        },
        1000..1_000_000 => match n % 1000 {
            0 => format!("{} thousand", in_words(n / 1000)),
            rest @ 1..100 => format!("{} thousand and {}", in_words(n / 1000), in_words(rest)),
            rest => format!("{} thousand, {}", in_words(n / 1000), in_words(rest)),
        },
        // No prompt holds that many frames.
        _ => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn as_num2words_writes_them() {
        for (n, words) in [
            (1, "one"),
            (16, "sixteen"),
            (20, "twenty"),
            (64, "sixty-four"),
            (100, "one hundred"),
            (128, "one hundred and twenty-eight"),
            (1000, "one thousand"),
            (1005, "one thousand and five"),
            (1234, "one thousand, two hundred and thirty-four"),
        ] {
            assert_eq!(in_words(n), words);
        }
    }
}
