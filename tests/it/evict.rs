//! Memory SharpV on contexts: similarities, evicting layers and tokens, and states. The models have random weights
//! (`tests/fixtures`) and different kinds of attention.

use crate::support::gpu;

use sharpv::runtime::{
    CancelToken, ComputeParams, Context, ContextParams, FlashAttention, KvType, KvWindow, Model, ModelParams, Position,
    Row, RowInput,
};
use std::path::PathBuf;

const N_CTX: usize = 512;

/// A LLaMA, a Qwen2 (grouped-query attention, biases) and a Qwen2-VL (M-RoPE).
const MODELS: [&str; 3] = ["llama", "qwen2", "qwen2vl"];

fn load(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.gguf"));
    Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads")
}

fn params() -> ContextParams {
    let compute = ComputeParams { n_ubatch: 64, n_threads: Some(1), ..ComputeParams::default() };
    ContextParams { n_ctx: N_CTX, compute, evictable: true, ..ContextParams::default() }
}

fn computed(compute: ComputeParams) -> ContextParams {
    ContextParams { compute, ..params() }
}

fn open(model: &Model, params: &ContextParams) -> Context {
    Context::new(model, params, &[], &CancelToken::new()).expect("a context")
}

/// Rows of text and of images, at the model's positions.
struct Prompt {
    rows: Vec<(Input, Position)>,
    next: i32,
    n_visual: usize,
    m_rope: bool,
    n_embd: usize,
    seed: u64,
}

#[derive(Clone)]
enum Input {
    Token(i32),
    Embedding(Vec<f32>),
}

impl Prompt {
    fn new(model: &Model, seed: u64) -> Self {
        let m_rope = model.uses_mrope();
        Self { rows: Vec::new(), next: 0, n_visual: 0, m_rope, n_embd: model.n_embd_inp(), seed }
    }

    /// The beginning of the next turn after this prompt.
    fn after(&self) -> Self {
        Self { rows: Vec::new(), next: self.next, n_visual: 0, seed: self.seed + 1000, ..*self }
    }

    fn random(&mut self) -> f32 {
        // xorshift*. Any spread of values will do.
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1 << 24) as f32
    }

    fn text(mut self, n: usize) -> Self {
        for _ in 0..n {
            let token = 10 + (self.random() * 200.0) as i32;
            self.rows.push((Input::Token(token), [self.next, 0, 0, 0]));
            self.next += 1;
        }
        self
    }

    /// Adds an image of `side × side` tokens. Under M-RoPE they share their temporal position.
    fn image(mut self, side: i32) -> Self {
        let first = self.next;
        for i in 0..side * side {
            let embedding = (0..self.n_embd).map(|_| self.random() * 2.0 - 1.0).collect();
            let position =
                if self.m_rope { [first, first + i / side, first + i % side, 0] } else { [first + i, 0, 0, 0] };
            self.rows.push((Input::Embedding(embedding), position));
        }
        self.n_visual += (side * side) as usize;
        self.next += if self.m_rope { side } else { side * side };
        self
    }

    /// Adds another image of the same size. Under M-RoPE it has the positions of the image before, like frames that are
    /// close in time; in other models it follows that image.
    fn image_at_the_same_position(mut self, side: i32) -> Self {
        if self.m_rope {
            self.next -= side;
        }
        self.image(side)
    }

    /// Which rows are visual tokens.
    fn are_visual(&self) -> Vec<bool> {
        self.rows.iter().map(|(input, _)| matches!(input, Input::Embedding(_))).collect()
    }

    fn prefill(&self, context: &mut Context) -> Vec<f32> {
        self.prefill_sequence(context, 0)
    }

    fn prefill_sequence(&self, context: &mut Context, sequence: usize) -> Vec<f32> {
        self.prefill_and(context, sequence, |_| ())
    }

    /// As `prefill_sequence`, and calls `after_batch` after each batch.
    fn prefill_and(&self, context: &mut Context, sequence: usize, after_batch: impl Fn(&mut Context)) -> Vec<f32> {
        let n_ubatch = context.n_ubatch();
        let n = self.rows.len();
        let mixed = context.model().supports_mixed_batch();
        let same_kind = |a: &(Input, Position), b: &(Input, Position)| {
            mixed || matches!(a.0, Input::Token(_)) == matches!(b.0, Input::Token(_))
        };
        let mut done = 0;
        for run in self.rows.chunk_by(same_kind) {
            for rows in run.chunks(n_ubatch) {
                done += rows.len();
                let last = done == n;
                let batch: Vec<Row<'_>> = rows
                    .iter()
                    .enumerate()
                    .map(|(i, (input, position))| Row {
                        input: match input {
                            Input::Token(token) => RowInput::Token(*token),
                            Input::Embedding(values) => RowInput::Embedding(values),
                        },
                        position: *position,
                        logits: last && i + 1 == rows.len(),
                    })
                    .collect();
                context.process_sequence(sequence, &batch).expect("a batch");
                after_batch(context);
            }
        }
        context.logits().expect("logits").to_vec()
    }
}

fn two_images(model: &Model) -> Prompt {
    Prompt::new(model, 7).text(9).image(7).text(5).image(6).text(11)
}

fn decode(context: &mut Context, sequence: usize, token: i32, position: i32) -> Vec<f32> {
    let row = Row { input: RowInput::Token(token), position: [position, 0, 0, 0], logits: true };
    context.process_sequence(sequence, &[row]).expect("a token");
    context.logits().expect("logits").to_vec()
}

fn argmax(logits: &[f32]) -> i32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as i32
}

/// How much logits of the same rows may differ if they were computed in different ways.
fn near() -> f32 {
    gpu::near(1e-3) as f32
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// Decodes `n` tokens in both contexts, those that `reference` prefers. Returns the largest distance.
fn compare(ours: &mut Context, reference: &mut Context, first: &[f32], position: i32, n: usize) -> f32 {
    let mut token = argmax(first);
    let mut worst = 0.0_f32;
    for i in 0..n as i32 {
        let a = decode(ours, 0, token, position + i);
        let b = decode(reference, 0, token, position + i);
        worst = worst.max(distance(&a, &b));
        token = argmax(&b);
    }
    worst
}

fn every_second(model: &Model) -> Vec<bool> {
    (0..model.n_layer()).map(|il| il % 2 == 1).collect()
}

fn variants() -> Vec<(&'static str, ContextParams)> {
    let flash = |flash_attention| ComputeParams { flash_attention, ..params().compute };
    let quantized = ComputeParams { type_k: KvType::Q8_0, type_v: KvType::Q4_0, ..flash(FlashAttention::On) };
    vec![
        ("flash attention", computed(flash(FlashAttention::On))),
        ("no flash attention", computed(flash(FlashAttention::Off))),
        ("q8_0 keys, q4_0 values", computed(quantized)),
    ]
}

#[test]
fn a_gpu_computes_what_the_processor_does() {
    let Some(gpu) = gpu::or_skip("a_gpu_computes_what_the_processor_does") else { return };
    let on = |name: &str, n_gpu_layers| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.gguf"));
        let params = ModelParams { n_gpu_layers: Some(n_gpu_layers), ..ModelParams::default() };
        Model::load(&path, &params, |_| {}).expect("a fixture loads")
    };
    for name in MODELS {
        let (there, here) = (on(name, 99), on(name, 0));
        for (variant, params) in variants() {
            let prompt = two_images(&there);
            // Without layers on the GPU, contexts use it for large products, unless their cache stays in main memory.
            let compute = ComputeParams { offload_kv: false, ..params.compute.clone() };
            let (mut ours, mut reference) =
                (open(&there, &params), open(&here, &ContextParams { compute, ..params.clone() }));
            let taken = ours.memory_by_device().expect("what it takes");
            assert!(taken.iter().any(|entry| entry.device == gpu && entry.usage.context > 0), "{taken:?}");
            let first = prompt.prefill(&mut ours);
            let expected = prompt.prefill(&mut reference);
            let worst = distance(&first, &expected).max(compare(&mut ours, &mut reference, &first, prompt.next, 32));
            eprintln!("{name}, {variant}: {worst:.5} from the processor");
            assert!(worst < 0.03, "{name}, {variant}: {worst}");
        }
    }
}

/// Prefills most of a cache, and decodes until it is full.
fn fill_without_flash_attention(evictable: bool) {
    let model = load("llama");
    let compute = ComputeParams { flash_attention: FlashAttention::Off, ..params().compute };
    let params = ContextParams { n_ctx: 2048, evictable, ..computed(compute) };
    let mut context = open(&model, &params);
    let mut prompt = Prompt::new(&model, 7);
    while prompt.rows.len() < 1800 {
        prompt = prompt.image(8).text(3);
    }
    let mut logits = prompt.prefill(&mut context);
    for position in prompt.next..prompt.next + 200 {
        logits = decode(&mut context, 0, argmax(&logits), position);
        assert!(logits.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn a_gpu_fills_a_stock_cache_without_flash_attention() {
    if gpu::or_skip("a_gpu_fills_a_stock_cache_without_flash_attention").is_some() {
        fill_without_flash_attention(false);
    }
}

#[test]
fn a_gpu_fills_an_evictable_cache_without_flash_attention() {
    if gpu::or_skip("a_gpu_fills_an_evictable_cache_without_flash_attention").is_some() {
        fill_without_flash_attention(true);
    }
}

#[test]
fn evicted_layers_compute_what_masked_ones_do() {
    for name in MODELS {
        let model = load(name);
        let layers = every_second(&model);
        for (variant, params) in variants() {
            let prompt = two_images(&model);
            let mut ours = open(&model, &params);
            let mut reference = open(&model, &params);
            let first = prompt.prefill(&mut ours);
            assert_eq!(first, prompt.prefill(&mut reference), "{name}, {variant}");

            // A context from which nothing is evicted, to check that eviction changes anything at all.
            let mut dense = open(&model, &params);
            prompt.prefill(&mut dense);

            ours.evict_layers(&layers).expect("evicted");
            reference.hide_layers(&layers).expect("hidden");
            let worst = compare(&mut ours, &mut reference, &first, prompt.next, 64);
            assert!(worst < near(), "{name}, {variant}: {worst}");
            let changed =
                distance(&decode(&mut ours, 0, 20, prompt.next + 64), &decode(&mut dense, 0, 20, prompt.next + 64));
            assert!(changed > 1e-2, "{name}, {variant}: {changed}");
        }
    }
}

#[test]
fn later_turns_land_in_all_layers_and_are_evicted_again() {
    for name in MODELS {
        let model = load(name);
        for (variant, params) in variants() {
            let prompt = two_images(&model);
            let mut ours = open(&model, &params);
            let mut reference = open(&model, &params);
            let first = prompt.prefill(&mut ours);
            prompt.prefill(&mut reference);
            let layers = every_second(&model);
            ours.evict_layers(&layers).expect("evicted");
            reference.hide_layers(&layers).expect("hidden");
            compare(&mut ours, &mut reference, &first, prompt.next, 5);

            // Every layer sees another image until it is evicted.
            let mut turn = prompt.after();
            turn.next += 5;
            let turn = turn.text(4).image(5).text(6);
            let a = turn.prefill(&mut ours);
            let b = turn.prefill(&mut reference);
            assert!(distance(&a, &b) < near(), "{name}, {variant}: second turn: {}", distance(&a, &b));

            // Evicts one more layer.
            let mut layers = layers;
            layers[2] = true;
            ours.evict_layers(&layers).expect("evicted again");
            reference.hide_layers(&layers).expect("hidden again");
            let worst = compare(&mut ours, &mut reference, &b, turn.next, 32);
            assert!(worst < near(), "{name}, {variant}: {worst}");
        }
    }
}

#[test]
fn tokens_that_leave_all_layers_are_as_if_masked_everywhere() {
    for name in MODELS {
        let model = load(name);
        let prompt = two_images(&model);
        // New rows use the cells that become free, so sums are formed in another order, which flash attention rounds to
        // f16.
        let exact = computed(ComputeParams { flash_attention: FlashAttention::Off, ..params().compute });
        let mut ours = open(&model, &exact);
        let mut reference = open(&model, &exact);
        let first = prompt.prefill(&mut ours);
        prompt.prefill(&mut reference);
        // Every similarity is below 2.
        let gone = ours.evict_tokens(2.0).expect("evicted");
        assert_eq!(gone.len(), prompt.n_visual, "{name}");
        assert_eq!(gone, visual(&prompt.are_visual()), "{name}");
        reference.hide_layers(&vec![true; model.n_layer()]).expect("hidden");
        let worst = compare(&mut ours, &mut reference, &first, prompt.next, 32);
        assert!(worst < near(), "{name}: {worst}");
        assert_eq!(ours.similarity().expect("similarity").n_tokens, 0);
    }
}

#[test]
fn a_threshold_takes_the_tokens_below_it() {
    let model = load("qwen2vl");
    let prompt = two_images(&model);
    let mut context = open(&model, &params());
    prompt.prefill(&mut context);
    let before = context.similarity().expect("similarity");
    let mean = before.layers.iter().sum::<f32>() / before.layers.len() as f32;
    let gone = context.evict_tokens(mean).expect("evicted").len();
    assert!(gone > 0 && gone < prompt.n_visual, "{gone} of {}", prompt.n_visual);
    let after = context.similarity().expect("similarity");
    assert_eq!(after.n_tokens, prompt.n_visual - gone);
    let mean_after = after.layers.iter().sum::<f32>() / after.layers.len() as f32;
    assert!(mean_after > mean, "{mean_after} after, {mean} before");
    assert_eq!(context.evict_tokens(-1.0).expect("nothing"), Vec::<usize>::new());
}

/// The indices of visual rows.
fn visual(are_visual: &[bool]) -> Vec<usize> {
    (0..are_visual.len()).filter(|&row| are_visual[row]).collect()
}

/// Under M-RoPE, frames that are close in time share their positions, and new rows use the cells of evicted ones. So
/// neither positions nor cells say which rows are evicted.
#[test]
fn evicted_tokens_are_named_by_their_rows() {
    for name in [MODELS[0], MODELS[2], "gemma3"] {
        let model = load(name);
        for moves in [false, true] {
            let prompt = Prompt::new(&model, 7).text(9).image(7).image_at_the_same_position(7).text(11);
            let mut context = open(&model, &params());
            prompt.prefill(&mut context);
            let mut live = prompt.are_visual();
            let curve = context.similarity().expect("similarity").layers;
            let measured: Vec<f32> = curve.into_iter().filter(|value| value.is_finite()).collect();
            let mean = measured.iter().sum::<f32>() / measured.len() as f32;
            let evict = |context: &mut Context, live: &mut Vec<bool>, threshold: f32| {
                let gone = context.evict_tokens(threshold).expect("evicted");
                assert!(gone.iter().all(|&row| live[row]), "{name}, {moves}: {gone:?} of {:?}", visual(live));
                for &row in gone.iter().rev() {
                    live.remove(row);
                }
                gone.len()
            };
            let n = evict(&mut context, &mut live, mean);
            assert!(n > 0 && n < prompt.n_visual, "{name}: {n} of {}", prompt.n_visual);

            // The next image uses cells before those of the earlier text.
            let next = prompt.after().text(3).image(5).text(4);
            next.prefill(&mut context);
            live.extend(next.are_visual());
            if moves {
                let state = context.state().expect("a state");
                context = open(&model, &params());
                context.set_state(&state).expect("restored");
            }
            let left = live.iter().filter(|&&is_visual| is_visual).count();
            assert_eq!(evict(&mut context, &mut live, 2.0), left, "{name}, {moves}");
            assert!(!live.contains(&true), "{name}, {moves}: {live:?}");
            assert_eq!(context.similarity().expect("similarity").n_tokens, 0);
        }
    }
}

#[test]
fn the_memory_of_evicted_rows_is_returned() {
    for (variant, params) in variants() {
        let model = load("llama");
        let prompt = two_images(&model);
        let params = ContextParams { n_ctx: 4096, ..params };
        let mut context = open(&model, &params);
        // Fills most of the cache with images.
        let mut long = prompt;
        while long.rows.len() < 3600 {
            long = long.image(8).text(3);
        }
        long.prefill(&mut context);
        let before = context.memory_usage().context;
        let layers = context.kv_layers().expect("layers");
        assert!(layers.iter().all(|l| l.has_cells && !l.evicted && l.rows == context.n_ctx()));
        let per_layer = layers[0].bytes;

        let chosen = every_second(&model);
        context.evict_layers(&chosen).expect("evicted");
        let layers = context.kv_layers().expect("layers");
        let n_evicted = chosen.iter().filter(|&&l| l).count() as u64;
        for (layer, &chosen) in layers.iter().zip(&chosen) {
            assert_eq!(layer.evicted, chosen);
            let left = context.n_ctx() - long.n_visual;
            assert!(if chosen { layer.rows >= left && layer.rows < left + 256 } else { layer.rows == context.n_ctx() });
        }
        let freed = before - context.memory_usage().context;
        let expected = n_evicted * per_layer * long.n_visual as u64 / context.n_ctx() as u64;
        assert!(
            freed as f64 > 0.95 * expected as f64 && freed as f64 <= 1.01 * expected as f64,
            "{variant}: {freed} bytes were freed, of {expected}"
        );
    }
}

#[test]
fn evicting_takes_no_room_from_what_comes() {
    let model = load("qwen2");
    let prompt = two_images(&model);
    let exact = computed(ComputeParams { flash_attention: FlashAttention::Off, ..params().compute });
    let mut context = open(&model, &exact);
    let mut reference = open(&model, &exact);
    let first = prompt.prefill(&mut context);
    prompt.prefill(&mut reference);
    let layers = every_second(&model);
    context.evict_layers(&layers).expect("evicted");
    reference.hide_layers(&layers).expect("hidden");
    // Decodes until the last cell is used, in both kinds of layers.
    let left = context.n_ctx() - prompt.rows.len();
    let worst = compare(&mut context, &mut reference, &first, prompt.next, left);
    assert!(worst < near(), "{worst}");
    let row = Row { input: RowInput::Token(20), position: [prompt.next + left as i32, 0, 0, 0], logits: true };
    assert!(matches!(context.process(&[row]), Err(sharpv::Error::ContextFull { .. })));
    // Truncated cells can be used again.
    assert!(context.truncate(prompt.next) && reference.truncate(prompt.next));
    let worst = compare(&mut context, &mut reference, &first, prompt.next, left);
    assert!(worst < near(), "{worst}");
}

#[test]
fn several_sequences_share_an_evicted_cache() {
    let model = load("llama");
    let prompt = two_images(&model);
    let params = ContextParams { n_sequences: 2, ..params() };
    let mut ours = open(&model, &params);
    let mut reference = open(&model, &params);
    let layers = every_second(&model);
    for context in [&mut ours, &mut reference] {
        prompt.prefill(context);
        context.copy_sequence(1).expect("copied");
    }
    ours.evict_layers(&layers).expect("evicted");
    reference.hide_layers(&layers).expect("hidden");
    // From here on, the sequences differ, and do not see each other.
    for step in 0..16 {
        for (sequence, token) in [(0, 30 + step), (1, 90 + 2 * step)] {
            let a = decode(&mut ours, sequence, token, prompt.next + step);
            let b = decode(&mut reference, sequence, token, prompt.next + step);
            assert!(distance(&a, &b) < near(), "sequence {sequence}, step {step}");
        }
    }
    // Only one of them gets a second image.
    let mut turn = prompt.after();
    turn.next += 16;
    let turn = turn.image(5).text(3);
    let a = turn.prefill_sequence(&mut ours, 1);
    let b = turn.prefill_sequence(&mut reference, 1);
    assert!(distance(&a, &b) < near());
    ours.evict_layers(&layers).expect("evicted");
    reference.hide_layers(&layers).expect("hidden");
    for (sequence, position) in [(0, prompt.next + 16), (1, turn.next)] {
        let a = decode(&mut ours, sequence, 40, position);
        let b = decode(&mut reference, sequence, 40, position);
        assert!(distance(&a, &b) < near(), "sequence {sequence}");
    }
}

#[test]
fn a_restored_state_goes_on_with_the_same_logits() {
    for name in MODELS {
        let model = load(name);
        for (variant, params) in variants() {
            let prompt = two_images(&model);
            let mut context = open(&model, &params);
            let first = prompt.prefill(&mut context);
            context.evict_layers(&every_second(&model)).expect("evicted");
            let token = argmax(&first);
            decode(&mut context, 0, token, prompt.next);
            let state = context.state().expect("a state");

            // In a context of another size. A restored cache is packed.
            let mut restored = open(&model, &ContextParams { n_ctx: 2 * N_CTX, ..params.clone() });
            restored.set_state(&state).expect("restored");
            assert_eq!(restored.similarity().expect("similarity"), context.similarity().expect("similarity"));
            let evicted = |c: &Context| c.kv_layers().expect("layers").iter().map(|l| l.evicted).collect::<Vec<_>>();
            assert_eq!(evicted(&restored), evicted(&context));
            let worst = compare(&mut restored, &mut context, &first, prompt.next + 1, 32);
            assert!(worst < 1e-5, "{name}, {variant}: {worst}");

            // It can be evicted again.
            let mut turn = prompt.after();
            turn.next += 33;
            let turn = turn.image(4).text(3);
            let (a, b) = (turn.prefill(&mut restored), turn.prefill(&mut context));
            assert!(distance(&a, &b) < 1e-5, "{name}, {variant}");
            for context in [&mut restored, &mut context] {
                context.evict_layers(&every_second(&model)).expect("evicted");
            }
            assert!(compare(&mut restored, &mut context, &b, turn.next, 8) < 1e-5, "{name}, {variant}");
        }
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let model = load("llama");
    let prompt = two_images(&model);
    let mut context = open(&model, &params());
    prompt.prefill(&mut context);
    context.evict_layers(&every_second(&model)).expect("evicted");
    let state = context.state().expect("a state");
    let refuse = |mut into: Context, state: &[u8], why: &str| {
        let error = into.set_state(state).expect_err(why).to_string();
        assert!(!error.is_empty());
        // The context is empty and still works.
        prompt.prefill(&mut into);
    };
    for cut in [0, 1, 7, 8, 100, state.len() / 2, state.len() - 1] {
        refuse(open(&model, &params()), &state[..cut], "cut short");
    }
    // A bit flips in the lengths at the end.
    let mut damaged = state.clone();
    let at = damaged.len() - 12;
    damaged[at] ^= 1;
    refuse(open(&model, &params()), &damaged, "damaged");
    refuse(open(&model, &computed(ComputeParams { type_k: KvType::F32, ..params().compute })), &state, "other types");
    refuse(
        open(&model, &ContextParams { n_ctx: 256, ..params() }),
        &{
            let long = Prompt::new(&model, 3).text(5).image(18).text(5);
            let mut context = open(&model, &params());
            long.prefill(&mut context);
            context.state().expect("a state")
        },
        "too long",
    );
    let other = load("gemma3");
    let mut into = open(&other, &params());
    into.set_state(&state).expect_err("another model");
    // With a window, a state without our part is rejected: evicting would read rows that do not exist.
    let stock = {
        let mut context = open(&model, &ContextParams { evictable: false, ..params() });
        prompt.prefill(&mut context);
        context.state().expect("a state")
    };
    let window = KvWindow { layers: every_second(&model), rows: 256 };
    refuse(open(&model, &ContextParams { window: Some(window), ..params() }), &stock, "layers with a window");
}

#[test]
fn without_eviction_everything_is_stock() {
    for name in MODELS {
        let model = load(name);
        let prompt = two_images(&model);
        let mut stock = open(&model, &ContextParams { evictable: false, ..params() });
        let mut ours = open(&model, &params());
        let first = prompt.prefill(&mut stock);
        // Bit for bit on a CPU. The nodes of the probe split the graph, which a GPU would have fused.
        let is_same = |a: &[f32], b: &[f32]| a == b || distance(a, b) < gpu::near(0.0) as f32;
        assert!(is_same(&prompt.prefill(&mut ours), &first), "{name}: logits");
        for i in 0..8 {
            let (a, b) =
                (decode(&mut ours, 0, 50 + i, prompt.next + i), decode(&mut stock, 0, 50 + i, prompt.next + i));
            assert!(is_same(&a, &b), "{name}: logits");
        }
        let is_exact = gpu::near(0.0) == 0.0;
        let state = stock.state().expect("a state");
        assert!(!is_exact || ours.state().expect("a state").starts_with(&state), "{name}: state");
        assert_eq!(ours.memory_usage().context, stock.memory_usage().context, "{name}: bytes");
        // Evicting no layer changes nothing.
        ours.evict_layers(&vec![false; model.n_layer()]).expect("nothing");
        assert!(!is_exact || ours.state().expect("a state").starts_with(&state), "{name}: state");
        let last = |context: &mut Context| decode(context, 0, 77, prompt.next + 8);
        assert!(is_same(&last(&mut ours), &last(&mut stock)), "{name}");
        assert!(!stock.can_evict());
        assert!(stock.similarity().is_err() && stock.evict_layers(&every_second(&model)).is_err());
    }
}

#[test]
fn similarities_do_not_depend_on_batches_and_turns() {
    for name in MODELS.into_iter().chain(["gemma3", "lfm2"]) {
        let model = load(name);
        let prompt = two_images(&model);
        let curve = |n_ubatch| {
            let mut context = open(&model, &computed(ComputeParams { n_ubatch, ..params().compute }));
            prompt.prefill(&mut context);
            // Text and decoded tokens change nothing.
            decode(&mut context, 0, 20, prompt.next);
            let curve = context.similarity().expect("similarity");
            assert_eq!(curve.n_tokens, prompt.n_visual, "{name}");
            assert_eq!(curve.layers.len(), model.n_layer(), "{name}");
            curve.layers
        };
        let whole = curve(256);
        assert_eq!(whole[0], 1.0);
        assert!(whole.iter().all(|s| s.is_finite() && s.abs() <= 1.0 + 1e-5), "{name}: {whole:?}");
        for n_ubatch in [1, 7, 64] {
            for (a, b) in curve(n_ubatch).iter().zip(&whole) {
                assert!((a - b).abs() < 2e-3, "{name}, {n_ubatch}: {a} instead of {b}");
            }
        }
        // With two turns, the similarity is the mean of both.
        let (one, other) = (Prompt::new(&model, 5).image(4).text(2), Prompt::new(&model, 6).image(4).text(2));
        let separate: Vec<_> = [&one, &other]
            .map(|prompt| {
                let mut context = open(&model, &params());
                prompt.prefill(&mut context);
                context.similarity().expect("similarity")
            })
            .into();
        assert!(separate.iter().all(|s| s.n_tokens == 16));
        if name != "lfm2" {
            // In sequences of their own, the turns do not see each other. (Recurrent states are not shared.)
            let mut both = open(&model, &ContextParams { n_sequences: 2, ..params() });
            one.prefill_sequence(&mut both, 0);
            other.prefill_sequence(&mut both, 1);
            let both = both.similarity().expect("similarity");
            assert_eq!(both.n_tokens, 32);
            for (il, s) in both.layers.iter().enumerate() {
                let mean = (separate[0].layers[il] + separate[1].layers[il]) / 2.0;
                assert!((s - mean).abs() < 2e-3, "{name}, layer {il}: {s} instead of {mean}");
            }
        }
    }
}

#[test]
fn a_window_stays_and_what_is_behind_it_is_evicted() {
    let model = load("gemma3");
    let prompt = two_images(&model);
    let mut ours = open(&model, &params());
    let mut reference = open(&model, &params());
    let first = prompt.prefill(&mut ours);
    prompt.prefill(&mut reference);
    assert!(ours.can_evict());
    let layers = ours.kv_layers().expect("layers");
    let full: Vec<usize> = (0..layers.len()).filter(|&il| layers[il].has_cells).collect();
    assert!(full.len() >= 2 && full.len() < layers.len(), "{full:?}");
    // Marks all layers except one that has all cells. Layers with a sliding window are not evicted.
    let mut chosen = vec![true; model.n_layer()];
    chosen[full[0]] = false;
    ours.evict_layers(&chosen).expect("evicted");
    reference.hide_layers(&chosen).expect("hidden");
    let evicted: Vec<usize> =
        ours.kv_layers().expect("layers").iter().enumerate().filter(|(_, l)| l.evicted).map(|(il, _)| il).collect();
    assert_eq!(evicted, full[1..]);
    let worst = compare(&mut ours, &mut reference, &first, prompt.next, 64);
    assert!(worst < near(), "{worst}");
}

/// A trial that hides tokens has the effect of evicting them, also in the layers with a sliding window.
#[test]
fn tokens_are_tried_and_evicted_in_both_caches_of_a_window() {
    let model = load("gemma3");
    // After the last image, there are fewer rows than a window has (32).
    let prompt = two_images(&model);
    // New rows use the cells that become free: see `tokens_that_leave_all_layers_are_as_if_masked_everywhere`.
    let exact = computed(ComputeParams { flash_attention: FlashAttention::Off, ..params().compute });
    let mut tried = open(&model, &exact);
    prompt.prefill(&mut tried);
    let curve = tried.similarity().expect("similarity").layers;
    let mean = curve.iter().sum::<f32>() / curve.len() as f32;
    // All visual tokens, and about half of them.
    for threshold in [2.0, mean] {
        let [mut evicted, mut hidden, mut in_one, mut dense] = [(); 4].map(|()| open(&model, &exact));
        let first = prompt.prefill(&mut evicted);
        for context in [&mut hidden, &mut in_one, &mut dense] {
            assert_eq!(prompt.prefill(context), first);
        }
        let n_gone = evicted.evict_tokens(threshold).expect("evicted").len();
        assert!(n_gone == prompt.n_visual || (threshold == mean && n_gone > 0), "{n_gone}");
        hidden.hide_tokens(threshold).expect("hidden");
        let worst = compare(&mut evicted, &mut hidden, &first, prompt.next, 16);
        assert!(worst < near(), "{threshold}: {worst}");

        // Hiding them only in the layers without a window has another effect.
        if threshold == 2.0 {
            in_one.hide_layers(&vec![true; model.n_layer()]).expect("hidden");
            let far = compare(&mut in_one, &mut hidden, &first, prompt.next + 16, 1);
            assert!(far > 1e-2, "the layers with a window see images, or this test tells nothing: {far}");
        }

        // Hiding can be undone.
        assert!(hidden.truncate(prompt.next) && dense.truncate(prompt.next));
        hidden.hide_layers(&[]).expect("it ends");
        let worst = compare(&mut hidden, &mut dense, &first, prompt.next, 4);
        assert!(worst < near(), "{threshold}, after hiding: {worst}");
    }
}

#[test]
fn recurrent_layers_have_nothing_to_evict() {
    let model = load("lfm2");
    let prompt = two_images(&model);
    let mut ours = open(&model, &params());
    let mut reference = open(&model, &params());
    let first = prompt.prefill(&mut ours);
    prompt.prefill(&mut reference);
    let layers = ours.kv_layers().expect("layers");
    let attention: Vec<usize> = (0..layers.len()).filter(|&il| layers[il].has_cells).collect();
    assert!(attention.len() >= 2 && attention.len() < layers.len(), "{attention:?}");
    let mut chosen = vec![true; model.n_layer()];
    chosen[attention[0]] = false;
    ours.evict_layers(&chosen).expect("evicted");
    reference.hide_layers(&chosen).expect("hidden");
    let worst = compare(&mut ours, &mut reference, &first, prompt.next, 32);
    assert!(worst < near(), "{worst}");
}

#[test]
fn the_last_layer_with_all_cells_is_not_evicted() {
    let model = load("llama");
    let prompt = two_images(&model);
    let mut context = open(&model, &params());
    prompt.prefill(&mut context);
    let before = context.state().expect("a state");
    let error = context.evict_layers(&vec![true; model.n_layer()]).expect_err("all layers").to_string();
    assert!(error.contains("at least one layer"), "{error}");
    assert_eq!(context.state().expect("a state"), before);
}

#[test]
fn a_window_is_what_hiding_behind_each_batch_does_in_less_memory() {
    for name in MODELS {
        for flash_attention in [FlashAttention::On, FlashAttention::Off] {
            let model = load(name);
            let prompt = two_images(&model);
            let layers: Vec<bool> = (0..model.n_layer()).map(|il| il % 2 == 1).collect();
            let compute = ComputeParams { n_ubatch: 16, flash_attention, ..params().compute };
            let n_text = prompt.rows.len() - prompt.n_visual;
            // Leaves rows for a few tokens of an answer.
            let window = KvWindow { layers: layers.clone(), rows: n_text + 16 + 8 };
            let windowed = ContextParams { window: Some(window), ..computed(compute.clone()) };
            let (mut slow, mut context) = (open(&model, &computed(compute)), open(&model, &windowed));
            let hide = |context: &mut Context| context.hide_layers(&layers).expect("it hides");

            let expected = prompt.prefill_and(&mut slow, 0, hide);
            let found = prompt.prefill(&mut context);
            let dense = prompt.prefill(&mut open(&model, &computed(windowed.compute.clone())));
            assert!(distance(&dense, &expected) > 1e-2, "{name}: hiding does something");
            assert!(distance(&found, &expected) < 3.0 * near(), "{name}: {}", distance(&found, &expected));
            for i in 0..4 {
                let (token, position) = (20 + i, prompt.next + i);
                let expected = decode(&mut slow, 0, token, position);
                let found = decode(&mut context, 0, token, position);
                assert!(
                    distance(&found, &expected) < 3.0 * near(),
                    "{name}, token {i}: {}",
                    distance(&found, &expected)
                );
            }
            let bytes = |context: &Context| context.memory_usage().context;
            // On GPUs, a window has a multiple of 256 rows: half of the cells here.
            assert!(bytes(&context) <= bytes(&slow) * 3 / 4, "{} of {}", bytes(&context), bytes(&slow));
            let evicted: Vec<bool> = context.kv_layers().expect("layers").iter().map(|layer| layer.evicted).collect();
            assert_eq!(evicted, layers);

            // Evicting removes the last visual rows and ends the window: later images are stored in all layers.
            slow.hide_layers(&[]).expect("it ends");
            slow.evict_layers(&layers).expect("evicted");
            context.evict_layers(&layers).expect("evicted");
            let mut next = prompt.after();
            next.next += 4;
            let next = next.text(3).image(5).text(4);
            let (expected, found) = (next.prefill(&mut slow), next.prefill(&mut context));
            assert!(
                distance(&found, &expected) < 3.0 * near(),
                "{name}, after evicting: {}",
                distance(&found, &expected)
            );
        }
    }
}

#[test]
fn a_window_over_all_layers_leaves_one_and_a_full_one_is_told() {
    let model = load("llama");
    let compute = ComputeParams { n_ubatch: 16, ..params().compute };
    let window = KvWindow { layers: vec![true; model.n_layer()], rows: 32 };
    let mut context = open(&model, &ContextParams { window: Some(window), ..computed(compute) });
    let evicted = context.kv_layers().expect("layers").iter().filter(|layer| layer.evicted).count();
    assert_eq!(evicted, model.n_layer() - 1);
    // The window accepts images of any length, but only as much text as it has rows.
    Prompt::new(&model, 7).image(12).prefill(&mut context);
    let more = |first: i32| -> Vec<Row<'_>> {
        (0..16).map(|i| Row { input: RowInput::Token(30), position: [first + i, 0, 0, 0], logits: i == 15 }).collect()
    };
    let rows = context.kv_layers().expect("layers").iter().map(|layer| layer.rows).min().expect("layers") as i32;
    let mut taken = 0;
    let error = loop {
        match context.process(&more(144 + taken)) {
            Ok(()) => taken += 16,
            Err(error) => break error,
        }
    };
    // The last rows of the image may still be there.
    assert!((rows - 32..=rows).contains(&taken) && taken >= 32, "{taken} of {rows}");
    assert!(matches!(error, sharpv::Error::ContextFull { .. }), "{error}");
}
