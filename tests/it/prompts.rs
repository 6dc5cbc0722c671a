//! Prompts of each model family against those of its own processor in Hugging Face's `transformers`
//! (`tests/data/prompts`): text, tokens, visual tokens a slice, positions.

use crate::support::families;

use serde_json::Value;
use sharpv::chat::{Quiet, RowKey, Session, SessionParams, VideoOptions, VideoReport};
use sharpv::prune::PruneParams;
use std::path::Path;

/// What the processor's result says of one prompt.
struct Golden {
    name: String,
    json: Value,
}

impl Golden {
    /// The cases of a family; `pictures` or videos.
    fn of(family: &str, pictures: bool) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prompts");
        let mut cases: Vec<Self> = std::fs::read_dir(&folder)
            .expect("the folder of prompts")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| Self {
                name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
                json: serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON"),
            })
            .filter(|case| case.json["family"] == family && case.json["picture"].is_object() == pictures)
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    fn number(&self, of: &str, key: &str) -> f64 {
        self.json[of][key].as_f64().unwrap_or_else(|| panic!("{}: {of}.{key}", self.name))
    }

    fn question(&self) -> &str {
        self.json["question"].as_str().expect("a question")
    }

    /// The tokens; `None` stands for a visual one.
    fn tokens(&self) -> Vec<Option<i64>> {
        let runs = self.json["tokens"].as_array().expect("runs of tokens");
        runs.iter()
            .flat_map(|run| match &run[1] {
                Value::Array(ids) => ids.iter().map(Value::as_i64).collect(),
                n => vec![None; n.as_u64().expect("a number of visual tokens") as usize],
            })
            .collect()
    }

    /// Time, height and width of each token, if the family has these.
    fn positions(&self) -> Option<Vec<[i64; 3]>> {
        let axes = self.json["positions"].as_array()?;
        let axis = |i: usize| axes[i].as_array().expect("positions").iter().map(|p| p.as_i64().expect("a position"));
        Some(axis(0).zip(axis(1)).zip(axis(2)).map(|((t, h), w)| [t, h, w]).collect())
    }

    /// Adds its video or picture to an empty session.
    fn show(&self, session: &mut Session) -> VideoReport {
        let folder = tempfile::tempdir().expect("a folder");
        if self.json["picture"].is_object() {
            let size = (self.number("picture", "width") as u32, self.number("picture", "height") as u32);
            let path = folder.path().join("picture.png");
            families::picture(size, 0).save(&path).expect("a picture");
            return session.add_video(&path, &VideoOptions::default(), &mut Quiet).expect("the picture is read");
        }
        let size = (self.number("video", "width") as u32, self.number("video", "height") as u32);
        let (n, fps) = (self.number("video", "frames") as usize, self.number("video", "fps"));
        families::write_frames(folder.path(), size, n);
        let options =
            VideoOptions { fps: Some(fps), max_frames: Some(n), folder_fps: Some(fps), ..VideoOptions::default() };
        session.add_video(folder.path(), &options, &mut Quiet).expect("the frames are read")
    }

    fn check(&self, session: &mut Session) {
        let name = &self.name;
        session.clear();
        let video = self.show(session);
        let rows = session.prompt_rows(self.question()).expect("a prompt");
        let ours: Vec<Option<i64>> = rows
            .iter()
            .map(|row| match row.key {
                RowKey::Token(token) => Some(token.into()),
                _ => None,
            })
            .collect();
        let expected = self.tokens();
        let text = |tokens: &[Option<i64>]| families::text(session.model(), tokens);
        assert_eq!(text(&ours), text(&expected), "{name}");
        assert_eq!(ours, expected, "{name}: the same text in other tokens");
        let positions = self.positions();
        assert_eq!(positions.is_some(), session.model().uses_mrope(), "{name}");
        for (i, row) in rows.iter().enumerate() {
            let [t, h, w] = match (&positions, row.key) {
                (Some(positions), RowKey::Token(_)) => [positions[i][0], 0, 0],
                (Some(positions), _) => positions[i],
                (None, _) => [i as i64, row.position[1].into(), row.position[2].into()],
            };
            assert_eq!(row.position[..3], [t, h, w].map(|p| p as i32), "{name}: row {i}");
        }
        let slices = self.json["slices"].as_u64().expect("a number of slices") as usize;
        let n_tokens: Vec<usize> = video.slices.iter().map(|slice| slice.total).collect();
        let grids: Vec<usize> = self.json["grids"].as_array().map_or_else(Vec::new, |grids| {
            grids.iter().map(|grid| (grid[0].as_u64().unwrap_or(0) * grid[1].as_u64().unwrap_or(0)) as usize).collect()
        });
        if self.json["picture"].is_null() {
            assert_eq!(n_tokens.len(), slices, "{name}");
            if !grids.is_empty() {
                assert_eq!(n_tokens, grids, "{name}");
            }
        }
    }
}

fn open(family: &str) -> Session {
    let params = SessionParams { prune: PruneParams::off(), ..SessionParams::default() };
    Session::open(&families::files(family), params, &mut Quiet).unwrap_or_else(|error| panic!("{family}: {error}"))
}

fn check(family: &str, layout: &str) {
    let mut session = open(family);
    assert_eq!(session.layout().name(), layout);
    let cases = Golden::of(family, false);
    assert!(cases.len() >= 4, "{family}: {} cases", cases.len());
    for case in cases {
        case.check(&mut session);
    }
}

#[test]
fn smolvlm() {
    check("smolvlm", "smolvlm");
}

#[test]
fn qwen2_vl() {
    check("qwen2vl", "qwen2-vl");
}

#[test]
fn qwen2_5_vl() {
    check("qwen2.5vl", "qwen2.5-vl");
}

#[test]
fn qwen3_vl() {
    check("qwen3vl", "qwen3-vl");
}

#[test]
fn llava_onevision() {
    check("llava-onevision", "llava-onevision");
}

#[test]
fn internvl() {
    check("internvl", "internvl");
}

#[test]
fn minicpm_v() {
    check("minicpmv", "minicpm-v");
}

#[test]
fn gemma3() {
    check("gemma3", "gemma3");
}

/// mtmd has its own ways with some: MiniCPM-V's pictures have no numbers there, LLaVA-OneVision's tiles no line ends, and InternVL's are others.
#[test]
fn pictures_where_mtmd_lays_them_out_as_the_processor_does() {
    for family in ["smolvlm", "qwen2vl", "qwen2.5vl", "qwen3vl", "gemma3"] {
        let mut session = open(family);
        let cases = Golden::of(family, true);
        assert!(!cases.is_empty(), "{family}");
        for case in cases {
            case.check(&mut session);
        }
    }
}
