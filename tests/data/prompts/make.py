#!/usr/bin/env python3
"""Writes how Hugging Face's own processors lay out videos and images in prompts, as FAMILY-CASE.json.

    python3 make.py            write them
    python3 make.py --check    compare them with what this script writes

The processors are built from their classes, with the values of a real model's configuration files. What depends on
the size of the encoder (tokens for a frame, side of a tile) is that of the random model in ../../fixtures/families, and
so are the tokenizer and the chat template. README.md says what the fields mean.
"""
# pip install torch==2.9.1 torchvision==0.24.1 transformers==4.57.6 tokenizers==0.22.1 num2words==0.5.14 gguf==0.19.0
# Why not a newer transformers: 5.23 writes two more markers around a Qwen3-VL video, and lets the text after a
# Qwen2.5-VL video begin at positions that its frames already have.

import argparse
import functools
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ImageProcessorFast,
    Gemma3Processor,
    GotOcr2ImageProcessorFast,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionImageProcessorFast,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLImageProcessorFast,
    Qwen2VLModel,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLModel,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.video_utils import VideoMetadata

HERE = Path(__file__).resolve().parent
FAMILIES = HERE.parent.parent / "fixtures" / "families"
sys.path.insert(0, str(FAMILIES))

import vocabulary  # noqa: E402

QUESTION = "What happens in the video?"
IMAGE_QUESTION = "What is in the picture?"

HALF = [0.5, 0.5, 0.5]


@dataclass(frozen=True)
class Video:
    """Frames at the times i / fps."""

    frames: int
    fps: float
    width: int
    height: int


@dataclass(frozen=True)
class Image:
    width: int
    height: int


COMMON = {
    "four": Video(4, 1, 320, 180),
    "odd": Video(5, 2, 320, 180),
    "portrait": Video(4, 2, 200, 356),
    # Large enough for the Qwens to shrink it.
    "large": Video(2, 1, 1280, 720),
    "image": Image(640, 360),
}
# Times of more than a minute, and of more than an hour.
LONG = {"minutes": Video(64, 0.5, 64, 48), "hours": Video(4, 0.0005, 64, 48)}
CASES = {
    "smolvlm": COMMON | LONG,
    "qwen2vl": COMMON,
    # Here the time axis depends on the rate. At 3 fps, a pair of frames is no whole number of its steps.
    "qwen2.5vl": COMMON | {f"fps-{fps:g}": Video(10, fps, 160, 120) for fps in (0.5, 1, 2, 3, 4)},
    # llama.cpp makes no slice of fewer than 8 tokens, of 32 pixels a side.
    "qwen3vl": COMMON | {"minutes": Video(70, 1, 128, 96), "quarters": Video(8, 4, 128, 96)},
    "llava-onevision": COMMON,
    "internvl": COMMON,
    # No slices: those are for images of more than 448 × 448 pixels, and here of a side over 224.
    "minicpmv": COMMON | {"large": Video(2, 1, 448, 448), "image": Image(200, 150)},
    "gemma3": COMMON | LONG,
}


def pixels(width, height, index):
    """Any image does: no field depends on it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([7 * x + 29 * index, 13 * y, x + y], axis=-1).astype(np.uint8)


@functools.cache
def metadata(family):
    """What the file of the random model's encoder says of it."""
    return gguf.GGUFReader(FAMILIES / f"{family}-mmproj.gguf").fields


def encoder(family, key):
    return metadata(family)[f"clip.vision.{key}"].contents()


def tile(family):
    """The side of the images that the encoder is given, in pixels."""
    return encoder(family, "image_size")


def side(family):
    """Rows of embeddings along one side of a tile."""
    patches = tile(family) // encoder(family, "patch_size")
    # Gemma 3's files do not say it.
    merge = {"llava-onevision": lambda: 1, "gemma3": lambda: 4}
    return patches // merge.get(family, lambda: encoder(family, "projector.scale_factor"))()


def square(family):
    return {"height": tile(family), "width": tile(family)}


def tokenizer(family, **names):
    ids = {token: i for i, token in enumerate(vocabulary.TOKENS)}
    merges = [tuple(merge.split(" ")) for merge in vocabulary.MERGES]
    inner = Tokenizer(models.BPE(vocab=ids, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in vocabulary.CONTROL])
    assert inner.get_vocab_size() == len(vocabulary.TOKENS)
    ends = vocabulary.ENDS[family]
    # The Qwens ask for their own class. It takes the tokenizer as it is.
    kind = Qwen2TokenizerFast if family.startswith("qwen") else PreTrainedTokenizerFast
    return kind(
        tokenizer_object=inner,
        bos_token=ends.bos,
        eos_token=ends.eos,
        clean_up_tokenization_spaces=False,
        chat_template=vocabulary.CHAT_TEMPLATES[family],
        extra_special_tokens=names,
    )


# The builders return the processor and the token that stands for one row of embeddings, in a video and in an image.


# HuggingFaceTB/SmolVLM2-500M-Video-Instruct. There, a tile is 512 pixels wide, and the longest edge of an image is 4
# of them.
def smolvlm():
    tokens = tokenizer(
        "smolvlm",
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    images = {
        "image_mean": HALF,
        "image_std": HALF,
        "resample": 1,
        "size": {"longest_edge": 4 * tile("smolvlm")},
        "max_image_size": {"longest_edge": tile("smolvlm")},
        "do_image_splitting": True,
    }
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": tile("smolvlm")}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**images),
        tokens,
        SmolVLMVideoProcessor(**images, video_sampling=sampling),
        image_seq_len=side("smolvlm") ** 2,
        chat_template=tokens.chat_template,
    )
    return processor, "<image>", "<image>"


# Qwen/Qwen2-VL-2B-Instruct and Qwen/Qwen2.5-VL-3B-Instruct, whose files have limits for images only. Those for the
# frames of videos, 128 to 768 tokens, are the defaults of the class, and of the package qwen-vl-utils.
def qwen2vl(family="qwen2vl", kind=Qwen2VLProcessor):
    tokens = tokenizer(family)
    processor = kind(
        image_processor=Qwen2VLImageProcessorFast(min_pixels=3136, max_pixels=12845056),
        tokenizer=tokens,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tokens.chat_template,
    )
    return processor, "<|video_pad|>", "<|image_pad|>"


def qwen25vl():
    return qwen2vl("qwen2.5vl", Qwen2_5_VLProcessor)


# Qwen/Qwen3-VL-2B-Instruct. Its limits for videos are pixels of all frames together. qwen-vl-utils, and newer classes
# that are asked to (`cap_pixels_per_frame`), allow a frame no more than 768 tokens: a limit of all frames, too.
def qwen3vl(frames=1):
    tokens = tokenizer("qwen3vl")
    shape = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "image_mean": HALF, "image_std": HALF}
    longest = min(768 * 32 * 32, 25165824 // frames) * frames
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorFast(size={"shortest_edge": 65536, "longest_edge": 16777216}, **shape),
        tokenizer=tokens,
        video_processor=Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": longest}, **shape),
        chat_template=tokens.chat_template,
    )
    return processor, "<|video_pad|>", "<|image_pad|>"


# llava-hf/llava-onevision-qwen2-0.5b-ov-hf. There, a tile is 384 pixels wide, and makes 27 × 27 tokens.
def llava_onevision():
    tokens = tokenizer("llava-onevision")
    size = square("llava-onevision")
    sides = [n * tile("llava-onevision") for n in range(1, 7)]
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorFast(
            size=size, image_grid_pinpoints=[[height, width] for height in sides for width in sides]
        ),
        tokens,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=side("llava-onevision") ** 2,
        vision_feature_select_strategy="full",
        chat_template=tokens.chat_template,
    )
    return processor, "<video>", "<image>"


# OpenGVLab/InternVL3-1B-hf. There, a tile is 448 pixels wide, and makes 256 tokens.
def internvl():
    tokens = tokenizer(
        "internvl",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    size = square("internvl")
    processor = InternVLProcessor(
        GotOcr2ImageProcessorFast(size=size, crop_to_patches=True, min_patches=1, max_patches=12),
        tokens,
        InternVLVideoProcessor(size=size),
        image_seq_length=side("internvl") ** 2,
        chat_template=tokens.chat_template,
    )
    return processor, "<IMG_CONTEXT>", "<IMG_CONTEXT>"


# google/gemma-3-4b-it. There, an image is 896 pixels wide, and makes 256 tokens.
def gemma3():
    tokens = tokenizer(
        "gemma3", image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorFast(size=square("gemma3"), image_mean=HALF, image_std=HALF),
        tokens,
        chat_template=tokens.chat_template,
        image_seq_length=side("gemma3") ** 2,
    )
    return processor, "<image_soft_token>", "<image_soft_token>"


class MiniCpmV:
    """What openbmb/MiniCPM-V-2_6 does with a message, in its own code: `chat` of its model, and its processor.

    A video is given as its frames, with `use_image_id=False`; an image has its number in front. Each becomes as many
    `<unk>` as the resampler has queries, in `<image>` and `</image>`. The parts of a message are lines.
    """

    def __init__(self):
        self.tokenizer = tokenizer("minicpmv")
        self.queries = minicpmv_queries()

    def __call__(self, frames, question, use_image_id):
        image = "<image>" + "<unk>" * self.queries + "</image>"
        parts = [(f"<image_id>{i}</image_id>" if use_image_id else "") + image for i in range(frames)]
        message = {"role": "user", "content": "\n".join([*parts, question])}
        text = self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def minicpmv_queries():
    return metadata("minicpmv")["clip.minicpmv_query_num"].contents()


PROCESSORS = {
    "smolvlm": smolvlm,
    "qwen2vl": qwen2vl,
    "qwen2.5vl": qwen25vl,
    "qwen3vl": qwen3vl,
    "llava-onevision": llava_onevision,
    "internvl": internvl,
    "gemma3": gemma3,
}


def clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes:02}:{seconds:02}"


def processed(family, case):
    """The inputs that the family's processor makes, and the token of a row of embeddings."""
    of_frames = [case.frames] if family == "qwen3vl" and isinstance(case, Video) else []
    processor, video_token, image_token = PROCESSORS[family](*of_frames)
    kwargs = {"return_tensors": "pt"}
    if isinstance(case, Image):
        question = IMAGE_QUESTION
        kwargs["images"] = [pixels(case.width, case.height, 0)]
        content = [{"type": "image"}, {"type": "text", "text": question}]
    else:
        question = QUESTION
        frames = [pixels(case.width, case.height, i) for i in range(case.frames)]
        if family == "gemma3":
            # It knows no videos: images, with a label of ours in front. It puts lines around each itself.
            lines = [f"Frame from {clock(i / case.fps)}:<start_of_image>" for i in range(case.frames)]
            content = "".join(lines) + question
            kwargs["images"] = frames
        else:
            content = [{"type": "video"}, {"type": "text", "text": question}]
            metadata = VideoMetadata(
                total_num_frames=case.frames,
                fps=case.fps,
                width=case.width,
                height=case.height,
                duration=case.frames / case.fps,
                frames_indices=list(range(case.frames)),
            )
            # One text, which has one video: SmolVLM counts the videos of each text.
            kwargs["videos"] = [[np.stack(frames)]]
            kwargs["video_metadata"] = [[metadata]]
            kwargs["do_sample_frames"] = False
            if family == "qwen2.5vl":
                kwargs["fps"] = case.fps
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(
        messages, chat_template=vocabulary.CHAT_TEMPLATES[family], tokenize=False, add_generation_prompt=True
    )
    if family == "smolvlm" and isinstance(case, Video):
        # For videos, the processor brings a template of its own.
        own = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == own, (text, own)
    inputs = processor(text=[text], **kwargs)
    return inputs, image_token if isinstance(case, Image) else video_token, question


def rope_index(family, inputs):
    """The positions that the model's own class gives the tokens: time, height, width."""
    numbers = {
        "image_token_id": vocabulary.TOKENS.index("<|image_pad|>"),
        "video_token_id": vocabulary.TOKENS.index("<|video_pad|>"),
        "vision_start_token_id": vocabulary.TOKENS.index("<|vision_start|>"),
        "vision_end_token_id": vocabulary.TOKENS.index("<|vision_end|>"),
    }
    config, model = {
        "qwen2vl": (Qwen2VLConfig, Qwen2VLModel),
        "qwen2.5vl": (Qwen2_5_VLConfig, Qwen2_5_VLModel),
        "qwen3vl": (Qwen3VLConfig, Qwen3VLModel),
    }[family]
    config = config(**numbers)
    grids = {name: inputs[name] for name in ("image_grid_thw", "video_grid_thw") if name in inputs}
    if family == "qwen2.5vl" and "second_per_grid_ts" in inputs:
        # This release makes second_per_grid_ts a whole number before it multiplies: at 4 fps, it would be 0. The
        # first ones, as the model was released, did not. Only the product counts, so all of it is given here.
        config.vision_config.tokens_per_second = 2 * float(inputs["second_per_grid_ts"][0])
        grids["second_per_grid_ts"] = torch.ones(1)
    # The method needs no weights, only the configuration.
    empty = model.__new__(model)
    torch.nn.Module.__init__(empty)
    empty.config = config
    positions, deltas = model.get_rope_index(empty, inputs["input_ids"], **grids)
    return positions[:, 0].tolist(), int(deltas[0]) + inputs["input_ids"].shape[1]


def grids_of(family, case, inputs, runs):
    """How many slices the encoder makes embeddings of, and the rows and columns of tokens of those that have them."""
    visual = sum(n for kind, n in runs if kind == "visual")
    if family.startswith("qwen"):
        [[t, h, w]] = inputs["video_grid_thw" if isinstance(case, Video) else "image_grid_thw"].tolist()
        return t, [[h // 2, w // 2]] * t
    if family == "minicpmv":
        return visual // minicpmv_queries(), []
    if family == "llava-onevision":
        if isinstance(case, Image):
            # Its tiles are put together again before they become tokens.
            return inputs["pixel_values"].shape[1], []
        one = math.ceil(side(family) / 2)
        slices = case.frames
        # One more for the end of the video.
        assert visual == slices * one**2 + 1
    else:
        one = side(family)
        slices = visual // one**2
        assert visual == slices * one**2
    return slices, [[one, one]] * slices


def split(ids, token, tokens):
    """The runs of text ids and of placeholders."""
    runs, start = [], 0
    for i in range(1, len(ids) + 1):
        if i == len(ids) or (ids[i] == token) != (ids[start] == token):
            part = ids[start:i]
            runs.append(["visual", len(part)] if part[0] == token else [tokens.decode(part), part])
            start = i
    return runs


def golden(family, name, case):
    if family == "minicpmv":
        video = isinstance(case, Video)
        question = QUESTION if video else IMAGE_QUESTION
        processor = MiniCpmV()
        ids = processor(case.frames if video else 1, question, use_image_id=not video)
        inputs, token, tokens = {}, "<unk>", processor.tokenizer
        source = "the documented behaviour of openbmb/MiniCPM-V-2_6"
    else:
        inputs, token, question = processed(family, case)
        tokens = tokenizer(family)
        ids = inputs["input_ids"][0].tolist()
        source = PROCESSORS[family]()[0].__class__.__name__
    runs = split(ids, vocabulary.TOKENS.index(token), tokens)
    slices, grids = grids_of(family, case, inputs, runs)
    result = {
        "family": family,
        "source": source,
        "versions": {module.__name__: module.__version__ for module in (transformers, tokenizers)},
        "video" if isinstance(case, Video) else "image": vars(case),
        "question": question,
        "text": "".join(f"<{part} visual tokens>" if kind == "visual" else kind for kind, part in runs),
        "tokens": runs,
        "slices": slices,
        "grids": grids,
    }
    if family.startswith("qwen"):
        result["positions"], result["next_position"] = rope_index(family, inputs)
    return result


def as_text(value):
    """One field a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(field, ensure_ascii=False)}" for key, field in value.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = {
        f"{family}-{name}.json": as_text(golden(family, name, case))
        for family, cases in CASES.items()
        for name, case in cases.items()
    }
    if args.check:
        there = {path.name: path.read_text() for path in HERE.glob("*.json")}
        if different := sorted(name for name in files | there if files.get(name) != there.get(name)):
            sys.exit(f"not what make.py writes: {', '.join(different)}")
    else:
        for name, text in files.items():
            (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
