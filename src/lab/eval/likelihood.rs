//! Choosing by likelihood: the letter that the model considers most likely, whatever it would write.

use super::question::{MAX_CHOICES, letter};
use crate::error::{Error, Result};
use crate::runtime::{Model, Token};

/// The tokens of each letter.
#[derive(Debug, Clone)]
pub struct Letters {
    tokens: Vec<Vec<Token>>,
}

impl Letters {
    /// The letters as tokens of `model`. A letter has one token at the start of a line, and often others after a space
    /// or a bracket. Models differ in which of them they use after a prompt, so all count.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a letter has no token of its own.
    pub fn new(model: &Model) -> Result<Self> {
        let tokens = (0..MAX_CHOICES).map(|index| tokens_of(model, letter(index))).collect::<Result<_>>()?;
        Ok(Self { tokens })
    }

    /// The log probabilities of the first `n` letters as the next token, from the logits of all tokens.
    pub fn log_probabilities(&self, logits: &[f32], n: usize) -> Vec<f64> {
        let all = log_sum_exp(logits.iter().copied());
        let of = |tokens: &Vec<Token>| {
            let logits = tokens.iter().filter_map(|&token| logits.get(usize::try_from(token).ok()?).copied());
            log_sum_exp(logits) - all
        };
        self.tokens.iter().take(n).map(of).collect()
    }
}

/// The index of the likeliest choice, on a tie the first.
pub fn likeliest(log_probabilities: &[f64]) -> Option<usize> {
    let finite = log_probabilities.iter().enumerate().filter(|(_, p)| p.is_finite());
    finite
        .fold(None, |best: Option<(usize, f64)>, (i, &p)| match best {
            Some((_, most)) if most >= p => best,
            _ => Some((i, p)),
        })
        .map(|(i, _)| i)
}

fn tokens_of(model: &Model, letter: char) -> Result<Vec<Token>> {
    let mut found = Vec::new();
    for before in ["", " ", "\n", "("] {
        let tokens = model.tokenize(&format!("{before}{letter}"), false, false)?;
        let Some(&last) = tokens.last() else { continue };
        let bytes = model.token_bytes(last, false);
        // Excludes tokens of several letters, and tokens that include the bracket.
        if String::from_utf8_lossy(&bytes).trim() == letter.to_string() && !found.contains(&last) {
            found.push(last);
        }
    }
    if found.is_empty() {
        return Err(Error::InvalidParameter {
            name: "score",
            value: "likelihood".into(),
            expected: format!("generate with this model: its vocabulary has no token for the letter {letter}"),
        });
    }
    Ok(found)
}

fn log_sum_exp(values: impl Iterator<Item = f32> + Clone) -> f64 {
    let max = values.clone().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        return f64::from(max);
    }
    let max = f64::from(max);
    max + values.map(|value| (f64::from(value) - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_letter_count_together() {
        let letters = Letters { tokens: vec![vec![0], vec![1, 2], vec![9]] };
        // Probabilities 0.4, 0.3, 0.3.
        let logits = [0.4_f32.ln(), 0.3_f32.ln(), 0.3_f32.ln()];
        let found = letters.log_probabilities(&logits, 2);
        assert!((found[0].exp() - 0.4).abs() < 1e-6 && (found[1].exp() - 0.6).abs() < 1e-6, "{found:?}");
        assert_eq!(likeliest(&found), Some(1));
        assert_eq!(likeliest(&letters.log_probabilities(&logits, 3)), Some(1), "a token that does not exist");
    }

    #[test]
    fn of_equals_the_first_is_taken_and_nan_never() {
        assert_eq!(likeliest(&[-1.0, -1.0]), Some(0));
        assert_eq!(likeliest(&[f64::NAN, -3.0]), Some(1));
        assert_eq!(likeliest(&[]), None);
    }
}
