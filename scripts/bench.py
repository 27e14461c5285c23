#!/usr/bin/env python3
"""Times this library beside PyTorch: the same weights, the same tokens, turn by turn in one run.

    pip install -r scripts/reference/requirements.txt
    cargo build --release --example bench
    python scripts/bench.py [--sizes toy,30m] [--smollm2 DIR] [--work rollout,update,score,step,preprocess] [--pairs 5]
    python scripts/bench.py --work linear,rms-norm,swiglu,rotary,attention,log-probs

Random weights of a toy and of a 30-million-parameter Qwen2.5-VL, and SmolLM2-135M inside Qwen2.5-VL if its folder is given.
Prints a table in Markdown: medians over the pairs, and the median, smallest and largest of the pairs' ratios (ours / torch).
The sides must agree on a number of each work (tokens drawn, sum of log-probs, gradient norm, sum of patches), or it ends
with an error. Ours uses mimalloc, torch the allocator of the system, which is told to keep what is freed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>".split()
# hidden, intermediate, layers, heads, kv heads, vocabulary, (vision depth, width, intermediate, heads)
SIZES = {
    "toy": (96, 256, 3, 4, 2, 512, (2, 64, 128, 4)),
    "30m": (384, 1024, 8, 6, 2, 32000, (4, 128, 256, 4)),
}
PROMPT_TEXT, RESPONSES, RESPONSE_TOKENS, PROMPTS, SIDE = 60, 8, 128, 4, 224


def random_model(folder, size):
    hidden, intermediate, layers, heads, kv_heads, vocab, (depth, width, vision_intermediate, vision_heads) = size
    torch.manual_seed(0)
    half = hidden // heads // 2
    ids = {token: i for i, token in enumerate(SPECIAL)}
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=4096, rms_norm_eps=1e-6,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=2, pad_token_id=0,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                 mrope_section=[half - 2 * (half // 3), half // 3, half // 3]),
        ),
        vision_config=dict(
            depth=depth, hidden_size=width, intermediate_size=vision_intermediate, num_heads=vision_heads,
            out_hidden_size=hidden, patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=112,
            fullatt_block_indexes=[depth - 1],
        ),
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=True,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    words = {**ids, **{f"w{i}": i for i in range(len(ids), vocab)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIAL)
    template = (
        "{% for m in messages %}<|im_start|>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}<|im_end|>{% endfor %}<|im_start|>"
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template)
    pictures = Qwen2VLImageProcessor(min_pixels=28 * 28 * 4, max_pixels=28 * 28 * 256)
    Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=fast, video_processor=Qwen2VLVideoProcessor(), chat_template=template
    ).save_pretrained(folder)


def operands(config, generator):
    """What single operators are timed on: as many tokens as an update has."""
    tokens, hidden, intermediate = RESPONSES * RESPONSE_TOKENS, config.hidden_size, config.intermediate_size
    dim = hidden // config.num_attention_heads
    normal = lambda *shape: torch.randn(shape, generator=generator)
    tensors = {
        "x": normal(tokens, hidden), "gain": 1 + 0.1 * normal(hidden), "weight": normal(hidden, intermediate) * hidden**-0.5,
        "gate": normal(tokens, intermediate), "up": normal(tokens, intermediate), "angles": 3 * normal(tokens, dim // 2),
        "q": normal(tokens, config.num_attention_heads, dim), "k": normal(tokens, config.num_key_value_heads, dim),
        "v": normal(tokens, config.num_key_value_heads, dim),
        "targets": torch.randint(config.vocab_size, (tokens,), generator=generator),
    }
    return {f"operators.{name}": tensor for name, tensor in tensors.items()}


def write_inputs(folder, path, prompts=PROMPTS, text=PROMPT_TEXT, picture=SIDE):
    """`text` words and a square of `picture` pixels in each prompt."""
    config = Qwen2_5_VLConfig.from_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    vocab, image = config.text_config.vocab_size, config.image_token_id
    words = lambda *shape: torch.randint(16, vocab, shape, generator=generator)
    side = picture // 14
    patch_dim = 3 * 2 * 14 * 14
    placeholders = torch.full((prompts, side * side // 4), image)
    edge = lambda token: torch.full((prompts, 1), token)
    ids = torch.cat(
        [edge(config.vision_start_token_id), placeholders, edge(config.vision_end_token_id), words(prompts, text)], 1
    )
    save_file(
        {
            "prompts": ids,
            "responses": words(RESPONSES, RESPONSE_TOKENS),
            "advantages": torch.tensor([1.0, -0.5, 0.25, -0.75] * (RESPONSES // 4)),
            "pixel_patches": torch.randn(prompts * side * side, patch_dim, generator=generator),
            "grid_thw": torch.tensor([[1, side, side]] * prompts),
            "pictures": torch.randint(0, 256, (8, 480, 640, 3), generator=generator, dtype=torch.uint8),
            **operands(config.text_config, generator),
        },
        path,
    )


class Worker:
    def __init__(self, command):
        threads = {"RAYON_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
        # The system's allocator keeps what is freed, as ours does: up to a sixth of PyTorch's time.
        memory = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
        environment = {**threads, **memory, "HF_HUB_OFFLINE": "1", **os.environ}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} did not start")

    def run(self):
        # Threads of the other side that spin in wait of more work give up meanwhile.
        time.sleep(0.01)
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


TORCH = (sys.executable, ROOT / "scripts/reference/bench_torch.py")


def compare(work, folder, inputs, pairs, *options, other=TORCH, ours_alone=()):
    """Measurements of both sides, a pair for each turn; `other` is an interpreter, its worker and what that gets alone."""
    common = ["--work", work, "--model", str(folder), "--inputs", str(inputs), *options]
    ours = Worker([str(ROOT / "target/release/examples/bench"), *common, *ours_alone])
    other = Worker([*map(str, other), *common])
    rows = []
    for pair in range(pairs):
        # Each side goes first every other time.
        row = [side.run() for side in ((ours, other) if pair % 2 == 0 else (other, ours))]
        rows.append(tuple(row if pair % 2 == 0 else reversed(row)))
    ours.close()
    other.close()
    for first, second in rows:
        if abs(first["check"] - second["check"]) > 1e-3 * max(1.0, abs(second["check"])):
            sys.exit(f"{work}: the sides differ: {first['check']} {second['check']}")
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="toy,30m")
    parser.add_argument("--smollm2", type=Path, help="folder that scripts/reference/smollm2.py wrote")
    parser.add_argument("--work", default="rollout,update,score,step,preprocess")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="of rollouts, each with a picture")
    parser.add_argument("--options", default="", help="what both workers get: --options='--samples 1 --new-tokens 64'")
    parser.add_argument("--beside", type=Path, default=TORCH[1], help="another worker than PyTorch's")
    parser.add_argument("--python", default=TORCH[0], help="interpreter of that worker")
    parser.add_argument("--beside-options", default="", help="what that worker gets alone: --beside-options='--dtype bf16'")
    parser.add_argument("--our-options", default="", help="what our worker gets alone: --our-options=--int8")
    args = parser.parse_args()
    other = (args.python, args.beside, *args.beside_options.split())
    name = args.beside.stem.removeprefix("bench_")
    print(f"| work | model | ours, s | {name}, s | ours / {name} (least, most) | peak memory, ours / {name}, MiB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        sizes = [(size, None) for size in args.sizes.split(",") if size]
        if args.smollm2:
            sizes.append(("135m", args.smollm2))
        for size, folder in sizes:
            folder = folder or Path(scratch) / size
            if not folder.exists():
                random_model(folder, SIZES[size])
            inputs = Path(scratch) / f"{size}.safetensors"
            write_inputs(folder, inputs, prompts=args.prompts)
            for work in args.work.split(","):
                ours_alone = args.our_options.split()
                rows = compare(
                    work, folder, inputs, args.pairs, *args.options.split(), other=other, ours_alone=ours_alone
                )
                times = [[row[side]["seconds"] for row in rows] for side in (0, 1)]
                ratios = [a / b for a, b in zip(*times)]
                medians = [statistics.median(t) for t in times]
                peaks = [row["peak_mib"] for row in rows[-1]]
                print(
                    f"| {work} | {size} | {medians[0]:.3g} | {medians[1]:.3g} | {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f}, {max(ratios):.2f}) | {peaks[0]:.0f} / {peaks[1]:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
