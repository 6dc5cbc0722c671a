//! The memory of evicted layers returns to the system. This test measures its process, so no other test may run in it.
#![cfg(target_os = "linux")]

use sharpv::runtime::{CancelToken, ComputeParams, Context, ContextParams, Model, ModelParams, Row, RowInput};
use std::path::Path;

/// The resident set size of this process in bytes.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

#[test]
fn the_process_becomes_smaller_by_what_was_evicted() {
    const N_VISUAL: usize = 7936;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama.gguf");
    let model = Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads");
    let params = ContextParams {
        n_ctx: N_VISUAL + 256,
        compute: ComputeParams { n_threads: Some(2), ..Default::default() },
        evictable: true,
        ..Default::default()
    };
    let mut context = Context::new(&model, &params, &[], &CancelToken::new()).expect("a context");
    let embeddings: Vec<f32> = (0..params.compute.n_ubatch * model.n_embd_inp()).map(|i| (i as f32).sin()).collect();
    let rows: Vec<&[f32]> = embeddings.chunks(model.n_embd_inp()).collect();
    let mut position = 0;
    while position < N_VISUAL as i32 {
        let batch: Vec<Row<'_>> = (position..(N_VISUAL as i32).min(position + rows.len() as i32))
            .map(|p| Row {
                input: RowInput::Embedding(rows[(p - position) as usize]),
                position: [p, 0, 0, 0],
                logits: false,
            })
            .collect();
        position += batch.len() as i32;
        context.process(&batch).expect("a batch");
    }
    let (before, allocated) = (rss(), context.memory_usage().context);
    let layers: Vec<bool> = (0..model.n_layer()).map(|il| il > 0).collect();
    context.evict_layers(&layers).expect("evicted");
    let freed = allocated - context.memory_usage().context;
    // Five of six layers are freed, except for free rows.
    assert!(freed > allocated * 7 / 10, "{freed} of {allocated} bytes");
    let smaller = before.saturating_sub(rss());
    assert!(smaller > freed * 9 / 10, "{smaller} bytes went back to the system, of {freed}");
}
