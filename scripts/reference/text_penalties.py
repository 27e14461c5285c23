"""Repetition and length penalties of TRL on words and characters, for ril-reward.

    pip install -r scripts/reference/requirements.txt      (trl 1.16.0)
    python scripts/reference/text_penalties.py

Writes crates/ril-reward/tests/fixtures/text_penalties.json. `trl.rewards.get_repetition_penalty_reward` and
`get_soft_overlong_punishment` run unmodified; they are given the words (or characters) of a text where TRL gives them
token ids.
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment

SEED = 20251129
OUT = Path(__file__).resolve().parents[2] / "crates/ril-reward/tests/fixtures/text_penalties.json"
TEXTS = [
    "", " ", "one", "one two", "one two three", "go go go go go", "Go go GO", "a b a b a b a b", "a b c a b c a b d",
    "the cat sat on the mat and the cat sat on the hat", "So so\nso\tso", "no repeats in this line at all", "ÄÖ äö ÄÖ äö",
    "一 二 一 二 一 二", "aaaa", "abab",
]
WORDS = ["so", "we", "add", "3", "and", "4", "to", "get", "7"]


def units(text, unit):
    return text.lower().split() if unit == "words" else list(text.lower())


def main():
    draw = random.Random(SEED)
    texts = TEXTS + [" ".join(draw.choices(WORDS[: draw.randrange(1, 10)], k=draw.randrange(1, 40))) for _ in range(60)]
    cases = []
    for text in texts:
        unit = draw.choice(["words", "characters"])
        ngram_size, max_penalty = draw.randrange(1, 6), draw.choice([-1.0, -0.5, -0.25])
        max_length, cache = draw.choice([(20, 10), (30, 5), (60, 60), (5, 2)])
        ids = units(text, unit)
        cases.append(
            {
                "text": text,
                "unit": unit,
                "ngram_size": ngram_size,
                "max_penalty": max_penalty,
                "repetition": get_repetition_penalty_reward(ngram_size, max_penalty)([ids])[0],
                "max_length": max_length,
                "cache": cache,
                "length": get_soft_overlong_punishment(max_length, cache)([ids])[0],
            }
        )
    fixture = {
        "source": "trl.rewards: get_repetition_penalty_reward, get_soft_overlong_punishment",
        "versions": {"trl": version("trl")},
        "seed": SEED,
        "cases": cases,
    }
    OUT.write_text(json.dumps(fixture, ensure_ascii=False, indent=0) + "\n", encoding="utf-8", newline="\n")
    print(f"{OUT}: {len(cases)} cases")


if __name__ == "__main__":
    main()
