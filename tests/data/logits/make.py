#!/usr/bin/env python3
"""Runs the random models of ../../fixtures/families in Hugging Face's code, and writes what comes out as NAME.json.

    python3 make.py            write them
    python3 make.py --check    compare them with what this script computes (to 0.0001: not all machines round alike)

The tensors come from the GGUF files; what llama.cpp's converter would have done to them is undone. README.md says what
the fields mean.
"""
# pip install torch==2.9.1 torchvision==0.24.1 transformers==4.57.6 tokenizers==0.22.1 num2words==0.5.14 gguf==0.19.0

import argparse
import base64
import importlib.util
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

HERE = Path(__file__).resolve().parent
FAMILIES = HERE.parent.parent / "fixtures" / "families"

# The other goldens' processors, for the ids and positions.
spec = importlib.util.spec_from_file_location("prompts", HERE.parent / "prompts" / "make.py")
prompts = importlib.util.module_from_spec(spec)
sys.modules["prompts"] = prompts
spec.loader.exec_module(prompts)

# At one frame a second, M-RoPE's time goes up by 4 from pair to pair of frames.
FPS = 1
FRAMES = {"four": 4, "three": 3}
KEEP_EVERY = 3
TOLERANCE = 1e-4


def frame(width, height, index):
    """Smooth ramps up and down, so that resizing, as mtmd does it to SmolVLM's frames and back, changes them little."""
    y, x = np.mgrid[:height, :width]
    phases = [2 * x + 3 * y + 80 * index, 4 * x + y + 180 * index, x + 5 * y + 340 * index]
    return abs(np.stack(phases, axis=-1) % 510 - 255).astype(np.uint8)


class Gguf:
    def __init__(self, name):
        reader = gguf.GGUFReader(FAMILIES / f"{name}.gguf")
        self.fields = reader.fields
        self.tensors = {tensor.name: torch.tensor(tensor.data.astype(np.float32)) for tensor in reader.tensors}

    def __getitem__(self, key):
        return self.fields[key].contents()


class Pair:
    """A language model and an encoder, as one model of transformers."""

    def __init__(self, name):
        self.name = name
        self.llm, self.mmproj = Gguf(name), Gguf(f"{name}-mmproj")
        self.width = self.height = self.mmproj["clip.vision.image_size"]
        torch.manual_seed(0)
        self.model = self.build().eval()
        weights = self.llm_weights() | self.vision_weights()
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert not unexpected and set(missing) <= self.unused(), (missing, unexpected)

    def unused(self):
        """Weights that transformers has and the outputs do not depend on."""
        return set()

    # The language model.

    def text_config(self):
        arch = self.llm["general.architecture"]
        return {
            "vocab_size": len(prompts.vocabulary.TOKENS),
            "hidden_size": self.llm[f"{arch}.embedding_length"],
            "intermediate_size": self.llm[f"{arch}.feed_forward_length"],
            "num_hidden_layers": self.llm[f"{arch}.block_count"],
            "num_attention_heads": self.llm[f"{arch}.attention.head_count"],
            "num_key_value_heads": self.llm[f"{arch}.attention.head_count_kv"],
            "head_dim": self.llm[f"{arch}.attention.key_length"],
            "rms_norm_eps": self.llm[f"{arch}.attention.layer_norm_rms_epsilon"],
            "rope_theta": self.llm[f"{arch}.rope.freq_base"],
            "max_position_embeddings": self.llm[f"{arch}.context_length"],
            "hidden_act": "silu",
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }

    def vision_config(self):
        get = lambda key: self.mmproj[f"clip.vision.{key}"]  # noqa: E731
        return {
            "hidden_size": get("embedding_length"),
            "intermediate_size": get("feed_forward_length"),
            "num_attention_heads": get("attention.head_count"),
            "num_hidden_layers": get("block_count"),
            "image_size": get("image_size"),
            "patch_size": get("patch_size"),
            "layer_norm_eps": get("attention.layer_norm_epsilon"),
            "hidden_act": "gelu_pytorch_tanh",
        }

    TEXT = "model.language_model."

    LLM_NAMES = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }

    def llm_weights(self):
        weights = {}
        for name, tensor in self.llm.tensors.items():
            match name.split("."):
                case ["token_embd", _]:
                    weights["lm_head.weight"] = weights[f"{self.TEXT}embed_tokens.weight"] = tensor
                case ["output_norm", kind]:
                    weights[f"{self.TEXT}norm.{kind}"] = tensor
                case ["blk", i, part, kind]:
                    tensor = self.as_before_conversion(part, tensor)
                    weights[f"{self.TEXT}layers.{i}.{self.LLM_NAMES[part]}.{kind}"] = tensor
        return weights

    def as_before_conversion(self, part, tensor):
        return tensor

    # The encoder: SigLIP, unless overridden.

    SIGLIP_NAMES = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_out": "self_attn.out_proj",
        "ln1": "layer_norm1",
        "ln2": "layer_norm2",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
    }

    def vision_weights(self):
        weights = {}
        for name, tensor in self.mmproj.tensors.items():
            match name.split("."):
                case ["v", "patch_embd", kind]:
                    weights[f"{self.VISION}embeddings.patch_embedding.{kind}"] = tensor
                case ["v", "position_embd", kind]:
                    weights[f"{self.VISION}embeddings.position_embedding.{kind}"] = tensor
                case ["v", "post_ln", kind]:
                    weights[f"{self.VISION}post_layernorm.{kind}"] = tensor
                case ["v", "blk", i, part, kind]:
                    weights[f"{self.VISION}encoder.layers.{i}.{self.SIGLIP_NAMES[part]}.{kind}"] = tensor
                case _:
                    weights[self.PROJECTOR[name]] = tensor
        return weights

    def pixel_values(self, frames):
        """Frames as the encoder takes them: normalized, not resized."""
        pixels = torch.tensor(np.stack(frames).astype(np.float32) / 255)
        mean = torch.tensor(self.mmproj["clip.vision.image_mean"])
        std = torch.tensor(self.mmproj["clip.vision.image_std"])
        return ((pixels - mean) / std).permute(0, 3, 1, 2)

    # What each family has of its own: build, slices (a list of tensors of rows), prompt.

    def end_of_video(self):
        """Rows that follow the slices."""
        return []


class SmolVlm(Pair):
    TEXT = "model.text_model."
    VISION = "model.vision_model."
    PROJECTOR = {"mm.model.fc.weight": "model.connector.modality_projection.proj.weight"}

    def build(self):
        config = SmolVLMConfig(
            text_config={"model_type": "llama", **self.text_config()},
            vision_config=self.vision_config(),
            scale_factor=self.mmproj["clip.vision.projector.scale_factor"],
            image_token_id=prompts.vocabulary.TOKENS.index("<image>"),
            tie_word_embeddings=True,
            pad_token_id=0,
        )
        model = SmolVLMForConditionalGeneration(config)
        embed = model.model.vision_model.embeddings
        # This release looks positions up as fractions, and rounding gives each patch that of the patch before it. In
        # the first ones, as the model was released, those of a whole tile were in order.

        def in_order(pixel_values, patch_attention_mask):
            return embed.patch_embedding(pixel_values).flatten(2).mT + embed.position_embedding.weight

        embed.forward = in_order
        return model

    def as_before_conversion(self, part, tensor):
        # For the architecture `llama`, the converter interleaves the halves of each head of Q and K.
        if part not in ("attn_q", "attn_k"):
            return tensor
        size = self.llm["llama.attention.key_length"]
        return tensor.view(-1, size // 2, 2, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)

    def slices(self, frames):
        return list(self.model.model.get_image_features(self.pixel_values(frames)[None]))


class LlavaOnevision(Pair):
    VISION = "model.vision_tower.vision_model."
    PROJECTOR = {
        "mm.0.weight": "model.multi_modal_projector.linear_1.weight",
        "mm.0.bias": "model.multi_modal_projector.linear_1.bias",
        "mm.2.weight": "model.multi_modal_projector.linear_2.weight",
        "mm.2.bias": "model.multi_modal_projector.linear_2.bias",
        "model.image_newline": "model.image_newline",
    }

    def build(self):
        config = LlavaOnevisionConfig(
            text_config={"model_type": "qwen2", **self.text_config()},
            vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **self.vision_config()},
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=True,
        )
        return LlavaOnevisionForConditionalGeneration(config)

    def unused(self):
        # The features are those before it.
        return {f"{self.VISION}post_layernorm.{kind}" for kind in ("weight", "bias")}

    def slices(self, frames):
        pixels = self.pixel_values(frames)
        tower = self.model.model.vision_tower
        # As released, not with the last norm, which some versions apply.
        features = tower(pixels, output_hidden_states=True).hidden_states[-1]
        inner = tower.vision_model
        torch.testing.assert_close(features, inner.encoder(inner.embeddings(pixels)).last_hidden_state)
        strategy = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
        rows = self.model.model.get_video_features(pixels[None], **strategy)
        return list(rows.view(len(frames), -1, features_width(self)))

    def unpooled(self, frames):
        """What the projector makes, before the pooling."""
        features = self.model.model.vision_tower(self.pixel_values(frames), output_hidden_states=True).hidden_states[-1]
        return list(self.model.model.multi_modal_projector(features))

    def end_of_video(self):
        return [self.model.model.image_newline[None]]


def features_width(pair):
    return pair.mmproj["clip.vision.projection_dim"]


class Qwen25Vl(Pair):
    VISION_NAMES = {
        "ln1": "norm1",
        "ln2": "norm2",
        "attn_out": "attn.proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    MERGER = {"v.post_ln.weight": "ln_q.weight"} | {
        f"mm.{layer}.{kind}": f"mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }

    def __init__(self, name):
        super().__init__(name)
        # 10 × 13 rows: within the limits for the frames of a video, and no whole number of windows.
        self.width, self.height = 13 * 28, 10 * 28

    def build(self):
        get = lambda key: self.mmproj[f"clip.vision.{key}"]  # noqa: E731
        arch = self.llm["general.architecture"]
        blocks, pattern = get("block_count"), get("n_wa_pattern")
        vision = {
            "depth": blocks,
            "hidden_size": get("embedding_length"),
            "intermediate_size": get("feed_forward_length"),
            "num_heads": get("attention.head_count"),
            "out_hidden_size": get("projection_dim"),
            "patch_size": get("patch_size"),
            "spatial_merge_size": get("spatial_merge_size"),
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": list(range(pattern - 1, blocks, pattern)),
            "hidden_act": "silu",
        }
        sections = self.llm[f"{arch}.rope.dimension_sections"][:3]
        text = {**self.text_config(), "rope_scaling": {"type": "mrope", "mrope_section": sections}}
        # This class has no field for it: it is the width by the number of heads.
        assert text.pop("head_dim") * text["num_attention_heads"] == text["hidden_size"]
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
        return Qwen2_5_VLForConditionalGeneration(config)

    def vision_weights(self):
        tensors, weights = self.mmproj.tensors, {}
        # One convolution over two frames, as two over one frame each.
        both = [tensors["v.patch_embd.weight"], tensors["v.patch_embd.weight.1"]]
        weights["model.visual.patch_embed.proj.weight"] = torch.stack(both, dim=2)
        for name, tensor in tensors.items():
            match name.split("."):
                case ["v", "blk", i, "attn_q" | "attn_k" | "attn_v", kind]:
                    qkv = [tensors[f"v.blk.{i}.attn_{part}.{kind}"] for part in "qkv"]
                    weights[f"model.visual.blocks.{i}.attn.qkv.{kind}"] = torch.cat(qkv)
                case ["v", "blk", i, part, kind]:
                    weights[f"model.visual.blocks.{i}.{self.VISION_NAMES[part]}.{kind}"] = tensor
                case ["v", "patch_embd", *_]:
                    pass
                case _:
                    weights[f"model.visual.merger.{self.MERGER[name]}"] = tensor
        return weights

    def slices(self, frames):
        processor = prompts.qwen25vl()[0].video_processor
        inputs = processor(videos=[np.stack(frames)], do_sample_frames=False, return_tensors="pt")
        assert inputs["video_grid_thw"][0, 1:].tolist() == [self.height // 14, self.width // 14]
        [rows] = self.model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        return list(rows.view(inputs["video_grid_thw"][0, 0], -1, features_width(self)))


PAIRS = {"smolvlm": SmolVlm, "llava-onevision": LlavaOnevision, "qwen2.5vl": Qwen25Vl}


def logits(pair, embeddings, positions):
    """Those of the last row."""
    text = pair.model.model.text_model if pair.name == "smolvlm" else pair.model.model.language_model
    # M-RoPE: a row each for time, height and width.
    positions = positions[:, None] if pair.name == "qwen2.5vl" else positions[:1]
    # Without a mask, gaps in the positions would be taken for the ends of sequences that must not see each other.
    mask = torch.ones(1, len(embeddings), dtype=torch.long)
    outputs = text(inputs_embeds=embeddings[None], position_ids=positions, attention_mask=mask, use_cache=False)
    return pair.model.lm_head(outputs.last_hidden_state[0, -1])


def base64_of(values, kind):
    return base64.b64encode(values.detach().numpy().astype(kind).tobytes()).decode()


def case(pair, n):
    frames = [frame(pair.width, pair.height, i) for i in range(n)]
    video = prompts.Video(n, FPS, pair.width, pair.height)
    inputs, visual, question = prompts.processed(pair.name, video)
    ids = inputs["input_ids"][0]
    if pair.name == "qwen2.5vl":
        positions = torch.tensor(prompts.rope_index(pair.name, inputs)[0])
    else:
        positions = torch.arange(len(ids)).expand(3, -1)
    slices = pair.slices(frames)
    rows = torch.cat([*slices, *pair.end_of_video()])
    where = (ids == prompts.vocabulary.TOKENS.index(visual)).nonzero()[:, 0]
    assert len(where) == len(rows)
    embeddings = pair.model.get_input_embeddings()(ids.where(ids < len(prompts.vocabulary.TOKENS), 0)).clone()
    embeddings[where] = rows

    # Every third row of the slices stays; the rows of the end of the video all do.
    n_rows = sum(len(rows) for rows in slices)
    kept = torch.tensor([i for i in range(len(rows)) if i >= n_rows or i % KEEP_EVERY == 0])
    stays = torch.ones(len(ids), dtype=torch.bool)
    stays[where] = False
    stays[where[kept]] = True

    # The slices of three frames are the same as of four but for the last.
    stored = slices if n == max(FRAMES.values()) else slices[-1:]
    result = {
        "video": vars(video),
        "question": question,
        "ids": ids.tolist(),
        "first_visual": int(where[0]),
        "rows_of_slices": [len(rows) for rows in slices],
        "embeddings": base64_of(torch.cat(stored), "<f2"),
        "logits": base64_of(logits(pair, embeddings, positions), "<f4"),
        "kept_logits": base64_of(logits(pair, embeddings[stays], positions[:, stays]), "<f4"),
    }
    if pair.name == "qwen2.5vl":
        result["positions"] = positions.tolist()
    if pair.name == "llava-onevision" and n == max(FRAMES.values()):
        result["unpooled_first_slice"] = base64_of(pair.unpooled(frames)[0], "<f2")
    return result


def golden(name):
    torch.manual_seed(0)
    pair = PAIRS[name](name)
    with torch.no_grad():
        cases = {label: case(pair, n) for label, n in FRAMES.items()}
    return {"family": name, "versions": {m.__name__: m.__version__ for m in (transformers, torch)}, "cases": cases}


def as_text(value):
    """One field of a case a line."""
    cases = ",\n".join(
        f"    {json.dumps(label)}: {{\n"
        + ",\n".join(f"      {json.dumps(key)}: {json.dumps(field)}" for key, field in fields.items())
        + "\n    }"
        for label, fields in value["cases"].items()
    )
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value[key])},\n" for key in ("family", "versions"))
    return f'{{\n{head}  "cases": {{\n{cases}\n  }}\n}}\n'


NUMBERS = {"embeddings": "<f2", "unpooled_first_slice": "<f2", "logits": "<f4", "kept_logits": "<f4"}


def differences(there, here):
    """The fields that differ, numbers by more than TOLERANCE."""
    for label, fields in here["cases"].items():
        for key, field in fields.items():
            other = there["cases"].get(label, {}).get(key)
            if key not in NUMBERS:
                if other != field:
                    yield f"{label}.{key}"
                continue
            a, b = (np.frombuffer(base64.b64decode(x or ""), NUMBERS[key]).astype(np.float32) for x in (other, field))
            # Half precision has 11 bits.
            if a.shape != b.shape or not np.allclose(a, b, rtol=2**-10 if NUMBERS[key] == "<f2" else 0, atol=TOLERANCE):
                yield f"{label}.{key}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    different = []
    for name in PAIRS:
        path = HERE / f"{name}.json"
        if args.check:
            different += [f"{name}: {field}" for field in differences(json.loads(path.read_text()), golden(name))]
        else:
            path.write_text(as_text(golden(name)))
    if different:
        sys.exit(f"not what make.py computes: {', '.join(different)}")


if __name__ == "__main__":
    main()
