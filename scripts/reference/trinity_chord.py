"""CHORD's SFT terms and mixed loss computed by Trinity-RFT, for ril-grpo.

    pip install -r scripts/reference/requirements.txt
    pip install --no-deps -r scripts/reference/requirements-no-deps.txt
    python scripts/reference/trinity_chord.py

Writes crates/ril-grpo/tests/fixtures/chord.json. Trinity's own classes run, in float64, with the token mean and without
a cut-off, which ril-grpo does not have. `ray`, which Trinity's package imports for its logger, is replaced by a mock.
Inputs are multiples of 1/256; log-probabilities are at most 0. Some expert token is trained: ril-grpo refuses the term
without one.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

sys.modules["ray"] = MagicMock()

import torch
from trinity.algorithm.policy_loss_fn.chord_policy_loss import MIXCHORDPolicyLossFn, SFTPhiLossFn, mu_schedule_function
from trinity.algorithm.policy_loss_fn.sft_loss import SFTLossFn
from trl_family import Draw, on_grid, plain, write
from trl_grpo import EPSILONS, random_case

SEED = 20251125
OUT = Path(__file__).resolve().parents[2] / "crates/ril-grpo/tests/fixtures/chord.json"
CASES = 24
MODE = "token-mean"


def draw_case(name, index, draw):
    while True:
        case = random_case(index, draw.generator)
        rows = len(case["completion_mask"])
        experts = draw.chance(0.4, rows) if name == "mix" else torch.ones(rows, dtype=torch.bool)
        if name == "mix":
            experts[0], experts[-1] = True, False  # both kinds occur: a mean over no rows is NaN
        if torch.tensor(case["completion_mask"])[experts].any():
            break
        index += 1
    old = -torch.tensor(on_grid(case["old_log_probs"])).abs()
    step = torch.tensor(case["log_probs"]) - torch.tensor(case["old_log_probs"])
    log_probs = (old + torch.tensor(on_grid(step.tolist()))).clamp(max=0.0)
    kept = {"name": name, "log_probs": log_probs.tolist(), "completion_mask": case["completion_mask"]}
    if name != "mix":
        return kept | {"settings": {"loss_agg_mode": MODE}}
    step = draw.integer(0, 12)
    low, high = draw.pick(*EPSILONS)
    settings = {
        "mu_warmup_steps": draw.pick(0, 4),
        "mu_decay_steps": draw.pick(1, 5),
        "mu_peak": draw.pick(0.9, 0.5),
        "mu_valley": draw.pick(0.05, 0.1),
        "enable_phi_function": draw.pick(True, True, False),
        "use_dynamic_bsz": False,
        "ppo_mini_batch_size": rows,
        "ppo_micro_batch_size_per_gpu": rows,
        "train_batch_size_usual": int((~experts).sum()),
        "train_batch_size_expert": int(experts.sum()),
        "loss_agg_mode": MODE,
    }
    return kept | {
        "settings": settings,
        "old_log_probs": old.tolist(),
        "advantages": on_grid(case["advantages"]),
        "expert_mask": experts.int().tolist(),
        "step": step,
        "epsilon_low": low,
        "epsilon_high": high,
    }


def run_case(case):
    log_probs = torch.tensor(case["log_probs"], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor(case["completion_mask"], dtype=torch.float64)
    extra = {}
    if case["name"] == "sft_plain":
        loss, metrics = SFTLossFn(**case["settings"])(log_probs, mask)
    elif case["name"] == "sft_phi":
        loss, metrics = SFTPhiLossFn(**case["settings"])(log_probs, mask)
    else:
        settings = case["settings"]
        function = MIXCHORDPolicyLossFn(
            **settings, clip_range_low=case["epsilon_low"], clip_range_high=case["epsilon_high"]
        )
        old, advantages = (torch.tensor(case[key], dtype=torch.float64) for key in ("old_log_probs", "advantages"))
        loss, metrics = function(
            log_probs,
            old,
            mask,
            advantages.unsqueeze(1).expand_as(old),
            torch.tensor(case["expert_mask"]).bool(),
            torch.full((len(old),), case["step"]),
        )
        schedule = {key: settings[key] for key in ("mu_warmup_steps", "mu_decay_steps", "mu_peak", "mu_valley")}
        extra["mu"] = mu_schedule_function(case["step"], **schedule)
        extra["mu_by_step"] = [mu_schedule_function(step, **schedule) for step in range(12)]
    loss.backward()
    return plain(extra | {"loss": loss.item(), "gradient": log_probs.grad, "metrics": metrics})


def main():
    draw = Draw(SEED)
    cases = [draw_case(name, index, draw) for name in ("sft_phi", "sft_plain", "mix") for index in range(CASES)]
    fixture = {
        "source": "trinity.algorithm.policy_loss_fn.chord_policy_loss and .sft_loss",
        "versions": {"trinity-rft": version("trinity-rft"), "torch": torch.__version__},
        "seed": SEED,
        "dtype": "float64",
        "cases": [case | run_case(case) for case in cases],
    }
    write(OUT, fixture, f"{len(cases)} cases")


if __name__ == "__main__":
    main()
