"""Writes crates/ril-gail/tests/fixtures/torch_gail.json: the discriminator loss and its gradient, by torch.

Eq. 1 of RIL (arXiv 2510.19307), negated, is the sum of two calls of torch's binary_cross_entropy_with_logits: label 1
on student rows, label 0 on teacher rows, each with its own mean. Run from the root of the repository:

    python scripts/reference/torch_gail.py
"""

import json
import platform
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

SEED = 20251019
CASES = 32
OUT = Path("crates/ril-gail/tests/fixtures/torch_gail.json")


def case(generator: torch.Generator, scale: float) -> dict:
    students, teachers = torch.randint(1, 9, (2,), generator=generator).tolist()
    is_student = torch.tensor([True] * students + [False] * teachers)
    is_student = is_student[torch.randperm(len(is_student), generator=generator)]
    logits = (torch.randn(len(is_student), generator=generator) * scale).requires_grad_()
    # In double precision, from the float32 logits: torch's own rounding stays out of the comparison.
    wide = logits.double()
    loss = binary_cross_entropy_with_logits(wide[is_student], torch.ones(students).double())
    loss = loss + binary_cross_entropy_with_logits(wide[~is_student], torch.zeros(teachers).double())
    loss.backward()
    return {
        "logits_student_is_high": logits.tolist(),
        "is_student": is_student.tolist(),
        "loss": loss.item(),
        "gradient": logits.grad.tolist(),
    }


def main() -> None:
    generator = torch.Generator().manual_seed(SEED)
    scales = [0.0, 0.1, 1.0, 5.0, 20.0, 100.0, 1000.0, 10000.0]
    fixture = {
        "source": "torch.nn.functional.binary_cross_entropy_with_logits, float64 inside",
        "script": "scripts/reference/torch_gail.py",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": SEED,
        "cases": [case(generator, scales[index % len(scales)]) for index in range(CASES)],
    }
    OUT.write_text(json.dumps(fixture, indent=1) + "\n")
    print(f"{OUT}: {CASES} cases")


if __name__ == "__main__":
    main()
