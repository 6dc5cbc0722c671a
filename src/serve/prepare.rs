//! From a request to what a slot needs: messages, files that are here, parameters within the server's limits.

use super::api::error::ApiError;
use super::api::request::{ChatRequest, FrameKnobs, FramesBy, ImagesAre, Knobs, Part, Speaker, StopTexts, Whole};
use super::cache::VideoKey;
use super::media::{Found, MediaFile, MediaLimits, Place, Sources, take};
use super::queue::{Step, Trail};
use crate::chat::{EvictMode, EvictParams, FrameChoice, TurnParams, VideoOptions};
use crate::prune::{Budget, Method, PruneParams};
use crate::runtime::SamplerParams;
use serde_json::value::RawValue;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Messages of a conversation.
const MAX_MESSAGES: usize = 1024;

/// Bytes of text in all messages: more than any context takes.
const MAX_TEXT: usize = 1 << 20;

/// Videos and images of a conversation.
const MAX_MEDIA: usize = 128;

/// Texts that end an answer, and bytes of each.
const MAX_STOPS: usize = 16;
const MAX_STOP: usize = 256;

/// What requests are measured by.
#[derive(Debug)]
pub(super) struct Base {
    pub model_id: String,
    /// What a request says nothing of.
    pub turn: TurnParams,
    pub video: VideoOptions,
    /// The most frames of a video.
    pub max_frames: usize,
}

/// A request that was read. Media that it only names are not here yet.
#[derive(Debug)]
pub(super) struct Draft {
    system: Option<String>,
    turns: Vec<Turn<Named>>,
    ask: Ask,
    limits: MediaLimits,
}

/// A request, ready for a slot.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `None` is the server's own.
    pub system: Option<String>,
    /// The last of them is the question.
    pub turns: Vec<Turn<Media>>,
    pub trail: Trail,
    pub ask: Ask,
}

/// How it wants to be answered.
#[derive(Debug)]
pub(super) struct Ask {
    pub params: TurnParams,
    /// How the answer begins, which goes on behind it. Often empty.
    pub answer_start: String,
    pub stops: Vec<String>,
    pub stream: bool,
    pub include_usage: bool,
}

/// A message.
#[derive(Debug)]
pub(super) struct Turn<M> {
    pub speaker: Speaker,
    pub text: String,
    pub media: Vec<M>,
}

/// A video or image of a message, as far as it came with it.
#[derive(Debug)]
struct Named {
    found: Found,
    options: VideoOptions,
}

/// A video or image of a message.
#[derive(Debug)]
pub(super) struct Media {
    pub file: MediaFile,
    pub options: VideoOptions,
    pub key: VideoKey,
}

impl Draft {
    /// Reads a body, and takes the media that are in it out of it.
    pub fn read(body: &[u8], base: &Base, limits: MediaLimits) -> Result<Self, ApiError> {
        let request = ChatRequest::read(body)?;
        check_model(&request, base)?;
        refuse_what_is_not_done(&request)?;
        let knobs = request.sharpv.clone().unwrap_or_default();
        let params = turn_params(&request, &knobs, &base.turn)?;
        let stops = stop_texts(request.stop.clone())?;
        let frames = knobs
            .frames()
            .or(request.media_io_kwargs.as_ref().and_then(|kwargs| kwargs.video).unwrap_or_default())
            .or(request.mm_processor_kwargs.unwrap_or_default());

        let reader = Reader { base, limits: &limits, knobs: &knobs, frames };
        let Conversation { system, turns, answer_start } = reader.conversation(&request)?;
        let ask = Ask {
            params,
            answer_start,
            stops,
            stream: request.stream.unwrap_or(false),
            include_usage: request.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false),
        };
        Ok(Self { system, turns, ask, limits })
    }

    /// Where the farthest of its media is.
    pub fn farthest(&self) -> Place {
        let media = self.turns.iter().flat_map(|turn| &turn.media);
        media.map(|media| media.found.farthest()).max().unwrap_or(Place::Here)
    }

    /// Brings here what is not.
    pub fn fetch(self, sources: &Sources) -> Result<Prepared, ApiError> {
        let Self { system, turns, ask, limits } = self;
        let prune = &ask.params.prune;
        let media = |Named { found, options }: Named| -> Result<Media, ApiError> {
            let file = sources.fetch(found, &limits)?;
            let how = format!("{} {options:?} {prune:?}", file.is_frames);
            let key = VideoKey { digest: file.digest, how };
            Ok(Media { file, options, key })
        };
        let turn = |turn: Turn<Named>| -> Result<Turn<Media>, ApiError> {
            let Turn { speaker, text, media: named } = turn;
            Ok(Turn { speaker, text, media: named.into_iter().map(media).collect::<Result<_, _>>()? })
        };
        let turns: Vec<_> = turns.into_iter().map(turn).collect::<Result<_, _>>()?;
        let trail = trail(system.as_deref(), &turns);
        Ok(Prepared { system, turns, trail, ask })
    }
}

fn check_model(request: &ChatRequest<'_>, base: &Base) -> Result<(), ApiError> {
    let is_ours = request.model.as_ref().is_none_or(|model| model.is_empty() || *model == base.model_id);
    if is_ours { Ok(()) } else { Err(ApiError::no_model(&base.model_id)) }
}

/// What would change the answer may not be ignored.
fn refuse_what_is_not_done(request: &ChatRequest<'_>) -> Result<(), ApiError> {
    if request.n.is_some_and(|n| n != Whole(1)) {
        return Err(ApiError::unsupported("n", "this server gives one answer: leave out n, or send 1"));
    }
    let format = request.response_format.as_ref().and_then(|format| format.kind.as_deref());
    if !matches!(format, None | Some("text")) {
        return Err(ApiError::unsupported(
            "response_format",
            "answers of this server are text: leave out response_format",
        ));
    }
    for (name, value) in [("tool_choice", request.tool_choice), ("function_call", request.function_call)] {
        if value.is_some_and(|value| !matches!(value.get(), "null" | "\"auto\"" | "\"none\"")) {
            return Err(ApiError::unsupported(name, format!("this server calls no tools: leave out {name}")));
        }
    }
    // What asks for nothing is let through: some clients send every field that they know.
    let asks = |value: &RawValue| !matches!(value.get(), "null" | "false" | "0" | "{}" | "[]" | "\"\"");
    for (name, value) in [
        ("logprobs", request.logprobs),
        ("top_logprobs", request.top_logprobs),
        ("logit_bias", request.logit_bias),
        ("grammar", request.grammar),
        ("json_schema", request.json_schema),
        ("structured_outputs", request.structured_outputs),
        ("guided_json", request.guided_json),
        ("guided_regex", request.guided_regex),
        ("guided_choice", request.guided_choice),
        ("guided_grammar", request.guided_grammar),
    ] {
        if value.is_some_and(asks) {
            return Err(ApiError::unsupported(name, format!("this server does not do {name}: leave it out")));
        }
    }
    Ok(())
}

fn stop_texts(stop: Option<StopTexts>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(StopTexts::One(stop)) => vec![stop],
        Some(StopTexts::Several(stops)) => stops,
    };
    let is_good = stops.len() <= MAX_STOPS && stops.iter().all(|stop| (1..=MAX_STOP).contains(&stop.len()));
    let expected = || ApiError::invalid("stop", format!("stop has at most {MAX_STOPS} texts of 1 to {MAX_STOP} bytes"));
    if is_good { Ok(stops) } else { Err(expected()) }
}

/// How the answer is written and what is kept, within what the server was started with.
fn turn_params(request: &ChatRequest<'_>, knobs: &Knobs, base: &TurnParams) -> Result<TurnParams, ApiError> {
    let asked = request.max_completion_tokens.or(request.max_tokens);
    let n_predict = match asked {
        // As many as there may be.
        None | Some(Whole(-1)) => base.n_predict,
        Some(Whole(n)) if n < 1 => {
            return Err(ApiError::invalid("max_tokens", "max_tokens is at least 1, or -1 for what the server allows"));
        }
        Some(Whole(n)) => usize::try_from(n).unwrap_or(usize::MAX).min(base.n_predict),
    };
    let top_k = match request.top_k {
        // −1 is all, with vLLM.
        Some(Whole(k)) if k < 1 => 0,
        Some(Whole(k)) => u32::try_from(k).unwrap_or(u32::MAX),
        None => base.sampler.top_k,
    };
    let seed = match request.seed {
        Some(Whole(-1)) => None,
        // Of a longer seed its lower half.
        Some(Whole(seed)) => Some(seed as u32),
        None => base.sampler.seed,
    };
    let repeat_penalty = request.repeat_penalty.or(request.repetition_penalty);
    let sampler = SamplerParams {
        temperature: request.temperature.unwrap_or(base.sampler.temperature),
        top_p: request.top_p.unwrap_or(base.sampler.top_p),
        top_k,
        min_p: request.min_p.unwrap_or(base.sampler.min_p),
        repeat_penalty: repeat_penalty.unwrap_or(base.sampler.repeat_penalty),
        frequency_penalty: request.frequency_penalty.unwrap_or(base.sampler.frequency_penalty),
        presence_penalty: request.presence_penalty.unwrap_or(base.sampler.presence_penalty),
        seed,
        ..base.sampler.clone()
    };
    sampler.validate()?;
    let prune = prune_params(knobs, &base.prune)?;
    let evict = match &knobs.evict {
        None => base.evict,
        Some(name) => match name.parse::<EvictMode>()? {
            // A threshold means nothing where nothing is evicted.
            EvictMode::Off => EvictParams::off(),
            mode => EvictParams { mode: Some(mode), ..base.evict },
        },
    };
    Ok(TurnParams { sampler, n_predict, prune, evict })
}

fn prune_params(knobs: &Knobs, base: &PruneParams) -> Result<PruneParams, ApiError> {
    let method = match &knobs.prune {
        Some(name) => name.parse::<Method>()?,
        None if !base.method.prunes() && (knobs.keep.is_some() || knobs.max_visual_tokens.is_some()) => Method::SHARPV,
        None => base.method,
    };
    let beyond = || {
        ApiError::invalid(
            "sharpv",
            "this server was started with a budget of visual tokens: a request can lower it, and not lift it",
        )
    };
    let budget = match (knobs.keep, knobs.max_visual_tokens) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("sharpv", "give either keep or max_visual_tokens"));
        }
        (Some(_), None) | (None, Some(_)) if !method.prunes() => {
            return Err(ApiError::invalid("sharpv", "keep and max_visual_tokens need another prune than off"));
        }
        (Some(share), None) => Budget::Keep(share),
        (None, Some(Whole(n))) => Budget::MaxTokens(
            usize::try_from(n).map_err(|_| ApiError::invalid("sharpv", "max_visual_tokens is at least 1"))?,
        ),
        (None, None) => base.budget,
    };
    let (budget, cap) = match (base.budget, budget) {
        (Budget::Adaptive, budget) => (budget, base.cap),
        _ if !method.prunes() => return Err(beyond()),
        (Budget::Keep(most), Budget::Keep(share)) => (Budget::Keep(share.min(most)), base.cap),
        (Budget::MaxTokens(most), Budget::MaxTokens(n)) => (Budget::MaxTokens(n.min(most)), base.cap),
        (Budget::MaxTokens(most), budget @ Budget::Keep(_)) => (budget, base.cap.into_iter().chain([most]).min()),
        (there, budget) if there == budget => (budget, base.cap),
        _ => return Err(beyond()),
    };
    let params = PruneParams { method, budget, cap, ..base.clone() };
    params.validate()?;
    Ok(params)
}

/// What is said in a request.
struct Conversation {
    system: Option<String>,
    turns: Vec<Turn<Named>>,
    answer_start: String,
}

/// Reads the messages of a request.
struct Reader<'a> {
    base: &'a Base,
    limits: &'a MediaLimits,
    knobs: &'a Knobs,
    /// What a part says nothing of.
    frames: FrameKnobs,
}

impl Reader<'_> {
    fn conversation(&self, request: &ChatRequest<'_>) -> Result<Conversation, ApiError> {
        let messages = &request.messages;
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return Err(ApiError::invalid("messages", format!("a conversation has 1 to {MAX_MESSAGES} messages")));
        }
        // What can be told without a look at the media is told first.
        let mut read = Vec::with_capacity(messages.len());
        let (mut text_bytes, mut n_media) = (0, 0);
        for message in messages {
            let (speaker, parts) = (message.speaker()?, message.parts()?);
            for part in &parts {
                match part {
                    Part::Text(text) => text_bytes += text.len(),
                    Part::Media(_) if !message.is_of_user() => {
                        return Err(ApiError::invalid("messages", "videos and images go into messages of the user"));
                    }
                    Part::Media(_) => n_media += 1,
                }
            }
            read.push((speaker, parts));
        }
        if text_bytes > MAX_TEXT {
            return Err(ApiError::too_large("the text of the conversation", MAX_TEXT as u64));
        }
        if n_media > MAX_MEDIA {
            return Err(ApiError::invalid(
                "messages",
                format!("a conversation has at most {MAX_MEDIA} videos and images; send frames as one video"),
            ));
        }
        let answer_start = self.answer_start(request, &mut read)?;
        if !matches!(read.last(), Some((Speaker::User, _))) {
            return Err(ApiError::invalid(
                "messages",
                "there is nothing to answer: the last message, or the one before what the assistant has begun to say, \
                 is the user's or a tool's",
            ));
        }
        let mut system: Option<String> = None;
        let mut turns: Vec<Turn<Named>> = Vec::with_capacity(read.len());
        for (speaker, parts) in read {
            let turn = self.turn(speaker, parts)?;
            match (speaker, &mut system) {
                // What leads a conversation is one message of the system, for most templates know no more.
                (Speaker::System, Some(first)) if turns.is_empty() => {
                    first.push_str("\n\n");
                    first.push_str(&turn.text);
                }
                (Speaker::System, None) if turns.is_empty() => system = Some(turn.text),
                _ => turns.push(turn),
            }
        }
        match turns.last() {
            Some(last) if !last.text.trim().is_empty() || !last.media.is_empty() => {
                Ok(Conversation { system, turns, answer_start })
            }
            _ => Err(ApiError::invalid("messages", "the message to answer is empty: ask something")),
        }
    }

    /// Takes a last message of the assistant away: its answer goes on behind it.
    ///
    /// vLLM begins another answer behind it unless it is told to continue; most other servers continue it, as is done
    /// here. Who asks for the former must not get the latter.
    fn answer_start(
        &self,
        request: &ChatRequest<'_>,
        messages: &mut Vec<(Speaker, Vec<Part<'_>>)>,
    ) -> Result<String, ApiError> {
        let last = messages.pop_if(|(speaker, _)| *speaker == Speaker::Assistant);
        let is_refused = request.continue_final_message == Some(false) || request.add_generation_prompt == Some(true);
        match last {
            Some(_) if is_refused => Err(ApiError::unsupported(
                "continue_final_message",
                "a last message of the assistant is continued here, and not followed by another: leave out \
                 continue_final_message and add_generation_prompt, or end with a message of the user",
            )),
            Some((speaker, parts)) => Ok(self.turn(speaker, parts)?.text),
            None if request.continue_final_message == Some(true) => Err(ApiError::invalid(
                "continue_final_message",
                "there is no last message of the assistant to continue: send one, or leave out continue_final_message",
            )),
            None => Ok(String::new()),
        }
    }

    /// Media come before what is said, whatever their order.
    fn turn(&self, speaker: Speaker, parts: Vec<Part<'_>>) -> Result<Turn<Named>, ApiError> {
        let as_frames = self.knobs.images == Some(ImagesAre::Frames);
        let mut text = String::new();
        let (mut media, mut frames) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(piece) => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&piece);
                }
                Part::Media(part) if part.is_image && as_frames => frames.push(take(&part.place, self.limits)?),
                Part::Media(part) => media.push(self.media(take(&part.place, self.limits)?, part.frames)?),
            }
        }
        if !frames.is_empty() {
            media.push(self.media(Found::Frames(frames), FrameKnobs::default())?);
        }
        Ok(Turn { speaker, text, media })
    }

    fn media(&self, found: Found, own: FrameKnobs) -> Result<Named, ApiError> {
        Ok(Named { found, options: self.options(own.or(self.frames))? })
    }

    fn options(&self, asked: FrameKnobs) -> Result<VideoOptions, ApiError> {
        let (base, most) = (self.base.video, self.base.max_frames);
        let positive = |name: &'static str, value: Option<f64>| match value {
            Some(value) if !(value.is_finite() && value > 0.0) => {
                Err(ApiError::invalid(name, format!("{name} is a number above 0")))
            }
            value => Ok(value),
        };
        let moment = |name: &'static str, value: Option<f64>| match value {
            Some(value) if !(value.is_finite() && value >= 0.0) => {
                Err(ApiError::invalid(name, format!("{name} is a time in seconds, 0 or more")))
            }
            value => Ok(value),
        };
        let max_frames = match asked.num_frames {
            None => base.max_frames,
            // All of them, as far as that is allowed.
            Some(Whole(-1)) => Some(most),
            Some(Whole(n)) if n > 0 => Some(usize::try_from(n).unwrap_or(usize::MAX).min(most)),
            Some(_) => return Err(ApiError::invalid("num_frames", "num_frames is 1 or more, or -1")),
        };
        let choice = match asked.frames_by {
            None => base.choice,
            Some(FramesBy::Even) => FrameChoice::Even,
            // To look over a whole video takes longer than to take its frames.
            Some(_) if base.choice == FrameChoice::Even => {
                return Err(ApiError::invalid(
                    "frames_by",
                    "this server takes frames at even distances: leave out frames_by",
                ));
            }
            Some(FramesBy::Auto) => FrameChoice::Auto,
            Some(FramesBy::Changes) => FrameChoice::Changes,
        };
        Ok(VideoOptions {
            fps: positive("fps", asked.fps)?.or(base.fps),
            max_frames,
            start_s: moment("start", asked.start)?.or(base.start_s),
            end_s: positive("end", asked.end)?.or(base.end_s),
            folder_fps: positive("frames_fps", self.knobs.frames_fps)?.or(base.folder_fps),
            choice,
        })
    }
}

fn trail(system: Option<&str>, turns: &[Turn<Media>]) -> Trail {
    let mut steps = vec![text_step("system", system.unwrap_or_default())];
    for turn in turns {
        steps.extend(turn.media.iter().map(|media| Step { number: media.key.number(), is_video: true }));
        steps.push(text_step(turn.speaker.name(), &turn.text));
    }
    Trail(steps)
}

/// The step of a message.
pub(super) fn text_step(speaker: &str, text: &str) -> Step {
    let mut hasher = DefaultHasher::new();
    (speaker, text).hash(&mut hasher);
    Step { number: hasher.finish(), is_video: false }
}

impl Speaker {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        Base {
            model_id: "m".into(),
            turn: TurnParams {
                sampler: SamplerParams::default(),
                n_predict: 100,
                prune: PruneParams::default(),
                evict: EvictParams::default(),
            },
            video: VideoOptions::default(),
            max_frames: 32,
        }
    }

    fn read(base: &Base, fields: &str) -> Result<Prepared, ApiError> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"Why?"}}]{fields}}}"#);
        read_body(base, &body)
    }

    fn read_body(base: &Base, body: &str) -> Result<Prepared, ApiError> {
        let draft = Draft::read(body.as_bytes(), base, MediaLimits::new(0, std::sync::Arc::default()))?;
        draft.fetch(&Sources { root: None, remote: None })
    }

    fn good(base: &Base, fields: &str) -> Prepared {
        read(base, fields).unwrap_or_else(|error| panic!("{fields}: {}", error.body()))
    }

    #[test]
    fn a_request_lowers_limits_and_never_lifts_them() {
        let mut base = base();
        assert_eq!(good(&base, r#","max_tokens":5"#).ask.params.n_predict, 5);
        assert_eq!(good(&base, r#","max_tokens":18446744073709551615"#).ask.params.n_predict, 100);
        assert_eq!(good(&base, r#","max_completion_tokens":7,"max_tokens":9"#).ask.params.n_predict, 7);

        base.turn.prune.budget = Budget::Keep(0.5);
        assert_eq!(good(&base, r#","sharpv":{"keep":0.2}"#).ask.params.prune.budget, Budget::Keep(0.2));
        assert_eq!(good(&base, r#","sharpv":{"keep":0.9}"#).ask.params.prune.budget, Budget::Keep(0.5));
        for lift in [r#""max_visual_tokens":100000"#, r#""prune":"off""#] {
            assert!(read(&base, &format!(r#","sharpv":{{{lift}}}"#)).is_err(), "{lift}");
        }
        base.turn.prune.budget = Budget::MaxTokens(50);
        assert_eq!(
            good(&base, r#","sharpv":{"max_visual_tokens":999}"#).ask.params.prune.budget,
            Budget::MaxTokens(50)
        );
        let share = good(&base, r#","sharpv":{"keep":1.0}"#).ask.params.prune;
        assert_eq!((share.budget, share.cap), (Budget::Keep(1.0), Some(50)));
    }

    #[test]
    fn frames_are_never_more_than_the_server_allows() {
        let base = base();
        let knobs = Knobs::default();
        let limits = MediaLimits::new(0, std::sync::Arc::default());
        let reader = Reader { base: &base, limits: &limits, knobs: &knobs, frames: FrameKnobs::default() };
        let frames = |n| reader.options(FrameKnobs { num_frames: Some(Whole(n)), ..FrameKnobs::default() });
        for (asked, taken) in [(4, 4), (32, 32), (33, 32), (-1, 32), (i64::MAX, 32)] {
            assert_eq!(frames(asked).unwrap_or_else(|e| panic!("{}", e.body())).max_frames, Some(taken), "{asked}");
        }
        assert!([0, -2, i64::MIN].into_iter().all(|n| frames(n).is_err()));
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(reader.options(FrameKnobs { fps: Some(fps), ..FrameKnobs::default() }).is_err(), "{fps}");
        }
    }

    #[test]
    fn frames_are_chosen_as_asked_where_the_server_looks() {
        let choice = |server: FrameChoice, asked: Option<FramesBy>| {
            let mut base = base();
            base.video.choice = server;
            let knobs = Knobs::default();
            let limits = MediaLimits::new(0, std::sync::Arc::default());
            let reader = Reader { base: &base, limits: &limits, knobs: &knobs, frames: FrameKnobs::default() };
            reader.options(FrameKnobs { frames_by: asked, ..FrameKnobs::default() }).map(|options| options.choice).ok()
        };
        use FrameChoice::{Auto, Changes, Even};
        for server in [Auto, Changes] {
            assert_eq!(choice(server, None), Some(server));
            assert_eq!(choice(server, Some(FramesBy::Even)), Some(Even));
            assert_eq!(choice(server, Some(FramesBy::Auto)), Some(Auto));
            assert_eq!(choice(server, Some(FramesBy::Changes)), Some(Changes));
        }
        assert_eq!([choice(Even, None), choice(Even, Some(FramesBy::Even))], [Some(Even); 2]);
        assert_eq!([choice(Even, Some(FramesBy::Auto)), choice(Even, Some(FramesBy::Changes))], [None; 2]);
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
        assert_eq!(sampler.ask.stops, ["a", "b"]);
        let sampler = sampler.ask.params.sampler;
        assert_eq!((sampler.temperature, sampler.top_p, sampler.top_k, sampler.seed), (0.5, 0.8, 0, None));
        assert_eq!(good(&base(), r#","seed":4294967298"#).ask.params.sampler.seed, Some(2));
        assert_eq!(good(&base(), r#","repetition_penalty":1.25"#).ask.params.sampler.repeat_penalty, 1.25);
        let both = r#","repetition_penalty":1.25,"repeat_penalty":1.5"#;
        assert_eq!(good(&base(), both).ask.params.sampler.repeat_penalty, 1.5);
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let base = base();
        let params = |fields: &str| good(&base, fields).ask.params;
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
            assert_eq!((read.turns.len(), read.ask.answer_start.as_str()), (1, "Because "), "{fields}");
        }
        assert_eq!(body("null", "").unwrap_or_else(|error| panic!("{}", error.body())).ask.answer_start, "");
        for fields in [r#","continue_final_message":false"#, r#","add_generation_prompt":true"#] {
            let error = body(r#""Because""#, fields).expect_err(fields).body().to_string();
            assert!(error.contains(r#""param":"continue_final_message""#), "{error}");
        }
        let alone = r#"{"messages":[{"role":"assistant","content":"Because"}]}"#;
        assert!(read_body(&base(), alone).is_err());
    }
}
