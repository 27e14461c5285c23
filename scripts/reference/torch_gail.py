"""Writes the fixtures of the discriminator's losses, by torch's own functions:

- crates/ril-gail/tests/fixtures/torch_gail.json: Eq. 1 of RIL (arXiv 2510.19307), negated, as the sum of two calls of
  binary_cross_entropy_with_logits, label 1 on student rows and label 0 on teacher rows, each with its own mean.
- crates/ril-gail/tests/fixtures/torch_objectives.json: every other loss, with weights, pairs and the regulariser, and the
  gradient penalty by torch's double backward.

Run from the root of the repository:

    python scripts/reference/torch_gail.py
"""

import json
import platform
from pathlib import Path

import torch
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    hinge_embedding_loss,
    logsigmoid,
    mse_loss,
)

SEED = 20251019
CASES = 32
CASES_AN_OBJECTIVE = 24
SCALES = [0.0, 0.1, 1.0, 5.0, 20.0, 100.0, 1000.0, 10000.0]
FOLDER = Path("crates/ril-gail/tests/fixtures")


def header(source: str) -> dict:
    return {
        "source": source,
        "script": "scripts/reference/torch_gail.py",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": SEED,
    }


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


def weighted(per_term: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (per_term * weights).sum() / weights.sum()


def on_rows(name: str, logits, is_student, weights, amount: float):
    """The mean over students plus the mean over teachers."""
    total = 0.0
    for wanted, sign in ((True, 1.0), (False, -1.0)):
        rows = is_student == wanted
        x, w = logits[rows], weights[rows]
        if name in ("bce_one_sided", "bce_two_sided"):
            smooth_student = amount if name == "bce_two_sided" else 0.0
            target = torch.full_like(x, 1.0 - smooth_student if wanted else amount)
            per_row = binary_cross_entropy_with_logits(x, target, reduction="none")
        elif name == "least_squares":
            per_row = mse_loss(x, torch.full_like(x, sign), reduction="none") / 2
        else:
            # With the target -1 it is max(0, margin - input).
            per_row = hinge_embedding_loss(sign * x, torch.full_like(x, -1.0), margin=1.0, reduction="none")
        total = total + weighted(per_row, w)
    return total


def on_pairs(name: str, logits, pairs, weights):
    """D(teacher) - D(student), D high for a teacher: the negated logits."""
    student, teacher, tie = (torch.tensor(column) for column in zip(*pairs))
    score_teacher_is_high = -logits
    difference = score_teacher_is_high[teacher] - score_teacher_is_high[student]
    if name == "bradley_terry":
        per_pair = -logsigmoid(difference)
    else:
        target = torch.where(tie.bool(), 0.5, 1.0).double()
        per_pair = binary_cross_entropy_with_logits(difference, target, reduction="none")
    return weighted(per_pair, weights[teacher])


def squares(name: str, logits, is_student, pairs, weights):
    zero = torch.zeros_like(logits)
    square = mse_loss(logits, zero, reduction="none")
    if name in ("bradley_terry", "relativistic"):
        student, teacher, _ = (torch.tensor(column) for column in zip(*pairs))
        return weighted((square[student] + square[teacher]) / 2, weights[teacher])
    return (weighted(square[is_student], weights[is_student]) + weighted(square[~is_student], weights[~is_student])) / 2


def random_pairs(generator: torch.Generator, is_student: torch.Tensor) -> list:
    students = torch.nonzero(is_student).flatten().tolist()
    teachers = torch.nonzero(~is_student).flatten().tolist()
    count = int(torch.randint(1, 8, (1,), generator=generator))
    pick = lambda rows: rows[int(torch.randint(0, len(rows), (1,), generator=generator))]
    tie = lambda: int(torch.rand(1, generator=generator) < 0.4)
    return [[pick(students), pick(teachers), tie()] for _ in range(count)]


def objective_case(name: str, index: int, generator: torch.Generator) -> dict:
    students, teachers = torch.randint(1, 6, (2,), generator=generator).tolist()
    is_student = torch.tensor([True] * students + [False] * teachers)
    is_student = is_student[torch.randperm(len(is_student), generator=generator)]
    logits = (torch.randn(len(is_student), generator=generator) * SCALES[index % len(SCALES)]).requires_grad_()
    # Every third case weighs its teachers, every fourth has a regulariser.
    weights = torch.ones(len(is_student))
    if index % 3 == 0:
        weights = torch.where(is_student, weights, torch.rand(len(is_student), generator=generator) + 0.1)
    regularizer = float(torch.rand(1, generator=generator)) if index % 4 == 0 else 0.0
    amount = float(torch.rand(1, generator=generator)) * 0.49
    pairs = random_pairs(generator, is_student)
    wide, wide_weights = logits.double(), weights.double()
    if name in ("bradley_terry", "relativistic"):
        loss = on_pairs(name, wide, pairs, wide_weights)
    else:
        loss = on_rows(name, wide, is_student, wide_weights, amount)
    loss = loss + regularizer * squares(name, wide, is_student, pairs, wide_weights)
    loss.backward()
    return {
        "logits_student_is_high": logits.tolist(),
        "is_student": is_student.tolist(),
        "weights": weights.tolist(),
        "pairs": pairs,
        "amount": amount,
        "score_regularizer": regularizer,
        "loss": loss.item(),
        "gradient": logits.grad.tolist(),
    }


def penalty_case(centre: float, generator: torch.Generator) -> dict:
    """An encoder, a linear head on its output, and torch's gradient of a gradient."""
    width = int(torch.randint(1, 7, (1,), generator=generator))
    tokens = torch.randn(3, 4, generator=generator).double()
    encoder = torch.randn(4, width, generator=generator).double().requires_grad_()
    head = (torch.randn(width, generator=generator) * 0.7).requires_grad_()
    hidden = torch.tanh(tokens @ encoder)
    logits = hidden @ head.double()
    (gradient,) = torch.autograd.grad(logits.sum(), hidden, create_graph=True)
    penalty = ((gradient.norm(dim=1) - centre) ** 2).mean()
    penalty.backward()
    assert encoder.grad is None or not encoder.grad.any(), "the head's gradient does not depend on the encoder"
    return {"head": head.tolist(), "penalty": penalty.item(), "gradient": head.grad.tolist()}


def main() -> None:
    generator = torch.Generator().manual_seed(SEED)
    source = "torch.nn.functional.binary_cross_entropy_with_logits, float64 inside"
    fixture = header(source) | {"cases": [case(generator, SCALES[index % len(SCALES)]) for index in range(CASES)]}
    out = FOLDER / "torch_gail.json"
    out.write_text(json.dumps(fixture, indent=1) + "\n")
    print(f"{out}: {CASES} cases")

    names = ["bce_one_sided", "bce_two_sided", "least_squares", "hinge", "bradley_terry", "relativistic"]
    source = "binary_cross_entropy_with_logits, mse_loss, hinge_embedding_loss, logsigmoid, autograd.grad; float64 inside"
    cases = {name: [objective_case(name, index, generator) for index in range(CASES_AN_OBJECTIVE)] for name in names}
    penalties = {
        "zero_centred": [penalty_case(0.0, generator) for _ in range(CASES_AN_OBJECTIVE)],
        "one_centred": [penalty_case(1.0, generator) for _ in range(CASES_AN_OBJECTIVE)],
    }
    fixture = header(source) | {"objectives": cases, "penalties": penalties}
    out = FOLDER / "torch_objectives.json"
    out.write_text(json.dumps(fixture) + "\n")
    print(f"{out}: {CASES_AN_OBJECTIVE} cases of each of {names + list(penalties)}, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
