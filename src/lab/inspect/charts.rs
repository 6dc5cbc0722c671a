//! The charts of the page: retention over time, and measurements of each layer.

use super::Inspection;
use crate::error::{Error, FileKind, Result};
use crate::lab::report::charts::Chart;
use crate::lab::report::draw::{DrawError, color};
use crate::lab::report::lines::{Curve, Dot, LineChart, Marks};

/// The kept share of each slice, and scene cuts.
pub fn retention(inspection: &Inspection) -> Result<Chart> {
    let slices = &inspection.video.slices;
    let start_s = |i: usize| slices.get(i).and_then(|slice| slice.times_s.first()).copied().unwrap_or(0.0);
    let points = |share: &dyn Fn(usize) -> f64| (0..slices.len()).map(|i| dot(start_s(i), 100.0 * share(i))).collect();
    let mut curves = vec![Curve {
        name: "visual tokens kept".to_owned(),
        color: color(0),
        dots: points(&|i| slices[i].kept.len() as f64 / slices[i].n_tokens.max(1) as f64),
    }];
    if slices.iter().any(|slice| slice.cells.is_some()) {
        curves.push(Curve {
            name: "encoder work done".to_owned(),
            color: color(1),
            dots: points(&|i| f64::from(slices[i].computed)),
        });
    }
    // The first slice opens a scene, but that is no cut.
    let cuts = (1..slices.len()).filter(|&i| slices[i].opens_scene).map(start_s);
    let chart = LineChart {
        title: "Kept share of each frame",
        x_label: "time in the video, s",
        y_label: "share of the frame, %",
        curves,
        level: None,
        marks: Some(Marks { name: "scene cut".to_owned(), color: color(2), at: cuts.collect(), width: 0.0 }),
        from_zero: true,
        limit: f64::MAX,
    };
    drawn("retention", chart, inspection)
}

/// The similarity of the visual tokens in each layer to their embeddings; `None` if it was not measured.
pub fn similarity(inspection: &Inspection) -> Result<Option<Chart>> {
    let Some(asked) = inspection.asked.as_ref().filter(|asked| !asked.answer.similarity.is_empty()) else {
        return Ok(None);
    };
    let dots = asked.answer.similarity.iter().enumerate().filter(|(_, similarity)| similarity.is_finite());
    let curve = Curve {
        name: "similarity".to_owned(),
        color: color(0),
        dots: dots.map(|(layer, &similarity)| dot(layer as f64, f64::from(similarity).max(0.0))).collect(),
    };
    if curve.dots.is_empty() {
        return Ok(None);
    }
    let chart = LineChart {
        title: "Visual tokens in each layer: similarity to their embeddings",
        x_label: "layer",
        y_label: "mean cosine",
        curves: vec![curve],
        level: None,
        marks: Some(evicted(inspection)),
        from_zero: true,
        limit: f64::MAX,
    };
    drawn("similarity", chart, inspection).map(Some)
}

/// The effect on answers of hiding visual tokens from each layer; `None` if the model has no layer profile.
pub fn effects(inspection: &Inspection) -> Result<Option<Chart>> {
    let Some(profile) = &inspection.profile else { return Ok(None) };
    let losses = profile.single.iter().enumerate().filter_map(|(layer, loss)| Some((layer, loss.as_ref()?)));
    let dots: Vec<Dot> = losses.map(|(layer, loss)| dot(layer as f64, loss.divergence.max(0.0))).collect();
    if dots.is_empty() {
        return Ok(None);
    }
    let chart = LineChart {
        title: "Effect on answers of hiding visual tokens from one layer",
        x_label: "layer",
        y_label: "divergence, nats a token",
        curves: vec![Curve { name: "effect, by the layer profile".to_owned(), color: color(1), dots }],
        level: None,
        marks: Some(evicted(inspection)),
        from_zero: true,
        limit: f64::MAX,
    };
    drawn("effects", chart, inspection).map(Some)
}

fn evicted(inspection: &Inspection) -> Marks {
    let layers = inspection.asked.iter().flat_map(|asked| asked.layers.iter().enumerate());
    let at = layers.filter(|(_, layer)| layer.evicted).map(|(layer, _)| layer as f64).collect();
    Marks { name: "visual tokens evicted".to_owned(), color: color(3), at, width: 1.0 }
}

fn dot(x: f64, y: f64) -> Dot {
    Dot { x, y, low: y, high: y }
}

fn drawn(name: &str, chart: LineChart<'_>, inspection: &Inspection) -> Result<Chart> {
    let title = chart.title.to_owned();
    let svg = chart.svg().map_err(|reason| not_drawn(inspection, &reason))?;
    Ok(Chart::new(name, &title, svg))
}

fn not_drawn(inspection: &Inspection, reason: &DrawError) -> Error {
    Error::Unusable {
        what: FileKind::Results,
        path: inspection.video.info.path.clone(),
        reason: format!("its curves cannot be drawn: {reason}"),
        advice: "please report this".into(),
    }
}
