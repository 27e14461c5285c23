"""Log-probabilities, entropies and their gradients by TRL's own functions, for ril-grpo.

    pip install -r scripts/reference/requirements.txt
    python scripts/reference/trl_log_probs.py

Writes crates/ril-grpo/tests/fixtures/trl_log_probs.json. `trl.trainer.utils.{selective_log_softmax,entropy_from_logits}`
run in float64. Hidden states and head weights are integer patterns that the test computes too (`pattern`), since a
vocabulary of thousands does not fit into a small file; of the weights' gradient the file holds the sums over rows, and
the rows of the targets.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

SEED = 20251125
OUT = Path(__file__).resolve().parents[2] / "crates/ril-grpo/tests/fixtures/trl_log_probs.json"
# batch, seq, hidden, vocabulary: below, at and above the blocks of 4,096 that ril-grpo works in
SHAPES = [(2, 3, 4, 7), (1, 1, 3, 2), (3, 4, 8, 200), (2, 5, 4, 4096), (2, 3, 4, 4097), (1, 4, 5, 9001)]
TEMPERATURES = [1.0, 0.7, 2.5, 0.1]
CASES = 24


def pattern(rows, columns, step, scale):
    """`scale * (((row * 131 + column * step) mod 251) / 125 - 1)`, [rows, columns]"""
    row, column = torch.arange(rows).unsqueeze(1), torch.arange(columns).unsqueeze(0)
    return scale * (((row * 131 + column * step) % 251).double() / 125 - 1)


def rounded(tensor):
    return [float(f"{value:.12g}") for value in tensor.flatten().tolist()]


def case(index, generator):
    batch, seq, width, vocab = SHAPES[index % len(SHAPES)]
    temperature = TEMPERATURES[index // len(SHAPES)]
    scale = [1.0, 4.0, 0.0, 30.0][index % 4]
    hidden = pattern(batch * seq, width, 37, scale).reshape(batch, seq, width).requires_grad_()
    weight = pattern(width, vocab, 101 + index, 1.0).requires_grad_()
    targets = torch.randint(vocab, (batch, seq), generator=generator)
    cotangents = torch.randint(-8, 9, (2, batch, seq), generator=generator).double() / 8
    logits = hidden @ weight / temperature
    log_probs, entropies = selective_log_softmax(logits, targets), entropy_from_logits(logits)
    (log_probs * cotangents[0] + entropies * cotangents[1]).sum().backward()
    return {
        "shape": [batch, seq, width, vocab],
        "temperature": temperature,
        "scale": scale,
        "step": 101 + index,
        "targets": targets.flatten().tolist(),
        "cotangents": cotangents.flatten().tolist(),
        "log_probs": rounded(log_probs),
        "entropies": rounded(entropies),
        "hidden_gradient": rounded(hidden.grad),
        "weight_gradient_sums": rounded(weight.grad.abs().sum(1)),
        "weight_gradient_of_targets": rounded(weight.grad[:, targets.flatten()]),
    }


def main():
    generator = torch.Generator().manual_seed(SEED)
    versions = {package: version(package) for package in ("trl", "torch")}
    cases = [case(index, generator) for index in range(CASES)]
    OUT.write_text(json.dumps({"seed": SEED, "versions": versions, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
