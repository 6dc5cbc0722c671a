//! How an answer is generated.

use crate::values::{self, Seed};
use clap::Args;
use sharpv::chat::{SessionParams, Thinking};
use sharpv::runtime::SamplerParams;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = "Answer")]
pub struct SamplerOptions {
    /// The most tokens in an answer
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N")]
    #[arg(default_value_t = SessionParams::default().n_predict as u32, value_parser = clap::value_parser!(u32).range(1..))]
    predict: u32,

    /// Whether the model thinks before it answers: as it does by default (auto), on, off, or for at most N tokens
    ///
    /// Where a model does not think, this changes nothing. After N tokens of a thought, the answer begins. `auto` is
    /// off except in `chat` and `serve`: with the other commands, one short answer is wanted, and a thought takes its
    /// tokens from the answer (-n). docs/thinking.md has the details.
    #[arg(long, value_name = "auto|on|off|N", default_value = "auto", value_parser = values::thinking,
        allow_negative_numbers = true)]
    think: Thinking,

    /// Temperature: 0 takes the likeliest token, higher values are more random
    #[arg(long, value_name = "T", default_value_t = SamplerParams::default().temperature)]
    temp: f32,

    /// Choose among the N likeliest tokens; 0 is all
    #[arg(long, value_name = "N", default_value_t = SamplerParams::default().top_k)]
    top_k: u32,

    /// Choose among the likeliest tokens that have this probability together; 1 is all
    #[arg(long, value_name = "P", default_value_t = SamplerParams::default().top_p)]
    top_p: f32,

    /// Choose among tokens with at least this share of the likeliest token's probability; 0 is all
    #[arg(long, value_name = "P", default_value_t = SamplerParams::default().min_p)]
    min_p: f32,

    /// Divide the logits of repeated tokens by this; 1 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().repeat_penalty)]
    repeat_penalty: f32,

    /// How many of the last tokens the penalties apply to
    #[arg(long, value_name = "N", default_value_t = SamplerParams::default().repeat_last_n)]
    repeat_last_n: u32,

    /// Subtract this once from the logits of repeated tokens; 0 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().presence_penalty, allow_negative_numbers = true)]
    presence_penalty: f32,

    /// Subtract this from the logits of repeated tokens for each occurrence; 0 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().frequency_penalty, allow_negative_numbers = true)]
    frequency_penalty: f32,

    /// A grammar in GBNF that the answer must follow
    #[arg(long, value_name = "GBNF", conflicts_with = "grammar_file")]
    grammar: Option<String>,

    /// A file with a grammar in GBNF
    #[arg(long, value_name = "FILE")]
    grammar_file: Option<PathBuf>,

    /// Seed of the sampler [default: a new one each time]
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<Seed>,
}

impl SamplerOptions {
    /// The sampler's parameters. Reads the grammar's file and checks every value.
    pub fn params(&self) -> anyhow::Result<SamplerParams> {
        let grammar = match &self.grammar {
            Some(grammar) => Some(grammar.clone()),
            None => values::text_of("grammar", self.grammar_file.as_deref())?,
        };
        let params = SamplerParams {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            repeat_last_n: self.repeat_last_n,
            grammar,
            seed: self.seed(),
        };
        params.validate()?;
        Ok(params)
    }

    /// The most tokens in an answer.
    pub fn n_predict(&self) -> usize {
        self.predict as usize
    }

    /// Whether the model thinks.
    ///
    /// # Errors
    /// If the thought may have all tokens, so that the answer has none.
    pub fn thinking(&self) -> sharpv::Result<Thinking> {
        check_budget("--think", self.think, self.n_predict())?;
        Ok(self.think)
    }

    /// The seed; `None` is a new one each time.
    pub fn seed(&self) -> Option<u32> {
        self.seed.and_then(|seed| seed.0)
    }
}

/// Checks that the budget of a thought leaves some of the `n_predict` tokens for the answer; `name` is what sets it.
pub fn check_budget(name: &'static str, thinking: Thinking, n_predict: usize) -> sharpv::Result<()> {
    match thinking {
        Thinking::Budget(n) if n >= n_predict => Err(sharpv::Error::InvalidParameter {
            name,
            value: n.to_string(),
            expected: format!(
                "fewer than {n_predict}, the most tokens of a thought and its answer (-n {n_predict}): raise -n, or lower \
                 {name}"
            ),
        }),
        _ => Ok(()),
    }
}
