//! `sharpv plan`: what a video would take, without encoding it.

use crate::args::PlanArgs;
use crate::interrupt::Interrupts;
use crate::output;
use crate::screen::Screen;
use crate::session;
use indicatif::DecimalBytes;
use sharpv::chat::{MemoryNeed, Need, VideoPlan};

/// Ctrl-C ends the program at once, as there is nothing to clean up.
const PATIENCE: u32 = 1;

pub fn run(args: &PlanArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let session = session::open(&args.session, &[&args.video], &interrupts, &mut screen, args.json)?;
    let plan = session.plan_video(&args.video, &args.session.video.options().for_question(&args.question))?;
    if args.json {
        return output::print_json(&plan);
    }
    Ok(output::print(&table(&plan, args.session.prune.prunes()))?)
}

fn table(plan: &VideoPlan, prunes: bool) -> String {
    let memory = &plan.memory;
    let mut rows = vec![("video", video(plan)), ("layout", plan.layout.to_owned()), ("frames", chosen(plan))];
    rows.push(("visual tokens", visual_tokens(plan, prunes)));
    let text = plan.planned.prompt_tokens - plan.planned.visual_tokens;
    rows.push(("prompt", format!("{} tokens, {text} of them text", plan.planned.prompt_tokens)));
    rows.push(("positions", format!("{} of {}", plan.planned.positions, plan.positions_limit)));
    if let Some(cells) = plan.cells_limit {
        rows.push(("context", format!("{cells} cells (-c)")));
    }
    let at_most = if prunes { "at most " } else { "" };
    rows.push(("KV cache", format!("{at_most}{}, {} a token", bytes(memory.kv), bytes(memory.kv_per_token))));
    if memory.state > 0 {
        rows.push(("state", format!("{} of the KV cache, for any number of tokens", bytes(memory.state))));
    }
    if memory.checkpoint > 0 {
        rows.push(("next question", next_question(memory)));
    }
    let encoder = bytes(memory.encoder_buffers);
    rows.push((
        "buffers",
        format!("{}; encoder {encoder}; embeddings {}", bytes(memory.compute), bytes(memory.embeddings)),
    ));
    rows.push(("weights", format!("{}; encoder {}", bytes(memory.weights), bytes(memory.encoder))));
    let free = memory.free.map_or_else(|| "unknown".to_owned(), |free| format!("{} ({})", bytes(free), memory.place));
    rows.push(("free memory", free));
    let cache = match memory.encoder_cache {
        0 => String::new(),
        n => format!("; keeps {} between frames", bytes(n)),
    };
    rows.push(("encoding", format!("{}{cache}", plan.encode)));
    if let Some(raised) = plan.raised_ubatch {
        rows.push(("batches", format!("of {raised} rows, more than -ub: this model must see each image at once")));
    }
    if let Some(free) = plan.layers_free {
        rows.push(("layer profile", format!("{free} of {} layers can do without visual tokens", plan.layers)));
    }
    rows.push(("fits", verdict(plan)));
    let mut text = rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect::<String>();
    if !plan.fits || plan.asked != plan.planned || plan.max_kept.is_some() {
        text += &advice(plan);
    }
    text
}

/// What the next question computes, in a model that cannot remove the last rows of its cache.
fn next_question(memory: &MemoryNeed) -> String {
    match memory.checkpoints / memory.checkpoint {
        0 => "computes the whole prompt: memory holds no copy of the state (--checkpoint-memory)".to_owned(),
        n => format!("goes on from a copy of the state: {} each, up to {n} in RAM", bytes(memory.checkpoint)),
    }
}

fn bytes(n: u64) -> String {
    DecimalBytes(n).to_string()
}

fn video(plan: &VideoPlan) -> String {
    let info = &plan.info;
    let duration = info.duration_s.map_or_else(String::new, |seconds| format!(", {seconds:.1} s"));
    format!("{}{duration}, {}×{}, {}", info.path.display(), info.width, info.height, info.codec)
}

fn frames(need: &Need) -> String {
    let pairs = if need.slices < need.frames { format!(", in {} pairs", need.slices) } else { String::new() };
    format!("{} of {}×{} pixels{pairs}", need.frames, need.image.0, need.image.1)
}

/// The planned frames, and how they are chosen.
fn chosen(plan: &VideoPlan) -> String {
    let how = if plan.by_changes { ", chosen where the image changes (--frames-by)" } else { "" };
    format!("{}{how}", frames(&plan.planned))
}

fn visual_tokens(plan: &VideoPlan, prunes: bool) -> String {
    let need = &plan.planned;
    let each = need.visual_tokens / need.slices.max(1);
    let kept = match plan.max_kept {
        Some(max) => format!("; at most {max} are kept"),
        None if prunes => "; pruning keeps what the video needs".to_owned(),
        None => String::new(),
    };
    format!("{} ({} × {each}){kept}", need.visual_tokens, need.slices)
}

fn verdict(plan: &VideoPlan) -> String {
    match &plan.shortage {
        Some(shortage) if !plan.fits => format!("no: {shortage}"),
        Some(_) => format!("yes, with less than requested: {}", plan.changes.join("; ")),
        None => "yes".to_owned(),
    }
}

/// Options with which the video would fit.
fn advice(plan: &VideoPlan) -> String {
    let suggestions = &plan.suggestions;
    let mut would = Vec::new();
    if suggestions.max_frames > 0 {
        would.push(format!("--max-frames {}", suggestions.max_frames));
    }
    if let Some(keep) = suggestions.keep.filter(|keep| *keep < 1.0) {
        would.push(format!("--keep {keep}"));
    }
    if plan.cells_limit.is_some_and(|cells| cells < suggestions.ctx_size) {
        would.push(format!("-c {}", suggestions.ctx_size));
    }
    let asked = frames(&plan.asked);
    match would.as_slice() {
        [] => format!("\nAs requested ({asked}), nothing makes it fit: use another model, or free memory.\n"),
        would => format!("\nAs requested ({asked}), it would fit with {}.\n", would.join(" or ")),
    }
}
