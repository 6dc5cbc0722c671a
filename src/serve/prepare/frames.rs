//! Which frames of a video to take.

use super::Base;
use crate::chat::{FrameChoice, VideoOptions};
use crate::serve::api::error::ApiError;
use crate::serve::api::request::{ChatRequest, FrameParams, FramesBy, SharpvParams, Whole};

/// What the request as a whole says. The object `sharpv` comes before vLLM's fields.
pub(super) fn requested(request: &ChatRequest<'_>, own: &SharpvParams) -> FrameParams {
    let io = request.media_io_kwargs.as_ref().and_then(|kwargs| kwargs.video).unwrap_or_default();
    own.frames().or(io).or(request.mm_processor_kwargs.unwrap_or_default())
}

/// The options for one video, within the server's limits. `list_fps` is the rate of a list of frames.
pub(super) fn options(frames: FrameParams, list_fps: Option<f64>, base: &Base) -> Result<VideoOptions, ApiError> {
    let (video, most) = (&base.video, base.max_frames);
    let max_frames = match frames.num_frames {
        None => video.max_frames,
        Some(Whole(-1)) => Some(most),
        Some(Whole(n)) if n > 0 => Some(usize::try_from(n).unwrap_or(usize::MAX).min(most)),
        Some(_) => return Err(ApiError::invalid("num_frames", "num_frames must be at least 1, or -1")),
    };
    let choice = match frames.frames_by {
        None => video.choice,
        Some(FramesBy::Even) => FrameChoice::Even,
        // A survey of a whole video takes longer than decoding a few frames.
        Some(_) if video.choice == FrameChoice::Even => {
            return Err(ApiError::invalid(
                "frames_by",
                "this server takes frames at even distances: leave out frames_by",
            ));
        }
        Some(FramesBy::Auto) => FrameChoice::Auto,
        Some(FramesBy::Changes) => FrameChoice::Changes,
    };
    Ok(VideoOptions {
        fps: positive("fps", frames.fps)?.or(video.fps),
        max_frames,
        start_s: time("start", frames.start)?.or(video.start_s),
        end_s: positive("end", frames.end)?.or(video.end_s),
        folder_fps: positive("frames_fps", list_fps)?.or(video.folder_fps),
        choice,
        ..VideoOptions::default()
    })
}

fn positive(name: &'static str, value: Option<f64>) -> Result<Option<f64>, ApiError> {
    match value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(ApiError::invalid(name, format!("{name} must be a number above 0")))
        }
        value => Ok(value),
    }
}

fn time(name: &'static str, value: Option<f64>) -> Result<Option<f64>, ApiError> {
    match value {
        Some(value) if !(value.is_finite() && value >= 0.0) => {
            Err(ApiError::invalid(name, format!("{name} must be a time in seconds, 0 or more")))
        }
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::base;
    use super::*;

    #[test]
    fn frames_are_never_more_than_the_server_allows() {
        let base = base();
        let options = |frames| options(frames, None, &base);
        let frames = |n| options(FrameParams { num_frames: Some(Whole(n)), ..FrameParams::default() });
        for (requested, taken) in [(4, 4), (32, 32), (33, 32), (-1, 32), (i64::MAX, 32)] {
            let options = frames(requested).unwrap_or_else(|e| panic!("{}", e.body()));
            assert_eq!(options.max_frames, Some(taken), "{requested}");
        }
        assert!([0, -2, i64::MIN].into_iter().all(|n| frames(n).is_err()));
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(options(FrameParams { fps: Some(fps), ..FrameParams::default() }).is_err(), "{fps}");
        }
    }

    #[test]
    fn a_request_chooses_frames_as_it_likes_unless_the_server_makes_no_surveys() {
        use FrameChoice::{Auto, Changes, Even};
        let choice = |server: FrameChoice, frames_by: Option<FramesBy>| {
            let mut base = base();
            base.video.choice = server;
            let frames = FrameParams { frames_by, ..FrameParams::default() };
            options(frames, None, &base).map(|options| options.choice).ok()
        };
        for server in [Auto, Changes] {
            assert_eq!(choice(server, None), Some(server));
            assert_eq!(choice(server, Some(FramesBy::Even)), Some(Even));
            assert_eq!(choice(server, Some(FramesBy::Auto)), Some(Auto));
            assert_eq!(choice(server, Some(FramesBy::Changes)), Some(Changes));
        }
        assert_eq!([choice(Even, None), choice(Even, Some(FramesBy::Even))], [Some(Even); 2]);
        assert_eq!([choice(Even, Some(FramesBy::Auto)), choice(Even, Some(FramesBy::Changes))], [None; 2]);
    }
}
