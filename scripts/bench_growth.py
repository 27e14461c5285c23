#!/usr/bin/env python3
"""How costs grow, beside PyTorch and beside the limits of the machine.

    pip install -r scripts/reference/requirements.txt
    cargo build --release --example bench
    python scripts/bench_growth.py [--pairs 5] [--axes group,prompt,...] [--plot FILE.svg]

Random Qwen2.5-VL weights around the 30-million-parameter size of scripts/bench.py; one property changes at a time. Prints a
table in Markdown, medians over the pairs, and draws it. The limits are measured first, with PyTorch on two threads: the rate of
a product of 1024^3 and of reading memory.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch

from bench import PROMPT_TEXT, RESPONSE_TOKENS, RESPONSES, ROOT, SIDE, SIZES, compare, random_model, write_inputs

BASE = SIZES["30m"]
OURS, TORCH = "#b3423a", "#4a6fa5"


@dataclass
class Point:
    x: int
    size: tuple = BASE
    inputs: dict = field(default_factory=dict)
    options: tuple = ()


@dataclass
class Axis:
    name: str
    label: str
    title: str
    work: str
    points: list


def generation(samples, tokens):
    return ("--samples", str(samples), "--new-tokens", str(tokens))


def wide(hidden):
    """The base with another width, heads of 64."""
    heads = hidden // 64
    return (hidden, hidden * 8 // 3, BASE[2], heads, heads // 3, BASE[5], BASE[6])


def large(vocab):
    return (*BASE[:5], vocab, BASE[6])


WIDTHS = (192, 384, 768, 1152)
AXES = [
    Axis("group", "samples of a prompt", "first token of 4 prompts", "rollout",
         [Point(n, options=generation(n, 1)) for n in (1, 2, 4, 8, 16, 32)]),
    Axis("prompt", "words of a prompt", "first token of 4 prompts", "rollout",
         [Point(n, inputs={"text": n}, options=generation(1, 1)) for n in (60, 240, 960, 1920)]),
    Axis("completion", "tokens of a completion", "4 prompts x 8 samples", "rollout",
         [Point(n, options=generation(8, n)) for n in (16, 32, 64, 128, 256)]),
    Axis("picture", "side of the picture, pixels", "first token of 4 prompts", "rollout",
         [Point(n, inputs={"picture": n}, options=generation(1, 1)) for n in (112, 224, 448, 896)]),
    Axis("vocabulary", "entries of the vocabulary", "update of 8 rows x 128 tokens", "update",
         [Point(n, large(n)) for n in (2_000, 8_000, 32_000, 151_936)]),
    Axis("width", "hidden size", "update of 8 rows x 128 tokens", "update", [Point(n, wide(n)) for n in WIDTHS]),
    Axis("decode", "hidden size", "65 tokens of one sample of one prompt", "rollout",
         [Point(n, wide(n), {"prompts": 1}, generation(1, 65)) for n in WIDTHS]),
]


def best(work, times=7):
    def once():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(once() for _ in range(times))


def limits():
    """GFLOP/s of a product and GB/s of reading, with two threads."""
    torch.set_num_threads(2)
    a, long = torch.randn(1024, 1024), torch.ones(1 << 28)
    product = 2 * 1024**3 / best(lambda: a @ a) / 1e9
    return product, long.numel() * 4 / best(lambda: long.sum()) / 1e9


def block_weights(size):
    hidden, intermediate, layers, heads, kv_heads, *_ = size
    return layers * (2 * hidden * hidden + 2 * hidden * kv_heads * hidden // heads + 3 * hidden * intermediate)


def update_gflop(size):
    """Products that an update cannot do without: each of its two prompts once, the head for responses alone, causal
    pairs alone, and twice as much backward as forward."""
    hidden, _, layers, _, _, vocab, (depth, width, vision_intermediate, _) = size
    patches = (SIDE // 14) ** 2
    prompt = patches // 4 + 2 + PROMPT_TEXT
    tokens = 2 * prompt + RESPONSES * RESPONSE_TOKENS
    pairs = 2 * prompt**2 / 2 + RESPONSES * RESPONSE_TOKENS * (prompt + RESPONSE_TOKENS / 2)
    # The merger of four patches into one token and the attention among patches are left out.
    vision = 2 * patches * (depth * (4 * width**2 + 3 * width * vision_intermediate) + 1176 * width)
    forward = tokens * block_weights(size) + vision + RESPONSES * RESPONSE_TOKENS * hidden * vocab + 2 * layers * hidden * pairs
    return 3 * 2 * forward / 1e9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--axes", default=",".join(axis.name for axis in AXES))
    parser.add_argument("--plot", type=Path, help="docs/growth.svg if all axes are measured")
    args = parser.parse_args()
    axes = [axis for axis in AXES if axis.name in args.axes.split(",")]
    product, memory = limits()
    print(f"limits: {product:.0f} GFLOP/s in a product of 1024^3, {memory:.1f} GB/s of reading\n")
    print("| axis | value | ours, s | torch, s | ours / torch | of the limit, ours / torch |\n|---|---|---|---|---|---|")
    measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        for axis in axes:
            for point in axis.points:
                folder = Path(scratch) / "-".join(map(str, point.size[:6]))
                if not folder.exists():
                    random_model(folder, point.size)
                inputs = Path(scratch) / "inputs.safetensors"
                write_inputs(folder, inputs, **point.inputs)
                rows = compare(axis.work, folder, inputs, args.pairs, *point.options)
                times = [statistics.median(row[side]["seconds"] for row in rows) for side in (0, 1)]
                ratio = statistics.median(row[0]["seconds"] / row[1]["seconds"] for row in rows)
                measured.setdefault(axis.name, []).append((point.x, *times))
                share = ""
                if axis.work == "update":
                    shares = [update_gflop(point.size) / t / product for t in times]
                    share = f"{shares[0]:.0%} / {shares[1]:.0%} of the product"
                if axis.name == "decode":
                    read = 4 * (block_weights(point.size) + point.size[0] * point.size[5]) * 65 / 1e9
                    share = f"{read / times[0] / memory:.0%} / {read / times[1] / memory:.0%} of reading"
                print(
                    f"| {axis.name}: {axis.title} | {point.x:,} | {times[0]:.3g} | {times[1]:.3g} | {ratio:.2f} | {share} |",
                    flush=True,
                )
    plot = args.plot or (ROOT / "docs/growth.svg" if len(axes) == len(AXES) else None)
    if plot:
        draw(axes, measured, plot)


def draw(axes, measured, path):
    columns = min(4, len(axes))
    lines = -(-len(axes) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(3.4 * columns, 2.9 * lines), squeeze=False, layout="constrained")
    for panel in panels.flat[len(axes):]:
        panel.axis("off")
    for axis, panel in zip(axes, panels.flat):
        x, ours, other = zip(*measured[axis.name])
        panel.plot(x, other, "o-", color=TORCH, label="PyTorch", markersize=4)
        panel.plot(x, ours, "o-", color=OURS, label="this library", markersize=4)
        panel.set(xscale="log", yscale="log", xlabel=axis.label, ylabel="seconds", title=axis.title)
        panel.set_xticks(x, [f"{value:,}" for value in x], fontsize=8)
        panel.minorticks_off()
        panel.title.set_fontsize(9)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels.flat[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)
    print(f"\ndrawn in {path}")


if __name__ == "__main__":
    main()
