"""Every loss type, correction, bonus and advantage scale of TRL's GRPOTrainer, for ril-grpo.

    pip install -r scripts/reference/requirements.txt
    HF_HUB_OFFLINE=1 python scripts/reference/trl_family.py

Writes crates/ril-grpo/tests/fixtures/trl_family.json. TRL's own code runs on the stand-in trainer of `trl_grpo.py`; the
formulas are TRL's throughout. Inputs are multiples of 1/256, exact in float32 and in JSON. Each case runs in float32,
as TRL trains, and in float64. It keeps the float32 results ("dtype": "float32") unless a number differs by more than
TOLERANCE relative to max(|x|, 0.01); then float32 has cancelled too much to compare at 1e-5 and the float64 results are
kept. Scores None and sampler log-probabilities None are NaN inside TRL; a result null is NaN.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
import trl
from trl import GRPOTrainer
from trl.rewards import get_soft_overlong_punishment
from trl_grpo import BETAS, EPSILONS, MAX_COMPLETION_LEN, random_case, run_loss, run_scores, trainer

SEED = 20251123
OUT = Path(__file__).resolve().parents[2] / "crates/ril-grpo/tests/fixtures/trl_family.json"
CASES = 24  # a variant
GRID = 256
TOLERANCE = 2e-6
EOS = 2


def sampler_settings(mode):
    return lambda pick: {
        "loss_type": pick("dr_grpo", "dapo"),
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_min": pick(None, 0.5, 0.8),
        "vllm_importance_sampling_clip_max": pick(3.0, 2.0, 1.2),
    }


# name -> TRL's settings, `pick` draws one of its arguments
VARIANTS = {
    "cispo": lambda pick: {"loss_type": "cispo", "epsilon_high": pick(5.0, 1.5)},
    "sapo": lambda pick: {
        "loss_type": "sapo",
        "sapo_temperature_pos": pick(1.0, 1.0, 0.5, 2.0),
        "sapo_temperature_neg": pick(1.05, 1.05, 1.5, 3.0),
    },
    "luspo": lambda pick: {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "luspo_token": lambda pick: {"loss_type": "luspo"},
    "vespo": lambda pick: {
        "loss_type": "vespo",
        "vespo_k_pos": pick(2.0, 2.0, 1.0, 0.5),
        "vespo_lambda_pos": pick(3.0, 3.0, 1.0, 0.25),
        "vespo_k_neg": pick(3.0, 3.0, 1.0, 0.5),
        "vespo_lambda_neg": pick(2.0, 2.0, 1.0, 0.25),
    },
    "vespo_sampler": lambda pick: VARIANTS["vespo"](pick) | {
        "vllm_importance_sampling_mode": pick("token_truncate", "token_mask"),
        "vllm_importance_sampling_clip_min": pick(None, 0.5),
        "vllm_importance_sampling_clip_max": pick(3.0, 1.2),
    },
    "two_sided": lambda pick: {"loss_type": "grpo", "delta": pick(1.5, 2.0, 2.75, 4.0)},
    "gspo": lambda pick: {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "kl_ratio": lambda pick: {
        "loss_type": pick("grpo", "dapo", "dr_grpo"),
        "importance_sampling_level": pick("token", "sequence"),
        "use_bias_correction_kl": True,
    },
    # 0.1003 and the like: no mean of multiples of 1/256 over at most 9 tokens lies on it
    "off_policy_mask": lambda pick: {
        "loss_type": pick("grpo", "dapo"),
        "off_policy_mask_threshold": pick(0.0103, 0.1003, 0.4993),
    },
    "off_policy_mask_sampler": lambda pick: VARIANTS["off_policy_mask"](pick),
    "top_entropy": lambda pick: {"loss_type": pick("grpo", "dapo"), "top_entropy_quantile": pick(0.2, 0.5)},
    "entropy_bonus": lambda pick: {
        "loss_type": pick("grpo", "dapo", "dr_grpo"),
        "entropy_coef": pick(0.001, 0.01, 0.5),
        "top_entropy_quantile": pick(1.0, 1.0, 0.2, 0.5),
    },
    "is_token_truncate": sampler_settings("token_truncate"),
    "is_token_mask": sampler_settings("token_mask"),
    "is_sequence_truncate": sampler_settings("sequence_truncate"),
    "is_sequence_mask": sampler_settings("sequence_mask"),
}


def on_grid(values):
    return [on_grid(v) for v in values] if isinstance(values, list) else round(values * GRID) / GRID


def plain(value):
    """JSON form: lists, None for NaN. Infinity must not occur."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0  # no -0.0
    return value


def close(a, b):
    if isinstance(a, dict):
        return all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return all(close(x, y) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return a is b
    return abs(a - b) <= TOLERANCE * max(abs(b), 1e-2)


def settle(run, dtypes):
    """`run(dtype)` in float32, or in float64 where they differ; counts the choice in `dtypes`."""
    single, double = plain(run(torch.float32)), plain(run(torch.float64))
    name, result = ("float32", single) if close(single, double) else ("float64", double)
    dtypes[name] += 1
    return {"dtype": name} | result


class Draw:
    """Random numbers and choices of one generator."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low, high):
        return int(torch.randint(low, high, (1,), generator=self.generator))

    def pick(self, *options):
        return options[self.integer(0, len(options))]

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def chance(self, probability, *shape):
        return torch.rand(*shape, generator=self.generator) < probability

    def entropies(self, rows, seq):
        """Non-negative; a narrow range in some cases, so that values tie at the quantile."""
        return (torch.randint(0, self.pick(8, 256, 1024), (rows, seq), generator=self.generator) / GRID).tolist()


def draw_case(name, index, draw):
    case = random_case(index, draw.generator)
    for key in ("log_probs", "old_log_probs", "ref_log_probs", "advantages"):
        case[key] = on_grid(case[key])
    rows, seq = len(case["log_probs"]), len(case["log_probs"][0])
    if index % 8 == 3:
        row, token = draw.integer(0, rows), draw.integer(0, seq)
        case["log_probs"][row][token] = case["old_log_probs"][row][token] + draw.pick(-15.0, 15.0)
    case["beta"] = draw.pick(*BETAS)
    case["epsilon_low"], case["epsilon_high"] = draw.pick(*EPSILONS)
    settings = VARIANTS[name](draw.pick)
    case["epsilon_high"] = settings.pop("epsilon_high", case["epsilon_high"])
    if name == "kl_ratio":
        # the gradient ratio * (e^d - d - 1) + ratio * (1 - e^d) cancels, so d stays small
        case["beta"] = draw.pick(0.01, 0.04, 0.5)
        difference = (draw.normal(rows, seq) * draw.pick(0.1, 0.7)).clamp(-2, 2)
        case["ref_log_probs"] = on_grid((torch.tensor(case["log_probs"]) + difference).tolist())
    if "entropy_coef" in settings or "top_entropy_quantile" in settings:
        case["entropies"] = draw.entropies(rows, seq)
    if "vllm_importance_sampling_mode" in settings or name == "off_policy_mask_sampler":
        difference = (draw.normal(rows, seq) * draw.pick(0.0, 0.05, 0.5, 2.0)).clamp(-6, 6)
        sampler = on_grid((torch.tensor(case["old_log_probs"]) + difference).tolist())
        missing = draw.chance(draw.pick(0.0, 0.2), rows, seq).tolist()
        case["sampler_log_probs"] = [[None if m else v for v, m in zip(*pair)] for pair in zip(sampler, missing)]
    return {"name": name, "settings": settings} | case


def sampler_batch(self, case, dtype):
    """The batch out of TRL's `_generate_and_score_completions` with the sampler correction, and what it logged."""
    old, reference = (torch.tensor(case[key], dtype=dtype) for key in ("old_log_probs", "ref_log_probs"))
    mask, rows = case["completion_mask"], len(old)
    self.ref_model = object()
    self.reward_funcs, self.reward_func_names, self.reward_weights = [None], ["given"], torch.ones(1)
    self._get_per_token_logps_and_entropies = lambda model, *a, **k: (
        (reference if model is self.ref_model else old), None, None
    )
    ids = torch.ones(old.shape, dtype=torch.long).tolist()
    # every completion has the full width; what is not trained is a "tool" token
    self._generate = lambda prompts: (ids, ids, mask, ["x"] * rows, case["sampler_log_probs"], {}, None, None)
    self._calculate_rewards = lambda *a: torch.zeros(rows, 1)
    batch = GRPOTrainer._generate_and_score_completions(self, [{"prompt": "x"}] * rows)
    logged = {n: v[0] for n, v in self._metrics["train"].items() if n.startswith("sampling/")}
    keys = ("importance_sampling_ratio", "sampling_per_token_logps")
    return {key: batch[key] for key in keys}, logged


def run_case(case, dtype):
    settings = {key: case[key] for key in ("beta", "epsilon_low", "epsilon_high")} | case["settings"]
    inputs, logged, extra = {}, {}, {}
    if "vllm_importance_sampling_mode" in settings:
        self = trainer(
            **settings, use_vllm=True, vllm_importance_sampling_correction=True, num_generations=1, scale_rewards="none"
        )
        inputs, logged = sampler_batch(self, case, dtype)
        extra["importance_sampling_ratio"] = inputs["importance_sampling_ratio"]
    else:
        self = trainer(**settings)
        if "sampler_log_probs" in case:
            nan = [[math.nan if v is None else v for v in row] for row in case["sampler_log_probs"]]
            inputs["sampling_per_token_logps"] = torch.tensor(nan, dtype=dtype)
    loss, gradient, entropy_gradient, metrics = run_loss(self, case, dtype, **inputs)
    if "entropies" not in case:
        del metrics["entropy"]
    if "entropy_coef" in settings:
        extra["entropy_gradient"] = entropy_gradient
    return extra | {"loss": loss, "gradient": gradient, "metrics": metrics | logged}


def adaptive_runs(draw):
    """Successive optimizer steps of one micro-batch under the adaptive entropy coefficient."""
    for index in range(8):
        settings = {
            "loss_type": ["grpo", "dapo"][index % 2],
            "use_adaptive_entropy": True,
            "entropy_coef": draw.pick(0.0, 0.005, 0.03),
            "entropy_target": draw.pick(0.5, 1.0),
            "entropy_coef_delta": draw.pick(0.005, 0.02),
            "entropy_coef_min": draw.pick(0.0, 0.004),
            "entropy_coef_max": draw.pick(1.0, 0.03),
            "top_entropy_quantile": [1.0, 1.0, 0.5][index % 3],
        }
        epsilons = {"epsilon_low": 0.2, "epsilon_high": 0.28}
        self = trainer(**settings, **epsilons, beta=0.0)
        windows = []
        for _ in range(6):
            case = draw_case("gspo", draw.pick(0, 1, 2, 4, 5), draw)
            kept = {key: case[key] for key in ("log_probs", "old_log_probs", "advantages", "completion_mask")}
            shape = len(case["log_probs"]), len(case["log_probs"][0])
            kept["entropies"] = draw.entropies(*shape)
            before = self.entropy_coef
            loss, gradient, entropy_gradient, metrics = run_loss(self, case | kept)
            windows.append(plain(kept | {
                "coef_before": before,
                # the bonus is -coef * mean entropy, so its gradient sums to -coef
                "applied_coef": round(-entropy_gradient.double().sum().item(), 6),
                "coef_after": self.entropy_coef,
                "measured_entropy": self._last_world_entropy,
                "loss": loss,
                "gradient": gradient,
                "entropy_gradient": entropy_gradient,
                "metrics": metrics,
            }))
        yield {"settings": settings} | epsilons | {"beta": 0.0, "windows": windows}


SCALES = {
    "group": {"scale_rewards": "group"},
    "batch": {"scale_rewards": "batch"},
    "none": {"scale_rewards": "none"},
    "normalize_then_sum": {"scale_rewards": "group", "multi_objective_aggregation": "normalize_then_sum"},
}


def advantage_cases(draw, dtypes):
    for index in range(40):
        group_size, functions = draw.pick(2, 3, 4, 8), 1 + index % 3
        groups = draw.integer(1, 4)
        shape = groups * group_size, functions
        kind = draw.pick("binary", "counts", "real")
        if kind == "real":
            scores = torch.tensor(on_grid((draw.normal(*shape) * 3).tolist()))
        else:
            scores = torch.randint(0, 2 if kind == "binary" else 4, shape, generator=draw.generator).float()
        if index % 4 == 1:  # a constant group
            scores[:group_size] = scores[0]
        if index % 3:
            scores[draw.chance(0.15 * (index % 3), *shape)] = math.nan
        if index % 5 == 4:  # a group that no function scored
            scores[-group_size:] = math.nan
        if index % 11 == 7:  # a single scored member
            scores[1:group_size] = math.nan
        weights = [1.0] * functions if index % 2 else [draw.pick(1.0, 0.5, 2.0, 0.125, 0.0) for _ in range(functions)]
        case = {"rewards": plain(scores), "group_size": group_size, "weights": weights}
        for name, settings in SCALES.items():
            def run(dtype, settings=settings):
                weight = torch.tensor(weights, dtype=dtype)
                advantages, metrics = run_scores(scores.to(dtype), group_size, reward_weights=weight, **settings)
                return {"advantages": advantages, "metrics": metrics}

            case[name] = settle(run, dtypes)
        yield case


def overlong_cases(draw):
    for index in range(24):
        maximum = draw.pick(8, 16, 100)
        cache = [0, 1, maximum // 4, maximum][index % 4]
        lengths = [draw.integer(0, maximum + 5) for _ in range(8)] + [maximum - cache, maximum, maximum + 1]
        punish = get_soft_overlong_punishment(maximum, cache)
        yield {
            "max_completion_len": maximum,
            "soft_punish_cache": cache,
            "lengths": lengths,
            "punishments": plain([float(p) for p in punish(completion_ids=[[1] * n for n in lengths])]),
        }


def completion_cases(draw):
    """TRL's `_generate` on stubbed token lists; it cannot take an empty completion, so lengths start at 1."""
    for index in range(24):
        rows = draw.integer(1, 9)
        lengths = [draw.integer(1, 20) for _ in range(rows)]
        truncated = draw.chance([0.3, 0.0, 1.0, 0.7][index % 4], rows).tolist()
        ids = [[1] * (n - 1) + [1 if cut else EOS] for n, cut in zip(lengths, truncated)]
        self = trainer(
            num_generations=1,
            rollout_func=None,
            eos_token_ids=[EOS],
            state=SimpleNamespace(num_input_tokens_seen=0),
            processing_class=SimpleNamespace(batch_decode=lambda ids, **k: ["x"] * len(ids)),
        )
        self._tokenize_prompts = lambda prompts: ([[1]] * len(prompts), None, {})
        self._generate_single_turn = lambda *a, ids=ids: (ids, None)
        GRPOTrainer._generate(self, ["x"] * rows)
        metrics = {n: v[0] for n, v in self._metrics["train"].items() if n.startswith("completions/")}
        yield {"lengths": lengths, "is_truncated": truncated, "metrics": plain(metrics)}


def write(out, fixture, summary):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(fixture, allow_nan=False, separators=(",", ":")) + "\n")
    print(f"{out}: {summary}, {out.stat().st_size} bytes")


def main():
    draw = Draw(SEED)
    cases = []
    for name in VARIANTS:
        dtypes = defaultdict(int)
        for index in range(CASES):
            case = draw_case(name, index, draw)
            cases.append(case | settle(lambda dtype: run_case(case, dtype), dtypes))
        print(name, dict(dtypes))
    dtypes = defaultdict(int)
    fixture = {
        "source": "trl.GRPOTrainer._compute_loss, ._generate_and_score_completions and ._generate; trl.rewards",
        "versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "seed": SEED,
        "max_completion_len": MAX_COMPLETION_LEN,
        "cases": cases,
        "adaptive": list(adaptive_runs(draw)),
        "advantages": list(advantage_cases(draw, dtypes)),
        "overlong": list(overlong_cases(draw)),
        "completions": list(completion_cases(draw)),
    }
    print("advantages", dict(dtypes))
    write(OUT, fixture, ", ".join(f"{len(v)} {k}" for k, v in fixture.items() if isinstance(v, list)))


if __name__ == "__main__":
    main()
