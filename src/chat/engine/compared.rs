//! Templates and constructs of Jinja, compared to the character with what Hugging Face's `transformers` makes of them
//! (`tests/data/templates`).

use super::Thinking;
use super::jinja;
use super::template::{ChatTemplate, Placeholders};
use super::thoughts::Thoughts;
use crate::chat::conversation::message::{Media, Message};
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BOS: &str = "<s>";
const EOS: &str = "</s>";

type Kwargs = Map<String, Json>;

/// What became of a template, in `transformers` or here.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Made {
    Text(String),
    Error(String),
}

impl Made {
    fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            // Each has its own words.
            (Self::Error(_), Self::Error(_)) => true,
            _ => false,
        }
    }
}

/// What `transformers` makes of a conversation, for each of several ways to render it.
#[derive(Debug, Deserialize)]
struct Case {
    conversation: String,
    /// The form of content (`text` or `parts`), what the template is told of thinking, and what else it is told.
    of: Vec<String>,
    #[serde(flatten)]
    made: Made,
}

#[derive(Debug, Deserialize)]
struct Cases {
    /// The template; without it, it is the file beside this one.
    source: Option<String>,
    cases: Vec<Case>,
}

/// What is different here.
#[derive(Debug, Serialize)]
struct Difference {
    conversation: String,
    of: String,
    transformers: Vec<Made>,
    here: Made,
}

/// A comparison of one template.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// How often the template itself was compared, with the values that `transformers` had.
    template: usize,
    template_differs: Vec<Difference>,
    /// How often conversations of a session were compared.
    session: usize,
    session_differs: Vec<Difference>,
    /// How many conversations with videos and images were rendered by a template that has no known place for them, so
    /// that a session writes them before the text.
    without_place: usize,
    thoughts: Option<Marks>,
}

/// How the model marks its thoughts, as far as the template says so.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marks {
    /// The text between a thought and the answer.
    end: String,
    /// Whether a prompt ends in a thought that has begun: by default, with thinking on, and with it off.
    opened: [bool; 3],
}

fn marks(template: &ChatTemplate, source: &str, question: &[Message]) -> Option<Marks> {
    let delimiters = Thoughts::of(template, source, &[]).delimiters?;
    let opened = [Thinking::Auto, Thinking::On, Thinking::Off].map(|thinking| {
        template.render(question, thinking, &Kwargs::new()).is_ok_and(|prompt| delimiters.opened_by(&prompt))
    });
    Some(Marks { end: delimiters.end, opened })
}

/// The argument of one way to render: its form, thinking and kwargs.
fn told(of: &str) -> (&str, &str, Kwargs) {
    let mut parts = of.splitn(3, ' ');
    let (form, thinking) = (parts.next().unwrap(), parts.next().unwrap());
    (form, thinking, parts.next().map_or_else(Kwargs::new, |kwargs| serde_json::from_str(kwargs).unwrap()))
}

/// The messages of a conversation in which each content is a text.
fn plain(messages: &[Json]) -> Vec<Json> {
    let text = |message: &Json| {
        let mut message = message.clone();
        message["content"] = message["content"][0]["text"].take();
        message
    };
    messages.iter().map(text).collect()
}

/// What the template makes of the values that `transformers` had.
fn rendered(source: &str, messages: &[Json], kwargs: &Kwargs) -> Made {
    let render = || -> Result<String, minijinja::Error> {
        let mut environment = jinja::environment()?;
        environment.add_template_owned("chat", jinja::prepared(source))?;
        let values = context! {
            messages => messages.iter().map(jinja::value).collect::<Value>(),
            add_generation_prompt => true,
            bos_token => BOS,
            eos_token => EOS,
            ..jinja::value(&kwargs.clone().into())
        };
        environment.get_template("chat")?.render(values)
    };
    render().map_or_else(|e| Made::Error(e.to_string()), Made::Text)
}

/// What stands for a video or an image in a session's prompt, and what follows it if the template has no place for it.
const MARK: &str = "[mark]";
const SEPARATOR: &str = "[separator]";

fn message(json: &Json) -> Message {
    let kinds = json["content"].as_array().unwrap();
    let media = |part: &Json| Media {
        text: format!("{MARK}{}", part["type"].as_str().unwrap()),
        separator: SEPARATOR.into(),
        is_image: part["type"] == "image",
    };
    Message {
        role: serde_json::from_value(json["role"].clone()).unwrap(),
        media: kinds[..kinds.len() - 1].iter().map(media).collect(),
        content: kinds.last().unwrap()["text"].as_str().unwrap().to_owned(),
        reasoning: json["reasoning_content"].as_str().map(ToOwned::to_owned),
    }
}

/// `text` with each pair of the template's placeholders that are known, where marks stand.
fn with_placeholders(text: &str) -> Vec<Made> {
    let pairs =
        Placeholders::VIDEO.iter().flat_map(|video| Placeholders::IMAGE.iter().map(move |image| (video, image)));
    let replaced = pairs
        .map(|(video, image)| text.replace(&format!("{MARK}video"), video).replace(&format!("{MARK}image"), image));
    replaced.map(Made::Text).collect()
}

fn conversations() -> BTreeMap<String, Vec<Json>> {
    serde_json::from_slice(&std::fs::read(folder().join("conversations.json")).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates")
}

fn compare(source: &str, cases: &[Case], conversations: &BTreeMap<String, Vec<Json>>) -> Report {
    let mut report = Report::default();
    // What transformers makes of a conversation in each form.
    let mut by_session: BTreeMap<(&str, &str, String), Vec<Made>> = BTreeMap::new();
    for (case, of) in cases.iter().flat_map(|case| case.of.iter().map(move |of| (case, of))) {
        let (form, thinking, extra) = told(of);
        let kwargs = thinking.parse::<Thinking>().unwrap().kwargs(&extra);
        let messages = &conversations[&case.conversation];
        let here = rendered(source, &if form == "text" { plain(messages) } else { messages.clone() }, &kwargs);
        report.template += 1;
        if !here.is_as(&case.made) {
            let (conversation, of) = (case.conversation.clone(), of.clone());
            let transformers = vec![case.made.clone()];
            report.template_differs.push(Difference { conversation, of, transformers, here });
        }
        let key = (case.conversation.as_str(), thinking, Json::from(extra).to_string());
        by_session.entry(key).or_default().push(case.made.clone());
    }
    let compiled = ChatTemplate::compile(source, BOS.into(), EOS.into(), "model.gguf".into());
    let question: Vec<Message> = conversations["question"].iter().map(message).collect();
    report.thoughts = compiled.as_ref().ok().and_then(|template| marks(template, source, &question));
    for ((conversation, thinking, extra), mut transformers) in by_session {
        let (thinking, extra): (Thinking, Kwargs) = (thinking.parse().unwrap(), serde_json::from_str(&extra).unwrap());
        let messages: Vec<Message> = conversations[conversation].iter().map(message).collect();
        let made = compiled.as_ref().map_err(ToString::to_string);
        let made = made.and_then(|template| template.render(&messages, thinking, &extra).map_err(|e| e.to_string()));
        let here = made.map_or_else(Made::Error, Made::Text);
        let candidates = match &here {
            Made::Text(text) if text.contains(SEPARATOR) => {
                report.without_place += 1;
                continue;
            }
            Made::Text(text) if text.contains(MARK) => with_placeholders(text),
            other => vec![other.clone()],
        };
        report.session += 1;
        // If a template writes a list as it writes any value, only a text is a question.
        let has_text = transformers.iter().any(|made| matches!(made, Made::Text(_)));
        transformers.retain(|made| !has_text || matches!(made, Made::Text(_)));
        if !transformers.iter().any(|theirs| candidates.iter().any(|ours| ours.is_as(theirs))) {
            let of = format!("{thinking} {}", Json::from(extra));
            report.session_differs.push(Difference { conversation: conversation.into(), of, transformers, here });
        }
    }
    report
}

#[test]
fn templates_of_families_render_as_transformers_renders_them() {
    let conversations = conversations();
    let mut thoughts: BTreeMap<String, Option<Marks>> =
        serde_json::from_slice(&std::fs::read(folder().join("thoughts.json")).unwrap()).unwrap();
    let mut without_place = Vec::new();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "jinja")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let cases: Cases = serde_json::from_slice(&std::fs::read(path.with_file_name(format!("{name}.json"))).unwrap())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let report = compare(&std::fs::read_to_string(path).unwrap(), &cases.cases, &conversations);
        let differs: Vec<_> = report.template_differs.iter().chain(&report.session_differs).collect();
        assert!(differs.is_empty(), "{name}: {differs:#?}");
        assert!(report.template > 50 && report.session > 20, "{name}: {report:?}");
        let expected = thoughts.remove(&name).unwrap_or_else(|| panic!("{name} is not in thoughts.json"));
        assert_eq!(report.thoughts, expected, "{name}");
        if report.without_place > 0 {
            without_place.push(name);
        }
    }
    assert!(thoughts.is_empty(), "{:?}", thoughts.keys());
    // These have no placeholder for a video or for an image, or one that is not known here.
    let expected = [
        "deepseek",
        "gemma3",
        "gemma4",
        "glm4.1v",
        "glm4.5v",
        "gpt-oss",
        "kimi-vl",
        "lfm2.5-vl",
        "minicpm-v4.6",
        "mistral",
        "smollm3",
    ];
    assert_eq!(without_place, expected);
}

#[test]
fn constructs_are_read_as_jinja2_reads_them() {
    #[derive(Deserialize)]
    struct Constructs {
        values: Kwargs,
        constructs: Vec<Construct>,
    }
    #[derive(Deserialize)]
    struct Construct {
        source: String,
        #[serde(flatten)]
        made: Made,
    }
    let Constructs { mut values, constructs } =
        serde_json::from_slice(&std::fs::read(folder().join("constructs.json")).unwrap()).unwrap();
    let messages = values.remove("messages").unwrap();
    for Construct { source, made } in &constructs {
        let here = rendered(source, messages.as_array().unwrap(), &values);
        assert!(here.is_as(made), "{source}\ntransformers: {made:?}\nhere: {here:?}");
    }
    assert!(constructs.len() > 200);
}

/// Compares templates that are not committed: those in the folder that `tests/data/templates/real.py` writes.
#[test]
fn real_templates() {
    let Some(folder) = std::env::var_os("SHARPV_TEST_TEMPLATES") else { return };
    let conversations = conversations();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let cases: Cases = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let report = compare(cases.source.as_deref().unwrap(), &cases.cases, &conversations);
            std::fs::write(path.with_extension("report"), serde_json::to_string_pretty(&report).unwrap()).unwrap();
        }
    }
}
