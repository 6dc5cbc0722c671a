//! A look over a whole video, to choose the moments that its frames are taken at.
//!
//! Frames at even distances miss what is seen for a few seconds of an hour. So the video is looked over first: at one
//! image a second, or at its keyframes where decoding all of it would take long. Of each only a small thumbnail is
//! kept. Neighbors in time that differ least are put together until there are as many [segments](Segments) as frames
//! are wanted; each gives the moment of its most typical image. What changes gets more frames than what does not, and
//! long stretches of the same get some too.

mod segments;
mod thumbnail;

use super::{FrameSource, Kind, Origin, Sampling, Stop, VideoInfo, ffmpeg};
use crate::error::Result;
pub(crate) use segments::Segments;
pub(crate) use thumbnail::Thumbnail;

/// Looks for each second of a video.
const LOOKS_PER_S: f64 = 1.0;

/// Looks at most: those of a day.
const MAX_LOOKS: f64 = 86_400.0;

/// Pixels that are decoded at most to look at every second: about five minutes of 1080p at 30 frames a second. Of a
/// longer video, only keyframes are looked at.
const MAX_PIXELS: f64 = 2e10;

/// Segments that are kept while looking: of a longer video, neighbors are put together before all is seen.
const MAX_SEGMENTS: usize = 4096;

/// What a look over a video found.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    segments: Segments<f64>,
    n_looks: u64,
    keyframes_only: bool,
}

/// What is told of a look over a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SurveyReport {
    /// Images that were looked at.
    pub looks: u64,
    /// Whether they were keyframes, which are all that can be decoded quickly.
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
    /// How many looks the range of `sampling` gives in a video of which `info` is known; 0 if its length is not.
    pub fn n_looks(info: &VideoInfo, sampling: &Sampling) -> u64 {
        range_s(info, sampling).map_or(0, |(start, end)| ((end - start) * LOOKS_PER_S).min(MAX_LOOKS) as u64)
    }

    /// Looks over the range of `sampling` in the video at `origin`, of which `info` is known. `progress` is told how
    /// many of how many looks are done.
    ///
    /// # Errors
    /// Those of [`FrameSource::open_with`].
    pub fn of(
        origin: Origin<'_>,
        info: &VideoInfo,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + Clone + 'static,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::within(MAX_PIXELS, (origin, info, sampling), stop, progress)
    }

    /// As [`of`](Self::of), decoding at most `max_pixels` to look at every second.
    fn within(
        max_pixels: f64,
        (origin, info, sampling): (Origin<'_>, &VideoInfo, &Sampling),
        stop: impl Fn() -> bool + Send + Sync + Clone + 'static,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let total = Self::n_looks(info, sampling);
        let mut survey = Self { segments: Segments::new(MAX_SEGMENTS), n_looks: 0, keyframes_only: false };
        let Some((start, end)) = range_s(info, sampling) else { return Ok(survey) };
        let step = (1.0 / LOOKS_PER_S).max((end - start) / MAX_LOOKS);
        let pixels = f64::from(info.width) * f64::from(info.height) * info.fps.unwrap_or(f64::INFINITY);
        if let (Kind::Video, Origin::Path(path)) = (info.kind, origin)
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
            // Keyframes at long distances show too little of it.
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
        for frame in FrameSource::of(origin, &every, stop)?.decode_ahead() {
            survey.look_at(&frame?);
            progress(survey.n_looks.min(total), total);
        }
        Ok(survey)
    }

    fn look_at(&mut self, frame: &super::Frame) {
        self.n_looks += 1;
        self.segments.push(frame.time_s, Thumbnail::of(frame));
    }

    /// `n` moments in seconds, ascending, or one for each look if there were fewer.
    pub fn moments(&self, n: usize) -> Vec<f64> {
        self.segments.moments(n)
    }

    pub fn report(&self) -> SurveyReport {
        SurveyReport { looks: self.n_looks, keyframes_only: self.keyframes_only }
    }
}

/// Keyframes are looked at alone if there is one for as many looks.
const SPARSE: u64 = 15;

/// Where the range of `sampling` begins and ends, in seconds; `None` if the video's length is not known, or nothing is
/// left of it.
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
        let work = (Origin::Path(path), &info, &Sampling::default());
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
        // They are the images that are shown then.
        let mut keyframes = ffmpeg::Keyframes::open(&path, Stop::new(|| false)).expect("a video");
        let sampling = Sampling::default();
        let shown = FrameSource::at_times(Origin::Path(&path), &sampling, every.clone(), || false).expect("a video");
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
            let work = (Origin::Path(&path), &info, &Sampling::default());
            let stopped = Survey::within(max_pixels, work, || true, |_, _| {});
            assert!(matches!(stopped, Err(Error::Cancelled)));
        }
    }
}
