//! The HTML page. Everything that does not require a script is HTML; the script shows the maps of the selected frame.
//! Nothing is fetched, and a policy in the page forbids it.

use super::panels::{Panel, canvas, panels};
use super::{Asked, Dense, DenseRun, Inspection, Shown, charts, data, overlay};
use crate::chat::{Answer, Area, SliceInspection, Timings, VideoReport};
use crate::error::Result;
use crate::lab::report::charts::{Chart, escape};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of an inspection; `images` has small images of all frames.
pub fn html(inspection: &Inspection, images: &Shown) -> Result<String> {
    let name = inspection.video.info.path.file_name().unwrap_or(inspection.video.info.path.as_os_str());
    let name = escape(&name.to_string_lossy());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{name}: sharpv inspect</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n",
        policy()
    );
    head(&mut page, &name, inspection);
    page.push_str("<main>\n");
    question(&mut page, inspection);
    cost(&mut page, inspection);
    frames(&mut page, inspection, images)?;
    layers(&mut page, inspection)?;
    settings(&mut page, inspection);
    let _ = write!(
        page,
        "</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        data::in_script(&data::value(inspection))
    );
    Ok(page)
}

/// The policy: our own style and script, and embedded images, but nothing else.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn head(page: &mut String, name: &str, inspection: &Inspection) {
    let info = &inspection.video.info;
    let tokens = &inspection.report.visual_tokens;
    let length = info.duration_s.map_or_else(String::new, |seconds| format!("{seconds:.1} s, "));
    let n_frames: usize = inspection.video.slices.iter().map(|slice| slice.times_s.len()).sum();
    let _ = writeln!(
        page,
        "<header>\n<h1>{name}</h1>\n<p>{length}{}×{} pixels; {n_frames} frames, {} of {} visual tokens kept ({:.1} %)</p>\n\
         <p class=\"note\">{}, layout {}, sharpv {}</p>\n</header>",
        info.width,
        info.height,
        tokens.kept,
        tokens.total,
        100.0 * tokens.keep_ratio,
        escape(&inspection.model),
        escape(inspection.settings.layout),
        env!("CARGO_PKG_VERSION")
    );
}

fn question(page: &mut String, inspection: &Inspection) {
    page.push_str("<section aria-labelledby=\"h-answer\">\n<h2 id=\"h-answer\">Question and answer</h2>\n");
    let said = |page: &mut String, who: &str, text: &str| {
        let _ = writeln!(page, "<p class=\"who\">{who}</p>\n<p class=\"said\">{}</p>", escape(text));
    };
    match &inspection.asked {
        None => page.push_str(
            "<p>Nothing was asked. With a question, this is its answer, and below are measurements of each layer.</p>\n",
        ),
        Some(asked) => {
            said(page, "Question", &asked.question);
            if let Some(thought) = &asked.answer.reasoning {
                said(page, "Thought", thought);
            }
            said(page, "Answer", &asked.answer.answer);
            if let Some(answer) = dense(inspection).and_then(|run| run.answer.as_ref()) {
                said(page, "Answer with all visual tokens", &answer.answer);
            }
        }
    }
    page.push_str("</section>\n");
}

/// A row of the comparison: its name, with pruning, with all tokens.
type Row = (&'static str, String, Option<String>);

fn cost(page: &mut String, inspection: &Inspection) {
    page.push_str("<section aria-labelledby=\"h-cost\">\n<h2 id=\"h-cost\">Kept tokens against all</h2>\n");
    let rows = match &inspection.asked {
        Some(asked) => with_answer(inspection, asked),
        None => without_answer(inspection),
    };
    let _ = writeln!(
        page,
        "<div class=\"wide\"><table id=\"cost\">\n<thead><tr><th scope=\"col\"></th><th scope=\"col\">kept</th><th scope=\"col\">all \
         tokens</th></tr></thead>\n<tbody>"
    );
    for (name, kept, dense) in rows {
        let dense = dense.unwrap_or_else(|| "–".to_owned());
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td></tr>",
            escape(&kept),
            escape(&dense)
        );
    }
    page.push_str("</tbody>\n</table></div>\n");
    let note = match &inspection.dense {
        Dense::Measured(_) => "One run each, so times are rough; a benchmark takes medians of several.".to_owned(),
        Dense::NotMeasured => "Times with all tokens were not measured.".to_owned(),
        Dense::Impossible(reason) => format!("Times with all tokens were not measured: {reason}."),
    };
    let _ = writeln!(page, "<p class=\"note\">{}</p>\n</section>", escape(&note));
}

fn dense(inspection: &Inspection) -> Option<&DenseRun> {
    match &inspection.dense {
        Dense::Measured(run) => Some(run),
        Dense::NotMeasured | Dense::Impossible(_) => None,
    }
}

fn without_answer(inspection: &Inspection) -> Vec<Row> {
    let dense = dense(inspection).map(|run| &run.report);
    let time = |of: &dyn Fn(&Timings) -> f64| {
        let text = |report: &VideoReport| milliseconds(of(&report.timings_ms));
        (text(&inspection.report), dense.map(text))
    };
    let mut rows = vec![tokens_row(inspection)];
    rows.extend(stage_rows(&time));
    rows
}

fn with_answer(inspection: &Inspection, asked: &Asked) -> Vec<Row> {
    let dense = dense(inspection).and_then(|run| run.answer.as_ref());
    let answer = &asked.answer;
    let time = |of: &dyn Fn(&Timings) -> f64| {
        let text = |answer: &Answer| milliseconds(of(&answer.timings_ms));
        (text(answer), dense.map(text))
    };
    let dropped = inspection.report.visual_tokens.total - inspection.report.visual_tokens.kept;
    let evicted = match (asked.kv.layers_evicted, asked.kv.tokens_evicted) {
        (0, 0) => "nothing".to_owned(),
        (0, tokens) => format!("{tokens} tokens"),
        (layers, _) => {
            format!("visual tokens of {layers} of {} layers", asked.kv.layers - asked.kv.layers_fixed)
        }
    };
    let speed = |answer: &Answer| match answer.tokens.decoded {
        0 => "–".to_owned(),
        _ => format!("{:.1}", answer.tokens_per_second()),
    };
    let mut rows = vec![
        tokens_row(inspection),
        ("prompt, tokens", answer.tokens.prompt.to_string(), Some((answer.tokens.prompt + dropped).to_string())),
        ("KV cache", megabytes(asked.kv.bytes), Some(megabytes(asked.kv.bytes_dense))),
        ("evicted from it", evicted, Some("nothing".to_owned())),
    ];
    rows.extend(stage_rows(&time));
    let (prefill, dense_prefill) = time(&|t| t.prefill);
    let (first, dense_first) = time(&|t| t.ttft);
    rows.push(("prefill", prefill, dense_prefill));
    rows.push(("first token after", first, dense_first));
    rows.push(("answer, tokens/s", speed(answer), dense.map(speed)));
    rows
}

fn tokens_row(inspection: &Inspection) -> Row {
    let tokens = &inspection.report.visual_tokens;
    ("visual tokens", tokens.kept.to_string(), Some(tokens.total.to_string()))
}

type Times<'a> = &'a dyn Fn(&dyn Fn(&Timings) -> f64) -> (String, Option<String>);

fn stage_rows(time: Times<'_>) -> Vec<Row> {
    let row = |name, (kept, dense): (String, Option<String>)| (name, kept, dense);
    vec![
        row("video decoding", time(&|t| t.decode_video)),
        row("vision encoder", time(&|t| t.encode)),
        row("pruning", time(&|t| t.prune)),
    ]
}

fn frames(page: &mut String, inspection: &Inspection, images: &Shown) -> Result<()> {
    let slices = &inspection.video.slices;
    page.push_str("<section aria-labelledby=\"h-frames\">\n<h2 id=\"h-frames\">Frames</h2>\n");
    let has_places = slices.iter().any(|slice| panels(slice).iter().any(|panel| panel.on_frame));
    let legend = if has_places {
        "Dimmed: cells whose visual tokens were dropped. Spatial importance: how unlike the rest of its frame a token is; \
         temporal: how unlike the same place of the frame before. Scales end at the most in the video."
    } else {
        "The visual tokens of this model have no known positions in a frame; below each frame are the kept ones."
    };
    let pairs = if slices.iter().any(|slice| slice.times_s.len() > 1) {
        " Two frames that are shown together share their tokens."
    } else {
        ""
    };
    let _ = writeln!(
        page,
        "<p class=\"note\">{legend}{pairs} A scene cut is marked at the left.<span class=\"screen\"> Choose a frame with a \
         click, or with the arrow keys, Page up and down, Home and End.</span></p>\n\
         <div id=\"strip\" class=\"strip\" role=\"toolbar\" aria-label=\"Sampled frames\" aria-orientation=\"horizontal\">"
    );
    let mut jpegs = images.small.iter();
    let canvas = canvas(slices);
    let size = (inspection.video.info.width as f64 * (canvas.right - canvas.left))
        / (inspection.video.info.height.max(1) as f64 * (canvas.bottom - canvas.top));
    for (index, slice) in slices.iter().enumerate() {
        let shots: Vec<&Vec<u8>> = jpegs.by_ref().take(slice.times_s.len()).collect();
        button(page, index, slice, &shots, (&canvas, size), slices.len());
    }
    page.push_str(
        "</div>\n<div id=\"frame\" hidden>\n<h3 id=\"frame-name\"></h3>\n<p class=\"note\" id=\"frame-facts\"></p>\n\
         <div id=\"maps\" class=\"maps\"></div>\n<output class=\"readout\" id=\"readout\"></output>\n\
         <details id=\"frame-numbers\" class=\"screen\"><summary>Numbers of this frame</summary><div class=\"wide\"></div></details>\n\
         </div>\n<noscript><p>The maps of a frame need scripts to be allowed.</p></noscript>\n",
    );
    figure(page, &charts::retention(inspection)?);
    let rows = slices.iter().enumerate().map(|(index, slice)| {
        vec![
            (index + 1).to_string(),
            times(slice),
            slice.kept.len().to_string(),
            slice.n_tokens.to_string(),
            format!("{:.1} %", 100.0 * share(slice)),
            format!("{:.0} %", 100.0 * slice.computed),
            if is_cut(index, slice) { "yes" } else { "" }.to_owned(),
        ]
    });
    let head = ["frame", "time, s", "kept", "of", "share", "encoder work done", "scene cut"];
    table(page, "retention-table", "The same in numbers", &head, rows);
    page.push_str("</section>\n");
    Ok(())
}

/// The button of a slice in the strip.
fn button(
    page: &mut String,
    index: usize,
    slice: &SliceInspection,
    shots: &[&Vec<u8>],
    (canvas, shape): (&Area, f64),
    n_slices: usize,
) {
    let cut = is_cut(index, slice);
    let label = format!(
        "{} {} of {n_slices} at {} s: {} of {} tokens kept{}",
        if slice.times_s.len() > 1 { "Pair of frames" } else { "Frame" },
        index + 1,
        times(slice),
        slice.kept.len(),
        slice.n_tokens,
        if cut { ", a scene begins" } else { "" }
    );
    let (class, tab) = (if cut { "slice cut" } else { "slice" }, if index == 0 { 0 } else { -1 });
    let _ = write!(
        page,
        "<button type=\"button\" class=\"{class}\" data-slice=\"{index}\" aria-pressed=\"false\" tabindex=\"{tab}\" \
         aria-label=\"{label}\">"
    );
    let panels = panels(slice);
    let on_frame = panels.first().filter(|panel| panel.on_frame);
    let veil = on_frame.map(|panel| veil(panel, slice, canvas)).unwrap_or_default();
    let (width, height) = (320, (320.0 / shape).round().max(1.0) as u32);
    for jpeg in shots {
        let _ = write!(
            page,
            "<span class=\"shot\"><img loading=\"lazy\" decoding=\"async\" width=\"{width}\" height=\"{height}\" alt=\"\" \
             src=\"data:image/jpeg;base64,{}\">{veil}</span>",
            STANDARD.encode(jpeg)
        );
    }
    if on_frame.is_none() {
        panels.iter().for_each(|panel| page.push_str(&by_themselves(panel, slice)));
    }
    let begins = if cut { "<b>cut</b>" } else { "" };
    let _ = writeln!(
        page,
        "<span class=\"caption\"><span>{} s</span>{begins}<span>{:.0} %</span></span></button>",
        times(slice),
        100.0 * share(slice)
    );
}

/// The dimming of the dropped cells of an image, in thousandths of its size.
fn veil(panel: &Panel, slice: &SliceInspection, canvas: &Area) -> String {
    let x = |x: f64| thousandths((x - canvas.left) / (canvas.right - canvas.left));
    let y = |y: f64| thousandths((y - canvas.top) / (canvas.bottom - canvas.top));
    let path = runs(panel, slice, false, &x, &y);
    format!(
        "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path class=\"veil\" \
         shape-rendering=\"crispEdges\" fill-opacity=\"{}\" d=\"{path}\"/></svg>",
        overlay::VEIL_OPACITY
    )
}

/// Kept tokens without positions in the frame.
fn by_themselves(panel: &Panel, slice: &SliceInspection) -> String {
    let path = runs(panel, slice, true, &thousandths, &thousandths);
    format!(
        "<svg class=\"tokens\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path \
         class=\"alive\" shape-rendering=\"crispEdges\" d=\"{path}\"/></svg>"
    )
}

/// A path around the tokens that are `kept`, or around the others, row by row.
fn runs(panel: &Panel, slice: &SliceInspection, kept: bool, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for part in &panel.parts {
        let Area { left, top, right, bottom } = part.area;
        let wanted = |token: usize| {
            let token = part.first + token;
            slice.kept.binary_search(&(token as u32)).is_ok() == kept
        };
        for row in 0..part.rows {
            let columns = part.n_tokens.saturating_sub(row * part.columns).min(part.columns);
            let mut column = 0;
            while column < columns {
                let begin = column;
                while column < columns && wanted(row * part.columns + column) {
                    column += 1;
                }
                if column > begin {
                    let at_x = |column: usize| x(left + (right - left) * column as f64 / part.columns as f64);
                    let at_y = |row: usize| y(top + (bottom - top) * row as f64 / part.rows as f64);
                    let (x0, x1, y0, y1) = (at_x(begin), at_x(column), at_y(row), at_y(row + 1));
                    let _ = write!(path, "M{x0} {y0}H{x1}V{y1}H{x0}Z");
                }
                column += 1;
            }
        }
    }
    path
}

fn thousandths(share: f64) -> f64 {
    (share * 10_000.0).round() / 10.0
}

fn layers(page: &mut String, inspection: &Inspection) -> Result<()> {
    page.push_str("<section aria-labelledby=\"h-layers\">\n<h2 id=\"h-layers\">Layers</h2>\n");
    let similarity = charts::similarity(inspection)?;
    let effects = charts::effects(inspection)?;
    match (&inspection.asked, &similarity) {
        (None, _) => page.push_str(
            "<p>Similarity and eviction from the KV cache are shown with an answer: nothing was asked.</p>\n",
        ),
        (Some(_), None) => page.push_str("<p>Similarity was not measured: nothing is evicted.</p>\n"),
        (Some(_), Some(_)) => {}
    }
    if effects.is_none() {
        page.push_str(
            "<p class=\"note\">There is no layer profile of this model, so what each layer means to answers is not known \
             before it is measured.</p>\n",
        );
    }
    page.push_str("<div class=\"charts\">\n");
    similarity.iter().chain(&effects).for_each(|chart| figure(page, chart));
    page.push_str("</div>\n");
    layer_table(page, inspection);
    page.push_str("</section>\n");
    Ok(())
}

fn layer_table(page: &mut String, inspection: &Inspection) {
    let asked = inspection.asked.as_ref();
    let similarity = asked.map_or(&[][..], |asked| &asked.answer.similarity);
    let single = inspection.profile.as_ref().map_or(&[][..], |profile| &profile.single);
    let n = similarity.len().max(single.len());
    if n == 0 {
        return;
    }
    let free = inspection.profile.as_ref().map_or(&[][..], |profile| profile.free_layers());
    let rows = (0..n).map(|layer| {
        let number = |value: Option<f64>| {
            value.filter(|value| value.is_finite()).map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
        };
        let kv = asked.and_then(|asked| asked.layers.get(layer));
        let effect = single.get(layer).and_then(Option::as_ref);
        let yes = |yes: bool| if yes { "yes" } else { "" }.to_owned();
        vec![
            layer.to_string(),
            number(similarity.get(layer).map(|&value| f64::from(value))),
            number(effect.map(|loss| loss.divergence)),
            yes(free.contains(&layer)),
            yes(kv.is_some_and(|kv| kv.evicted)),
            kv.map_or_else(|| "–".to_owned(), |kv| megabytes(kv.bytes)),
        ]
    });
    let head = ["layer", "similarity", "effect, nats", "free by the profile", "evicted", "KV cache"];
    table(page, "layers-table", "The same in numbers", &head, rows);
}

fn settings(page: &mut String, inspection: &Inspection) {
    page.push_str("<section aria-labelledby=\"h-settings\">\n<h2 id=\"h-settings\">Settings</h2>\n");
    if !inspection.command.is_empty() {
        let _ = writeln!(page, "<pre id=\"command\">{}</pre>", escape(&inspection.command));
    }
    if let Value::Object(values) = data::exact(&inspection.settings) {
        let lines: String = values.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let _ = writeln!(
            page,
            "<details open><summary>All parameters</summary><pre>{}</pre></details>",
            escape(lines.trim_end())
        );
    }
    page.push_str("</section>\n");
}

fn figure(page: &mut String, chart: &Chart) {
    let _ = writeln!(page, "<figure id=\"{}\">\n{}\n</figure>", escape(&chart.name), chart.inline());
}

fn table(page: &mut String, id: &str, title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = write!(page, "<details><summary>{title}</summary><div class=\"wide\"><table id=\"{id}\">\n<thead><tr>");
    head.iter().for_each(|cell| {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(cell));
    });
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = match i {
                0 => write!(page, "<th scope=\"row\">{}</th>", escape(cell)),
                _ => write!(page, "<td>{}</td>", escape(cell)),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div></details>\n");
}

/// Whether a scene begins here in the middle of the video.
fn is_cut(index: usize, slice: &SliceInspection) -> bool {
    index > 0 && slice.opens_scene
}

fn share(slice: &SliceInspection) -> f64 {
    slice.kept.len() as f64 / slice.n_tokens.max(1) as f64
}

/// The times of a slice's frames, in seconds.
fn times(slice: &SliceInspection) -> String {
    let first = slice.times_s.first().copied().unwrap_or(0.0);
    match slice.times_s.last() {
        Some(&last) if slice.times_s.len() > 1 => format!("{first:.2}–{last:.2}"),
        _ => format!("{first:.2}"),
    }
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}
