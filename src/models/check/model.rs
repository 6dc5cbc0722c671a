//! Checks of language models. llama.cpp itself checks their tensors.

use super::{Finding, Header, INT, must_be};
use crate::models::gguf::Value;

/// Limits of llama.cpp.
const MAX_LAYERS: u64 = 512;
const MAX_EXPERTS: u64 = 1024;

/// Architectures with plain attention that rotate whole heads, and assert it.
const WHOLE_HEADS: [&str; 12] = [
    "llama",
    "mistral3",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3vl",
    "qwen3vlmoe",
    "internlm2",
    "granite",
    "smollm3",
];
/// Architectures that rotate a part of a head, or all of it.
const ROTATE_HEADS: [&str; 2] = ["gemma3", "lfm2"];
/// Architectures with M-RoPE, whose positions have sections for time and space.
const SECTIONS: [&str; 3] = ["qwen2vl", "qwen3vl", "qwen3vlmoe"];

pub(super) fn check(header: &Header) -> Finding {
    let metadata = &header.metadata;
    // llama.cpp itself reports missing values.
    let Some(architecture) = metadata.string("general.architecture") else { return Ok(()) };
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| metadata.u64(&key(name));

    let layers = header.in_range(&key("block_count"), 1..=MAX_LAYERS)?;
    header.in_range(&key("context_length"), 1..=INT)?;
    header.in_range(&key("embedding_length"), 1..=INT)?;
    header.in_range(&key("vocab_size"), 1..=INT)?;
    if architecture.starts_with("gemma") {
        header.in_range(&key("attention.sliding_window"), 0..=INT)?;
    }
    if let Some(layers) = layers {
        header.in_range(&key("nextn_predict_layers"), 0..=layers)?;
    }
    header.epsilons()?;

    if let (Some(heads), Some(kv @ 1..)) = (number("attention.head_count"), number("attention.head_count_kv"))
        && heads % kv != 0
    {
        return Err(must_be(
            &key("attention.head_count"),
            heads,
            format!("a multiple of head_count_kv, which is {kv}"),
        ));
    }
    heads(header, architecture)?;
    experts(header, architecture)?;
    rotation(header, architecture)?;
    special_tokens(header)
}

/// Some architectures take the width of queries from another value, and then cannot split them into heads.
fn heads(header: &Header, architecture: &str) -> Finding {
    let number = |name: &str| header.metadata.u64(&format!("{architecture}.{name}"));
    let (Some(heads), Some(width)) = (number("attention.head_count"), number("embedding_length")) else {
        return Ok(());
    };
    let size = number("attention.key_length").or_else(|| width.checked_div(heads));
    if let (Some(size), Some(shape)) = (size, header.tensors.get("blk.0.attn_q.weight"))
        && WHOLE_HEADS.contains(&architecture)
        && heads.checked_mul(size) != shape.get(1).copied()
    {
        let expected = format!(
            "such that heads of {size} values fit the tensor blk.0.attn_q.weight, which has the shape {shape:?}"
        );
        return Err(must_be(&format!("{architecture}.attention.head_count"), heads, expected));
    }
    Ok(())
}

fn experts(header: &Header, architecture: &str) -> Finding {
    // Their count of 1 means that there are no experts.
    if architecture.starts_with("hunyuan") {
        return Ok(());
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let count = header.in_range(&key("expert_count"), 0..=MAX_EXPERTS)?.unwrap_or(0);
    header.in_range(&key("expert_used_count"), count.min(1)..=count)?;
    if count > 0 {
        header.in_range(&key("expert_group_count"), 0..=count - 1)?;
    }
    Ok(())
}

fn rotation(header: &Header, architecture: &str) -> Finding {
    let metadata = &header.metadata;
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| metadata.u64(&key(name));

    for base in [key("rope.freq_base"), key("rope.freq_base_swa")] {
        if let Some(&Value::Float(value)) = metadata.get(&base)
            && !(value.is_finite() && value >= 0.0)
        {
            return Err(must_be(&base, value, "a finite number, such as 10000"));
        }
    }
    let kind = key("rope.scaling.type");
    if let Some(value) = metadata.string(&kind)
        && !["none", "linear", "yarn", "longrope"].contains(&value)
    {
        return Err(must_be(&kind, format!("{value:?}"), "none, linear, yarn or longrope"));
    }
    let sections = key("rope.dimension_sections");
    if SECTIONS.contains(&architecture)
        && let Some(values) = metadata.numbers(&sections)
        && (values.iter().any(|&value| value < 0.0) || values.iter().take(3).sum::<f64>() <= 0.0)
    {
        return Err(must_be(&sections, format!("{values:?}"), "numbers, the first three of which are not all 0"));
    }
    let of_heads = || number("embedding_length")?.checked_div(number("attention.head_count")?);
    let head = number("attention.key_length").or_else(of_heads);
    if SECTIONS.contains(&architecture)
        && let (Some(values), Some(size)) = (metadata.numbers(&sections), head)
        && values.iter().take(4).sum::<f64>() > size as f64
    {
        let expected = format!("numbers with a sum of at most the size of a head, which is {size}");
        return Err(must_be(&sections, format!("{values:?}"), expected));
    }
    let rotated = key("rope.dimension_count");
    let Some(count) = header.in_range(&rotated, 0..=INT)? else { return Ok(()) };
    if let Some(size) = head {
        if WHOLE_HEADS.contains(&architecture) && count != size {
            return Err(must_be(&rotated, count, format!("the size of a head, which is {size}")));
        }
        if ROTATE_HEADS.contains(&architecture) && count > size {
            return Err(must_be(&rotated, count, format!("at most the size of a head, which is {size}")));
        }
    }
    if count % 2 == 1 {
        return Err(must_be(&rotated, count, "even"));
    }
    Ok(())
}

/// llama.cpp takes an invalid special token for another one, so that answers do not end. It asserts that no two tokens
/// are the same.
fn special_tokens(header: &Header) -> Finding {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let Some(&Value::Array { len }) = header.metadata.get(TOKENS) else { return Ok(()) };
    if let Some(place) = header.metadata.repeated(TOKENS) {
        return Err(format!("{TOKENS} has its element {place} twice"));
    }
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
        // Converters write "none" as −1.
        if let Some(id) = header.metadata.u64(key).filter(|&id| id >= len && id != u64::from(u32::MAX)) {
            return Err(must_be(key, id, format!("one of the {len} tokens of the vocabulary")));
        }
    }
    Ok(())
}
