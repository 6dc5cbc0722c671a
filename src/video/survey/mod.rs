//! A survey: a quick look over a whole video, to choose the moments at which to sample frames.
//!
//! Evenly spaced frames miss events that last a few seconds in an hour. A survey looks at one image per second, or at
//! keyframes only if decoding the whole video would take too long, and keeps a thumbnail of each. It merges the most
//! similar neighbors in time until as many [segments](Segments) are left as frames to take. The frame of a segment is
//! its most typical image. Parts that change get more frames than parts that do not, but long static parts get some,
//! too.

mod segments;
mod thumbnail;

use super::{FrameSource, Kind, Sampling, Source, Stop, VideoInfo, ffmpeg};
use crate::error::Result;
pub(crate) use segments::Segments;
pub(crate) use thumbnail::Thumbnail;

/// Images per second of video.
const LOOKS_PER_S: f64 = 1.0;

/// The most images: one a second of a day.
const MAX_LOOKS: f64 = 86_400.0;

/// The most pixels to decode for one image per second: about five minutes of 1080p at 30 frames per second. The survey
/// of a longer video looks at keyframes only.
const MAX_PIXELS: f64 = 2e10;

/// The most segments during a survey. In a longer video, neighbors are merged before the survey ends.
const MAX_SEGMENTS: usize = 4096;

/// The result of a survey.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    segments: Segments<f64>,
    n_looks: u64,
    keyframes_only: bool,
}

/// What a survey of a video looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SurveyReport {
    /// The number of images.
    pub looks: u64,
    /// Whether the images were keyframes, because decoding the whole video would have taken too long.
    pub keyframes_only: bool,
}

impl std::fmt::Display for SurveyReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { looks, keyframes_only } = self;
        let what = if *keyframes_only { "keyframes" } else { "images, one a second" };
        write!(f, "{looks} {what}")
    }
}

impl Survey {
    /// The number of images to look at in the range of `sampling`; 0 if the video's length is unknown.
    pub fn n_looks(info: &VideoInfo, sampling: &Sampling) -> u64 {
        range_s(info, sampling).map_or(0, |(start, end)| ((end - start) * LOOKS_PER_S).min(MAX_LOOKS) as u64)
    }

    /// Surveys the range of `sampling` in the video of `source`. Calls `progress` with the number of images that were
    /// looked at and their total.
    ///
    /// # Errors
    /// Those of [`FrameSource::open_with`].
    pub fn of(
        source: &Source,
        info: &VideoInfo,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + Clone + 'static,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::within(MAX_PIXELS, (source, info, sampling), stop, progress)
    }

    /// [`of`](Self::of), with `max_pixels` in place of [`MAX_PIXELS`].
    fn within(
        max_pixels: f64,
        (source, info, sampling): (&Source, &VideoInfo, &Sampling),
        stop: impl Fn() -> bool + Send + Sync + Clone + 'static,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let total = Self::n_looks(info, sampling);
        let mut survey = Self { segments: Segments::new(MAX_SEGMENTS), n_looks: 0, keyframes_only: false };
        let Some((start, end)) = range_s(info, sampling) else { return Ok(survey) };
        let step = (1.0 / LOOKS_PER_S).max((end - start) / MAX_LOOKS);
        let pixels = f64::from(info.width) * f64::from(info.height) * info.fps.unwrap_or(f64::INFINITY);
        if let (Kind::Video, Source::Path(path)) = (info.kind, source)
            && pixels * (end - start) > max_pixels
        {
            survey.keyframes_only = true;
            let mut keyframes = ffmpeg::Keyframes::open(path, Stop::new(stop.clone()))?;
            let mut time = start;
            while time < end {
                if let Some(frame) = keyframes.before(time)?.filter(|frame| frame.time_s >= start) {
                    survey.look_at(&frame);
                }
                time += step;
                progress((((time - start) / step) as u64).min(total), total);
            }
            // Keyframes that are far apart show too little of the video.
            if survey.n_looks * SPARSE >= total {
                return Ok(survey);
            }
            survey = Self { segments: Segments::new(MAX_SEGMENTS), n_looks: 0, keyframes_only: false };
        }
        let every = Sampling {
            start_s: sampling.start_s,
            end_s: sampling.end_s,
            folder_fps: sampling.folder_fps,
            ..Sampling::fps(1.0 / step, usize::MAX)
        };
        for frame in FrameSource::of(source, &every, stop)?.decode_ahead() {
            survey.look_at(&frame?);
            progress(survey.n_looks.min(total), total);
        }
        Ok(survey)
    }

    fn look_at(&mut self, frame: &super::Frame) {
        self.n_looks += 1;
        self.segments.push(frame.time_s, Thumbnail::of(frame));
    }

    /// `n` moments in seconds, ascending; fewer if the survey looked at fewer images.
    pub fn moments(&self, n: usize) -> Vec<f64> {
        self.segments.moments(n)
    }

    pub fn report(&self) -> SurveyReport {
        SurveyReport { looks: self.n_looks, keyframes_only: self.keyframes_only }
    }
}

/// Keyframes suffice if there is at least one for this many images.
const SPARSE: u64 = 15;

/// The start and end of the range of `sampling`, in seconds; `None` if the video's length is unknown or the range is
/// empty.
fn range_s(info: &VideoInfo, sampling: &Sampling) -> Option<(f64, f64)> {
    let duration = info.duration_s?;
    let (start, end) = (sampling.start_s.unwrap_or(0.0), sampling.end_s.map_or(duration, |end| end.min(duration)));
    (end > start).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// 60 seconds of grey at 10 frames a second, with a white square from 41 to 44 s, and a keyframe every `gop`
    /// frames.
    fn clip(folder: &Path, gop: u32) -> PathBuf {
        let path = folder.join("clip.mp4");
        let square = "drawbox=x=20:y=20:w=24:h=24:color=white:t=fill:enable='between(t,41,44)'";
        let source = format!("color=gray:size=160x120:rate=10:duration=60,{square}");
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", &source, "-c:v", "mpeg4", "-q:v", "3"])
            .args(["-g", &gop.to_string(), "-sc_threshold", "1000000000"])
            .arg(&path)
            .status();
        assert!(status.expect("ffmpeg runs").success());
        path
    }

    fn survey(path: &Path, max_pixels: f64) -> Survey {
        let info = crate::video::probe(path).expect("a video");
        let work = (&path.into(), &info, &Sampling::default());
        let mut last = (0, 0);
        let survey = Survey::within(max_pixels, work, || false, |done, total| last = (done, total));
        assert_eq!(last, (60, 60));
        survey.expect("it is looked over")
    }

    #[test]
    fn all_seconds_are_looked_at_where_that_is_quick() {
        let folder = tempfile::tempdir().expect("a folder");
        let survey = survey(&clip(folder.path(), 20), MAX_PIXELS);
        assert_eq!(survey.report(), SurveyReport { looks: 60, keyframes_only: false });
        let moments = survey.moments(4);
        assert_eq!(moments.len(), 4);
        assert!(moments.iter().any(|time| (41.0..44.0).contains(time)), "{moments:?}");
    }

    #[test]
    fn keyframes_are_looked_at_where_it_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = clip(folder.path(), 20);
        let survey = survey(&path, 0.0);
        assert_eq!(survey.report(), SurveyReport { looks: 30, keyframes_only: true });
        let every: Vec<f64> = (0..30).map(|i| f64::from(i) * 2.0).collect();
        assert_eq!(survey.moments(100).iter().map(|time| time.round()).collect::<Vec<_>>(), every);
        let moments = survey.moments(4);
        assert!(moments.iter().any(|time| (41.0..44.0).contains(time)), "{moments:?}");
        // The keyframes are the frames that are shown at those times.
        let mut keyframes = ffmpeg::Keyframes::open(&path, Stop::new(|| false)).expect("a video");
        let sampling = Sampling::default();
        let shown = FrameSource::at_times(&path.as_path().into(), &sampling, every.clone(), || false).expect("a video");
        for (frame, &time) in shown.zip(&every) {
            let key = keyframes.before(time + 0.05).expect("it is read").expect("a keyframe");
            assert!(frame.expect("a frame").rgb == key.rgb, "at {time} s");
        }
    }

    #[test]
    fn few_keyframes_are_not_enough() {
        let folder = tempfile::tempdir().expect("a folder");
        let survey = survey(&clip(folder.path(), 600), 0.0);
        assert_eq!(survey.report(), SurveyReport { looks: 60, keyframes_only: false });
    }

    #[test]
    fn a_look_can_be_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = clip(folder.path(), 20);
        let info = crate::video::probe(&path).expect("a video");
        for max_pixels in [0.0, MAX_PIXELS] {
            let work = (&path.as_path().into(), &info, &Sampling::default());
            let stopped = Survey::within(max_pixels, work, || true, |_, _| {});
            assert!(matches!(stopped, Err(Error::Cancelled)));
        }
    }
}
