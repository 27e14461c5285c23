#!/usr/bin/env python3
"""What weights of 8 bits cost: log-probabilities of English paragraphs with and without `--int8`.

    cargo build --release --example score
    python scripts/int8_accuracy.py --model FOLDER [--texts README.md docs/architecture.md ...]

Scores each paragraph of prose of the texts (Markdown; 40 words at least) as a response, with the weights of the folder and
with their copy in 8 bits. Prints nats per token of both, their difference with its standard error over the paragraphs, and
how far a token's log-probability moves. Needs nothing beyond Python.
"""

import argparse
import json
import math
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def paragraphs(path):
    text = path.read_text()
    blocks = (" ".join(block.split()) for block in "".join(text.split("```")[::2]).split("\n\n"))
    return [block for block in blocks if len(block.split()) >= 40 and block[0].isalpha()]


def log_probs(model, text, *options):
    command = [ROOT / "target/release/examples/score", "--model", model, "--prompt", "Describe a library.", "--response", text]
    answer = subprocess.run([*map(str, command), *options], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)["log_probs"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    default = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    parser.add_argument("--texts", type=Path, nargs="+", default=default)
    args = parser.parse_args()
    texts = [text for path in args.texts for text in paragraphs(path)]
    rows = [(log_probs(args.model, text), log_probs(args.model, text, "--int8")) for text in texts]
    tokens = sum(len(floats) for floats, _ in rows)
    per_token = [-sum(math.fsum(row[side]) for row in rows) / tokens for side in (0, 1)]
    moved = [abs(a - b) for row in rows for a, b in zip(*row)]
    costs = [(sum(floats) - sum(rounded)) / len(floats) for floats, rounded in rows]
    print(f"{len(rows)} paragraphs, {tokens} tokens")
    print(f"nats per token: {per_token[0]:.4f} in f32, {per_token[1]:.4f} in 8 bits")
    error = statistics.stdev(costs) / math.sqrt(len(costs))
    print(f"difference of a paragraph: {statistics.mean(costs):+.4f} +- {error:.4f} nats per token")
    print(f"a token's log-probability moves by {statistics.mean(moved):.4f} on average, {max(moved):.3f} at most")


if __name__ == "__main__":
    main()
