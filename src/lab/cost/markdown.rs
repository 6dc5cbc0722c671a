//! A bench as Markdown.

use crate::lab::results::{Bench, MethodCost, Scaling, Spread, VideoBench};
use serde_json::Value;
use std::fmt::Write as _;

impl Bench {
    /// The tables that `sharpv bench` prints.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let machine = &self.machine;
        let cpu = if machine.cpu.is_empty() { &machine.arch } else { &machine.cpu };
        let gpus: String = machine.gpus.iter().map(|gpu| format!(", {}", gpu.description)).collect();
        let _ = writeln!(text, "sharpv {}, {cpu}, {} cores{gpus}", self.version, machine.cores);
        if let Some(video) = &self.video {
            text.push_str(&video_table(video));
        }
        if let Some(scaling) = &self.scaling {
            text.push_str(&scaling_table(scaling));
        }
        text
    }
}

type Cell<'a> = Box<dyn Fn(&MethodCost) -> String + 'a>;

fn video_table(bench: &VideoBench) -> String {
    let setting = |name| bench.settings.get(name).map_or_else(|| "?".to_owned(), Value::to_string);
    let mut text = format!(
        "\n## {}, {} frames\n\n{}, {}, {} threads, ubatch {}\n\n",
        plain(&bench.video),
        bench.frames,
        plain(&bench.model),
        runs(bench.repeats),
        setting("n_threads"),
        setting("n_ubatch")
    );
    let stage = |of: fn(&MethodCost) -> &Spread| -> Cell<'_> { Box::new(move |cost| time(of(cost))) };
    let timed = |of: fn(&MethodCost) -> &Spread, ratio: fn(&MethodCost) -> Option<f64>| -> Cell<'_> {
        Box::new(move |cost| time(of(cost)) + &times(ratio(cost)))
    };
    let mut rows: Vec<(&str, Cell<'_>)> = vec![
        (
            "visual tokens kept",
            Box::new(|cost| {
                let tokens = &cost.visual_tokens;
                format!("{} of {} ({:.1} %)", tokens.kept, tokens.total, 100.0 * tokens.keep_ratio)
            }),
        ),
        ("video decode, ms", stage(|cost| &cost.timings_ms.decode_video)),
        ("encoder's work done", Box::new(|cost| format!("{:.1} %", 100.0 * cost.computed))),
        ("encode, ms", timed(|cost| &cost.timings_ms.encode, |cost| cost.ratios.encode)),
        ("prune, ms", stage(|cost| &cost.timings_ms.prune)),
        ("prefill, ms", timed(|cost| &cost.timings_ms.prefill, |cost| cost.ratios.prefill)),
        ("time to first token, ms", timed(|cost| &cost.timings_ms.ttft, |cost| cost.ratios.ttft)),
        (
            "decode, tokens/s",
            Box::new(|cost| {
                cost.decode_tokens_per_second
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |speed| time(speed) + &times(cost.ratios.decode_tokens_per_second))
            }),
        ),
        ("answer, tokens", Box::new(|cost| cost.generated.to_string())),
        ("KV cache, MiB", Box::new(|cost| mebibytes(Some(cost.kv.bytes)) + &times(cost.ratios.kv_bytes))),
        ("of it states, MiB", Box::new(|cost| mebibytes(Some(cost.kv.bytes_state)))),
        ("checkpoints, MiB", Box::new(|cost| mebibytes(Some(cost.kv.bytes_checkpoints)))),
        ("peak RSS, MiB", Box::new(|cost| mebibytes(cost.memory.peak_rss_bytes) + &times(cost.ratios.peak_rss_bytes))),
    ];
    if bench.methods.iter().all(|cost| cost.kv.bytes_state == 0) {
        rows.retain(|(name, _)| !["of it states, MiB", "checkpoints, MiB"].contains(name));
    }
    if bench.methods.iter().any(|cost| cost.memory.device_bytes.is_some()) {
        rows.push((
            "GPU memory, MiB",
            Box::new(|cost| mebibytes(cost.memory.device_bytes) + &times(cost.ratios.device_bytes)),
        ));
    }
    let names: Vec<&str> = bench.methods.iter().map(|cost| cost.name.as_str()).collect();
    text.push_str(&header("", &names));
    for (name, cell) in rows {
        let cells: Vec<String> = bench.methods.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    let _ = writeln!(
        text,
        "\nMedians, with the smallest and the largest, and × the median of {}. Memory is that of a process of its own for each method.",
        bench.base
    );
    text
}

fn scaling_table(scaling: &Scaling) -> String {
    let mut text = format!(
        "\n## Scaling\n\n{}, {}, embeddings made up, {} tokens decoded\n\n",
        plain(&scaling.model),
        runs(scaling.repeats),
        scaling.decoded
    );
    let columns = ["method", "kept", "prune, ms", "prefill, ms", "decode, tokens/s", "KV cache, MiB"];
    text.push_str(&header("frames × tokens", &columns));
    for point in &scaling.points {
        let speed = point.decode_tokens_per_second.as_ref().map_or_else(|| "–".to_owned(), time);
        let _ = writeln!(
            text,
            "| {} × {} | {} | {} | {} | {} | {speed} | {} |",
            point.frames,
            point.tokens_per_frame,
            point.method,
            point.kept,
            time(&point.prune_ms),
            time(&point.prefill_ms),
            mebibytes(Some(point.kv_bytes))
        );
    }
    text
}

fn header(first: &str, names: &[&str]) -> String {
    format!("| {first} | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(names.len()))
}

fn runs(repeats: usize) -> String {
    if repeats == 1 { "1 run".to_owned() } else { format!("{repeats} runs") }
}

fn time(spread: &Spread) -> String {
    format!("{} ({}–{})", number(spread.median), number(spread.min), number(spread.max))
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!(" ×{ratio:.2}"))
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| number(bytes as f64 / f64::from(1 << 20)))
}

/// At least three digits.
fn number(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Escapes text that could break a table.
fn plain(text: &str) -> String {
    text.replace(['|', '\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.123, 9.994, 9.996, 99.94, 99.96, 1234.5].map(number);
        assert_eq!(texts, ["0.00", "0.12", "9.99", "10.0", "99.9", "100", "1234"]);
    }
}
