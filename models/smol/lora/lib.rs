//! Data of `sharpv`: what the language model of its model `smol` learned about pictures.
#![no_std]

/// A LoRA adapter in GGUF, for SmolLM2-135M-Instruct.
// A static, for a constant would be there once more wherever it is used.
pub static LORA: [u8; 9_797_760] = *include_bytes!("smol-lora-f16.gguf");
