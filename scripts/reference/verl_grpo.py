"""Losses, gradients, KL estimates and advantages computed by verl's core_algos, for ril-grpo.

    pip install -r scripts/reference/requirements.txt
    pip install --no-deps -r scripts/reference/requirements-no-deps.txt
    python scripts/reference/verl_grpo.py

Writes crates/ril-grpo/tests/fixtures/verl.json. verl's own functions run, in float64 (its GDPO scores are float32
whatever it is given). `ray`, which verl imports for its distributed trainer, is replaced by a mock; no function used
here touches it. Inputs are multiples of 1/256. Not reached by these inputs: verl's bounds of log-ratios (20; 10 for
GSPO) and of k3 (20, 10).
"""

import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

sys.modules["ray"] = MagicMock()

import numpy as np
import torch
from trl_family import Draw, on_grid, plain, write
from trl_grpo import EPSILONS, random_case
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

SEED = 20251124
OUT = Path(__file__).resolve().parents[2] / "crates/ril-grpo/tests/fixtures/verl.json"
CASES = 24
AGGREGATIONS = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
KL_KINDS = ["k1", "k2", "k3", "k1+", "k3+"]

# name -> (verl's function, largest |log-ratio|, (epsilon_low, epsilon_high) choices, settings); `pick` draws one
LOSSES = {
    "dual_clip": (
        core_algos.compute_policy_loss_vanilla, 15, EPSILONS,
        lambda pick: {"loss_agg_mode": "token-mean", "clip_ratio_c": pick(3.0, 1.5, 10.0)},
    ),
    "gspo_token": (
        core_algos.compute_policy_loss_gspo, 3, EPSILONS,
        lambda pick: {"loss_agg_mode": "seq-mean-token-mean"},
    ),
    "gmpo": (
        core_algos.compute_policy_loss_geo_mean, 15, [(0.4, 0.4), (0.2, 0.28), (0.05, 0.1)],
        lambda pick: {"loss_agg_mode": "token-mean"},  # which it ignores
    ),
    "cispo_two_sided": (
        core_algos.compute_policy_loss_cispo, 15, [(0.2, 0.2), (0.2, 0.28), (0.5, 2.0), (1.0, 4.0)],
        lambda pick: {"loss_agg_mode": "token-mean"},
    ),
    "sapo": (
        core_algos.compute_policy_loss_sapo, 15, EPSILONS,
        lambda pick: {
            "loss_agg_mode": "seq-mean-token-mean",
            "tau_pos": pick(1.0, 1.0, 0.5, 2.0),
            "tau_neg": pick(1.05, 1.05, 1.5, 3.0),
        },
    ),
    "aggregation": (
        core_algos.compute_policy_loss_vanilla, 1, EPSILONS,
        lambda pick: {
            "loss_agg_mode": pick(*AGGREGATIONS), "clip_ratio_c": 10.0, "loss_scale_factor": pick(None, 9, 16)
        },
    ),
}


def draw_case(index, draw, bound):
    """Some token is trained: verl's token mean of an empty batch is 0/0."""
    while True:
        case = random_case(index, draw.generator)
        mask = torch.tensor(case["completion_mask"])
        if mask.any():
            break
        index += 1
    old = torch.tensor(on_grid(case["old_log_probs"]))
    difference = torch.tensor(case["log_probs"]) - torch.tensor(case["old_log_probs"])
    difference = (difference * draw.pick(1.0, 4.0)).clamp(-bound, bound)
    if bound == 15 and index % 8 == 3:
        difference[draw.integer(0, len(old)), 0] = draw.pick(-15.0, 15.0)
    return {
        "log_probs": (old + torch.tensor(on_grid(difference.tolist()))).tolist(),
        "old_log_probs": old.tolist(),
        "advantages": on_grid(case["advantages"]),
        "completion_mask": case["completion_mask"],
    }


def run_loss(function, case):
    settings = dict(case["settings"])
    scale = settings.pop("loss_scale_factor", None)
    mode = settings.pop("loss_agg_mode")
    rows = settings.pop("global_batch_size")
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=case["epsilon_low"],
        clip_ratio_high=case["epsilon_high"],
        global_batch_info={"global_batch_size": rows, "loss_scale_factor": scale},
        **settings,
    )
    log_probs = torch.tensor(case["log_probs"], dtype=torch.float64, requires_grad=True)
    old, advantages, mask = (
        torch.tensor(case[key], dtype=torch.float64) for key in ("old_log_probs", "advantages", "completion_mask")
    )
    loss, metrics = function(
        old, log_probs, advantages.unsqueeze(1).expand_as(old), mask, loss_agg_mode=mode, config=config
    )
    loss.backward()
    return plain({"loss": loss.item(), "gradient": log_probs.grad, "metrics": metrics})


def loss_cases(draw):
    for name, (function, bound, epsilons, settings) in LOSSES.items():
        for index in range(2 * CASES if name == "aggregation" else CASES):
            case = {"name": name, "settings": settings(draw.pick)} | draw_case(index, draw, bound)
            case["settings"]["global_batch_size"] = len(case["log_probs"])  # empty rows count
            case["epsilon_low"], case["epsilon_high"] = draw.pick(*epsilons)
            yield case | run_loss(function, case)


def kl_cases(draw):
    for index in range(CASES):
        case = draw_case(index, draw, 15)
        log_probs = torch.tensor(case["log_probs"], dtype=torch.float64)
        difference = (draw.normal(*log_probs.shape) * draw.pick(0.05, 0.7)).clamp(-2, 2)
        reference = log_probs + torch.tensor(on_grid(difference.tolist()))
        mask = torch.tensor(case["completion_mask"], dtype=torch.float64)
        kinds = {}
        for kind in KL_KINDS:
            leaf = log_probs.clone().requires_grad_()
            value = (core_algos.kl_penalty(leaf, reference, kind) * mask).sum()
            value.backward()
            kinds[kind] = {"value": value.item(), "gradient": leaf.grad}
        kept = {"log_probs": log_probs, "ref_log_probs": reference, "completion_mask": case["completion_mask"]}
        yield plain(kept | {"kinds": kinds})


def scores_of(rewards, lengths):
    """Token-level rewards, each on its response's last token, and the response mask."""
    width = max(lengths)
    token = torch.arange(width)[None, :]
    lengths = torch.tensor(lengths)[:, None]
    mask = (token < lengths).double()
    return (token == lengths - 1).double() * torch.tensor(rewards, dtype=torch.float64)[:, None], mask


def per_row(advantages, mask):
    first = advantages[:, 0]
    assert torch.equal(advantages, first[:, None] * mask)
    return first


def advantage_cases(draw):
    """Responses have at least one token: verl puts the advantage on tokens."""
    for index in range(3 * CASES):
        name = ["rloo", "reinforce_plus_plus_baseline", "gdpo"][index % 3]
        # a group of one: verl's baseline is 0 there
        group_size, groups = draw.pick(2, 3, 4, 8) if index % 8 else 1, draw.integer(2, 4)
        rows = group_size * groups
        lengths = [draw.integer(1, 9) for _ in range(rows)]
        columns = draw.pick(1, 2, 3) if name == "gdpo" else 1
        if draw.pick(True, False):
            rewards = torch.randint(0, 3, (rows, columns), generator=draw.generator).double().tolist()
        else:
            rewards = on_grid((draw.normal(rows, columns) * 3).tolist())
        if index % 5 == 0:  # a constant group
            rewards[:group_size] = [rewards[0]] * group_size
        uid = np.repeat(np.arange(groups), group_size)
        case = {"name": name, "group_size": group_size, "lengths": lengths}
        if name == "gdpo":
            weights = [draw.pick(1.0, 0.5, 2.0, 0.125) for _ in range(columns)]
            case |= {"rewards": rewards, "weights": weights}
            zeros, mask = scores_of([0.0] * rows, lengths)
            keys = [f"reward_{k}" for k in range(columns)]
            advantages, _ = core_algos.compute_gdpo_outcome_advantage(
                zeros,
                mask,
                uid,
                config={"gdpo_reward_keys": keys, "gdpo_reward_weights": weights},
                non_tensor_batch={key: [row[k] for row in rewards] for k, key in enumerate(keys)},
                batch={
                    "prompts": torch.ones(rows, 1),
                    "attention_mask": torch.cat([torch.ones(rows, 1), mask], 1).long(),
                },
            )
        else:
            case["rewards"] = [row[0] for row in rewards]
            scores, mask = scores_of(case["rewards"], lengths)
            function = getattr(core_algos, f"compute_{name}_outcome_advantage")
            advantages, _ = function(scores, mask, uid)
        yield case | {"advantages": plain(per_row(advantages, mask))}


def main():
    draw = Draw(SEED)
    fixture = {
        "source": "verl.trainer.ppo.core_algos",
        "versions": {"verl": version("verl"), "torch": torch.__version__},
        "seed": SEED,
        "dtype": "float64",
        "cases": list(loss_cases(draw)),
        "kl": list(kl_cases(draw)),
        "advantages": list(advantage_cases(draw)),
    }
    write(OUT, fixture, ", ".join(f"{len(v)} {k}" for k, v in fixture.items() if isinstance(v, list)))


if __name__ == "__main__":
    main()
