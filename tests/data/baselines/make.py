#!/usr/bin/env python3
"""Writes what EVS, VidCom², DyCoke and DivPrune keep of small made-up videos, as CLIP.npy (embeddings) and CLIP.json beside
this script.

    python3 make.py            write them
    python3 make.py --check    compare them with what this script writes

Everything is computed in float64, straight from the formulas in the documentation of sharpv::prune: whole matrices, all
pairs, full sorts. A clip's seed is the first at which no choice is close, so that rounding cannot change one.
"""
# pip install numpy==2.4.6

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROWS, COLUMNS, CHANNELS = 4, 5, 24
TOKENS = ROWS * COLUMNS

# Name of a budget in the files, and its total of all tokens; None: the method's own.
BUDGETS = {"none": None, "keep 0.07": 0.07, "keep 0.12": 0.12, "keep 0.3": 0.3, "keep 0.6": 0.6}
# Scores nearer to each other than this count as close. The library computes in float32.
MARGIN = 2e-6


class Close(Exception):
    """Two scores that a choice depends on are too near to each other."""


# ----------------------------------------------------------------------------------------------------------------------
# Clips: [slices, tokens, channels]


def scene(rng):
    """Embeddings over a plane: a smooth background. Channels differ in how much they vary, and have a mean."""
    size = 0.2 + rng.random(CHANNELS) * 2
    waves = rng.normal(size=(2, CHANNELS)) * 0.4
    phase = rng.random(CHANNELS) * 6
    mean = rng.normal(size=CHANNELS)
    return lambda y, x: mean + size * np.sin(waves[0] * y + waves[1] * x + phase)


def frame(rng, background, shift, sprite, at, noise):
    cells = [background(y, x + shift) for y in range(ROWS) for x in range(COLUMNS)]
    cells[at % TOKENS] = cells[at % TOKENS] + sprite
    return np.array(cells) + noise * rng.normal(size=(TOKENS, CHANNELS))


def static(rng):
    """Nothing moves but the noise."""
    background, sprite = scene(rng), 2 * rng.normal(size=CHANNELS)
    return [frame(rng, background, 0, sprite, 7, 0.05) for _ in range(6)]


def moving(rng):
    """The camera pans, faster and faster, and something crosses the image."""
    background, sprite = scene(rng), 2 * rng.normal(size=CHANNELS)
    return [frame(rng, background, 0.04 * t * t, sprite, t + 4, 0.05) for t in range(9)]


def cut(rng):
    """Two scenes, and a slice of a third between them."""
    scenes = [(scene(rng), 2 * rng.normal(size=CHANNELS)) for _ in range(3)]
    order = [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    return [frame(rng, *[scenes[s][0], 0.1 * t, scenes[s][1]], t, 0.1) for t, s in enumerate(order)]


CLIPS = {"static": static, "moving": moving, "cut": cut}


# ----------------------------------------------------------------------------------------------------------------------
# Formulas


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def best(scores, count):
    """The indices of the highest scores, ascending."""
    order = np.argsort(-scores, kind="stable")
    if 0 < count < len(order) and scores[order[count - 1]] - scores[order[count]] < MARGIN:
        raise Close
    return np.sort(order[:count])


def middles(count, total):
    """The middles of `count` equal parts of `total`."""
    return np.floor((np.arange(count) + 0.5) * total / max(count, 1)).astype(int)


def total(share, clip):
    return max(int(np.floor(share * clip.shape[0] * clip.shape[1] + 0.5)), 1)


def evs(clip, share):
    n_slices, n, _ = clip.shape
    change = 1 - cosine(clip[1:], clip[:-1])
    importance = np.concatenate([np.full((1, n), 2.0), change])

    def choose(count):
        if count < n:
            return middles(count, n)
        return np.concatenate([np.arange(n), n + best(change.reshape(-1), count - n)])

    own = max(n, int(n_slices * n * (1 - 0.75)))
    chosen = choose(own if share is None else total(share, clip))
    ratio = np.bincount(choose(own) // n, minlength=n_slices) / n
    return [chosen[chosen // n == t] % n for t in range(n_slices)], importance, ratio


def dycoke(clip, share):
    n_slices, n, _ = clip.shape
    importance = np.full((n_slices, n), 2.0)
    for start in range(0, n_slices, 4):
        for t, reference in ((1, 0), (2, 0), (3, 2)):
            if start + t < n_slices:
                importance[start + t] = 1 - cosine(clip[start + t], clip[start + reference])
    first = np.arange(n_slices) % 4 == 0

    def split(amount, receivers):
        """Equal parts; what is left over goes to the earlier ones."""
        parts = np.zeros(n_slices, int)
        places = np.flatnonzero(receivers)
        parts[places] = amount // len(places)
        parts[places[: amount % len(places)]] += 1
        return parts

    if share is None:
        counts = np.where(first, n, int((1 - 0.7) * n))
    elif total(share, clip) < first.sum() * n:
        counts = split(total(share, clip), first)
    else:
        counts = np.where(first, n, 0) + split(total(share, clip) - first.sum() * n, ~first)
    kept = [middles(counts[t], n) if first[t] else best(importance[t], counts[t]) for t in range(n_slices)]
    return kept, importance, np.where(first, 1, 1 - 0.7)


def vidcom2(clip, share):
    n_slices, n, _ = clip.shape
    channels = best(-clip.var(axis=(0, 1)), CHANNELS // 2)
    x = clip[..., channels]
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)

    def similarity(centre):
        square = ((x - centre) ** 2).sum(-1)
        return sum(np.exp(-square / (2 * 2.0**power)) for power in range(-3, 2))

    to_video = similarity(x.mean(axis=(0, 1), keepdims=True))
    to_slice = similarity(x.mean(axis=1, keepdims=True))
    stands_out = -to_video.mean(axis=1) / 0.01
    softmax = np.exp(stands_out - stands_out.max())
    softmax /= softmax.sum()
    weight = 1 + softmax - softmax.mean()
    ratio = np.minimum(0.25 * weight, 1)
    if share is None:
        exact = ratio * n
        if (np.abs(exact - np.floor(exact) - 0.5) < 1e-4).any():
            raise Close
        counts = np.maximum(np.rint(exact), 1).astype(int)
    else:
        counts = apportion(weight, n, total(share, clip))
    importance = 1 - (to_video + to_slice) / 10
    return [best(importance[t], counts[t]) for t in range(n_slices)], importance, ratio


def apportion(weight, n, amount):
    """Parts of `amount` by weight, each of 1 to n; or of 0 to n if there is too little for that."""
    least = 1 if len(weight) <= amount else 0
    # The sum of the parts is piecewise linear in the common factor, with a corner where a part meets a bound.
    corners = np.unique(np.concatenate([[0], least / weight, n / weight]))
    sums = [np.clip(factor * weight, least, n).sum() for factor in corners]
    exact = np.clip(np.interp(amount, sums, corners) * weight, least, n)
    counts = np.floor(exact + 1e-9).astype(int)
    rest = np.maximum(exact - counts, 0)
    missing = amount - counts.sum()
    order = np.argsort(-rest, kind="stable")
    if 0 < missing < len(order) and rest[order[missing - 1]] - rest[order[missing]] < 1e-5:
        raise Close
    counts[order[:missing]] += 1
    return counts


def divprune(clip, share):
    n_slices, n, _ = clip.shape
    x = clip.reshape(n_slices * n, -1)
    distance = 1 - cosine(x[:, None], x[None])
    count = max(round(0.098 * len(x)), 1) if share is None else total(share, clip)
    nearest = np.where(np.eye(len(x), dtype=bool), np.inf, distance).min(axis=1)
    chosen = list(best(nearest, 1))
    while len(chosen) < count:
        from_chosen = distance[:, chosen].min(axis=1)
        from_chosen[chosen] = -1
        chosen += list(best(from_chosen, 1))
    chosen = np.sort(chosen)
    return [chosen[chosen // n == t] % n for t in range(n_slices)], None, np.full(n_slices, 0.098)


METHODS = {"evs": evs, "vidcom2": vidcom2, "dycoke": dycoke, "divprune": divprune}


# ----------------------------------------------------------------------------------------------------------------------


def golden(clip):
    result = {}
    for name, method in METHODS.items():
        answers = {budget: method(clip, share) for budget, share in BUDGETS.items()}
        _, importance, ratio = answers["none"]
        result[name] = {
            "ratio": np.round(ratio, 8).tolist(),
            "importance": None if importance is None else np.round(importance, 8).tolist(),
            "kept": {budget: [tokens.tolist() for tokens in kept] for budget, (kept, _, _) in answers.items()},
        }
    return result


def make(name, build):
    for seed in itertools.count():
        embeddings = np.array(build(np.random.default_rng(seed)), np.float32)
        try:
            return embeddings, golden(embeddings.astype(np.float64))
        except Close:
            continue


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return abs(a - b) < 1e-6
    return a == b


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for name, build in CLIPS.items():
        embeddings, expected = make(name, build)
        if check:
            assert np.allclose(np.load(HERE / f"{name}.npy"), embeddings, atol=1e-6), f"{name}.npy differs"
            assert same(json.loads((HERE / f"{name}.json").read_text()), expected), f"{name}.json differs"
        else:
            np.save(HERE / f"{name}.npy", embeddings)
            (HERE / f"{name}.json").write_text(json.dumps(expected) + "\n")
        print(name, embeddings.shape, {m: {b: sum(map(len, k)) for b, k in r["kept"].items()} for m, r in expected.items()})


if __name__ == "__main__":
    main()
