//! `sharpv bench` with the model `smol` on a clip of 8 frames.
#![cfg(feature = "cli")]

use crate::support::program::{sharpv, with_smol};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use sharpv::lab::results::Bench;
use std::path::Path;

fn clip() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/order-1");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn check_spread(spread: &Value) {
    let [min, median, max] = ["min", "median", "max"].map(|key| number(&spread[key]));
    assert!(min >= 0.0 && min <= median && median <= max, "{spread}");
}

#[test]
fn methods_are_measured_and_compared_with_the_first() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("results");
    let folder = folder.to_str().unwrap();
    let options = "--repeats 2 -n 4 --keep 0.25 --max-frames 4 --methods dense,sharpv,random --out";
    let clip = clip();
    let mut args = vec!["bench", &clip];
    args.extend(options.split(' '));
    args.push(folder);
    let assert = with_smol(&args).assert().success().stderr(contains("runs 7/7"));
    let table = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert_eq!(table, std::fs::read_to_string(format!("{folder}/bench.md")).unwrap());
    for row in [
        "| dense | sharpv | random |",
        "| visual tokens kept | 256 of 256 (100.0 %) | 64 of 256 (25.0 %) | 64 of 256 (25.0 %) |",
        "| video decode, ms |",
        "| encode, ms |",
        "| prune, ms |",
        "| prefill, ms |",
        "| time to first token, ms |",
        "| decode, tokens/s |",
        "| answer, tokens | 4 | 4 | 4 |",
        "| KV cache, MiB |",
        "| peak RSS, MiB |",
    ] {
        assert!(table.contains(row), "{row} is not in\n{table}");
    }

    let text = std::fs::read_to_string(format!("{folder}/bench.json")).unwrap();
    let read: Bench = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string_pretty(&read).unwrap() + "\n", text, "what is read is what was written");
    let bench: Value = serde_json::from_str(&text).unwrap();
    // As it was given, and not as the `f64` closest to the `f32`.
    assert_eq!(bench["video"]["settings"]["sampler"]["top_p"], 0.95);
    assert_eq!((&bench["kind"], &bench["format"]), (&"bench".into(), &1.into()));
    assert_eq!(bench["scaling"], Value::Null);
    let video = &bench["video"];
    assert_eq!((&video["frames"], &video["repeats"], &video["base"]), (&4.into(), &2.into(), &"dense".into()));
    assert_eq!(video["budget"]["keep"], 0.25);
    let methods = video["methods"].as_array().unwrap();
    assert_eq!(methods.iter().map(|m| m["name"].as_str().unwrap()).collect::<Vec<_>>(), ["dense", "sharpv", "random"]);
    let dense = &methods[0];
    for method in methods {
        let stages = &method["timings_ms"];
        stages.as_object().unwrap().values().for_each(check_spread);
        check_spread(&method["decode_tokens_per_second"]);
        for stage in ["encode", "prefill", "ttft"] {
            let expected = number(&stages[stage]["median"]) / number(&dense["timings_ms"][stage]["median"]);
            assert!((number(&method["ratios"][stage]) - expected).abs() < 1e-9, "{stage}");
            assert!(number(&stages[stage]["min"]) > 0.0, "{stage}");
        }
        let kv = number(&method["kv"]["bytes"]) / number(&dense["kv"]["bytes"]);
        assert!((number(&method["ratios"]["kv_bytes"]) - kv).abs() < 1e-9);
        // A process that loads a model of 98 MB holds more than that.
        assert!(number(&method["memory"]["peak_rss_bytes"]) > 100e6);
    }
    let [dense_rows, sharpv_rows] = [0, 1].map(|i| number(&methods[i]["prompt_rows"]));
    assert_eq!(dense_rows - sharpv_rows, 192.0);
    assert!(number(&methods[1]["ratios"]["kv_bytes"]) < 1.0);
    for name in ["ttft.svg", "kv-cache.svg", "report.html"] {
        assert!(Path::new(folder).join(name).is_file(), "{name}");
    }
}

#[test]
fn made_up_videos_scale() {
    let args = "bench --synthetic 2x32,8x32 --methods sharpv,dense --repeats 1 -n 4 --json";
    let assert = with_smol(&args.split(' ').collect::<Vec<_>>()).assert().success();
    let bench: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(bench["video"], Value::Null);
    assert_eq!(bench["scaling"]["decoded"], 4);
    let points = bench["scaling"]["points"].as_array().unwrap();
    let facts: Vec<_> = points.iter().map(|p| (p["method"].as_str().unwrap(), number(&p["visual_tokens"]))).collect();
    assert_eq!(facts, [("sharpv", 64.0), ("dense", 64.0), ("sharpv", 256.0), ("dense", 256.0)]);
    for point in points {
        for key in ["prune_ms", "prefill_ms", "decode_tokens_per_second"] {
            check_spread(&point[key]);
        }
        assert!(number(&point["prefill_ms"]["min"]) > 0.0);
        let text = number(&point["prompt_rows"]) - number(&point["kept"]);
        assert!((10.0..60.0).contains(&text), "{text} rows of text");
    }
    assert_eq!(points[3]["kept"], 256);
    assert!((1.0..200.0).contains(&number(&points[2]["kept"])), "{}", points[2]["kept"]);
    assert!(number(&points[3]["kv_bytes"]) > number(&points[1]["kv_bytes"]));
}

#[test]
fn made_up_videos_suit_every_family() {
    // Positions in time and space; rows that are wider than a hidden state; sliding windows.
    for family in ["qwen2vl", "qwen3vl", "gemma3", "minicpmv"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        let file = |name: String| folder.join(name).to_str().expect("a path in UTF-8").to_owned();
        let (model, mmproj) = (file(format!("{family}.gguf")), file(format!("{family}-mmproj.gguf")));
        // More rows than a ubatch.
        let mut args: Vec<&str> = "bench --synthetic 40x16 --repeats 2 -n 2 --keep 0.5 --json -m".split(' ').collect();
        args.extend([&model, "--mmproj", &mmproj]);
        let assert = sharpv(&args).assert().success().stderr(contains("scaling 6/6"));
        let bench: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
        let points = bench["scaling"]["points"].as_array().unwrap();
        assert_eq!(points.iter().map(|p| number(&p["kept"])).collect::<Vec<_>>(), [640.0, 320.0], "{family}");
    }
}

#[test]
fn wrong_use_is_told_before_a_model_is_loaded() {
    let clip = clip();
    let cases: [(&[&str], &str); 8] = [
        (&["bench"], "VIDEO"),
        (&["bench", "--synthetic", "8by4"], "FRAMESxTOKENS"),
        (&["bench", &clip, "--methods", "dense,best"], "possible values: sharpv, sharpv-paper, dense, random"),
        (&["bench", &clip, "--methods", "dense,off"], "each method once"),
        (&["bench", &clip, "--keep", "2"], "is 2"),
        (&["bench", &clip, "--repeats", "0"], "--repeats"),
        (&["bench", &clip, "-n", "0"], "--predict"),
        (&["bench", &clip, "--prune", "off"], "--prune"),
    ];
    for (args, reason) in cases {
        sharpv(args).env("SHARPV_HOME", "/nowhere").assert().code(2).stdout("").stderr(contains(reason));
    }
    let missing = ["bench", "no-such-file.mp4", "-m", "smol"];
    sharpv(&missing).assert().code(1).stderr(contains("no-such-file.mp4").and(contains("panicked").not()));
}
