"""Losses, gradients and advantages computed by TRL's own GRPOTrainer, for ril-grpo.

    pip install -r scripts/reference/requirements.txt
    python scripts/reference/trl_grpo.py

Writes crates/ril-grpo/tests/fixtures/trl_grpo.json. The trainer object is a stand-in made without `__init__`: the
model's log-probabilities, the generation and the reward functions are stubbed, every formula is TRL's. The losses run
in float32, as in training. NaN cannot be tested here (TRL multiplies by the mask) and log-ratios stay within +-15 (TRL
does not bound them); both differences are documented in the crate.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
import trl
from trl import GRPOTrainer

SEED = 20251022
OUT = Path(__file__).resolve().parents[2] / "crates/ril-grpo/tests/fixtures/trl_grpo.json"
MAX_COMPLETION_LEN = 9
# name -> (TRL settings, number of cases); the KL weight alternates between 0 and the values below
LOSSES = {
    "grpo": ({"loss_type": "grpo"}, 24),
    "dr_grpo": ({"loss_type": "dr_grpo"}, 24),
    "bnpo": ({"loss_type": "bnpo"}, 24),
    "dapo": ({"loss_type": "dapo"}, 24),
    "gspo": ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, 24),
}
BETAS = [0.0, 0.01, 0.0, 0.04, 0.0, 0.5]
EPSILONS = [(0.2, 0.2), (0.2, 0.28), (0.05, 0.1), (3e-4, 4e-4)]


class Model(torch.nn.Module):
    """Never called: the log-probabilities are given."""

    is_gradient_checkpointing = False


class Accelerator:
    """One process on the CPU."""

    device = torch.device("cpu")
    num_processes = 1
    process_index = 0
    sync_gradients = True

    def gather(self, tensor):
        return tensor

    gather_for_metrics = gather

    def pad_across_processes(self, tensor, **options):
        return tensor

    def reduce(self, tensor, reduction="sum"):
        return tensor


def trainer(**settings):
    """A GRPOTrainer with the attributes that its loss and its advantage code read; `settings` are TRL's."""
    self = GRPOTrainer.__new__(GRPOTrainer)
    args = dict(
        use_bias_correction_kl=False,
        delta=None,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        vespo_k_pos=2.0,
        vespo_lambda_pos=3.0,
        vespo_k_neg=3.0,
        vespo_lambda_neg=2.0,
        entropy_target=0.2,
        entropy_coef_delta=0.005,
        entropy_coef_min=0.0,
        entropy_coef_max=1.0,
        steps_per_generation=1,
        gradient_accumulation_steps=1,
        per_device_train_batch_size=1024,
        gradient_checkpointing_kwargs=None,
        gradient_checkpointing=False,
        report_to=[],
    )
    args |= {name: settings.pop(name) for name in list(settings) if name in args}
    attributes = dict(
        accelerator=Accelerator(),
        args=SimpleNamespace(**args),
        model=Model(),
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        max_completion_length=MAX_COMPLETION_LEN,
        current_gradient_accumulation_steps=1,
        num_iterations=1,
        aux_loss_enabled=False,
        entropy_coef=0.0,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=settings.get("entropy_coef", 0.0) != 0.0 or settings.get("use_adaptive_entropy", False),
        _last_world_entropy=float("inf"),
        _entropy_window_stats=None,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        # advantage code
        environment_factories=None,
        environments=None,
        tools=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        multi_objective_aggregation="sum_then_normalize",
        log_multimodal=False,
        _logs=defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)),
        _pending_extra_logs={},
        _pending_metrics={},
    )
    for name, value in (attributes | settings).items():
        setattr(self, name, value)
    return self


def run_loss(self, case, dtype=torch.float32, **inputs):
    """TRL's `_compute_loss` on a case: (loss, gradients of log_probs and of entropies, every logged metric).

    `inputs` replace or add to the batch that TRL reads.
    """
    log_probs = torch.tensor(case["log_probs"], dtype=dtype, requires_grad=True)
    entropies = torch.tensor(case.get("entropies", torch.zeros_like(log_probs).tolist()), dtype=dtype)
    entropies.requires_grad_()
    mask = torch.tensor(case["completion_mask"]).long()
    rows = mask.shape[0]
    self._get_per_token_logps_and_entropies = lambda *a, **k: (log_probs, entropies, None)
    self._metrics = {"train": defaultdict(list)}
    batch = {
        "prompt_ids": torch.ones(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": torch.ones_like(mask),
        "completion_mask": mask,
        "advantages": torch.tensor(case["advantages"], dtype=dtype),
        "old_per_token_logps": torch.tensor(case["old_log_probs"], dtype=dtype),
        "ref_per_token_logps": torch.tensor(case["ref_log_probs"], dtype=dtype),
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(self, self.model, batch | inputs)
    loss.backward()
    metrics = {name: values[0] for name, values in self._metrics["train"].items()}
    return loss.item(), log_probs.grad, entropies.grad, metrics


def trl_loss(case, settings):
    """(loss, gradient with respect to log_probs, some metrics)."""
    self = trainer(
        beta=case["beta"], epsilon_low=case["epsilon_low"], epsilon_high=case["epsilon_high"], **settings
    )
    loss, gradient, _, logged = run_loss(self, case)
    metrics = {
        "kl": logged["kl"] if case["beta"] else None,
        "clip_low": logged["clip_ratio/low_mean"],
        "clip_high": logged["clip_ratio/high_mean"],
    }
    return loss, gradient.tolist(), metrics


def random_case(index, generator):
    """Random inputs; lengths 0 and 1, holes, extreme ratios, zero and negative advantages all occur."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def integer(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    rows, seq = integer(2, 7), integer(1, MAX_COMPLETION_LEN + 1)
    lengths = [integer(0, seq + 1) for _ in range(rows)]
    lengths[0] = seq
    if index % 3 == 1:
        lengths[-1] = index % 2
    mask = torch.arange(seq)[None, :] < torch.tensor(lengths)[:, None]
    if index % 4 == 2:  # a tool's tokens inside the completion are not trained
        mask &= torch.rand(rows, seq, generator=generator) > 0.2
    if index % 12 == 7:
        mask[:] = False
    spread = [0.0, 0.1, 0.5, 5.0][index % 4]
    old = -normal(rows, seq).abs() * 2
    log_probs = old + (normal(rows, seq) * spread).clamp(-15, 15)
    reference = log_probs + (normal(rows, seq) * [0.3, 3.0][index % 2]).clamp(-15, 15)
    advantages = normal(rows)
    advantages[integer(0, rows)] = 0.0
    epsilon_low, epsilon_high = EPSILONS[integer(0, len(EPSILONS))]
    return {
        "log_probs": log_probs.tolist(),
        "old_log_probs": old.tolist(),
        "ref_log_probs": reference.tolist(),
        "advantages": advantages.tolist(),
        "completion_mask": mask.int().tolist(),
        "epsilon_low": epsilon_low,
        "epsilon_high": epsilon_high,
        "beta": BETAS[index % len(BETAS)],
    }


def run_scores(scored, group_size, **settings):
    """TRL's `_generate_and_score_completions` on a table of scores (rows x reward functions, NaN = not scored)."""
    rows, functions = scored.shape
    defaults = dict(
        beta=0.0,
        reward_funcs=[None] * functions,
        reward_func_names=[f"reward_{k}" for k in range(functions)],
        reward_weights=torch.ones(functions),
    )
    self = trainer(num_generations=group_size, **(defaults | settings))
    one = [[1] for _ in range(rows)]
    self._generate = lambda prompts: (one, one, None, ["x"] * rows, None, {}, None, None)
    self._calculate_rewards = lambda *a: scored
    output = GRPOTrainer._generate_and_score_completions(self, [{"prompt": "x"}] * rows)
    return output["advantages"], {name: values[0] for name, values in self._metrics["train"].items()}


def trl_advantages(rewards, group_size, scale_rewards):
    """Advantages of one reward function; None in `rewards` = not scored."""
    scored = torch.tensor([[float("nan") if r is None else r] for r in rewards])
    return run_scores(scored, group_size, scale_rewards=scale_rewards)[0].tolist()


def advantage_cases(generator):
    for index in range(30):
        group_size = [2, 3, 4, 8][index % 4]
        rows = group_size * (1 + index % 3)
        if index % 2:  # RIL rewards: 0, 1 or 2
            rewards = torch.randint(0, 3, (rows,), generator=generator).float().tolist()
        else:
            rewards = (torch.randn(rows, generator=generator) * 3).tolist()
        if index % 3:
            drop = torch.rand(rows, generator=generator) < 0.25 * (index % 3)
            rewards = [None if d else r for r, d in zip(rewards, drop.tolist())]
        yield {
            "rewards": rewards,
            "group_size": group_size,
            "group_std": trl_advantages(rewards, group_size, "group"),
            "none": trl_advantages(rewards, group_size, "none"),
        }


def main():
    generator = torch.Generator().manual_seed(SEED)
    cases = []
    for name, (settings, count) in LOSSES.items():
        for index in range(count):
            case = random_case(index, generator)
            case["name"] = name
            case["loss"], case["gradient"], case["metrics"] = trl_loss(case, settings)
            cases.append(case)
    fixture = {
        "source": "trl.GRPOTrainer._compute_loss and ._generate_and_score_completions",
        "versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "seed": SEED,
        "max_completion_len": MAX_COMPLETION_LEN,
        "losses": cases,
        "advantages": list(advantage_cases(generator)),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(fixture, allow_nan=False) + "\n")
    print(f"{OUT}: {len(cases)} losses, {len(fixture['advantages'])} advantages, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
