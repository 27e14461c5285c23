"""Verdicts of Math-Verify on pairs of a reference and an answer, for ril-reward.

    pip install -r scripts/reference/requirements-math.txt      (math-verify 0.9.0 with the antlr runtime 4.13.2)
    python scripts/reference/math_verify.py

Writes crates/ril-reward/tests/fixtures/math_verify.json. The pairs and what a careful reader says of each stand in
`math_verify_pairs.py`. The reference is given to `parse` between dollar signs, the answer as it is; both with the
package's default settings, as its README does. Nothing is drawn at random.
"""

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path

# This file has the name of the package.
sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
from math_verify import parse, verify  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent))
from math_verify_pairs import DIFFERENT, SAME  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "crates/ril-reward/tests/fixtures/math_verify.json"
PACKAGES = ("math-verify", "latex2sympy2_extended", "antlr4-python3-runtime", "sympy", "mpmath")


def verdict(reference, answer):
    return verify(parse(f"${reference}$"), parse(answer))


def main():
    logging.disable(logging.WARNING)
    pairs = [(pair, True) for pair in SAME] + [(pair, False) for pair in DIFFERENT]
    assert len({pair for pair, _ in pairs}) == len(pairs), "a pair stands twice"
    cases = [
        {"reference": reference, "answer": answer, "is_same": is_same, "math_verify": verdict(reference, answer)}
        for (reference, answer), is_same in pairs
    ]
    fixture = {
        "source": "math_verify.verify(parse(f'${reference}$'), parse(answer))",
        "versions": {name: version(name) for name in PACKAGES},
        "cases": cases,
    }
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    head = json.dumps({key: value for key, value in fixture.items() if key != "cases"}, indent=1)[:-2]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(f'{head},\n "cases": [\n{lines}\n]}}\n', encoding="utf-8", newline="\n")
    json.loads(OUT.read_text(encoding="utf-8"))
    agreeing = sum(case["is_same"] == case["math_verify"] for case in cases)
    print(f"{OUT}: {len(cases)} pairs, Math-Verify says as the reader on {agreeing}")


if __name__ == "__main__":
    main()
