//! Makes a LoRA adapter for a tiny model.

use super::lcg::Lcg;
use sharpv::runtime::Model;
use std::path::Path;

const RANK: usize = 4;
const ALIGNMENT: usize = 32;

/// Types of values in GGUF files.
const FLOAT: u32 = 6;
const TEXT: u32 = 8;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// Writes an adapter for the first layer of `model` to `path`.
pub fn write(path: &Path, model: &Model) {
    let metadata = |key: &str| model.metadata(key).expect("a key of the model");
    let architecture = metadata("general.architecture");
    let number = |key: &str| metadata(&format!("{architecture}.{key}")).parse::<usize>().expect("a number");
    let (n_ff, n_embd) = (number("feed_forward_length"), number("embedding_length"));
    let tensors = [("lora_a", [n_ff, RANK]), ("lora_b", [RANK, n_embd])];

    let texts =
        [("general.type", "adapter"), ("general.architecture", architecture.as_str()), ("adapter.type", "lora")];
    let mut file = [&b"GGUF"[..], &3_u32.to_le_bytes(), &2_u64.to_le_bytes(), &4_u64.to_le_bytes()].concat();
    for (key, value) in texts {
        file.extend([text(key), TEXT.to_le_bytes().to_vec(), text(value)].concat());
    }
    file.extend([text("adapter.lora.alpha"), FLOAT.to_le_bytes().to_vec(), 8_f32.to_le_bytes().to_vec()].concat());
    let mut data = Vec::new();
    let mut random = Lcg(5);
    for (name, shape) in tensors {
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        // Two dimensions, 32-bit floats.
        file.extend(text(&format!("blk.0.ffn_down.weight.{name}")));
        file.extend(2_u32.to_le_bytes());
        shape.iter().for_each(|&n| file.extend((n as u64).to_le_bytes()));
        file.extend([0_u32.to_le_bytes().to_vec(), (data.len() as u64).to_le_bytes().to_vec()].concat());
        let values = (0..shape[0] * shape[1]).map(|_| random.below(1000) as f32 / 500.0 - 1.0);
        data.extend(values.flat_map(f32::to_le_bytes));
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file.extend(data);
    std::fs::write(path, file).expect("an adapter is written");
}
