//! The charts of results.

use super::bars::{Bar, BarChart};
use super::draw::{DrawError, INK_TEXT, color, method_color};
use super::image_file;
use super::input::{Input, Results};
use super::lines::{Curve, Dot, Level, LineChart};
use crate::chat::LayerProfile;
use crate::lab::results::{Bench, MethodCost, Scaling, ScalingPoint, Spread, Summary, VideoBench};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Its name, and that of its file without the extension.
    pub name: String,
    /// Its title.
    pub title: String,
    svg: String,
}

impl Chart {
    /// A chart of the drawing `svg`. Screen readers say its title.
    pub fn new(name: &str, title: &str, svg: String) -> Self {
        // For screen readers.
        let label = format!("role=\"img\" aria-label=\"{}\" ", escape(title));
        let start = svg.find("<svg ").map_or(0, |at| at + "<svg ".len());
        let (head, rest) = svg.split_at(start);
        Self { name: name.to_owned(), title: title.to_owned(), svg: format!("{head}{label}{rest}") }
    }

    /// A standalone SVG file, on white.
    pub fn svg(&self) -> String {
        let end = self.svg.find('>').map_or(0, |at| at + 1);
        let (head, rest) = self.svg.split_at(end);
        format!("{head}\n<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>{rest}")
    }

    /// A standalone PNG file, on white.
    ///
    /// # Errors
    /// If the image is too large for memory.
    pub fn png(&self) -> Result<Vec<u8>, DrawError> {
        image_file::png(&self.svg())
    }

    /// The SVG as part of a page, in the color of its text.
    pub fn inline(&self) -> String {
        self.svg.replace(INK_TEXT, "currentColor").replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
    }
}

/// Escapes text for HTML content and attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// All charts of a file of results.
pub fn of(input: &Input) -> Result<Vec<Chart>, DrawError> {
    match &input.results {
        Results::Eval(eval) => accuracy(eval).map(|chart| vec![chart]),
        Results::Bench(bench) => of_bench(bench),
        Results::Profile(profile) => Ok(vec![layer_costs(profile)?, layers_together(profile)?]),
    }
}

/// The cost of each layer alone, in order.
fn layer_costs(profile: &LayerProfile) -> Result<Chart, DrawError> {
    let free = profile.free_layers();
    let bars = profile.single.iter().enumerate().filter_map(|(layer, loss)| {
        let loss = loss.as_ref()?;
        let is_free = if free.contains(&layer) { ", free" } else { "" };
        let note = format!("{:.4} nats, {:.4} lost{is_free}", loss.divergence, loss.lost);
        Some(Bar { name: layer.to_string(), parts: vec![loss.divergence.max(0.0)], note })
    });
    let title = format!("{}: effect of hiding visual tokens from one layer", profile.model);
    let is_free = |name: &str| name.parse().is_ok_and(|layer: usize| free.contains(&layer));
    let chart = BarChart {
        title: &title,
        x_label: "divergence of a token's distribution, nats",
        legend: vec![("needed".to_owned(), color(0)), ("free".to_owned(), color(1))],
        color: &|bar, _| color(usize::from(is_free(&bar.name))),
        bars: bars.collect(),
    };
    Ok(Chart::new("layer-costs", &title, chart.svg()?))
}

/// The cost of hiding visual tokens from several layers at once.
fn layers_together(profile: &LayerProfile) -> Result<Chart, DrawError> {
    let dots = profile.steps.iter().map(|step| {
        let y = step.loss.lost;
        Dot { x: step.layers as f64, y, low: y, high: y }
    });
    let allowed = profile.max_loss;
    let title = format!("{}: visual tokens hidden from several layers, on other clips", profile.model);
    let chart = LineChart {
        title: &title,
        x_label: "layers without visual tokens, cheapest first",
        y_label: "probability lost by the answers' tokens",
        curves: vec![Curve { name: "measured".to_owned(), color: color(0), dots: dots.collect() }],
        level: Some(Level { name: "allowed".to_owned(), color: color(1), y: allowed, low: allowed, high: allowed }),
        marks: None,
        from_zero: true,
        limit: f64::MAX,
    };
    Ok(Chart::new("layers-together", &title, chart.svg()?))
}

fn of_bench(bench: &Bench) -> Result<Vec<Chart>, DrawError> {
    let mut charts = Vec::new();
    if let Some(video) = bench.video.as_ref().filter(|video| !video.methods.is_empty()) {
        charts.push(time_to_first_token(video)?);
        charts.push(kv_cache(video)?);
    }
    if let Some(scaling) = bench.scaling.as_ref().filter(|scaling| !scaling.points.is_empty()) {
        charts.extend(curves(scaling)?);
    }
    Ok(charts)
}

fn accuracy(eval: &Summary) -> Result<Chart, DrawError> {
    let asked = || eval.variants.iter().filter(|variant| variant.all.n > 0);
    let mut curves: Vec<Curve> = Vec::new();
    for variant in asked().filter(|variant| variant.method != "dense") {
        let [low, high] = variant.all.interval;
        let dot = Dot {
            x: 100.0 * variant.kept_share,
            y: 100.0 * variant.all.accuracy,
            low: 100.0 * low,
            high: 100.0 * high,
        };
        match curves.iter_mut().find(|curve| curve.name == variant.method) {
            Some(curve) => curve.dots.push(dot),
            None => curves.push(Curve {
                name: variant.method.clone(),
                color: method_color(&variant.method),
                dots: vec![dot],
            }),
        }
    }
    let level = asked().find(|variant| variant.method == "dense").map(|dense| Level {
        name: "dense (100 % kept)".to_owned(),
        color: method_color("dense"),
        y: 100.0 * dense.all.accuracy,
        low: 100.0 * dense.all.interval[0],
        high: 100.0 * dense.all.interval[1],
    });
    let title = format!("{}: accuracy against budget, with 95 % intervals", eval.task);
    let chart = LineChart {
        title: &title,
        x_label: "visual tokens kept, %",
        y_label: "accuracy, %",
        curves,
        level,
        marks: None,
        from_zero: false,
        limit: 100.0,
    };
    Ok(Chart::new("accuracy", &title, chart.svg()?))
}

type Stage = (&'static str, fn(&MethodCost) -> f64);

const STAGES: [Stage; 4] = [
    ("video decode", |method| method.timings_ms.decode_video.median),
    ("encode", |method| method.timings_ms.encode.median),
    ("prune", |method| method.timings_ms.prune.median),
    ("prefill", |method| method.timings_ms.prefill.median),
];
/// Colors of the stages: neighbors differ clearly.
const STAGE_COLORS: [usize; 4] = [5, 1, 4, 0];

fn time_to_first_token(bench: &VideoBench) -> Result<Chart, DrawError> {
    let color = |stage: usize| color(STAGE_COLORS.get(stage).copied().unwrap_or(3));
    let bars = bench.methods.iter().map(|method| {
        let ttft = method.timings_ms.ttft.median;
        Bar {
            name: method.name.clone(),
            parts: STAGES.iter().map(|(_, of)| of(method).max(0.0)).collect(),
            note: format!("{} ms{}", short(ttft), times(method.ratios.ttft)),
        }
    });
    let title = format!("Time to first token, {} frames, medians of {}", bench.frames, bench.repeats);
    let chart = BarChart {
        title: &title,
        x_label: "milliseconds",
        legend: STAGES.iter().enumerate().map(|(i, (name, _))| ((*name).to_owned(), color(i))).collect(),
        color: &|_, part| color(part),
        bars: bars.collect(),
    };
    Ok(Chart::new("ttft", &title, chart.svg()?))
}

fn kv_cache(bench: &VideoBench) -> Result<Chart, DrawError> {
    let bars = bench.methods.iter().map(|method| {
        let size = method.kv.bytes as f64 / MEBIBYTE;
        Bar {
            name: method.name.clone(),
            parts: vec![size],
            note: format!("{} MiB{}", short(size), times(method.ratios.kv_bytes)),
        }
    });
    let title = format!("KV cache, {} frames", bench.frames);
    let chart = BarChart {
        title: &title,
        x_label: "MiB",
        legend: Vec::new(),
        color: &|bar, _| method_color(&bar.name),
        bars: bars.collect(),
    };
    Ok(Chart::new("kv-cache", &title, chart.svg()?))
}

fn curves(scaling: &Scaling) -> Result<Vec<Chart>, DrawError> {
    let alike = |value: f64| Spread { median: value, min: value, max: value };
    let prefill =
        curve(scaling, "scaling-prefill", "Prefill against length", "prefill, ms", &|point| Some(point.prefill_ms))?;
    let cache = curve(scaling, "scaling-kv-cache", "KV cache against length", "KV cache, MiB", &|point| {
        Some(alike(point.kv_bytes as f64 / MEBIBYTE))
    })?;
    let speed = curve(scaling, "scaling-decode", "Decode speed against length", "tokens a second", &|point| {
        point.decode_tokens_per_second
    })?;
    Ok([prefill, cache, speed].into_iter().flatten().collect())
}

fn curve(
    scaling: &Scaling,
    name: &str,
    title: &str,
    y_label: &str,
    value: &dyn Fn(&ScalingPoint) -> Option<Spread>,
) -> Result<Option<Chart>, DrawError> {
    let mut curves: Vec<Curve> = Vec::new();
    for point in &scaling.points {
        let Some(Spread { median: y, min: low, max: high }) = value(point) else { continue };
        let dot = Dot { x: point.visual_tokens as f64, y, low, high };
        match curves.iter_mut().find(|curve| curve.name == point.method) {
            Some(curve) => curve.dots.push(dot),
            None => {
                curves.push(Curve { name: point.method.clone(), color: method_color(&point.method), dots: vec![dot] })
            }
        }
    }
    if curves.is_empty() {
        return Ok(None);
    }
    let chart = LineChart {
        title,
        x_label: "visual tokens of the video",
        y_label,
        curves,
        level: None,
        marks: None,
        from_zero: true,
        limit: f64::MAX,
    };
    Ok(Some(Chart::new(name, title, chart.svg()?)))
}

/// At least three digits.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The ratio to the base; empty for the base itself.
fn times(ratio: Option<f64>) -> String {
    ratio.filter(|ratio| *ratio != 1.0).map_or_else(String::new, |ratio| format!(" (×{ratio:.2})"))
}
