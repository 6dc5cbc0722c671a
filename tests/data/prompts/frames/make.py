#!/usr/bin/env python3
"""Writes which frames of a video each family's own code takes, and in which size, as FAMILY.json.

    python3 make.py            write them
    python3 make.py --check    compare them with what this script writes

No video is read: the code is told how many frames there are, how many in a second, and how large they are. Where it is
in no package, a function here does what the model's authors document. ../README.md says what the fields mean.
"""
# pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 qwen-vl-utils==0.0.14

import argparse
import json
import sys
import types
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from transformers import InternVLVideoProcessor, Qwen3VLVideoProcessor, SmolVLMVideoProcessor
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

HERE = Path(__file__).resolve().parent

# Less than two seconds, in which the Qwens take the fewest frames; a number of frames that no rate divides; one that
# is odd at two a second; more seconds than SmolVLM2 and MiniCPM-V have frames.
SECONDS = [0.9, 2, 7.34, 15.5, 100]
RATES = [Fraction(10), Fraction(25), Fraction(30000, 1001)]
SIZES = [(64, 48), (320, 240), (640, 360), (1280, 720), (720, 1280), (1920, 1080), (3840, 2160), (1000, 60)]
NUMBERS = [2, 3, 4, 5, 16, 33, 62, 100, 301, 510, 768]
# Where a share that is rounded down, or a product in another order, gives another size.
CLOSE = [(264, 34, 17), (416, 3240, 212), (670, 2326, 2443), (756, 3386, 2577)]


def metadata(frames, rate):
    fps = rate.numerator / rate.denominator
    return VideoMetadata(total_num_frames=frames, fps=fps, duration=frames / fps)


# HuggingFaceTB/SmolVLM2-500M-Video-Instruct.
def smolvlm(frames, rate):
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}
    processor = SmolVLMVideoProcessor(size={"longest_edge": 512}, video_sampling=sampling)
    return processor.sample_frames(metadata(frames, rate))


def qwen_vl_utils():
    """The package, with a reader that gives what it is told to."""
    sys.modules.setdefault("decord", types.ModuleType("decord"))
    from qwen_vl_utils import vision_process

    return vision_process


# Qwen/Qwen2-VL-2B-Instruct and Qwen/Qwen2.5-VL-3B-Instruct, whose cards read videos with qwen-vl-utils.
def qwen2vl(frames, rate):
    class Reader:
        def __init__(self, path):
            self.taken = None

        def __len__(self):
            return frames

        def get_avg_fps(self):
            return rate.numerator / rate.denominator

        def get_batch(self, indices):
            return types.SimpleNamespace(asnumpy=lambda: np.zeros((len(indices), 1, 1, 3), dtype=np.uint8))

    package = qwen_vl_utils()
    with mock.patch.object(sys.modules["decord"], "VideoReader", Reader, create=True):
        _, read, _ = package._read_video_decord({"video": "a.mp4"})
    return read["frames_indices"]


def qwen2vl_size(frames, width, height):
    package = qwen_vl_utils()
    read = (torch.zeros(1).expand(frames, 3, height, width), {}, 2.0)
    sizes = []

    def resize(video, size, **kwargs):
        sizes.append(size)
        return torch.zeros(1)

    with (
        mock.patch.object(package, "get_video_reader_backend", lambda: "told"),
        mock.patch.dict(package.VIDEO_READER_BACKENDS, told=lambda element: read),
        mock.patch.object(package.transforms.functional, "resize", resize),
    ):
        package.fetch_video({"video": "a.mp4"}, image_patch_size=14)
    [[height, width]] = sizes
    return width, height


# Qwen/Qwen3-VL-2B-Instruct, with the limits in its files, and the one of a frame that qwen-vl-utils has. The class has
# it, too, and announces it as what will be done.
def qwen3vl():
    return Qwen3VLVideoProcessor(
        size={"shortest_edge": 4096, "longest_edge": 25165824},
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        cap_pixels_per_frame=True,
    )


def qwen3vl_size(frames, width, height):
    sizes = []
    with mock.patch.object(BaseVideoProcessor, "resize", lambda self, image, size, resample: sizes.append(size)):
        processor = qwen3vl()
        processor.resize(
            torch.zeros(1).expand(1, frames, 3, height, width),
            size=processor.size,
            resample=None,
            factor=32,
            temporal_factor=2,
            cap_pixels_per_frame=processor.cap_pixels_per_frame,
        )
    [size] = sizes
    return size.width, size.height


# lmms-lab/llava-onevision-qwen2-0.5b-ov: `load_video` of its tutorial, as what it was trained with.
def llava_onevision(frames, rate):
    return np.unique(np.linspace(0, frames - 1, 32, dtype=int))


# OpenGVLab/InternVL3-1B-hf.
def internvl(frames, rate):
    return InternVLVideoProcessor().sample_frames(metadata(frames, rate), num_frames=8)


# openbmb/MiniCPM-V-2_6: `encode_video` of its card.
def minicpmv(frames, rate):
    every = list(range(0, frames, round(rate.numerator / rate.denominator)))
    if len(every) > 64:
        gap = len(every) / 64
        every = [every[int(i * gap + gap / 2)] for i in range(64)]
    return every


FRAMES = {
    "smolvlm": ("SmolVLMVideoProcessor", smolvlm),
    "qwen2vl": ("qwen-vl-utils", qwen2vl),
    "qwen2.5vl": ("qwen-vl-utils", qwen2vl),
    "qwen3vl": ("Qwen3VLVideoProcessor", lambda frames, rate: qwen3vl().sample_frames(metadata(frames, rate))),
    "llava-onevision": ("the documented behaviour of lmms-lab/llava-onevision-qwen2-0.5b-ov", llava_onevision),
    "internvl": ("InternVLVideoProcessor", internvl),
    "minicpmv": ("the documented behaviour of openbmb/MiniCPM-V-2_6", minicpmv),
}
IMAGES = {"qwen2vl": qwen2vl_size, "qwen2.5vl": qwen2vl_size, "qwen3vl": qwen3vl_size}


def golden(family):
    source, taken = FRAMES[family]
    size = IMAGES.get(family)
    videos = [(round(seconds * rate), rate) for seconds in SECONDS for rate in RATES]
    all_sizes = [(frames, width, height) for frames in NUMBERS for width, height in SIZES]
    numbers = all_sizes + CLOSE if size else []
    # No number of frames is odd in a Qwen2-VL.
    numbers = [case for case in numbers if family == "qwen3vl" or case[0] % 2 == 0]
    return {
        "family": family,
        "source": source,
        "versions": {name: version(name) for name in ("transformers", "qwen-vl-utils")},
        "videos": [
            {"frames": frames, "fps": str(rate), "taken": [int(i) for i in taken(frames, rate)]}
            for frames, rate in videos
        ],
        "images": [[*case, *map(int, size(*case))] for case in numbers],
    }


def as_text(value):
    """One field, video or image a line."""

    def field(key, of):
        if not isinstance(of, list):
            return f"  {json.dumps(key)}: {json.dumps(of)}"
        lines = ",\n".join(f"    {json.dumps(line)}" for line in of)
        return f"  {json.dumps(key)}: [\n{lines}\n  ]" if of else f"  {json.dumps(key)}: []"

    return "{\n" + ",\n".join(field(*item) for item in value.items()) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    args = parser.parse_args()
    files = {f"{family}.json": as_text(golden(family)) for family in FRAMES}
    if args.check:
        there = {path.name: path.read_text() for path in HERE.glob("*.json")}
        if different := sorted(name for name in files | there if files.get(name) != there.get(name)):
            sys.exit(f"not what make.py writes: {', '.join(different)}")
    else:
        for name, text in files.items():
            (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
