//! The HTML page: charts, tables and settings in one file.

use super::charts::{Chart, escape, short};
use super::input::{Input, Results};
use crate::chat::LayerProfile;
use crate::lab::results::{Bench, Comparison, RunSettings, Scaling, Spread, Summary, VideoBench};
use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#d0d4d8}
@media (prefers-color-scheme:dark){:root{--line:#3a3f45}}
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#222426}
@media (prefers-color-scheme:dark){body{background:#16181b;color:#e6e8ea}}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}
figure{margin:1.5rem 0}svg{max-width:100%;height:auto}
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem}
th,td{border-bottom:1px solid var(--line);padding:.25rem .8rem .25rem 0;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
details{margin:.75rem 0}.note{font-size:.9rem;opacity:.8}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}";

/// The page of inputs and their charts.
pub fn html<'a>(sections: impl Iterator<Item = (&'a Input, Vec<Chart>)>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>sharpv report</title>\n\
         <style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>sharpv report</h1>\n"
    );
    for (input, charts) in sections {
        match &input.results {
            Results::Eval(eval) => eval_head(&mut page, eval),
            Results::Bench(bench) => bench_head(&mut page, bench),
            Results::Profile(profile) => profile_head(&mut page, profile),
        }
        for chart in &charts {
            let _ = writeln!(page, "<figure id=\"{}\">\n{}\n</figure>", escape(&chart.name), chart.inline());
        }
        match &input.results {
            Results::Eval(eval) => eval_tables(&mut page, eval),
            Results::Bench(bench) => bench_tables(&mut page, bench),
            Results::Profile(profile) => profile_table(&mut page, profile),
        }
    }
    page + "</body>\n</html>\n"
}

fn profile_head(page: &mut String, profile: &LayerProfile) {
    let _ = writeln!(
        page,
        "<h2>Layers of {}</h2>\n<p>{} of {} layers can do without visual tokens, measured on {} answers about {} clips, with \
         {}</p>",
        escape(&profile.model),
        profile.free_layers().len(),
        profile.single.len(),
        profile.answers,
        profile.clips,
        escape(&profile.llama_cpp)
    );
}

fn profile_table(page: &mut String, profile: &LayerProfile) {
    let rows = profile.steps.iter().map(|step| {
        vec![
            step.layers.to_string(),
            format!("{:.4}", step.loss.lost),
            format!("{:.4}", step.loss.divergence),
            format!("{:.1} %", 100.0 * step.loss.changed),
            if step.layers <= profile.free { "yes" } else { "no" }.to_owned(),
        ]
    });
    table(page, &["layers together", "probability lost", "nats a token", "tokens changed", "free"], rows);
}

fn eval_head(page: &mut String, eval: &Summary) {
    let unfinished = if eval.complete { "" } else { ", <strong>not finished</strong>" };
    let _ = writeln!(page, "<h2>{}</h2>\n<p>{} questions{unfinished}</p>", escape(&eval.task), eval.questions);
}

fn eval_tables(page: &mut String, eval: &Summary) {
    let rows = eval.variants.iter().map(|variant| {
        vec![
            variant.name.clone(),
            format!("{:.1} %", 100.0 * variant.kept_share),
            format!("{}/{}", variant.all.correct, variant.all.n),
            format!("{:.1} %", 100.0 * variant.all.accuracy),
            format!("{:.1}–{:.1} %", 100.0 * variant.all.interval[0], 100.0 * variant.all.interval[1]),
        ]
    });
    table(page, &["method", "tokens kept", "right", "accuracy", "95 % interval"], rows);
    differences(page, eval);
    settings(page, "Settings", &eval.settings);
}

/// The other variants compared with the first, on the same questions.
fn differences(page: &mut String, eval: &Summary) {
    let Some(first) = eval.variants.first() else { return };
    let with_first: Vec<_> = eval.comparisons.iter().filter(|comparison| comparison.a == first.name).collect();
    if with_first.is_empty() {
        return;
    }
    table(page, &Comparison::HEAD, with_first.iter().map(|comparison| comparison.cells()));
}

fn bench_head(page: &mut String, bench: &Bench) {
    let what = match (&bench.video, &bench.scaling) {
        (Some(video), _) => format!("Bench: {}", video.video),
        (None, _) => "Bench: scaling".to_owned(),
    };
    let machine = &bench.machine;
    let gpus: String = machine.gpus.iter().map(|gpu| format!(", {}", gpu.description)).collect();
    let machine = escape(&format!("sharpv {}, {}, {} cores{gpus}", bench.version, machine.cpu, machine.cores));
    let _ = writeln!(page, "<h2>{}</h2>\n<p>{machine}</p>", escape(&what));
}

fn bench_tables(page: &mut String, bench: &Bench) {
    if let Some(video) = &bench.video {
        video_table(page, video);
    }
    if let Some(scaling) = &bench.scaling {
        scaling_table(page, scaling);
    }
    if let Ok(Value::Object(machine)) = serde_json::to_value(&bench.machine) {
        settings(page, "Machine", &machine);
    }
}

fn video_table(page: &mut String, bench: &VideoBench) {
    let rows = bench.methods.iter().map(|method| {
        let stages = &method.timings_ms;
        vec![
            method.name.clone(),
            format!("{} of {}", method.visual_tokens.kept, method.visual_tokens.total),
            spread(&stages.decode_video),
            spread(&stages.encode),
            spread(&stages.prune),
            spread(&stages.prefill) + &times(method.ratios.prefill),
            spread(&stages.ttft) + &times(method.ratios.ttft),
            method.decode_tokens_per_second.as_ref().map_or_else(|| "–".into(), spread),
            mebibytes(Some(method.kv.bytes)) + &times(method.ratios.kv_bytes),
            mebibytes(method.memory.peak_rss_bytes),
            mebibytes(method.memory.device_bytes),
        ]
    });
    let head = [
        "method",
        "tokens kept",
        "video decode, ms",
        "encode, ms",
        "prune, ms",
        "prefill, ms",
        "first token, ms",
        "tokens/s",
        "KV cache, MiB",
        "peak RSS, MiB",
        "GPU, MiB",
    ];
    table(page, &head, rows);
    let _ = writeln!(
        page,
        "<p class=\"note\">{}, {} runs each, taking turns: medians (smallest–largest), × the median of {}. \
         Bars are medians of the stages; the number is the median of the whole. Question: {}</p>",
        escape(&bench.model),
        bench.repeats,
        escape(&bench.base),
        escape(&bench.question)
    );
    settings(page, "Settings", &bench.settings);
}

fn scaling_table(page: &mut String, scaling: &Scaling) {
    let rows = scaling.points.iter().map(|point| {
        vec![
            format!("{} × {}", point.frames, point.tokens_per_frame),
            point.method.clone(),
            point.kept.to_string(),
            spread(&point.prefill_ms),
            point.decode_tokens_per_second.as_ref().map_or_else(|| "–".into(), spread),
            mebibytes(Some(point.kv_bytes)),
        ]
    });
    let head = ["frames × tokens", "method", "tokens kept", "prefill, ms", "tokens/s", "KV cache, MiB"];
    table(page, &head, rows);
    let _ = writeln!(
        page,
        "<p class=\"note\">{}, {} runs each, embeddings made up, {} tokens decoded: medians (smallest–largest)</p>",
        escape(&scaling.model),
        scaling.repeats,
        scaling.decoded
    );
}

fn table(page: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let _ = writeln!(page, "<div class=\"wide\"><table>\n<tr>{}</tr>", cells("th", &mut head.iter().copied()));
    for row in rows {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
    }
    page.push_str("</table></div>\n");
}

fn settings(page: &mut String, title: &str, values: &RunSettings) {
    if values.is_empty() {
        return;
    }
    let lines: String = values.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let _ = writeln!(page, "<details><summary>{title}</summary><pre>{}</pre></details>", escape(&lines));
}

fn spread(spread: &Spread) -> String {
    format!("{} ({}–{})", short(spread.median), short(spread.min), short(spread.max))
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!(" ×{ratio:.2}"))
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| short(bytes as f64 / f64::from(1 << 20)))
}
