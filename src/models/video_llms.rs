//! VideoLLMs on Hugging Face in GGUF, and the memory that they need.
//!
//! Sizes are computed from each model's architecture, not measured: weights by the average bits of the quantization,
//! the KV cache by its layout. llama.cpp's compute buffers are not included; they take some hundred megabytes.

/// A VideoLLM in a repository on Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct VideoLlm {
    /// The repository, `ORG/REPO`.
    pub repo: &'static str,
    /// The quantization that is chosen by default, if memory suffices.
    pub quant: &'static str,
    /// Parameters of the language model, in millions.
    pub language_params_m: f64,
    /// Parameters of the vision encoder and its connector, in millions. They are stored in 16 bits.
    pub vision_params_m: f64,
    /// Layers of the language model.
    pub n_layers: u32,
    /// KV heads of a layer.
    pub n_kv_heads: u32,
    /// Values per head.
    pub head_size: u32,
    /// Visual tokens per frame.
    pub frame_tokens: FrameTokens,
}

/// How many visual tokens frames become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameTokens {
    /// This many tokens per frame, whatever its size.
    Each(u32),
    /// Two frames become one slice, with one token per square of this many pixels on a side.
    Pair(u32),
}

/// Width and height, in pixels, of the frames for which the number of tokens is computed if it depends on their size.
const FRAME: (u32, u32) = (640, 360);

/// Text tokens in a prompt: question, template, and layout.
const TEXT_TOKENS: u64 = 512;

/// Bytes per value in an f16 KV cache.
const KV_VALUE_BYTES: u64 = 2;

impl VideoLlm {
    /// Width and height, in pixels, of the frames that [`visual_tokens`](Self::visual_tokens) assumes.
    pub const FRAME: (u32, u32) = FRAME;

    /// Approximate size of the language model and the f16 projector, in bytes.
    pub fn file_bytes(&self) -> u64 {
        // Q4_K_M mixes types of 4.5 and 6.6 bits. The models here have 4.9 to 5.1 on average.
        let bits = if self.quant == "Q8_0" { 8.5 } else { 5.0 };
        ((self.language_params_m * bits + self.vision_params_m * 16.0) * 1e6 / 8.0) as u64
    }

    /// The number of visual tokens in a video of `frames` frames.
    pub fn visual_tokens(&self, frames: u32) -> u64 {
        match self.frame_tokens {
            FrameTokens::Each(tokens) => u64::from(frames) * u64::from(tokens),
            FrameTokens::Pair(width) => {
                let squares = |pixels: u32| u64::from((pixels + width / 2) / width);
                u64::from(frames.div_ceil(2)) * squares(FRAME.0) * squares(FRAME.1)
            }
        }
    }

    /// Size of the f16 KV cache, in bytes, for a prompt with `frames` frames if the share `keep` of the visual tokens
    /// is kept: 2 (keys and values) · layers · heads · head size · 2 bytes per token.
    pub fn kv_bytes(&self, frames: u32, keep: f64) -> u64 {
        let token =
            2 * u64::from(self.n_layers) * u64::from(self.n_kv_heads) * u64::from(self.head_size) * KV_VALUE_BYTES;
        let visual = (self.visual_tokens(frames) as f64 * keep).ceil() as u64;
        token * (visual + TEXT_TOKENS)
    }

    /// Memory for the weights and the KV cache, in bytes. See [`kv_bytes`](Self::kv_bytes).
    pub fn memory_bytes(&self, frames: u32, keep: f64) -> u64 {
        self.file_bytes() + self.kv_bytes(frames, keep)
    }
}

/// Some VideoLLMs on Hugging Face that llama.cpp supports; in each family, the smallest first.
pub fn video_llms() -> &'static [VideoLlm] {
    VIDEO_LLMS
}

const fn model(
    (repo, quant): (&'static str, &'static str),
    (language_params_m, vision_params_m): (f64, f64),
    (n_layers, n_kv_heads, head_size): (u32, u32, u32),
    frame_tokens: FrameTokens,
) -> VideoLlm {
    VideoLlm { repo, quant, language_params_m, vision_params_m, n_layers, n_kv_heads, head_size, frame_tokens }
}

#[rustfmt::skip]
const VIDEO_LLMS: &[VideoLlm] = {
    use FrameTokens::{Each, Pair};
    &[
        model(("ggml-org/SmolVLM2-256M-Video-Instruct-GGUF", "Q8_0"), (163.0, 93.3), (30, 3, 64), Each(64)),
        model(("ggml-org/SmolVLM2-500M-Video-Instruct-GGUF", "Q8_0"), (409.3, 98.0), (32, 5, 64), Each(64)),
        model(("ggml-org/SmolVLM2-2.2B-Instruct-GGUF", "Q4_K_M"), (1812.6, 436.0), (24, 32, 64), Each(81)),
        model(("ggml-org/InternVL3-1B-Instruct-GGUF", "Q8_0"), (629.7, 308.5), (24, 2, 64), Each(256)),
        model(("ggml-org/InternVL3-2B-Instruct-GGUF", "Q4_K_M"), (1776.3, 312.4), (28, 2, 128), Each(256)),
        model(("ggml-org/InternVL3-8B-Instruct-GGUF", "Q4_K_M"), (7612.8, 331.6), (28, 4, 128), Each(256)),
        model(("ggml-org/Qwen2-VL-2B-Instruct-GGUF", "Q4_K_M"), (1543.7, 665.3), (28, 2, 128), Pair(28)),
        model(("ggml-org/Qwen2-VL-7B-Instruct-GGUF", "Q4_K_M"), (7615.6, 675.8), (28, 4, 128), Pair(28)),
        model(("ggml-org/Qwen2.5-VL-3B-Instruct-GGUF", "Q4_K_M"), (3085.9, 668.7), (36, 2, 128), Pair(28)),
        model(("ggml-org/Qwen2.5-VL-7B-Instruct-GGUF", "Q4_K_M"), (7615.6, 676.6), (28, 4, 128), Pair(28)),
        model(("Qwen/Qwen3-VL-2B-Instruct-GGUF", "Q4_K_M"), (1720.6, 407.0), (28, 8, 128), Pair(32)),
        model(("Qwen/Qwen3-VL-4B-Instruct-GGUF", "Q4_K_M"), (4022.5, 415.0), (36, 8, 128), Pair(32)),
        model(("Qwen/Qwen3-VL-8B-Instruct-GGUF", "Q4_K_M"), (8190.7, 576.4), (36, 8, 128), Pair(32)),
        model(("openbmb/MiniCPM-V-2_6-gguf", "Q4_K_M"), (7615.6, 522.0), (28, 4, 128), Each(64)),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn find(repo: &str) -> &'static VideoLlm {
        video_llms().iter().find(|model| model.repo == repo).expect("it is in the table")
    }

    /// Computed sizes of known files must be within 5 %.
    #[test]
    fn computed_sizes_agree_with_files() {
        let files = [
            ("ggml-org/SmolVLM2-500M-Video-Instruct-GGUF", 436_808_704_u64),
            ("ggml-org/SmolVLM2-2.2B-Instruct-GGUF", 1_112_602_656),
            ("ggml-org/InternVL3-2B-Instruct-GGUF", 1_116_758_816),
            ("ggml-org/Qwen2-VL-2B-Instruct-GGUF", 986_046_944),
            ("ggml-org/Qwen2.5-VL-3B-Instruct-GGUF", 1_929_901_056),
            ("openbmb/MiniCPM-V-2_6-gguf", 4_681_089_344),
        ];
        for (repo, bytes) in files {
            let model = find(repo);
            let language = VideoLlm { vision_params_m: 0.0, ..*model }.file_bytes();
            let ratio = language as f64 / bytes as f64;
            assert!((0.95..1.05).contains(&ratio), "{repo}: {ratio}");
        }
        let mmproj = VideoLlm { language_params_m: 0.0, ..*find("openbmb/MiniCPM-V-2_6-gguf") }.file_bytes();
        assert!((mmproj as f64 / 1_044_425_152.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn memory_follows_the_formula() {
        let smol = find("ggml-org/SmolVLM2-500M-Video-Instruct-GGUF");
        assert_eq!(smol.visual_tokens(32), 2048);
        assert_eq!(smol.kv_bytes(32, 1.0), 40_960 * (2048 + 512));
        assert_eq!(smol.kv_bytes(32, 0.25), 40_960 * (512 + 512));
        assert_eq!(smol.memory_bytes(32, 1.0) - smol.memory_bytes(32, 0.25), 40_960 * 1536);
        // 640x360 in squares of 28 and 32 pixels: 23x13 and 20x11, for each pair of frames.
        assert_eq!(find("ggml-org/Qwen2.5-VL-7B-Instruct-GGUF").visual_tokens(32), 16 * 23 * 13);
        assert_eq!(find("Qwen/Qwen3-VL-8B-Instruct-GGUF").visual_tokens(31), 16 * 20 * 11);
    }
}
