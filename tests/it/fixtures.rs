//! The small models of tests/fixtures: that each is what its name says, and that its logits depend on every part of its
//! input. Tests that drop rows of the KV cache build on this.

use sharpv::runtime::{
    CancelToken, ComputeParams, Context, ContextParams, FlashAttention, KvType, Model, ModelParams, Position, Row,
    RowInput,
};
use std::path::Path;

/// How far apart the logits of one prompt are in other batches, or with other kernels; measured: up to 0.006.
const NOISE: f64 = 0.02;

struct Fixture {
    name: &'static str,
    n_layer: usize,
    n_embd: usize,
    /// Values that the cache keeps of each row, in all layers.
    kv_values: u64,
}

const FIXTURES: [Fixture; 6] = [
    // Keys and values of two heads in six layers.
    Fixture { name: "llama", n_layer: 6, n_embd: 32, kv_values: 2 * 2 * 64 * 6 },
    Fixture { name: "qwen2", n_layer: 4, n_embd: 128, kv_values: 2 * 64 * 4 },
    Fixture { name: "qwen2vl", n_layer: 4, n_embd: 128, kv_values: 2 * 64 * 4 },
    // A context keeps the rows outside of a window too, so that it can go back to them.
    Fixture { name: "gemma3", n_layer: 12, n_embd: 32, kv_values: 2 * 64 * 12 },
    // Two layers have a convolution instead.
    Fixture { name: "lfm2", n_layer: 4, n_embd: 128, kv_values: 2 * 64 * 2 },
    // Keys alone, which hold the values.
    Fixture { name: "deepseek2", n_layer: 4, n_embd: 32, kv_values: 128 * 4 },
];

impl Fixture {
    fn load(&self) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{}.gguf", self.name));
        Model::load(&path, &ModelParams::default(), |_| {}).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn is_qwen(&self) -> bool {
        self.name.starts_with("qwen")
    }
}

fn context(model: &Model, params: ContextParams) -> Context {
    let params = ContextParams { compute: ComputeParams { n_threads: Some(2), ..params.compute }, ..params };
    Context::new(model, &params, &[], &CancelToken::new()).expect("a context")
}

fn with(compute: ComputeParams) -> ContextParams {
    ContextParams { n_ctx: 256, compute, ..ContextParams::default() }
}

/// For prompts.
fn small() -> ContextParams {
    with(ComputeParams { n_ubatch: 128, ..ComputeParams::default() })
}

/// Numbers that look random.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// A byte or a merged pair, no control token.
    fn token(&mut self) -> Input {
        Input::Token((self.next() % 300) as i32)
    }

    /// Values of size 1, as the embeddings of tokens have.
    fn embedding(&mut self, model: &Model) -> Input {
        let value = |x: u32| (x as f32 / (1_u32 << 31) as f32 * 2.0 - 1.0) * 3_f32.sqrt();
        Input::Embedding((0..model.n_embd_inp()).map(|_| value(self.next())).collect())
    }
}

#[derive(Clone)]
enum Input {
    Token(i32),
    Embedding(Vec<f32>),
}

type Prompt = Vec<(Input, Position)>;

const N_TEXT: usize = 16;
/// Visual rows: an image of 8 by 8.
const N_VISUAL: usize = 64;
const N_ROWS: usize = N_TEXT + N_VISUAL + N_TEXT;

/// Text, an image, text. Models without M-RoPE read the first number of a position alone.
fn prompt(model: &Model) -> Prompt {
    let mut random = Lcg(1);
    let text = |random: &mut Lcg, from: usize| -> Prompt {
        (from..from + N_TEXT).map(|i| (random.token(), [i as i32; 4])).collect()
    };
    let mut rows = text(&mut random, 0);
    for i in 0..N_VISUAL {
        let position = [N_TEXT + i, N_TEXT + i / 8, N_TEXT + i % 8, 0].map(|x| x as i32);
        rows.push((random.embedding(model), position));
    }
    rows.extend(text(&mut random, N_TEXT + N_VISUAL));
    rows
}

/// The logits after a prompt, computed from nothing in batches that end before the rows `cuts`.
fn logits_in_batches(context: &mut Context, prompt: &Prompt, cuts: &[usize]) -> Vec<f32> {
    context.clear();
    let mut rows = Vec::new();
    for (i, (input, position)) in prompt.iter().enumerate() {
        let input = match input {
            Input::Token(token) => RowInput::Token(*token),
            Input::Embedding(values) => RowInput::Embedding(values),
        };
        rows.push(Row { input, position: *position, logits: i + 1 == prompt.len() });
    }
    let mut from = 0;
    for &to in cuts.iter().chain([&rows.len()]) {
        context.process(&rows[from..to]).expect("a batch is computed");
        from = to;
    }
    context.logits().expect("logits").to_vec()
}

fn logits(context: &mut Context, prompt: &Prompt) -> Vec<f32> {
    logits_in_batches(context, prompt, &[])
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert!(a.len() == b.len() && a.iter().chain(b).all(|x| x.is_finite()));
    let difference: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (difference / b.iter().map(|&b| f64::from(b).powi(2)).sum::<f64>()).sqrt()
}

#[test]
fn each_has_the_shape_of_its_name() {
    for fixture in &FIXTURES {
        let (name, model) = (fixture.name, fixture.load());
        assert_eq!(model.metadata("general.architecture").as_deref(), Some(name));
        assert_eq!(
            (model.n_layer(), model.n_embd(), model.n_embd_inp()),
            (fixture.n_layer, fixture.n_embd, fixture.n_embd)
        );
        assert_eq!((model.n_vocab(), model.n_ctx_train()), (304, 131_072), "{name}");
        assert_eq!(model.is_recurrent(), name == "lfm2");
        assert!(!model.has_encoder() && model.supports_mixed_batch(), "{name}");

        // What more cells cost: the state of convolutions has one size in any context.
        let bytes = |n_ctx| {
            let compute = ComputeParams { n_ubatch: 64, ..ComputeParams::default() };
            context(&model, ContextParams { n_ctx, ..with(compute) }).memory_usage().context
        };
        assert_eq!(bytes(2048) - bytes(1024), 1024 * fixture.kv_values * 2, "{name}");
    }
}

#[test]
fn each_reads_and_writes_text() {
    for fixture in &FIXTURES {
        let (name, model) = (fixture.name, fixture.load());
        let text = "<|im_start|>user\nIs the video of an 🦆?<|im_end|>";
        let tokens = model.tokenize(text, false, true).expect("tokens");
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| model.token_bytes(token, true)).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), text, "{name}");
        assert!(tokens.len() < text.len() - 20, "{name}: nothing is merged: {tokens:?}");
        assert_eq!(model.tokenize("\n", false, false).expect("tokens"), [10], "{name}");

        let (Some(bos), Some(eos)) = model.bos_eos() else { panic!("{name}: no BOS or EOS") };
        assert_eq!(model.adds_bos(), !fixture.is_qwen());
        assert_eq!(model.tokenize("", true, true).expect("tokens").contains(&bos), !fixture.is_qwen());
        let end_of_turn = *tokens.last().expect("tokens");
        assert!(model.is_end_of_generation(eos) && model.is_end_of_generation(end_of_turn), "{name}");
        assert!(model.chat_template().is_some_and(|template| template.contains("<|im_start|>")), "{name}");
    }
}

/// What a device does when it is first used, it does once, whoever comes first.
#[test]
fn models_that_are_loaded_side_by_side_compute_the_same() {
    let compute = |fixture: &Fixture| {
        let model = fixture.load();
        logits(&mut context(&model, small()), &prompt(&model))
    };
    let together: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = FIXTURES.iter().map(|fixture| scope.spawn(move || compute(fixture))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it computes")).collect()
    });
    for (fixture, together) in FIXTURES.iter().zip(together) {
        assert_eq!(together, compute(fixture), "{}", fixture.name);
    }
}

#[test]
fn every_row_matters() {
    for fixture in &FIXTURES {
        let (name, model) = (fixture.name, fixture.load());
        let (prompt, mut context) = (prompt(&model), context(&model, small()));
        let expected = logits(&mut context, &prompt);
        let spread = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
        assert!((1.5..4.0).contains(&spread), "{name}: {spread}");
        assert!(logits(&mut context, &prompt) == expected, "{name}: the same again differs");

        for from in (0..N_ROWS - 8).step_by(8) {
            let mut dropped = prompt.clone();
            dropped.drain(from..from + 8);
            let distance = distance(&logits(&mut context, &dropped), &expected);
            assert!(distance > 2.0 * NOISE, "{name} without the rows from {from}: {distance}");
        }
        let mut random = Lcg(2);
        for at in [4, N_TEXT + N_VISUAL / 2, N_ROWS - 1] {
            let mut other = prompt.clone();
            other[at].0 = match other[at].0 {
                Input::Token(token) => Input::Token((token + 1) % 300),
                Input::Embedding(_) => random.embedding(&model),
            };
            let distance = distance(&logits(&mut context, &other), &expected);
            assert!(distance > NOISE, "{name} with another row {at}: {distance}");
        }
    }
}

#[test]
fn positions_matter_as_far_as_the_model_reads_them() {
    for fixture in &FIXTURES {
        let (name, model) = (fixture.name, fixture.load());
        let (prompt, mut context) = (prompt(&model), context(&model, small()));
        let expected = logits(&mut context, &prompt);

        let mut transposed = prompt.clone();
        transposed.iter_mut().for_each(|(_, position)| position.swap(1, 2));
        let difference = distance(&logits(&mut context, &transposed), &expected);
        assert!(if name == "qwen2vl" { difference > NOISE } else { difference == 0.0 }, "{name}: {difference}");

        let mut later = prompt.clone();
        later[N_TEXT..].iter_mut().for_each(|(_, position)| position.iter_mut().for_each(|p| *p += 1000));
        let difference = distance(&logits(&mut context, &later), &expected);
        assert!(difference > NOISE, "{name}: {difference}");
    }
}

#[test]
fn batches_and_kinds_of_attention_make_no_difference() {
    for fixture in &FIXTURES {
        let (name, model) = (fixture.name, fixture.load());
        let (prompt, mut default) = (prompt(&model), context(&model, small()));
        let expected = logits(&mut default, &prompt);
        let near = |kind: &str, logits: &[f32], limit: f64| {
            let distance = distance(logits, &expected);
            assert!(distance < limit, "{name}, {kind}: {distance}");
            distance
        };
        // Text, image and text on their own; then two mixed batches.
        near("not mixed", &logits_in_batches(&mut default, &prompt, &[N_TEXT, N_TEXT + N_VISUAL]), NOISE);
        near("mixed", &logits_in_batches(&mut default, &prompt, &[N_TEXT + 20]), NOISE);
        let one_by_one: Vec<usize> = (1..N_ROWS).collect();
        near("one by one", &logits_in_batches(&mut default, &prompt, &one_by_one), NOISE);

        let logits_with = |compute| logits(&mut context(&model, with(compute)), &prompt);
        let usual = || small().compute;
        near("unfused", &logits_with(ComputeParams { flash_attention: FlashAttention::Off, ..usual() }), NOISE);
        let quantized = |kv| ComputeParams { type_k: kv, type_v: kv, flash_attention: FlashAttention::On, ..usual() };
        let eight = near("q8_0", &logits_with(quantized(KvType::Q8_0)), 0.1);
        let four = distance(&logits_with(quantized(KvType::Q4_0)), &expected);
        assert!(0.0 < eight && eight < four, "{name}: {eight} {four}");
    }
}
