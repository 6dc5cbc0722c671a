//! The model's own chat template (Jinja), rendered as Hugging Face's `apply_chat_template` does.

use crate::error::{Error, Result};
use crate::runtime::Model;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who says a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said. The place of a picture is marked inside the text.
    pub content: String,
}

/// A compiled chat template.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// Whether the template wants a message's content as a list of typed parts rather than as a string.
    content_as_list: bool,
    model: PathBuf,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles `source`, or else the template of `model`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if there is none or it does not compile.
    pub fn new(model: &Model, source: Option<&str>) -> Result<Self> {
        let failed = |reason: String| Error::ChatTemplate { model: model.path().to_owned(), reason };
        let source = match source {
            Some(source) => source.to_owned(),
            None => model.chat_template().ok_or_else(|| {
                failed("the model has none, so it is no chat model; give one with --chat-template-file".into())
            })?,
        };
        let (bos, eos) = model.bos_eos();
        let text = |token: Option<_>| {
            token.map_or(String::new(), |t| String::from_utf8_lossy(&model.token_bytes(t, true)).into_owned())
        };
        Self::compile(&source, text(bos), text(eos), model.path().to_owned()).map_err(failed)
    }

    fn compile(source: &str, bos: String, eos: String, model: PathBuf) -> Result<Self, String> {
        let mut environment = Environment::new();
        // As Hugging Face sets up Jinja, and with the extras that templates count on.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| describe(&e))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| {
            use std::fmt::Write as _;
            let mut text = String::new();
            // An unknown directive is an error of `write!`, not a panic.
            match write!(text, "{}", chrono::Local::now().format(&format)) {
                Ok(()) => Ok(text),
                Err(_) => Err(minijinja::Error::new(ErrorKind::InvalidOperation, "strftime_now: bad format")),
            }
        });
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|e| format!("it does not compile: {}", describe(&e)))?;
        let mut template = Self { environment, bos, eos, content_as_list: false, model };
        template.content_as_list = template.wants_lists();
        Ok(template)
    }

    /// Some templates loop over the parts of a content and print nothing of a plain string: try one.
    fn wants_lists(&self) -> bool {
        const PROBE: &str = "a probe that no template holds";
        let probe = [Message { role: Role::User, content: PROBE.into() }];
        let shown = |as_list| self.render_as(&probe, true, as_list).is_ok_and(|text| text.contains(PROBE));
        !shown(false) && shown(true)
    }

    /// The prompt for `messages`, up to where the model's answer begins.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the template's own message, if it raises one.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        self.render_as(messages, true, self.content_as_list).map_err(|e| Error::ChatTemplate {
            model: self.model.clone(),
            reason: format!("it cannot render this conversation: {}", describe(&e)),
        })
    }

    fn render_as(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        content_as_list: bool,
    ) -> Result<String, minijinja::Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let content = if content_as_list {
                    Value::from(vec![context! { type => "text", text => message.content.as_str() }])
                } else {
                    Value::from(message.content.as_str())
                };
                context! { role => message.role.name(), content => content }
            })
            .collect();
        self.environment.get_template(NAME)?.render(context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        })
    }

    /// The text of the BOS token, which a template may write itself.
    pub fn bos(&self) -> &str {
        &self.bos
    }
}

/// `{% generation %}` marks what to train on; it prints nothing, and Jinja does not know it without Hugging Face's extension.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}").map(|n| n + 2) else { break };
        let tag = &rest[start..start + len];
        let name = tag[2..len - 2].trim_matches(['-', '+']).trim();
        result.push_str(&rest[..start]);
        if matches!(name, "generation" | "endgeneration") {
            // An empty comment keeps the tag's effect on the white space around it.
            let trim = |on: bool| if on { "-" } else { "" };
            result.push_str(&format!("{{#{}{}#}}", trim(tag.starts_with("{%-")), trim(tag.ends_with("-%}"))));
        } else {
            result.push_str(tag);
        }
        rest = &rest[start + len..];
    }
    result + rest
}

/// The error with its line, without the source excerpt that minijinja adds in its long form.
fn describe(error: &minijinja::Error) -> String {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    match error.line() {
        Some(line) => format!("{reason} (line {line})"),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::compile(source, "<s>".into(), "</s>".into(), "model.gguf".into()).unwrap()
    }

    fn message(role: Role, content: &str) -> Message {
        Message { role, content: content.into() }
    }

    const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn chatml_renders_as_hugging_face_does() {
        let messages = [message(Role::System, "Be brief."), message(Role::User, "Hi")];
        assert_eq!(
            template(CHATML).render(&messages).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_that_loops_over_parts_gets_parts() {
        let source = "{% for m in messages %}{% for part in m.content %}{% if part['type'] == 'text' %}[{{ part.text }}]\
            {% endif %}{% endfor %}{% endfor %}";
        assert_eq!(template(source).render(&[message(Role::User, "Hi")]).unwrap(), "[Hi]");
    }

    #[test]
    fn python_methods_and_bos_work() {
        let source = "{{ bos_token }}{{ messages[0]['content'].strip().split(' ')[-1].upper() }}";
        assert_eq!(template(source).render(&[message(Role::User, " to me ")]).unwrap(), "<s>ME");
    }

    #[test]
    fn blocks_take_their_line_with_them() {
        let source = "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(template(source).render(&[message(Role::User, "x")]).unwrap(), "x\n");
    }

    #[test]
    fn generation_tags_print_nothing() {
        let source = "a {%- generation -%} b {% endgeneration %}c";
        assert_eq!(template(source).render(&[]).unwrap(), "ab c");
    }

    #[test]
    fn an_exception_of_the_template_is_the_reason() {
        let error = template("{{ raise_exception('roles must alternate') }}").render(&[]).unwrap_err().to_string();
        assert!(error.contains("roles must alternate") && error.contains("model.gguf"), "{error}");
    }

    #[test]
    fn a_bad_template_is_an_error_with_its_line() {
        let result = ChatTemplate::compile("\n{% if %}", String::new(), String::new(), "model.gguf".into());
        assert!(result.unwrap_err().contains("line 2"));
    }

    #[test]
    fn a_bad_date_format_is_an_error() {
        assert!(template("{{ strftime_now('%Q') }}").render(&[]).is_err());
        assert!(template("{{ strftime_now('%Y') }}").render(&[]).unwrap().parse::<u32>().unwrap() >= 2025);
    }
}
