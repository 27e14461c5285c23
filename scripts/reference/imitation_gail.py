"""Writes crates/ril-gail/tests/fixtures/imitation_gail.json: the discriminator statistics and the GAIL reward, by the
`imitation` library's own functions: `compute_train_stats` and `RewardNetFromDiscriminatorLogit.forward`.

The functions need torch alone, but their modules import the whole library. Beside the packages of requirements.txt:

    pip install --no-deps imitation==1.0.1 stable-baselines3==2.2.1 gymnasium==0.29.1 cloudpickle farama-notifications

What else they import (tensorboard, sacred, plots) is stubbed: nothing of it is called. Run from
the root of the repository:

    python scripts/reference/imitation_gail.py
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import platform
import sys
import types
from importlib import metadata
from pathlib import Path

import torch
from torch.nn import functional

SEED = 20251120
CASES = 40
OUT = Path("crates/ril-gail/tests/fixtures/imitation_gail.json")
STUBBED = ("tensorboard", "torch.utils.tensorboard", "matplotlib", "sacred", "seals", "jsonpickle")


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in place of packages that are not called."""

    def find_spec(self, name, path=None, target=None):
        if not any(name == stub or name.startswith(stub + ".") for stub in STUBBED):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Stub(spec.name)

    def exec_module(self, module):
        module.__path__ = []


class Stub(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


sys.meta_path.insert(0, Stubs())

from imitation.algorithms.adversarial import common, gail  # noqa: E402
from imitation.rewards import reward_nets  # noqa: E402


class Given(reward_nets.RewardNet):
    """A reward net whose logits are the states that it is given."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.observation_space = self.action_space = None
        self.normalize_images = False

    def forward(self, state, action, next_state, done):
        return state


def case(index: int, generator: torch.Generator) -> dict:
    scales = [0.0, 0.1, 1.0, 5.0, 20.0, 100.0, 1000.0, 10000.0]
    counts = torch.randint(0, 7, (2,), generator=generator).tolist()
    # No row, no expert and no generated row at least once each.
    students, teachers = {0: (0, 0), 1: (0, 3), 2: (4, 0)}.get(index, counts)
    is_student = torch.tensor([True] * students + [False] * teachers, dtype=torch.bool)
    is_student = is_student[torch.randperm(len(is_student), generator=generator)]
    logits_student_is_high = torch.randn(len(is_student), generator=generator) * scales[index % len(scales)]
    # Zero, not minus zero, where the scale is 0.
    logits_student_is_high = logits_student_is_high + 0.0
    expert_is_high = -logits_student_is_high.double()
    labels = (~is_student).long()
    # As AdversarialTrainer.train_disc has it.
    loss = functional.binary_cross_entropy_with_logits(expert_is_high, labels.double())
    stats = common.compute_train_stats(expert_is_high, labels, loss)
    net = gail.RewardNetFromDiscriminatorLogit(Given())
    rewards = net(expert_is_high, None, None, None)
    return {
        "logits_student_is_high": logits_student_is_high.tolist(),
        "is_student": is_student.tolist(),
        "stats": {name: None if math.isnan(value) else value for name, value in stats.items()},
        "gail_rewards": rewards.tolist(),
    }


def main() -> None:
    generator = torch.Generator().manual_seed(SEED)
    fixture = {
        "source": "imitation: compute_train_stats, RewardNetFromDiscriminatorLogit.forward, float64 inside",
        "script": "scripts/reference/imitation_gail.py",
        "imitation": metadata.version("imitation"),
        "stable_baselines3": metadata.version("stable-baselines3"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": SEED,
        "cases": [case(index, generator) for index in range(CASES)],
    }
    OUT.write_text(json.dumps(fixture) + "\n")
    print(f"{OUT}: {CASES} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
