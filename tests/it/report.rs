//! `sharpv report`: images and the page, from results written by hand.
#![cfg(feature = "cli")]

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use std::path::{Path, PathBuf};

fn sharpv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.env_remove("SHARPV_LOG").args(args);
    command
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All text of an SVG, which must be well-formed.
fn words(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).expect("well-formed XML");
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let texts = document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")));
    texts.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect()
}

const IMAGES: [&str; 6] = ["accuracy", "ttft", "kv-cache", "scaling-prefill", "scaling-kv-cache", "scaling-decode"];

#[test]
fn a_folder_of_results_becomes_images_and_one_page() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("new/images");
    sharpv(&["report", text(&data("")), "--out", text(&folder)])
        .assert()
        .success()
        .stdout("")
        .stderr(contains("report.html"));

    let page = read(&folder, "report.html");
    for name in IMAGES {
        let svg = read(&folder, &format!("{name}.svg"));
        assert!(!words(&svg).is_empty(), "{name}");
        // The same drawing, in the colors of the page.
        let drawn = svg.split_once("fill=\"#FFFFFF\"/>").expect("a background").1;
        assert!(page.contains(&drawn.replace("#222426", "currentColor")), "{name} is not in the page");
    }
    assert_eq!(page.matches("<svg ").count(), IMAGES.len());
    // Nothing is fetched.
    for word in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(word), "{word}");
    }
    // Texts from files are escaped.
    assert!(page.contains("a &lt;clip&gt; &amp; more.mp4") && !page.contains("<clip>"));
    assert!(page.contains("&lt;b&gt;be") && !page.contains("<b>"));
    assert!(!page.contains("random@0.1 − sharpv@0.1"), "only what is compared with the first is shown");
    for fact in [
        "sharpv@0.1 − dense",
        "-7.5",
        "2 : 5",
        "0.453",
        "sharpv@0.1",
        "39.8–69.3 %",
        "19/40",
        "not finished",
        "131 of 512",
        "965 (945–1010)",
        "×0.57",
    ] {
        assert!(page.contains(fact), "{fact}");
    }
}

#[test]
fn images_say_what_they_show_in_which_unit() {
    let out = tempfile::tempdir().unwrap();
    sharpv(&["report", text(&data("")), "--out", text(out.path())]).assert().success();
    let has = |name: &str, expected: &[&str]| {
        let words = words(&read(out.path(), &format!("{name}.svg")));
        for text in expected {
            assert!(words.iter().any(|word| word == text), "{name} has no \"{text}\": {words:?}");
        }
    };
    has("accuracy", &["accuracy, %", "visual tokens kept, %", "sharpv", "random", "dense (100 % kept)"]);
    has("ttft", &["milliseconds", "encode", "prefill", "965 ms", "548 ms (×0.57)", "dense", "random"]);
    has("kv-cache", &["MiB", "13.5 MiB", "4.77 MiB (×0.35)"]);
    has("scaling-prefill", &["prefill, ms", "visual tokens of the video", "dense", "sharpv"]);
    has("scaling-decode", &["tokens a second"]);
}

#[test]
fn images_can_be_pixels() {
    let out = tempfile::tempdir().unwrap();
    let results = data("");
    let report =
        |formats: &str| sharpv(&["report", text(&results), "--out", text(out.path()), "--format", formats]).assert();
    report("png").success().stderr(contains("ttft.png"));
    assert!(!out.path().join("ttft.svg").exists() && out.path().join("report.html").exists());
    report("svg,png").success();
    report("gif").code(2).stderr(contains("svg, png"));

    for name in IMAGES {
        let svg = read(out.path(), &format!("{name}.svg"));
        let document = roxmltree::Document::parse(&svg).unwrap();
        let size = |name| document.root_element().attribute(name).and_then(|size| size.parse::<u32>().ok()).unwrap();
        let png = image::open(out.path().join(format!("{name}.png"))).expect("a PNG").to_rgb8();
        assert_eq!((png.width(), png.height()), (2 * size("width"), 2 * size("height")), "{name}");
        assert_eq!(png.get_pixel(0, 0).0, [255; 3], "{name}");
        // The title is drawn, as text of about its height.
        let ink = |y: &u32| (0..png.width()).any(|x| png.get_pixel(x, *y).0.iter().all(|&value| value < 90));
        let lines = (24..70).filter(ink).count();
        assert!((20..=46).contains(&lines), "{name}: {lines} lines with ink");
    }
    // Bars have the same positions as in the SVG.
    let svg = read(out.path(), "kv-cache.svg");
    let document = roxmltree::Document::parse(&svg).unwrap();
    let png = image::open(out.path().join("kv-cache.png")).expect("a PNG").to_rgb8();
    let bars = document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "rect")));
    for bar in bars.filter(|node| node.attribute("fill") != Some("#FFFFFF")) {
        let number = |name| bar.attribute(name).and_then(|value| value.parse::<f64>().ok()).unwrap();
        let (x, y) = (number("x") + number("width") / 2.0, number("y") + number("height") / 2.0);
        let [r, g, b] = png.get_pixel((2.0 * x) as u32, (2.0 * y) as u32).0;
        assert_eq!(Some(format!("#{r:02X}{g:02X}{b:02X}").as_str()), bar.attribute("fill"));
    }
}

#[test]
fn bars_are_as_long_as_the_numbers() {
    let out = tempfile::tempdir().unwrap();
    sharpv(&["report", text(&data("bench.json")), "--out", text(out.path())]).assert().success();
    let svg = read(out.path(), "kv-cache.svg");
    let document = roxmltree::Document::parse(&svg).unwrap();
    let bars = document.descendants().filter(|node| {
        node.has_tag_name(("http://www.w3.org/2000/svg", "rect")) && node.attribute("fill") != Some("#FFFFFF")
    });
    let widths: Vec<f64> = bars.filter_map(|bar| bar.attribute("width")?.parse().ok()).collect();
    let [dense, sharpv, random] = widths[..] else { panic!("{widths:?}") };
    assert!((sharpv / dense - 5_000_000.0 / 14_155_776.0).abs() < 0.01, "{widths:?}");
    assert_eq!(sharpv, random);
}

#[test]
fn results_of_a_kind_that_is_there_twice_get_names_of_their_own() {
    let out = tempfile::tempdir().unwrap();
    let file = data("summary.json");
    sharpv(&["report", text(&file), text(&file), "--out", text(out.path())]).assert().success();
    assert_eq!(read(out.path(), "accuracy.svg"), read(out.path(), "accuracy-2.svg"));
    assert_eq!(read(out.path(), "report.html").matches("<figure").count(), 2);
}

#[test]
fn what_holds_no_results_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let summary = std::fs::read_to_string(data("summary.json")).unwrap();
    let bench = std::fs::read_to_string(data("bench.json")).unwrap();
    let cases = [
        ("not JSON", "no JSON"),
        ("[]", "no summary"),
        ("{\"variants\": []}", "no format"),
        ("{\"variants\": [], \"format\": 1}", "missing field"),
        (
            "{\"variants\": [], \"format\": 1, \"task\": \"t\", \"questions\": 0, \"complete\": true}",
            "nothing was measured",
        ),
        (&summary.replace("\"format\": 1", "\"format\": 7"), "format 7"),
        (&summary.replace("0.475", "1e300"), "cannot be drawn"),
        (&summary.replace("0.475", "null"), "invalid type: null"),
        (&bench.replace("\"prefill\": {", "\"other\": {"), "missing field `prefill`"),
    ];
    for (content, reason) in cases {
        let path = folder.path().join("results.json");
        std::fs::write(&path, content).unwrap();
        sharpv(&["report", text(&path), "--out", text(&out)])
            .assert()
            .code(1)
            .stderr(contains(text(&path)).and(contains(reason)));
        assert!(!out.exists(), "{reason}");
    }
    let missing = folder.path().join("missing.json");
    sharpv(&["report", text(&missing), "--out", text(&out)]).assert().code(1).stderr(contains("missing.json"));
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    sharpv(&["report", text(&empty), "--out", text(&out)])
        .assert()
        .code(1)
        .stderr(contains("neither summary.json nor bench.json"));
    sharpv(&["report", text(&data(""))]).assert().code(2).stderr(contains("--out"));
}

#[test]
fn odd_texts_and_numbers_stay_drawable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    let summary = std::fs::read_to_string(data("summary.json")).unwrap();
    let odd = summary.replace("\"task\": \"mvbench\"", "\"task\": \"a\\u0001<&>\\\"'ü\"");
    // All accuracies the same, and nothing kept.
    let odd = odd.replace("\"kept_share\": 0.1", "\"kept_share\": 0").replace("0.475", "0.55").replace("0.4,", "0.55,");
    std::fs::write(&path, odd).unwrap();
    sharpv(&["report", text(&path), "--out", text(folder.path()), "--format", "svg,png"]).assert().success();
    image::open(folder.path().join("accuracy.png")).expect("a PNG");
    assert!(words(&read(folder.path(), "accuracy.svg"))[0].starts_with("a<&>\"'ü"));
}
