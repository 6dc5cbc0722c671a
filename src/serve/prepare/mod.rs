//! From a request to a task: the messages, the media on this machine, and parameters within the server's limits.

mod conversation;
mod frames;
mod params;
mod thinking;
mod unsupported;

use super::api::error::ApiError;
use super::api::request::{ChatRequest, Speaker};
use super::cache::VideoKey;
use super::job::{AnswerParams, Media, Task, Turn};
use super::media::{Location, MediaInput, MediaLimits, Sources};
use super::trail::Trail;
use crate::chat::{TurnParams, VideoOptions};
use conversation::{Conversation, Reader};

/// The defaults and limits of the server.
#[derive(Debug)]
pub(super) struct Base {
    pub model_id: String,
    /// For what a request leaves out.
    pub turn: TurnParams,
    pub video: VideoOptions,
    /// The most frames of a video.
    pub max_frames: usize,
}

/// A request that was read. Media that it only names still have to be fetched.
#[derive(Debug)]
pub(super) struct Draft {
    system: Option<String>,
    turns: Vec<Turn<MediaDraft>>,
    answer: AnswerParams,
    limits: MediaLimits,
}

/// A video or image of a message.
#[derive(Debug)]
struct MediaDraft {
    input: MediaInput,
    options: VideoOptions,
}

impl Draft {
    /// Reads a body. Media in the body itself are written to temporary files.
    pub fn read(body: &[u8], base: &Base, limits: MediaLimits) -> Result<Self, ApiError> {
        let request = ChatRequest::read(body)?;
        if request.model.as_ref().is_some_and(|model| !model.is_empty() && *model != base.model_id) {
            return Err(ApiError::no_model(&base.model_id));
        }
        unsupported::check(&request)?;
        let own = request.sharpv.clone().unwrap_or_default();
        let params = params::turn_params(&request, &own, &base.turn)?;
        let stops = params::stops(request.stop.clone())?;
        let reader = Reader { base, limits: &limits, own: &own, frames: frames::requested(&request, &own) };
        let Conversation { system, turns, answer_start: start } = reader.conversation(&request)?;
        let with_thought = thinking::is_sent(&request)?;
        let stream = request.stream.unwrap_or(false);
        let include_usage = request.stream_options.and_then(|options| options.include_usage).unwrap_or(false);
        let answer = AnswerParams { params, start, stops, with_thought, stream, include_usage };
        Ok(Self { system, turns, answer, limits })
    }

    /// The slowest location that media must be fetched from.
    pub fn location(&self) -> Location {
        let media = self.turns.iter().flat_map(|turn| &turn.media);
        media.map(|media| media.input.location()).max().unwrap_or(Location::Request)
    }

    /// Fetches the media. Blocks.
    pub fn fetch(self, sources: &Sources) -> Result<Task, ApiError> {
        let Self { system, turns, answer, limits } = self;
        let prune = &answer.params.prune;
        let media = |MediaDraft { input, options }: MediaDraft| -> Result<Media, ApiError> {
            let file = sources.fetch(input, &limits)?;
            let how = format!("{} {options:?} {prune:?}", file.is_frames);
            let key = VideoKey { digest: file.digest, how };
            Ok(Media { file, options, key })
        };
        let turn = |Turn { speaker, text, thought, media: drafts }: Turn<MediaDraft>| -> Result<Turn<Media>, ApiError> {
            Ok(Turn { speaker, text, thought, media: drafts.into_iter().map(media).collect::<Result<_, _>>()? })
        };
        let turns: Vec<_> = turns.into_iter().map(turn).collect::<Result<_, _>>()?;
        let mut trail = Trail::default();
        trail.message(Speaker::System, system.as_deref().unwrap_or_default());
        // Thoughts are no part of it: most templates leave those of the past out, and most clients do not send them.
        for turn in &turns {
            turn.media.iter().for_each(|media| trail.video(&media.key));
            trail.message(turn.speaker, &turn.text);
        }
        Ok(Task { system, turns, trail, answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{EvictParams, Thinking};
    use crate::prune::{Budget, PruneParams};
    use crate::runtime::SamplerParams;

    pub fn base() -> Base {
        Base {
            model_id: "m".into(),
            turn: TurnParams {
                sampler: SamplerParams::default(),
                n_predict: 100,
                prune: PruneParams::default(),
                evict: EvictParams::default(),
                thinking: Thinking::Auto,
                template_kwargs: serde_json::Map::new(),
            },
            video: VideoOptions::default(),
            max_frames: 32,
        }
    }

    fn read(base: &Base, fields: &str) -> Result<Task, ApiError> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"Why?"}}]{fields}}}"#);
        read_body(base, &body)
    }

    fn read_body(base: &Base, body: &str) -> Result<Task, ApiError> {
        let draft = Draft::read(body.as_bytes(), base, MediaLimits::new(0, std::sync::Arc::default()))?;
        draft.fetch(&Sources { root: None, remote: None })
    }

    fn good(base: &Base, fields: &str) -> Task {
        read(base, fields).unwrap_or_else(|error| panic!("{fields}: {}", error.body()))
    }

    #[test]
    fn a_request_lowers_limits_and_never_lifts_them() {
        let mut base = base();
        assert_eq!(good(&base, r#","max_tokens":5"#).answer.params.n_predict, 5);
        assert_eq!(good(&base, r#","max_tokens":18446744073709551615"#).answer.params.n_predict, 100);
        assert_eq!(good(&base, r#","max_completion_tokens":7,"max_tokens":9"#).answer.params.n_predict, 7);

        base.turn.prune.budget = Budget::Keep(0.5);
        assert_eq!(good(&base, r#","sharpv":{"keep":0.2}"#).answer.params.prune.budget, Budget::Keep(0.2));
        assert_eq!(good(&base, r#","sharpv":{"keep":0.9}"#).answer.params.prune.budget, Budget::Keep(0.5));
        for lift in [r#""max_visual_tokens":100000"#, r#""prune":"off""#] {
            assert!(read(&base, &format!(r#","sharpv":{{{lift}}}"#)).is_err(), "{lift}");
        }
        base.turn.prune.budget = Budget::MaxTokens(50);
        assert_eq!(
            good(&base, r#","sharpv":{"max_visual_tokens":999}"#).answer.params.prune.budget,
            Budget::MaxTokens(50)
        );
        let share = good(&base, r#","sharpv":{"keep":1.0}"#).answer.params.prune;
        assert_eq!((share.budget, share.cap), (Budget::Keep(1.0), Some(50)));
    }

    #[test]
    fn unknown_fields_are_ignored_and_what_is_not_done_is_refused() {
        good(
            &base(),
            r#","user":"me","metadata":{},"store":true,"parallel_tool_calls":true,"tools":[],"n":1,"tool_choice":"auto""#,
        );
        good(&base(), r#","logit_bias":{},"logprobs":false,"top_logprobs":0,"grammar":"","guided_json":null,"n":1.0"#);
        for refused in [
            r#""n":2"#,
            r#""response_format":{"type":"json_object"}"#,
            r#""logprobs":true"#,
            r#""top_logprobs":2"#,
            r#""logit_bias":{"50256":-100}"#,
            r#""grammar":"root ::= [a-z]+"  "#,
            r#""json_schema":{"type":"object"}"#,
            r#""guided_choice":["a","b"]"#,
            r#""structured_outputs":{"regex":"a+"}"#,
            r#""function_call":{"name":"f"}"#,
            r#""max_tokens":-2"#,
            r#""max_tokens":4.5"#,
            r#""seed":"7""#,
            r#""continue_final_message":true"#,
            r#""tool_choice":"required""#,
            r#""temperature":-1"#,
            r#""top_p":2"#,
            r#""max_tokens":0"#,
            r#""stop":"""#,
            r#""stream":"yes""#,
            r#""model":"other""#,
            r#""sharpv":{"keep":2}"#,
            r#""sharpv":{"nonsense":1}"#,
            r#""sharpv":{"prune":"nonsense"}"#,
            r#""sharpv":{"evict":"nonsense"}"#,
            r#""sharpv":{"keep":0.5,"max_visual_tokens":1}"#,
            r#""seed":1e99"#,
        ] {
            let error = read(&base(), &format!(",{refused}")).expect_err(refused);
            assert!((400..500).contains(&error.status().as_u16()), "{refused}");
        }
    }

    #[test]
    fn samplers_are_those_of_the_request() {
        let sampler = good(&base(), r#","temperature":0.5,"top_p":0.8,"top_k":-1,"seed":-1,"stop":["a","b"]"#);
        assert_eq!(sampler.answer.stops, ["a", "b"]);
        let sampler = sampler.answer.params.sampler;
        assert_eq!((sampler.temperature, sampler.top_p, sampler.top_k, sampler.seed), (0.5, 0.8, 0, None));
        assert_eq!(good(&base(), r#","seed":4294967298"#).answer.params.sampler.seed, Some(2));
        assert_eq!(good(&base(), r#","repetition_penalty":1.25"#).answer.params.sampler.repeat_penalty, 1.25);
        let both = r#","repetition_penalty":1.25,"repeat_penalty":1.5"#;
        assert_eq!(good(&base(), both).answer.params.sampler.repeat_penalty, 1.5);
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let base = base();
        let params = |fields: &str| good(&base, fields).answer.params;
        assert_eq!(params(r#","max_tokens":4.0"#).n_predict, 4);
        assert_eq!(params(r#","max_completion_tokens":4e0"#).n_predict, 4);
        for none in ["-1", "-1.0", "null"] {
            assert_eq!(params(&format!(r#","max_tokens":{none}"#)).n_predict, 100, "{none}");
        }
        let sampler = params(r#","seed":42.0,"top_k":40.0"#).sampler;
        assert_eq!((sampler.seed, sampler.top_k), (Some(42), 40));
    }

    #[test]
    fn tools_and_refusals_are_part_of_a_conversation() {
        let body = r#"{"messages":[
            {"role":"user","content":"The weather?"},
            {"role":"assistant","content":null,"tool_calls":[
                {"id":"1","type":"function","function":{"name":"weather","arguments":"{\"in\": \"Rome\"}"}}]},
            {"role":"tool","tool_call_id":"1","content":"Rain."},
            {"role":"assistant","content":[{"type":"refusal","refusal":"I cannot."}]},
            {"role":"user","content":"Why?"},
            {"role":"assistant","content":null,"refusal":"I will not."},
            {"role":"tool","content":[{"type":"text","text":"Sun."}]}]}"#;
        let read = read_body(&base(), body).unwrap_or_else(|error| panic!("{}", error.body()));
        let said: Vec<_> = read.turns.iter().map(|turn| (turn.speaker, turn.text.as_str())).collect();
        let (user, assistant) = (Speaker::User, Speaker::Assistant);
        assert_eq!(
            said,
            [
                (user, "The weather?"),
                (assistant, r#"weather({"in": "Rome"})"#),
                (user, "Rain."),
                (assistant, "I cannot."),
                (user, "Why?"),
                (assistant, "I will not."),
                (user, "Sun."),
            ]
        );
    }

    #[test]
    fn what_the_assistant_has_begun_is_continued() {
        let body = |last: &str, fields: &str| {
            let messages = format!(r#"[{{"role":"user","content":"Why?"}},{{"role":"assistant","content":{last}}}]"#);
            read_body(&base(), &format!(r#"{{"messages":{messages}{fields}}}"#))
        };
        for fields in ["", r#","continue_final_message":true,"add_generation_prompt":false"#] {
            let read = body(r#""Because ""#, fields).unwrap_or_else(|error| panic!("{}", error.body()));
            assert_eq!((read.turns.len(), read.answer.start.as_str()), (1, "Because "), "{fields}");
        }
        assert_eq!(body("null", "").unwrap_or_else(|error| panic!("{}", error.body())).answer.start, "");
        for fields in [r#","continue_final_message":false"#, r#","add_generation_prompt":true"#] {
            let error = body(r#""Because""#, fields).expect_err(fields).body().to_string();
            assert!(error.contains(r#""param":"continue_final_message""#), "{error}");
        }
        let alone = r#"{"messages":[{"role":"assistant","content":"Because"}]}"#;
        assert!(read_body(&base(), alone).is_err());
    }
}
