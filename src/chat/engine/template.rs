//! The chat template of the model (Jinja), rendered as Hugging Face's `apply_chat_template` does.

use super::guard::Guard;
use super::jinja;
use super::thinking::Thinking;
use super::thoughts::Thoughts;
use crate::chat::conversation::message::{Media, Message, Role};
use crate::error::{Error, Fix, Result};
use crate::runtime::Model;
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json};
use std::path::PathBuf;

/// The form in which a template expects the content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A string.
    Text,
    /// A list of typed parts; all are text.
    TextParts,
    /// A list of typed parts, including videos and images, for which the template writes placeholders.
    Parts(Placeholders),
}

/// The text that a template writes for a video and for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placeholders {
    video: Option<&'static str>,
    image: Option<&'static str>,
}

impl Placeholders {
    /// The placeholders of all families. A placeholder that contains another comes before it.
    pub(super) const VIDEO: &[&str] = &["<|vision_start|><|video_pad|><|vision_end|>", "<video>"];
    pub(super) const IMAGE: &[&str] =
        &["<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>", "<IMG_CONTEXT>", "<image>"];

    fn of(self, media: &Media) -> Option<&'static str> {
        if media.is_image { self.image } else { self.video }
    }

    fn all(self) -> impl Iterator<Item = &'static str> {
        [self.video, self.image].into_iter().flatten()
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub(in crate::chat) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    content: Content,
    guard: Guard,
    thoughts: Thoughts,
    model: PathBuf,
}

const NAME: &str = "chat";

/// The maximum number of steps of a template: enough for hundreds per message in thousands of messages. A template
/// comes from an untrusted file and may loop forever.
const MAX_STEPS: u64 = if cfg!(fuzzing) { 200_000 } else { 20_000_000 };

/// The maximum number of bytes that a template may write: more than any model can read.
const MAX_BYTES: usize = 64 << 20;

/// The output of a template, limited to [`MAX_BYTES`].
#[derive(Default)]
struct Prompt(Vec<u8>);

impl std::io::Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ChatTemplate {
    /// Compiles `source`, or the template of `model` if `source` is `None`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the model has no template, or the template does not compile.
    pub fn new(model: &Model, source: Option<&str>) -> Result<Self> {
        let failed = |reason: String| Error::ChatTemplate { model: model.path().to_owned(), reason };
        let source = match source {
            Some(source) => source.to_owned(),
            None => model
                .chat_template()
                .ok_or_else(|| failed("the model has none, so it is not a chat model; pass a template".into()))?,
        };
        let (bos, eos) = model.bos_eos();
        let text = |token: Option<_>| {
            token.map_or(String::new(), |t| String::from_utf8_lossy(&model.token_bytes(t, true)).into_owned())
        };
        let template = Self::compile(&source, text(bos), text(eos), model.path().to_owned()).map_err(failed)?;
        let tokens = model.special_tokens();
        let thoughts = Thoughts::of(&template, &source, &tokens);
        Ok(Self { guard: Guard::new(&tokens, &source), thoughts, ..template })
    }

    pub(super) fn compile(source: &str, bos: String, eos: String, model: PathBuf) -> Result<Self, String> {
        let mut environment = jinja::environment().map_err(|e| describe(&e))?;
        environment.set_fuel(Some(MAX_STEPS));
        environment
            .add_template_owned(NAME, jinja::prepared(source))
            .map_err(|e| format!("it does not compile: {}", describe(&e)))?;
        let (guard, thoughts) = (Guard::default(), Thoughts::default());
        let mut template = Self { environment, bos, eos, content: Content::Text, guard, thoughts, model };
        template.content = template.find_content();
        Ok(template)
    }

    /// Finds the form of content by rendering a probe: some templates loop over parts and print nothing of a plain
    /// string, and some write a placeholder for a video.
    fn find_content(&self) -> Content {
        const PROBE: &str = "a probe that no template holds";
        let probe = Message::text(Role::User, PROBE);
        let shown = |content| {
            let text = self.render_as(std::slice::from_ref(&probe), true, content, &context! {}).ok()?;
            text.contains(PROBE).then_some(text)
        };
        let (plain, parts) = (shown(Content::Text), shown(Content::TextParts));
        let placeholder = |is_image, known: &[&'static str]| {
            let text = self.render_values(&[typed(&probe, &[is_image])], true, &context! {}).ok()?;
            let without = parts.as_deref()?;
            // The placeholder must appear once, and before the text.
            let stands = |name: &&&str| {
                let before = text.split(PROBE).next().unwrap_or_default();
                before.matches(**name).count() == 1 && !without.contains(**name)
            };
            known.iter().find(stands).copied()
        };
        let placeholders = Placeholders {
            video: placeholder(false, Placeholders::VIDEO),
            image: placeholder(true, Placeholders::IMAGE),
        };
        match (plain, &parts) {
            (_, Some(_)) if placeholders.all().next().is_some() => Content::Parts(placeholders),
            (None, Some(_)) => Content::TextParts,
            _ => Content::Text,
        }
    }

    /// `messages` with `mark` inside each name of a token that only the template may write.
    pub fn guarded(&self, mut messages: Vec<Message>, mark: &str) -> Vec<Message> {
        for message in &mut messages {
            message.content = self.guard.cut(&message.content, message.role, mark);
            message.reasoning = message.reasoning.take().map(|thought| self.guard.cut(&thought, message.role, mark));
        }
        messages
    }

    /// `kwargs` with `mark` inside each name of a token that only the template may write, as in a message of the user.
    pub fn guarded_kwargs(&self, kwargs: &Map<String, Json>, mark: &str) -> Map<String, Json> {
        let cut = |text: &str| self.guard.cut(text, Role::User, mark);
        kwargs.iter().map(|(name, value)| (cut(name), self.guarded_value(value, mark))).collect()
    }

    fn guarded_value(&self, value: &Json, mark: &str) -> Json {
        match value {
            Json::String(text) => self.guard.cut(text, Role::User, mark).into(),
            Json::Array(values) => values.iter().map(|value| self.guarded_value(value, mark)).collect(),
            Json::Object(object) => self.guarded_kwargs(object, mark).into(),
            Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
        }
    }

    /// Renders `messages` to the prompt, which ends where the answer begins, or in the thought before it. The template
    /// is told of `thinking`, and what `kwargs` say by their names.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if rendering fails, with the template's own message if it raises an exception;
    /// [`Error::ChatTemplateKwargs`] if it fails only because of what it is told.
    pub fn render(&self, messages: &[Message], thinking: Thinking, kwargs: &Map<String, Json>) -> Result<String> {
        let render = |thinking: Thinking, kwargs| {
            let told = thinking.kwargs(kwargs);
            self.render_as(messages, true, self.content, &template_values(&told)).map_err(|e| (describe(&e), told))
        };
        let (reason, told) = match render(thinking, kwargs) {
            Ok(prompt) => return Ok(prompt),
            Err(failed) => failed,
        };
        let (model, nothing) = (self.model.clone(), Map::new());
        if told.is_empty() || render(Thinking::Auto, &nothing).is_err() {
            return Err(Error::ChatTemplate { model, reason: format!("it cannot render this conversation: {reason}") });
        }
        let others = [(Thinking::Off, Fix::NoThinking), (Thinking::Auto, Fix::DefaultThinking)];
        let works = |other: &(Thinking, Fix)| other.0 != thinking && render(other.0, kwargs).is_ok();
        let fixes: Vec<Fix> = others.into_iter().find(works).map(|(_, fix)| fix).into_iter().collect();
        let fixes = if fixes.is_empty() { vec![Fix::OtherKwargs] } else { fixes };
        let told = told.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ");
        let fixes = fixes.into_iter().chain([Fix::OtherTemplate]).collect();
        Err(Error::ChatTemplateKwargs { model, told, reason, fixes })
    }

    /// As [`render`](Self::render), without the beginning of an answer after `messages`.
    pub fn render_history(
        &self,
        messages: &[Message],
        thinking: Thinking,
        kwargs: &Map<String, Json>,
    ) -> Result<String, minijinja::Error> {
        self.render_as(messages, false, self.content, &template_values(&thinking.kwargs(kwargs)))
    }

    /// How the model marks its thoughts.
    pub fn thoughts(&self) -> &Thoughts {
        &self.thoughts
    }

    fn render_as(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        content: Content,
        kwargs: &Value,
    ) -> Result<String, minijinja::Error> {
        if let Content::Parts(placeholders) = content
            && let Some(text) = self.render_with_media(messages, add_generation_prompt, placeholders, kwargs)?
        {
            return Ok(text);
        }
        let as_parts = content != Content::Text;
        let value = |message: &Message| {
            let text = message.joined();
            let content = if as_parts { Value::from(vec![text_part(&text)]) } else { Value::from(text) };
            value_of(message, content)
        };
        self.render_values(&messages.iter().map(value).collect::<Vec<_>>(), add_generation_prompt, kwargs)
    }

    /// Renders videos and images where the template puts its placeholders. `None` if the template has no placeholder
    /// for one of them, or a message itself contains a placeholder.
    fn render_with_media(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        placeholders: Placeholders,
        kwargs: &Value,
    ) -> Result<Option<String>, minijinja::Error> {
        let said = |name: &str| {
            messages.iter().any(|m| {
                let texts = [Some(&m.content), m.reasoning.as_ref()].into_iter().flatten();
                texts.chain(m.media.iter().map(|media| &media.text)).any(|text| text.contains(name))
            })
        };
        let media: Vec<&Media> = messages.iter().flat_map(|message| &message.media).collect();
        if media.iter().any(|media| placeholders.of(media).is_none()) || placeholders.all().any(said) {
            return Ok(None);
        }
        let value = |message: &Message| {
            let kinds: Vec<bool> = message.media.iter().map(|media| media.is_image).collect();
            typed(message, &kinds)
        };
        let values: Vec<Value> = messages.iter().map(value).collect();
        let text = self.render_values(&values, add_generation_prompt, kwargs)?;
        let mut result = String::with_capacity(text.len());
        let mut rest = text.as_str();
        for media in media {
            let Some((before, after)) = placeholders.of(media).and_then(|name| rest.split_once(name)) else {
                return Ok(None);
            };
            result += before;
            result += &media.text;
            rest = after;
        }
        result += rest;
        Ok(Some(result).filter(|_| placeholders.all().all(|name| !rest.contains(name))))
    }

    fn render_values(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
        kwargs: &Value,
    ) -> Result<String, minijinja::Error> {
        let mut prompt = Prompt::default();
        let values = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            ..kwargs.clone()
        };
        self.environment.get_template(NAME)?.render_captured_to(values, &mut prompt)?;
        String::from_utf8(prompt.0).map_err(|e| minijinja::Error::new(ErrorKind::WriteFailure, e.to_string()))
    }

    /// The text of the BOS token. A template may write it itself.
    pub fn bos(&self) -> &str {
        &self.bos
    }
}

/// See [`crate::fuzzing`].
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) fn fuzz_template(source: &str) {
    let compiled = ChatTemplate::compile(source, "<s>".into(), "</s>".into(), "fuzz.gguf".into());
    if let Ok(template) = compiled {
        let media = vec![Media { text: "<v>".into(), separator: "\n".into(), is_image: false }];
        let question = Message { media, ..Message::text(Role::User, "What?") };
        let _ = template.render(&[Message::text(Role::System, "Be brief."), question], Thinking::Off, &Map::new());
    }
}

fn text_part(text: &str) -> Value {
    context! { type => "text", text => text }
}

/// A message whose content is a list: a part for each image (`true`) or video (`false`), then the text.
fn typed(message: &Message, are_images: &[bool]) -> Value {
    let media = are_images.iter().map(|&is_image| context! { type => if is_image { "image" } else { "video" } });
    let content: Vec<Value> = media.chain([text_part(&message.content)]).collect();
    value_of(message, Value::from(content))
}

/// A message with this `content`. Families' templates read the thought before an answer by different names. They ask
/// whether a name is defined, so a message without a thought has none of them.
fn value_of(message: &Message, content: Value) -> Value {
    let message_of = context! { role => message.role.name(), content => content };
    match &message.reasoning {
        None => message_of,
        Some(thought) => {
            context! { reasoning_content => thought, reasoning => thought, thinking => thought, ..message_of }
        }
    }
}

/// A JSON object as a template reads it.
fn template_values(object: &Map<String, Json>) -> Value {
    Value::from_pairs(object.iter().map(|(name, json)| (name.as_str(), jinja::value(json))))
}

/// The error and its line, without the source excerpt of minijinja's long form.
fn describe(error: &minijinja::Error) -> String {
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it does not finish within {MAX_STEPS} steps"),
        ErrorKind::WriteFailure => format!("it writes more than {} MB", MAX_BYTES >> 20),
        kind => error.detail().map_or_else(|| kind.to_string(), ToOwned::to_owned),
    };
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

    impl ChatTemplate {
        fn plain(&self, messages: &[Message]) -> Result<String> {
            self.render(messages, Thinking::Auto, &Map::new())
        }
    }

    fn message(role: Role, content: &str) -> Message {
        Message::text(role, content)
    }

    const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn chatml_renders_as_hugging_face_does() {
        let messages = [message(Role::System, "Be brief."), message(Role::User, "Hi")];
        assert_eq!(
            template(CHATML).plain(&messages).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_that_loops_over_parts_gets_parts() {
        let source = "{% for m in messages %}{% for part in m.content %}{% if part['type'] == 'text' %}[{{ part.text }}]\
            {% endif %}{% endfor %}{% endfor %}";
        assert_eq!(template(source).plain(&[message(Role::User, "Hi")]).unwrap(), "[Hi]");
    }

    #[test]
    fn python_methods_and_bos_work() {
        let source = "{{ bos_token }}{{ messages[0]['content'].strip().split(' ')[-1].upper() }}";
        assert_eq!(template(source).plain(&[message(Role::User, " to me ")]).unwrap(), "<s>ME");
    }

    #[test]
    fn blocks_take_their_line_with_them() {
        let source = "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(template(source).plain(&[message(Role::User, "x")]).unwrap(), "x\n");
    }

    #[test]
    fn generation_tags_print_nothing() {
        let source = "a {%- generation -%} b {% endgeneration %}c";
        assert_eq!(template(source).plain(&[]).unwrap(), "ab c");
    }

    #[test]
    fn half_a_tag_is_none() {
        for source in ["{%}", "{%%}", "a {%", "{%}%}"] {
            let _ = ChatTemplate::compile(source, String::new(), String::new(), "model.gguf".into());
        }
    }

    #[test]
    fn an_exception_of_the_template_is_the_reason() {
        let error = template("{{ raise_exception('roles must alternate') }}").plain(&[]).unwrap_err().to_string();
        assert!(error.contains("roles must alternate") && error.contains("model.gguf"), "{error}");
    }

    #[test]
    fn a_bad_template_is_an_error_with_its_line() {
        let result = ChatTemplate::compile("\n{% if %}", String::new(), String::new(), "model.gguf".into());
        assert!(result.unwrap_err().contains("line 2"));
    }

    /// A template comes from an untrusted file.
    #[test]
    fn a_template_that_does_not_end_is_an_error() {
        let nested = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
        let recursive = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
        let long = "{% for i in range(90000) %}{{ 'x' * 1000000 }}{% endfor %}";
        let recursive_loop = "{% for x in [[[[]]]] recursive %}{{ loop([x, x]) }}{{ loop([x, x]) }}{% endfor %}";
        for source in [nested, recursive, long, recursive_loop] {
            let begin = std::time::Instant::now();
            let error = template(source).plain(&[message(Role::User, "x")]).unwrap_err().to_string();
            assert!(error.contains("cannot render"), "{error}");
            assert!(begin.elapsed().as_secs() < 30, "{source}: {:?}", begin.elapsed());
        }
        for source in ["(".repeat(100_000), "{% if x %}".repeat(100_000), "[".repeat(100_000)] {
            let source = format!("{{{{ {source}");
            assert!(ChatTemplate::compile(&source, String::new(), String::new(), "model.gguf".into()).is_err());
        }
    }

    #[test]
    fn a_long_conversation_is_no_endless_one() {
        let messages: Vec<_> =
            (0..20_000).map(|i| message(Role::User, &format!("{i} {}", "word ".repeat(40)))).collect();
        let text = template(CHATML).plain(&messages).unwrap();
        assert!(text.len() > 4_000_000 && text.contains("19999 word"));
    }

    #[test]
    fn a_bad_date_format_is_an_error() {
        assert!(template("{{ strftime_now('%Q') }}").plain(&[]).is_err());
        assert!(template("{{ strftime_now('%Y') }}").plain(&[]).unwrap().parse::<u32>().unwrap() >= 2025);
    }

    const WITH_VIDEOS: &str = "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part.type == 'video' %}<video>\
        {% endif %}{% endfor %}{% for part in m.content %}{% if part.type == 'text' %}{{ '\n' + part.text }}{% endif %}{% endfor %};{% endfor %}";

    fn video(text: &str) -> Media {
        Media { text: text.into(), separator: "|".into(), is_image: false }
    }

    #[test]
    fn a_video_goes_where_the_template_puts_it() {
        let first = Message { media: vec![video("[a]"), video("[b]")], ..message(Role::User, "Why?") };
        let second = Message { media: vec![video("[c]")], ..message(Role::User, "And?") };
        let messages = [first, message(Role::Assistant, "So."), second];
        assert_eq!(
            template(WITH_VIDEOS).plain(&messages).unwrap(),
            "user:[a][b]\nWhy?;assistant:\nSo.;user:[c]\nAnd?;"
        );
        assert_eq!(template("{{ messages[0].content }}").plain(&messages).unwrap(), "[a]|[b]|Why?");
    }

    #[test]
    fn what_a_user_writes_is_no_place_for_a_video() {
        let message = Message { media: vec![video("[a]")], ..message(Role::User, "Is <video> a tag?") };
        assert_eq!(template(WITH_VIDEOS).plain(&[message]).unwrap(), "user:\n[a]|Is <video> a tag?;");
    }

    #[test]
    fn an_image_is_text_where_the_template_knows_only_videos() {
        let image = Media { is_image: true, ..video("[a]") };
        let message = Message { media: vec![image], ..message(Role::User, "Why?") };
        assert_eq!(template(WITH_VIDEOS).plain(&[message]).unwrap(), "user:\n[a]|Why?;");
    }
}
