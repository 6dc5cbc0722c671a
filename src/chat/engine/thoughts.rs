//! How a model marks its thoughts: what begins one, what ends it, and the text between a thought and the answer.

use super::template::ChatTemplate;
use super::thinking::Thinking;
use crate::chat::conversation::message::{Message, Role};
use crate::runtime::{SpecialToken, Token};
use serde_json::Map;
use std::collections::HashMap;

/// The delimiters of a family's thoughts.
struct Known {
    /// What begins a thought, and what ends it.
    delimiters: [&'static str; 2],
    /// What both have in a template or in a vocabulary.
    names: [&'static str; 2],
    /// The text before the end of a thought, and between the end and the answer.
    around_end: [&'static str; 2],
}

/// The delimiters of all families.
const KNOWN: &[Known] = &[
    // Gemma 4
    Known {
        delimiters: ["<|channel>thought", "<channel|>"],
        names: ["<|channel>", "<channel|>"],
        around_end: ["\n", ""],
    },
    // Kimi-VL
    Known::tags(["◁think▷", "◁/think▷"], ["", ""]),
    // Seed-OSS
    Known::tags(["<seed:think>", "</seed:think>"], ["", ""]),
    // MiniMax-M3
    Known::tags(["<mm:think>", "</mm:think>"], ["", ""]),
    // Mistral
    Known::tags(["[THINK]", "[/THINK]"], ["", ""]),
    // Cohere
    Known::tags(["<|START_THINKING|>", "<|END_THINKING|>"], ["", ""]),
    // Qwen, GLM, MiniCPM, Nemotron, LFM2, InternVL and most others
    Known::tags(["<think>", "</think>"], ["\n", "\n\n"]),
];

impl Known {
    const fn tags(names: [&'static str; 2], around_end: [&'static str; 2]) -> Self {
        Self { delimiters: names, names, around_end }
    }

    /// The delimiters that a template mentions, or else those that a vocabulary has as tokens.
    fn of(source: &str, tokens: &[SpecialToken]) -> Option<&'static Self> {
        let is_token = |name: &str| tokens.iter().any(|token| token.text == name);
        let mentioned = KNOWN.iter().find(|known| known.names.iter().any(|name| source.contains(name)));
        mentioned.or_else(|| KNOWN.iter().find(|known| known.names.iter().all(|name| is_token(name))))
    }
}

/// The texts around a thought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chat) struct Delimiters {
    pub opener: String,
    pub closer: String,
    /// The text between a thought and the answer as the template writes it: the closer, with the white space around it.
    pub end: String,
}

impl Delimiters {
    /// Whether `prompt` ends in a thought that has begun.
    pub fn opened_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(&self.opener)
    }
}

/// Tokens around answers that are no part of them. GLM writes its answers in boxes.
const WRAPPERS: [[&str; 2]; 2] = [["<|begin_of_box|>", "<|end_of_box|>"], ["<answer>", "</answer>"]];

/// How a model marks what it writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::chat) struct Thoughts {
    /// `None` if the model does not think.
    pub delimiters: Option<Delimiters>,
    /// Tokens that are not shown, with the text that each has in a delimiter; empty if it is in none.
    pub unshown: HashMap<Token, String>,
}

impl Thoughts {
    /// The marks of a model with these special `tokens`, and with a `template` that was made of `source`.
    pub fn of(template: &ChatTemplate, source: &str, tokens: &[SpecialToken]) -> Self {
        let mut unshown = HashMap::new();
        for names in WRAPPERS {
            let found = names.map(|name| tokens.iter().find(|token| token.text == name));
            if let [Some(begin), Some(end)] = found {
                unshown.extend([begin, end].map(|special| (special.token, String::new())));
            }
        }
        let Some(known) = Known::of(source, tokens) else { return Self { delimiters: None, unshown } };
        for special in tokens {
            // Other tokens are text like any other.
            if special.is_control && known.delimiters.iter().any(|delimiter| delimiter.contains(&special.text)) {
                unshown.insert(special.token, special.text.clone());
            }
        }
        let [opener, closer] = known.delimiters.map(ToOwned::to_owned);
        let end = end_in_history(template, &closer).unwrap_or_else(|| {
            let [before, after] = known.around_end;
            let after = after_closed(template, &closer).unwrap_or_else(|| after.to_owned());
            format!("{before}{closer}{after}")
        });
        Self { delimiters: Some(Delimiters { opener, closer, end }), unshown }
    }

    /// Whether `prompt` ends in a thought that has begun.
    pub fn opened_by(&self, prompt: &str) -> bool {
        self.delimiters.as_ref().is_some_and(|delimiters| delimiters.opened_by(prompt))
    }
}

/// What a template writes between the thought and the answer of an earlier turn, if it writes thoughts.
fn end_in_history(template: &ChatTemplate, closer: &str) -> Option<String> {
    const THOUGHT: &str = "a thought that no template holds";
    const ANSWER: &str = "an answer that no template holds";
    let answer = Message { reasoning: Some(THOUGHT.to_owned()), ..Message::text(Role::Assistant, ANSWER) };
    let messages = [Message::text(Role::User, "Why?"), answer];
    [Thinking::Auto, Thinking::On].into_iter().find_map(|thinking| {
        let text = template.render_history(&messages, thinking, &Map::new()).ok()?;
        let (end, _) = text.split_once(THOUGHT)?.1.split_once(ANSWER)?;
        (end.trim() == closer).then(|| end.to_owned())
    })
}

/// What a template writes after a thought that it closes itself, if it does.
fn after_closed(template: &ChatTemplate, closer: &str) -> Option<String> {
    let prompt = template.render(&[Message::text(Role::User, "Why?")], Thinking::Off, &Map::new()).ok()?;
    let (_, after) = prompt.rsplit_once(closer)?;
    after.trim().is_empty().then(|| after.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Writes a conversation as the templates of most families do. `THOUGHT` is what they make of a thought, and
    /// `PROMPT` the beginning of an answer.
    const TURNS: &str = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}THOUGHT{% endif %}{{ m.content }}\n\
        {% endfor %}{% if add_generation_prompt %}<|assistant|>PROMPT{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::compile(source, String::new(), String::new(), "model.gguf".into()).unwrap()
    }

    fn turns(thought: &str, prompt: &str) -> String {
        TURNS.replace("THOUGHT", thought).replace("PROMPT", prompt)
    }

    fn special(token: Token, text: &str, is_control: bool) -> SpecialToken {
        SpecialToken { token, text: text.to_owned(), is_control }
    }

    fn delimiters(source: &str) -> Option<Delimiters> {
        Thoughts::of(&template(source), source, &[]).delimiters
    }

    /// The three parts of the delimiters of a template, and its prompts with each of `Auto`, `On` and `Off`.
    fn found(source: &str) -> ([String; 3], [String; 3]) {
        let Delimiters { opener, closer, end } = delimiters(source).expect("it thinks");
        let template = template(source);
        let prompts = [Thinking::Auto, Thinking::On, Thinking::Off].map(|thinking| {
            let prompt = template.render(&[Message::text(Role::User, "Why?")], thinking, &Map::new()).unwrap();
            prompt.strip_prefix("<|user|>Why?\n<|assistant|>").unwrap().to_owned()
        });
        ([opener, closer, end], prompts)
    }

    #[test]
    fn qwens_template_opens_the_thought_itself() {
        let source = turns(
            "{% if m.reasoning_content is string %}{{ '<think>\\n' + m.reasoning_content|trim + '\\n</think>\\n\\n' }}{% endif %}",
            "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% else %}\
             {{ '<think>\\n' }}{% endif %}",
        );
        let closed = "<think>\n\n</think>\n\n";
        assert_eq!(
            found(&source),
            (
                ["<think>", "</think>", "\n</think>\n\n"].map(Into::into),
                ["<think>\n", "<think>\n", closed].map(Into::into)
            )
        );
        let found = delimiters(&source).unwrap();
        assert!(found.opened_by("…<think>\n") && found.opened_by("<think></think><think>"));
        assert!(!found.opened_by(closed) && !found.opened_by("<think>\nWell") && !found.opened_by(""));
    }

    #[test]
    fn glms_template_writes_no_line_after_a_thought() {
        let source = turns(
            "{% if m.reasoning_content %}{{ '\\n<think>' + m.reasoning_content.strip() + '</think>' }}{% endif %}{{ '\\n' }}",
            "{{ '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}",
        );
        let (parts, prompts) = found(&source);
        assert_eq!(parts, ["<think>", "</think>", "</think>\n"]);
        assert_eq!(prompts, ["", "", "\n<think></think>"]);
    }

    #[test]
    fn gemmas_channels_are_named_in_another_place() {
        // It writes thoughts of earlier turns only where a tool is called.
        let source = turns(
            "{% set thought = m.get('reasoning') or m.get('reasoning_content') %}{% if thought and m.get('tool_calls') %}\
             {{ '<|channel>thought\\n' + thought + '\\n<channel|>' }}{% endif %}",
            "{% if not enable_thinking | default(false) %}{{ '<|channel>thought\\n<channel|>' }}{% endif %}",
        );
        let (parts, prompts) = found(&source);
        assert_eq!(parts, ["<|channel>thought", "<channel|>", "\n<channel|>"]);
        assert_eq!(prompts, ["<|channel>thought\n<channel|>", "", "<|channel>thought\n<channel|>"]);
        // The names are control tokens, which are not shown; others with their own text are.
        let tokens = [
            special(3, "<|channel>", true),
            special(4, "<channel|>", true),
            special(5, "<turn|>", true),
            special(6, "thought", false),
        ];
        let thoughts = Thoughts::of(&template(&source), &source, &tokens);
        let unshown: HashMap<Token, String> = [(3, "<|channel>".into()), (4, "<channel|>".into())].into();
        assert_eq!(thoughts.unshown, unshown);
    }

    #[test]
    fn other_families_have_other_names() {
        let history = |thought: &str| turns(thought, "");
        let kimi = history("{% if m.thinking %}◁think▷{{ m.thinking }}◁/think▷{% endif %}");
        assert_eq!(found(&kimi).0, ["◁think▷", "◁/think▷", "◁/think▷"]);
        let seed = history("{% if m.reasoning_content %}<seed:think>{{ m.reasoning_content }}</seed:think>{% endif %}");
        assert_eq!(found(&seed).0, ["<seed:think>", "</seed:think>", "</seed:think>"]);
        // These say the end only in a list that a message does not have.
        let mistral = history("{% if m.blocks %}[THINK]{{ m.blocks }}[/THINK]{% endif %}");
        assert_eq!(found(&mistral).0, ["[THINK]", "[/THINK]", "[/THINK]"]);
        // SmolLM3 closes the thought in the prompt only, with one line after it.
        let smol = turns("", "{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}");
        assert_eq!(found(&smol).0, ["<think>", "</think>", "\n</think>\n"]);
        let nemotron = turns(
            "{% if m.reasoning_content %}{{ '<think>\\n' ~ m.reasoning_content ~ '\\n</think>\\n' }}{% endif %}",
            "{% if enable_thinking %}{{ '<think>\\n' }}{% else %}<think></think>{% endif %}",
        );
        assert_eq!(found(&nemotron).0, ["<think>", "</think>", "\n</think>\n"]);
    }

    #[test]
    fn a_vocabulary_has_the_names_if_the_template_does_not() {
        let source = turns("", "");
        assert_eq!(delimiters(&source), None);
        let of = |tokens: &[SpecialToken]| Thoughts::of(&template(&source), &source, tokens).delimiters;
        assert_eq!(of(&[special(1, "<think>", false)]), None);
        let both = of(&[special(1, "<think>", false), special(2, "</think>", false)]).unwrap();
        assert_eq!((both.opener.as_str(), both.end.as_str()), ("<think>", "\n</think>\n\n"));
        let kimi = of(&[special(1, "◁think▷", true), special(2, "◁/think▷", true)]).unwrap();
        assert_eq!(kimi.end, "◁/think▷");
    }

    #[test]
    fn boxes_around_answers_are_not_shown() {
        let source = turns("", "");
        let tokens =
            [special(7, "<|begin_of_box|>", false), special(8, "<|end_of_box|>", false), special(9, "<answer>", false)];
        let thoughts = Thoughts::of(&template(&source), &source, &tokens);
        assert_eq!(thoughts.unshown, [(7, String::new()), (8, String::new())].into());
    }

    #[test]
    fn a_template_reads_what_it_is_told() {
        let source = "{{ reasoning_effort }} {{ enable_thinking }} {{ thinking_budget }} {{ nested.list[1].a }} {{ ratio }} \
                      {{ messages|length }}";
        let kwargs: Map<String, Value> = serde_json::from_value(
            json!({ "reasoning_effort": "low", "nested": { "list": [0, { "a": null }] }, "ratio": 0.5 }),
        )
        .unwrap();
        let messages = [Message::text(Role::User, "Why?")];
        let told =
            |thinking, kwargs: &Map<String, Value>| template(source).render(&messages, thinking, kwargs).unwrap();
        assert_eq!(told(Thinking::Budget(40), &kwargs), "low True 40 None 0.5 1");
        assert_eq!(told(Thinking::Off, &kwargs), "low False 0 None 0.5 1");
        let contrary = Map::from_iter([
            ("enable_thinking".to_owned(), json!("maybe")),
            ("nested".to_owned(), json!({ "list": [1, 2] })),
        ]);
        assert_eq!(told(Thinking::On, &contrary), " maybe    1");
    }

    #[test]
    fn a_template_that_fails_for_what_it_is_told_says_so() {
        let messages = [Message::text(Role::User, "Why?")];
        let error = |source: &str, thinking, kwargs: &Map<String, Value>| {
            template(source).render(&messages, thinking, kwargs).unwrap_err().to_string()
        };
        let never =
            "{{ messages[0].content }}\n{% if enable_thinking %}{{ raise_exception('no thoughts here') }}{% endif %}";
        let told = error(never, Thinking::On, &Map::new());
        for part in [
            "model.gguf",
            "enable_thinking = true",
            "no thoughts here (line 2)",
            "turn thinking off, or use another template",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let always = "{% if enable_thinking is defined %}{{ raise_exception('it always thinks') }}{% endif %}";
        assert!(error(always, Thinking::Off, &Map::new()).contains("leave thinking to the model"));
        let effort = "{% if effort is defined %}{{ effort.strip() }}{% endif %}";
        let kwargs = Map::from_iter([("effort".to_owned(), json!(3))]);
        let told = error(effort, Thinking::Auto, &kwargs);
        assert!(told.contains("effort = 3") && told.contains("tell it something else"), "{told}");
        // A template that fails anyway does not fail for that.
        let broken = "{{ raise_exception('never') }}";
        assert!(error(broken, Thinking::On, &Map::new()).contains("cannot render this conversation: never"));
    }

    #[test]
    fn a_thought_of_an_earlier_turn_has_all_its_names() {
        let source = "{% for m in messages %}[{{ m.reasoning_content }}|{{ m.reasoning }}|{{ m.thinking }}|\
            {{ 'thinking' in m }}|{{ m.reasoning is defined }}]{% endfor %}";
        let thought = Message { reasoning: Some("Hm".into()), ..Message::text(Role::Assistant, "Yes") };
        let messages = [Message::text(Role::User, "Why?"), thought];
        let text = template(source).render(&messages, Thinking::Auto, &Map::new()).unwrap();
        assert_eq!(text, "[|||False|False][Hm|Hm|Hm|True|True]");
    }
}
