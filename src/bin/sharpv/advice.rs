//! The library's suggestions for an error, as options and commands of this program.

use sharpv::error::FileKind;
use sharpv::video::LiveInput;
use sharpv::{Error, Fix};

/// A line to print below an error, if there is something to try.
pub fn about(error: &Error) -> Option<String> {
    match error {
        // A camera cannot be downloaded, but watched.
        Error::Unusable { what: FileKind::Video, path, .. } => {
            let address = path.to_str().filter(|address| LiveInput::is_address(address))?;
            let shown = LiveInput::Address(address.to_owned()).name();
            Some(format!("try `sharpv watch {}`, which reads addresses", shown.display()))
        }
        _ => line(&error.fixes()),
    }
}

fn line(fixes: &[Fix]) -> Option<String> {
    let tries: Vec<String> = fixes.iter().filter_map(option).collect();
    (!tries.is_empty()).then(|| format!("try {}", tries.join(", or ")))
}

/// `None` if the library's message is enough.
fn option(fix: &Fix) -> Option<String> {
    Some(match fix {
        Fix::MaxFrames(n) => format!("--max-frames {n}"),
        Fix::FewerFrames => "--max-frames N".to_owned(),
        Fix::KeepFewer => "--keep SHARE, --max-visual-tokens N".to_owned(),
        Fix::CtxSize(cells) => format!("-c {cells}"),
        Fix::LargerCtx => "a larger -c".to_owned(),
        Fix::QuantizeKv => "-ctk q8_0 -ctv q8_0".to_owned(),
        Fix::NewConversation => "/clear in a chat".to_owned(),
        Fix::Pull(name) => format!("`sharpv pull {name}`"),
        Fix::NameMmproj => "--mmproj FILE".to_owned(),
        Fix::SortModelFiles => {
            "-m for the language model, --mmproj for the multimodal projector, --lora for an adapter".to_owned()
        }
        Fix::ReadLog => "again with -v, which prints llama.cpp's log".to_owned(),
        Fix::MeasureLayers => "`sharpv calibrate`, which writes one".to_owned(),
        Fix::Measure => "`sharpv eval`, `sharpv bench` or `sharpv calibrate`, which write them".to_owned(),
        Fix::StartRpcServer => "`sharpv rpc-server` on that machine".to_owned(),
        Fix::SkipCheck => "--no-check, if you know that llama.cpp loads this file".to_owned(),
        Fix::NoThinking => "--think off".to_owned(),
        // Where one short answer is wanted, auto is off.
        Fix::DefaultThinking => "--think on, or --think auto in a chat".to_owned(),
        Fix::OtherKwargs => "other values in --chat-template-kwargs".to_owned(),
        Fix::OtherTemplate => "--chat-template-file FILE".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_tried_is_one_line() {
        let fixes = [Fix::MaxFrames(8), Fix::ShorterQuestion, Fix::CtxSize(864)];
        assert_eq!(line(&fixes).as_deref(), Some("try --max-frames 8, or -c 864"));
        assert_eq!(line(&[Fix::ShorterQuestion]), None);
    }

    #[test]
    fn an_address_can_be_watched() {
        let error = |path: &str| Error::Unusable {
            what: FileKind::Video,
            path: path.into(),
            reason: "this is a URL".into(),
            advice: "download it".into(),
        };
        let advice = about(&error("rtsp://me:secret@camera/1")).expect("something to try");
        assert!(advice.contains("`sharpv watch rtsp://camera/1`"), "{advice}");
        assert_eq!(about(&error("file:///a.mp4")), None);
    }
}
