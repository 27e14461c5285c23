"""The loss of on-policy and off-policy rows together, computed by LUFFY's own code, for ril-grpo.

    git clone --filter=blob:none --no-checkout https://github.com/ElliottYan/LUFFY
    git -C LUFFY checkout 01f4ae066249e6965ce0d5512ccdf99a12895c74 -- luffy/verl/verl
    pip install -r scripts/reference/requirements.txt
    python scripts/reference/luffy.py --luffy LUFFY

Writes crates/ril-grpo/tests/fixtures/luffy.json. LUFFY (arXiv 2504.14945) vendors a changed verl; its
`compute_token_on_off_policy_loss` runs unmodified, in float64, with the `masked_mean` of that verl. The two files are
loaded by path, since the package around them asks for ray, and refused unless they are those of the commit. Inputs
are multiples of 1/256; log-probabilities are at most 0. A row is off-policy as a whole (LUFFY's prefix ratio of 1).

Not drawn, because ril-grpo has no counterpart or differs on purpose: off_policy_reshape "pow", "square_root", "logp"
and "p_logp", on_policy_reshape, bounds on the off-policy ratio, target_probs, all_max_clip, a token mean over no tokens
(NaN in LUFFY), on-policy log-ratios beyond 20, off-policy log-ratios that overflow `exp` (NaN in LUFFY).
"""

import argparse
import hashlib
import importlib.util
import io
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import torch
from trl_family import Draw, on_grid, plain, write
from trl_grpo import EPSILONS, random_case

SEED = 20251126
OUT = Path(__file__).resolve().parents[2] / "crates/ril-grpo/tests/fixtures/luffy.json"
COMMIT = "01f4ae066249e6965ce0d5512ccdf99a12895c74"
# module name -> (file, its git blob at COMMIT)
FILES = {
    "verl.utils.torch_functional": ("utils/torch_functional.py", "3d53ca7a4e40efc715ceba1f3a8c725c2fe256a0"),
    "verl.mix_src.mix_core_alg": ("mix_src/mix_core_alg.py", "b9692bc6e5c3fe248bdc74dc0750521535c0a848"),
}
# off_policy_reshape -> number of cases
RESHAPES = {"p_div_p_0.1": 48, "p_div_p_0.3": 24, "p_div_p_0.5": 24, "no_reshape": 24}


def luffy_loss(checkout):
    """LUFFY's function. Empty packages stand for `verl`, whose own import asks for ray."""
    for name in ("verl", "verl.utils", "verl.mix_src"):
        sys.modules[name] = ModuleType(name)
    for name, (path, blob) in FILES.items():
        path = checkout / "luffy/verl/verl" / path
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert found == blob, f"{path}: expected the file of commit {COMMIT}, blob {blob}, got {found}"
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["verl.mix_src.mix_core_alg"].compute_token_on_off_policy_loss


def draw_case(name, index, draw):
    settings = {
        "loss_remove_clip": index // 4 % 2 == 0,
        "loss_remove_token_mean": index // 8 % 2 == 0,  # both true in LUFFY's published run
        "off_policy_reshape": name,
    }
    while True:
        case = random_case(index, draw.generator)
        mask = torch.tensor(case["completion_mask"])
        if mask.any() or settings["loss_remove_token_mean"]:
            break
        index += 1
    old = -torch.tensor(on_grid(case["old_log_probs"])).abs()
    step = torch.tensor(case["log_probs"]) - torch.tensor(case["old_log_probs"])
    log_probs = (old + torch.tensor(on_grid(step.tolist()))).clamp(max=0.0)
    teachers = draw.chance(0.4, len(old))
    if index % 8 == 6:
        teachers[:] = draw.pick(True, False)
    if index % 8 == 3:
        teachers[0], teachers[1] = True, False
        mask[:2, 0] = 1
        # the ratio to `old` must not matter to a teacher's token, nor a probability of 1 or 0 break it
        log_probs[0, 0], old[0, 0] = draw.pick((0.0, -40.0), (-60.0, -1.0), (-40.0, 0.0), (0.0, 0.0))
        log_probs[1, 0], old[1, 0] = draw.pick((-0.25, -15.25), (-15.25, -0.25))
    low, high = draw.pick(*EPSILONS)
    return {
        "name": name,
        "settings": settings,
        "log_probs": log_probs.tolist(),
        "old_log_probs": old.tolist(),
        "advantages": on_grid(case["advantages"]),
        "completion_mask": mask.tolist(),
        "teacher_mask": teachers.int().tolist(),
        "epsilon_low": low,
        "epsilon_high": high,
    }


def run_case(function, case):
    log_probs = torch.tensor(case["log_probs"], dtype=torch.float64, requires_grad=True)
    old, advantages, mask = (
        torch.tensor(case[key], dtype=torch.float64) for key in ("old_log_probs", "advantages", "completion_mask")
    )
    with redirect_stdout(io.StringIO()):  # it prints at every call
        result = function(
            old_log_prob=old,
            log_prob=log_probs,
            advantages=advantages.unsqueeze(1).expand_as(old),
            eos_mask=mask,
            cliprange=case["epsilon_low"],
            clip_upper_bound=1.0 + case["epsilon_high"],
            # as LUFFY's rollout: false at padding
            prefix_mask=torch.tensor(case["teacher_mask"]).bool().unsqueeze(1) & mask.bool(),
            off_cliprange=0.2,  # which it ignores
            **case["settings"],
        )
    result["pg_loss"].backward()
    metrics = {"on_pg_clipfrac": result["on_pg_clipfrac"]}
    return plain({"loss": result["pg_loss"], "gradient": log_probs.grad, "metrics": metrics})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--luffy", type=Path, required=True, help="checkout of LUFFY")
    function = luffy_loss(parser.parse_args().luffy)
    draw = Draw(SEED)
    cases = [draw_case(name, index, draw) for name, count in RESHAPES.items() for index in range(count)]
    fixture = {
        "source": "luffy/verl/verl/mix_src/mix_core_alg.py: compute_token_on_off_policy_loss",
        "versions": {"luffy": COMMIT, "torch": torch.__version__},
        "seed": SEED,
        "dtype": "float64",
        "cases": [case | run_case(function, case) for case in cases],
    }
    write(OUT, fixture, f"{len(cases)} cases")


if __name__ == "__main__":
    main()
