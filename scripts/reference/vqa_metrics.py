"""Relaxed accuracy (ChartQA) and ANLS (DocVQA), computed by VLMEvalKit's own functions, for ril-reward.

    git clone --filter=blob:none --no-checkout https://github.com/open-compass/VLMEvalKit
    git -C VLMEvalKit checkout e8e78f05f3080fe28154f2130321f17951c3be94 -- vlmeval/dataset/utils/vqa_eval.py
    pip install -r scripts/reference/requirements-vqa.txt      (numpy 2.4.6, anls 0.0.2)
    python scripts/reference/vqa_metrics.py --vlmevalkit VLMEvalKit

Writes crates/ril-reward/tests/fixtures/vqa_metrics.json. `process_line` and `hit_calculate` run unmodified; the file is
loaded by path, since the package around it asks for torch, and refused unless it is that of the commit. The PyPI package
`anls` is asked as well, where it defines the same: it measures lengths behind white space and letter case are folded.
"""

import argparse
import hashlib
import importlib.util
import json
import random
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

SEED = 20251128
OUT = Path(__file__).resolve().parents[2] / "crates/ril-reward/tests/fixtures/vqa_metrics.json"
COMMIT = "e8e78f05f3080fe28154f2130321f17951c3be94"
FILE, BLOB = "vlmeval/dataset/utils/vqa_eval.py", "7639867e4f3d8dff3b80b6488276b3707e241e8c"

# target, prediction
RELAXED = [
    ("14", "14"), ("14", "14.7"), ("14", "14.71"), ("14", "13.3"), ("14", "13.29"), ("14", "-14"), ("-14", "-14.5"),
    ("100", "105"), ("100", "95"), ("100", "105.0001"), ("100", "94.9999"), ("0.5", "0.525"), ("0.5", "0.526"),
    ("3.14", "3.2"), ("3.14", "3.3"), ("1000", "1e3"), ("1000", "1.04E3"), ("1000", "1,000"), ("1,000", "1,000"),
    ("1,000", "1000"), ("1_000", "1000"), ("5%", "0.05"), ("5%", "5"), ("5%", "5%"), ("5%", "5.2%"), ("5%", "5.3%"),
    ("0.05", "5%"), ("5", "5%"), ("5 %", "5%"), ("50%", "0.51"), ("50%", "0.53"), ("5%%", "0.05"), ("%", "%"),
    ("-5%", "-0.05"), ("0", "0"), ("0", "0.0"), ("0", "0.01"), ("0.0", "0.0"), ("0%", "0"), ("0%", "0%"), ("1", "0"),
    ("Yes", "yes"), ("Yes", "No"), ("Yes", " yes "), ("Yes", "yes."), ("Blue", "BLUE"), ("Light blue", "light  blue"),
    ("Germany", "germany"), ("Germany", "France"), ("2019", "2019"), ("2019", "2010"), ("2019", "1900"),
    ("14", "14 million"), ("$14", "$14"), ("$14", "14"), ("14", "fourteen"), ("", ""), ("", "5"), ("5", ""), ("+7", "7"),
    (".5", "0.5"), ("5.", "5"), ("5", "\t5\n"), ("inf", "inf"), ("inf", "5"), ("5", "inf"), ("nan", "nan"), ("5", "nan"),
    ("Infinity", "inf"), ("1e400", "inf"), ("0x10", "16"), ("1e-3", "0.001"), ("1__0", "1__0"), ("1_0", "10"), ("_1", "1"),
    ("Straße", "STRASSE"), ("straße", "Straße"), ("İ", "i̇"), ("ΟΔΟΣ", "οδος"), ("12-14", "12-14"), ("3/4", "0.75"),
    ("3/4", "3/4"), ("[1, 2]", "[1, 2]"),
]

# references, prediction
ANLS = [
    (["Paris"], "Paris"), (["Paris"], "paris"), (["Paris"], "  PARIS "), (["Paris"], "Pariss"), (["Paris"], "Par"),
    (["Paris"], "Rome"), (["Paris"], ""), (["Paris"], "It is Paris"), (["1/8/93"], "1/8/93"), (["1/8/93"], "1/8/98"),
    (["1/8/93", "January 8, 1993"], "january 8 1993"), (["a", "b"], "b"), (["a", "b"], "c"), (["ab"], "ac"),
    (["abcd"], "abxy"), (["abcd"], "axyz"), (["abc"], "abd"), (["New York"], "new  york"), (["New\nYork"], "New York"),
    (["The  Hague"], "the hague"), (["$1,234.50"], "$1,234.5"), (["$1,234.50"], "1234.50"), (["12%"], "12"), (["x"], "x"),
    (["Dr. A. Smith"], "Dr A Smith"), (["ITC Limited"], "itc limited"), (["ITC Limited"], "ITC Ltd"), (["é"], "e"),
    (["Zürich"], "ZÜRICH"), (["Maß"], "Mas"), (["ß"], "s"),
    (["Straße"], "STRASSE"), (["straße"], "strasse"), (["東京都"], "東京"), (["東京都"], "東京都"),
    (["ΟΔΟΣ"], "οδος"), (["   "], "x"), (["kitten"], "sitting"), (["saturday"], "sunday"), (["flaw"], "lawn"),
    (["0.28", ".28"], "0.28"), (["0.28", ".28"], "28"), (["yes", "Yes", "YES"], "yEs"), (["aa bb"], "bb aa"),
    (["The quick brown fox jumps over the lazy dog"], "The quick brown dog jumps over the lazy fox"),
    (["abcdefghij"], "abcdefghijabcdefghij"), (["abcdefghij"], "abcdefghijabcdefghijk"),
]
ALPHABET = "abcdeABCDE 0123.,-é"


def functions(checkout):
    """VLMEvalKit's `process_line` and `hit_calculate`. A stub stands for `vlmeval.smp`."""
    content = (checkout / FILE).read_bytes()
    found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert found == BLOB, f"{FILE}: expected the file of commit {COMMIT}, blob {BLOB}, got {found}"
    stub = ModuleType("vlmeval.smp")
    stub.istype = lambda text, kind: False
    stub.listinstr = lambda names, text: any(name in text for name in names)
    stub.process_punctuation = None
    sys.modules["vlmeval"], sys.modules["vlmeval.smp"] = ModuleType("vlmeval"), stub
    spec = importlib.util.spec_from_file_location("vqa_eval", checkout / FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(module, name, method, references, prediction):
    # `answer` is a list written as Python in VLMEvalKit's tables; one line a reference gives the same matches.
    lines = [module.process_line({"answer": text, "prediction": prediction}, method=method) for text in references]
    return float(module.hit_calculate([{"match": [match for line in lines for match in line["match"]]}], name)[0])


def mutated(text, draw):
    letters = list(text)
    for _ in range(draw.randrange(0, 6)):
        at = draw.randrange(len(letters) + 1)
        letters[at : at + draw.randrange(2)] = draw.choice(["", draw.choice(ALPHABET)])
    return "".join(letters)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vlmevalkit", type=Path, required=True, help="checkout of VLMEvalKit")
    module = functions(parser.parse_args().vlmevalkit)
    from anls import anls_score

    draw = random.Random(SEED)
    relaxed = list(RELAXED)
    for _ in range(60):
        target = round(draw.uniform(-200, 200), draw.randrange(4))
        relaxed.append((str(target), str(round(target * draw.uniform(0.93, 1.07), draw.randrange(5)))))
    anls = list(ANLS)
    for _ in range(80):
        base = "".join(draw.choice(ALPHABET) for _ in range(draw.randrange(1, 16))).strip() or "a"
        anls.append(([base] + [mutated(base, draw) for _ in range(draw.randrange(3))], mutated(base, draw)))
    fixture = {
        "source": "vlmeval/dataset/utils/vqa_eval.py: process_line, hit_calculate",
        "versions": {"VLMEvalKit": COMMIT, "anls": version("anls"), "numpy": version("numpy")},
        "seed": SEED,
        "relaxed": [
            {
                "references": [target],
                "prediction": prediction,
                "score": scores(module, "ChartQA", "relaxed_accuracy", [target], prediction),
            }
            for target, prediction in relaxed
        ],
        "anls": [
            {
                "references": references,
                "prediction": prediction,
                "score": scores(module, "DocVQA", "anls", references, prediction),
                "anls_package": anls_score(prediction=prediction, gold_labels=references, threshold=0.5),
            }
            for references, prediction in anls
        ],
    }
    OUT.write_text(json.dumps(fixture, ensure_ascii=False, indent=0) + "\n", encoding="utf-8", newline="\n")
    print(f"{OUT}: {len(relaxed)} and {len(anls)} cases")


if __name__ == "__main__":
    main()
