//! The data of the page's script, as JSON.

use super::panels::{Panel, canvas, panels};
use super::{Dense, Inspection};
use crate::chat::{Area, CellWork, EncoderCells, SliceInspection};
use serde::Serialize;
use serde_json::{Value, json};

/// `value` with its numbers as in other JSON: `json!` turns an `f32` into a long `f64`.
pub fn exact(value: &impl Serialize) -> Value {
    serde_json::to_string(value).and_then(|text| serde_json::from_str(&text)).unwrap_or_default()
}

/// The format of the data.
const FORMAT: u32 = 1;

/// All data of an inspection.
pub fn value(inspection: &Inspection) -> Value {
    let video = &inspection.video;
    let canvas = canvas(&video.slices);
    let slices: Vec<Value> = video.slices.iter().map(|slice| of_slice(slice, &canvas)).collect();
    let asked = inspection.asked.as_ref().map(|asked| {
        json!({
            "question": asked.question,
            "answer": asked.answer.answer,
            "reasoning": asked.answer.reasoning,
            "tokens": asked.answer.tokens,
            "timings_ms": asked.answer.timings_ms,
            "kv": asked.kv,
            "similarity": exact(&asked.answer.similarity),
            "layers_evicted": asked.layers.iter().map(|layer| layer.evicted).collect::<Vec<_>>(),
        })
    });
    let dense = match &inspection.dense {
        Dense::Measured(run) => json!({
            "visual_tokens": run.report.visual_tokens,
            "timings_ms": run.answer.as_ref().map_or(run.report.timings_ms, |answer| answer.timings_ms),
            "answer": run.answer.as_ref().map(|answer| &answer.answer),
            "kv": run.answer.as_ref().map(|answer| answer.kv),
        }),
        Dense::NotMeasured | Dense::Impossible(_) => Value::Null,
    };
    json!({
        "sharpv_inspect": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "command": inspection.command,
        "model": inspection.model,
        "video": video.info,
        "visual_tokens": inspection.report.visual_tokens,
        "encoder": inspection.report.encoder,
        "timings_ms": inspection.report.timings_ms,
        "settings": exact(&inspection.settings),
        "asked": asked,
        "dense": dense,
        "slices": slices,
    })
}

/// `value` as text for a `script` element: nothing in it ends the element or begins a comment.
pub fn in_script(value: &Value) -> String {
    // In JSON, `<` occurs within strings only.
    value.to_string().replace('<', "\\u003c")
}

fn of_slice(slice: &SliceInspection, canvas: &Area) -> Value {
    let scores = &slice.scores;
    let has_own = slice.importance.as_ref().is_some_and(|own| *own != scores.combined);
    json!({
        "times_s": slice.times_s,
        "total": slice.n_tokens,
        "kept": slice.kept,
        "spatial": rounded(&scores.spatial),
        "temporal": rounded(&scores.temporal),
        "combined": rounded(&scores.combined),
        // Only for methods whose importance is not SharpV's.
        "importance": slice.importance.as_deref().filter(|_| has_own).map(rounded),
        "opens_scene": slice.opens_scene,
        "computed": exact(&slice.computed),
        "cells": slice.cells.as_ref().map(cells),
        "panels": panels(slice).iter().map(|panel| of_panel(panel, canvas)).collect::<Vec<_>>(),
    })
}

/// Parts with their areas, in shares of the image.
fn of_panel(panel: &Panel, canvas: &Area) -> Value {
    let (width, height) = (canvas.right - canvas.left, canvas.bottom - canvas.top);
    let parts = panel.parts.iter().map(|part| {
        let Area { left, top, right, bottom } = part.area;
        let on_frame = [
            (left - canvas.left) / width,
            (top - canvas.top) / height,
            (right - left) / width,
            (bottom - top) / height,
        ];
        json!({
            "first": part.first,
            "n": part.n_tokens,
            "columns": part.columns,
            "rows": part.rows,
            "box": if panel.on_frame { on_frame } else { [0.0, 0.0, 1.0, 1.0] },
        })
    });
    json!({ "on_frame": panel.on_frame, "parts": parts.collect::<Vec<_>>() })
}

fn cells(cells: &EncoderCells) -> Value {
    let letter = |work: &CellWork| match work {
        CellWork::Computed => 'c',
        CellWork::Stopped => 's',
        CellWork::Reused => 'r',
    };
    json!({ "columns": cells.columns, "rows": cells.rows, "work": cells.work.iter().map(letter).collect::<String>() })
}

/// Rounded to four digits: more cannot be seen, and would double the size of the page.
fn rounded(values: &[f32]) -> Vec<Option<f64>> {
    let round = |value: &f32| value.is_finite().then(|| (f64::from(*value) * 1e4).round() / 1e4);
    values.iter().map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_data_ends_the_script() {
        let text = in_script(&json!({ "question": "</script><script>alert(1)</script><!--" }));
        assert!(!text.contains('<'), "{text}");
        let back: Value = serde_json::from_str(&text).expect("it is still JSON");
        assert_eq!(back["question"], "</script><script>alert(1)</script><!--");
    }
}
