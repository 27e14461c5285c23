"""Prompts, matching and scores of VLMEvalKit's own code on small benchmarks of ours, for ril::vlmeval.

    git clone --filter=blob:none --no-checkout https://github.com/open-compass/VLMEvalKit
    git clone --filter=blob:none --no-checkout https://github.com/yuweihao/MM-Vet
    pip install -r scripts/reference/requirements.txt
    python scripts/reference/vlmevalkit.py --vlmevalkit VLMEvalKit/.git --mm-vet MM-Vet/.git

Writes crates/ril/tests/fixtures/vlmevalkit.json. The files of the commits below are put into a temporary folder and run
unmodified: dataset classes build prompts from benchmark files, and their `evaluate` scores predictions, once by exact
matching and once with a judge. What is replaced, because it needs a network or processes and decides no number: package
`__init__` files (they import every model), `build_judge` (a judge that draws its reply from a pool by the hash of prompt and
try), `track_progress_rich` (a loop). `random.choice`, which VLMEvalKit calls when three replies name no option, gives "Z": a
wrong answer, as in ril. Empty predictions are not drawn: VLMEvalKit stores predictions in a spreadsheet, from which they
come back as "nan".
"""

import argparse
import ast
import base64
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SEED = 20251128
OUT = Path(__file__).resolve().parents[2] / "crates/ril/tests/fixtures/vlmevalkit.json"
COMMIT = "e8e78f05f3080fe28154f2130321f17951c3be94"
MM_VET_COMMIT = "acde843e02dae30047bb456ee4a8ab28dee7e0ae"
FILES = ["vlmeval/smp", "vlmeval/utils", "vlmeval/dataset"]
# Replies of the judge: the hash of prompt and try picks one.
REPLIES = {
    "choice": ["A", "B", "(C)", "The answer is D.", "Z", "I do not know", "A or B", "Failed to obtain answer via API.",
               "none", "B. "],
    "yes_no": ["Yes", "No", "yes.", "Unknown", "yes and no", "no!", "it is unclear"],
    "mathvista": ["A", "B", "3", "14", "1.2", "0", "two", "Failed to obtain answer via API.", "C", "7"],
    "mm_vet": ["0.5", "1.0", "0", " 0.3\n", "0.85", "good", "1.5", "-0.1", "1"],
}


def reply_to(pool, prompt, attempt):
    digest = hashlib.sha256(f"{prompt}#{attempt}".encode()).digest()
    return pool[digest[0] % len(pool)]


class Judge:
    """Counts tries by prompt, as one inquiry after the other is made."""

    def __init__(self, pool):
        self.pool, self.tries, self.calls = pool, {}, 0

    def working(self):
        return True

    def generate(self, prompt, temperature=0):
        attempt = self.tries.get(prompt, 0)
        self.tries[prompt] = attempt + 1
        self.calls += 1
        return reply_to(self.pool, prompt, attempt)


def serial(func, tasks, nproc=1, chunksize=1, save=None, keys=None, **_):
    results = [func(**task) if isinstance(task, dict) else func(*task) for task in tasks]
    if save:
        old = sys.modules["vlmeval.smp"].load(save) if os.path.exists(save) else {}
        sys.modules["vlmeval.smp"].dump({**old, **dict(zip(keys, results))}, save)
    return results


def checkout(git, commit, files, folder):
    archive = subprocess.run(["git", f"--git-dir={git}", "archive", commit, *files], check=True, capture_output=True)
    tarfile.open(fileobj=io.BytesIO(archive.stdout)).extractall(folder, filter="data")


def import_vlmevalkit(folder):
    """The real modules, under packages without their `__init__`."""
    sys.path.insert(0, folder)
    for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(folder, *name.split("."))]
        sys.modules[name] = package
    utils = sys.modules["vlmeval.dataset.utils"]
    utils.DEBUG_MESSAGE = ""
    utils.build_judge = lambda **_: None
    mp_util = types.ModuleType("vlmeval.utils.mp_util")
    mp_util.track_progress_rich = serial
    sys.modules["vlmeval.utils.mp_util"] = mp_util
    names = ["smp", "utils", "dataset.image_mcq", "dataset.image_vqa", "dataset.image_yorn",
             "dataset.utils.multiple_choice", "dataset.utils.vqa_eval", "dataset.utils.mathvista",
             "dataset.utils.mmvet", "dataset.utils.yorn"]
    modules = {name: importlib.import_module(f"vlmeval.{name}") for name in names}
    modules["dataset.utils.multiple_choice"].rd = types.SimpleNamespace(choice=lambda options: "Z")
    # ChartQA is scored by a pool of processes, which do not have the modules above.
    pool = types.SimpleNamespace(Pool=lambda _: types.SimpleNamespace(map=lambda f, rows: [f(row) for row in rows]))
    modules["dataset.image_vqa"].mp = pool
    return modules


# ---- benchmarks of ours ---------------------------------------------------------------------------------------------


class Draw:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def picture(self):
        size = self.rng.randrange(3, 6)
        pixels = bytes(self.rng.randrange(256) for _ in range(3 * size * size))
        out = io.BytesIO()
        Image.frombytes("RGB", (size, size), pixels).save(out, "PNG")
        return base64.b64encode(out.getvalue()).decode()

    def pick(self, items):
        return self.rng.choice(items)


NOUNS = ["teddy bear", "rabbit", "cat", "dog", "Point A", "a red car", "Paris", "the moon", "a tree", "blue", "3/11"]
OTHER = ["Neither", "both of them", "Cannot tell", "12 cm", "1.50", "None of the above", "猫", "狗", "on the left"]


def phrase(draw, letter, text):
    return draw.pick([letter, f"{letter}.", f"({letter})", f"{letter}. {text}", f"The answer is {letter}.", text,
                      f"I think it is {text}.", f"The correct answer is **{letter}**. Here's why: it is clear.",
                      f"Answer: {letter}", "I am not sure", f"{letter} or Z", "A B C D", "Cannot determine the answer",
                      f"Because of the light, the best choice in my opinion is\n{letter}", f"answer is a {text}",
                      f"{letter}) since the others are wrong, as anybody can see at once", "Let me think",
                      f"Reasoning first.\nAnswer: ${letter}", f"So:\nAnswer: {letter}. {text}\nDone"])


def choice_rows(draw, count, style):
    letters = "ABCDEFGHIJ" if "Pro" in style else "ABCD"
    rows = []
    for i in range(count):
        few = letters[: draw.pick([2, 3, 4])] if "Pro" not in style else letters[: draw.pick([4, 10])]
        texts = draw.rng.sample(NOUNS + OTHER, len(few))
        question = draw.pick(["What is the main object?", "Which point is closer?", "Where does it stand",
                              'What does "stop" mean\nin this picture?', "How many\tare there?", "{} and braces"])
        if "CN" in style:
            question = draw.pick(["图中最主要的物体是什么?", "What is this?"])
        row = dict(index=i + 1, question=f"{question} [{i}]", hint=draw.pick([None, "Look closely.", None]))
        for letter in letters:
            row[letter] = texts[few.index(letter)] if letter in few else None
        row["answer"] = draw.pick(few)
        row["category"] = draw.pick(["logic_reasoning", "coarse_perception", "other thing"])
        row["l2-category"] = draw.pick(["upper", "lower"])
        row["split"] = draw.pick(["dev", "test"]) if style not in ("plain", "BLINK") else None
        row["image"] = draw.picture()
        rows.append(row)
    return rows


def choice_table(draw, style, count=14):
    rows = choice_rows(draw, count, style)
    if style == "numbers":
        # Columns of numbers, with a gap in the third: pandas makes floats of it.
        for row in rows:
            first = draw.rng.randrange(1, 60)
            row.update(A=first, B=first + 7, C=draw.pick([None, first + 3]), D=draw.pick([None, "NA", "5.50"]))
            row["answer"] = draw.pick(["A", "B"])
    if style.startswith("MMMU"):
        for row in rows[::4]:
            letters = [letter for letter in "ABCDEFGHIJ" if letter in row]
            row.update({letter: None for letter in letters})
            row["answer"] = draw.pick(["42", "a vault", "B"])
        for row in rows[1::3]:
            row["image"] = repr([draw.picture(), draw.picture()])
            row["question"] = "See <image 2> beside <image 1>: " + row["question"]
        rows[2]["question"] += " <image 1>"
    if style == "lists":
        for row in rows[::3]:
            row["image"] = json.dumps([draw.picture() for _ in range(draw.pick([1, 2, 3]))])
        rows[4]["image"] = str(rows[1]["index"])
        rows[5]["image"] = str(rows[9]["index"])
        rows[7]["image"] = None
        for row in rows:
            row["index"] = f"q{row['index']}"
        rows[4]["image"], rows[5]["image"] = "q2", "q10"
    if style == "BLINK":
        for row in rows:
            row["index"] = 10 * row["index"]
    return rows


def circular_table(draw, style):
    mains = choice_rows(draw, 9, style)
    rows = []
    for turn in range(4):
        for row in mains:
            letters = [letter for letter in "ABCD" if row[letter] is not None]
            if turn >= len(letters):
                continue
            turned = dict(row)
            for place, letter in enumerate(letters):
                turned[letter] = row[letters[(place + turn) % len(letters)]]
            turned["answer"] = letters[(letters.index(row["answer"]) - turn) % len(letters)]
            turned["index"] = turn * 1000000 + row["index"]
            turned["image"] = row["image"] if turn == 0 else str(row["index"])
            rows.append(turned)
    return rows


def choice_predictions(draw, rows, circular=False):
    predictions, careful = {}, {}
    for row in rows:
        letters = [letter for letter in "ABCDEFGHIJ" if row.get(letter) is not None]
        group = row["index"] % 1000000 if circular else row["index"]
        careful.setdefault(group, draw.rng.random() < 0.6)
        right = row["answer"] if row["answer"] in letters else "A"
        wanted = right if careful[group] or draw.rng.random() < 0.4 else draw.pick(letters or ["A", "B"])
        text = str(row.get(wanted) or row["answer"])
        if circular and careful[group]:
            said = draw.pick([wanted, f"{wanted}. {text}", f"The answer is {wanted}.", f"({wanted})"])
            if draw.rng.random() < 0.12:
                said = "Let me think"
        else:
            said = phrase(draw, wanted, text)
        predictions[row["index"]] = said
    return predictions


def chartqa_table(draw):
    truths = ["14", "0.5", "12%", "yes", "Apple Pie", "0", "['3', '4']", "[7, 8.5]", "1,000", "2010", "-3", "1e3",
              "No", "38.50", "inf", "nan?", "['a', \"b\"]"]
    rows, predictions = [], {}
    for i in range(44):
        truth = truths[i % len(truths)]
        rows.append(dict(index=i, question=f"How much is it? [{i}]", answer=truth, split=draw.pick(["test_human", "test_augmented"]),
                         category=draw.pick(["a", "b"]), image=draw.picture()))
        predictions[i] = draw.pick([truth, truth, truth.upper(), f" {truth} ", truth + "%"]) if i % 2 else draw.pick([ 
            "14.6", "14.8", "0.12", "12", "3", "8.9", "1000", "١٤", "1_000", "2100", "2111", "b", "4", "apple pie", "-3.1", "0.0", "the answer"])
    return rows, predictions


def mathvista_table(draw):
    rows, predictions = [], {}
    for i in range(48):
        row = dict(index=i + 1, question=f"Hint: Please answer.\nQuestion: Which? [{i}]", image=draw.picture(),
                   task=draw.pick(["geometry problem solving", "figure question answering"]),
                   skills=draw.pick(["['algebraic reasoning', 'geometry reasoning']", "['statistical reasoning']"]),
                   category="math-targeted-vqa", split="testmini", choices=None, answer_option=None)
        kind = ["multi", "integer", "float", "list", "integer", "text"][i % 6]  # rows 2, 5 and 8 hold numbers
        if kind == "multi":
            options = draw.rng.sample(["145°", "3/11", "8/11", "Yes", "No", "ark angel", "7"], 4)
            row.update(question_type="multi_choice", answer_type="text", choices=repr(options),
                       answer_option=draw.pick("ABCD"))
            row["answer"] = options["ABCD".index(row["answer_option"])]
            said = draw.pick([row["answer_option"], row["answer"], f"({draw.pick('ABCD')})", "no idea at all", "Z"])
        elif kind == "integer":
            row.update(question_type="free_form", answer_type="integer", answer=str(draw.pick([14, 3, 0, 7])))
            said = draw.pick([row["answer"], f" {row['answer']} ", "14.0", "The answer is 3", "0", "+7", "many"])
        elif kind == "float":
            row.update(question_type="free_form", answer_type="float", answer=draw.pick(["1.2", "0.70", "3.0"]))
            said = draw.pick([row["answer"], "0.7", "1.20", "about 3", "3", "1.2 m"])
        else:
            row.update(question_type="free_form", answer_type=kind, answer="[2007, 2008]" if kind == "list" else "red")
            said = draw.pick([row["answer"], "blue", "[2007,2008]"])
        rows.append(row)
        predictions[row["index"]] = said
    # Zero is a number that counts as false.
    for index, said in ((2, "0"), (5, "0"), (8, "0.0")):
        rows[index - 1]["answer"] = "0"
        predictions[index] = said
    return rows, predictions


def mmvet_table(draw):
    rows, predictions = [], {}
    for i in range(16):
        rows.append(dict(index=i, question=f"What is x? [{i}]", answer=draw.pick(["-1<AND>-5", "cat<OR>dog", "7", "42"]),
                         category=draw.pick(["rec", "ocr,math", "rec,know,gen", "ocr,spat", "spat"]), image=draw.picture()))
        predictions[i] = draw.pick(["x = -1", "a cat | dog", "seven\nor eight", "42", "{}"])
    return rows, predictions


def yes_no_table(draw):
    rows, predictions = [], {}
    for i in range(36):
        rows.append(dict(index=i + 1, question=f"Is it red? [{i}]", answer=draw.pick(["Yes", "No"]), image=draw.picture(),
                         category=draw.pick(["existence", "colour"])))
        rows[-1]["l2-category"] = draw.pick(["x", "y"])
        predictions[i + 1] = draw.pick(YES_NO)
    return rows, predictions


YES_NO = ["Yes", "no", "Yes, it is.", "No, it is not", "yes/no", "The answer is yes", "nope", "YES!", "I cannot say",
          "Not yes but no", "yes.no", "'yes'", "(yes)", "1,000 times yes", "no;yes", "a-yes", "yes_", "It is. yes", "Yes\n",
          "eyes", "ye s", "no...", "3.yes", "yes.3", "well , yes", "[no]", "\"no\"", "no,", "Yes?No?", "knows", "是", "..." * 20 + " no .",
          ". " * 31 + "no.", ". " * 32 + "no."]

MMMU_RUNS = {"MMMU_DEV_VAL": "mmmu", "MMMU_Pro_10c": "mmmu-pro", "MMMU_Pro_10c_COT": "mmmu-pro-cot",
             "MMMU_Pro_V": "mmmu-pro-vision", "MMMU_Pro_V_COT": "mmmu-pro-vision-cot"}
PLAIN_RUNS = {"AI2D_TEST": ("ai2d", "plain"), "MMStar": ("mmstar", "split"), "RealWorldQA": ("realworldqa", "numbers"),
              "BLINK": ("blink", "BLINK"), "SEEDBench_IMG": ("seed", "lists"), "SEEDBench2_Plus": ("seed2-plus", "split")}
CIRCULAR_RUNS = {"MMBench_DEV_EN_V11": ("mmb", "split"), "MMBench_DEV_CN": ("mmb-cn", "CN"),
                 "BLINK_circular": ("blink-circular", "plain")}


def benchmarks():
    """(dataset, kind, class, rows, predictions, pool of the judge)"""
    for i, (dataset, (kind, style)) in enumerate(PLAIN_RUNS.items()):
        draw = Draw(SEED + i)
        rows = choice_table(draw, style)
        yield dataset, kind, "ImageMCQDataset", rows, choice_predictions(draw, rows), "choice"
    for i, (dataset, (kind, style)) in enumerate(CIRCULAR_RUNS.items()):
        draw = Draw(SEED + 100 + i)
        rows = circular_table(draw, style)
        yield dataset, kind, "ImageMCQDataset", rows, choice_predictions(draw, rows, True), "choice"
    for i, (dataset, kind) in enumerate(MMMU_RUNS.items()):
        draw = Draw(SEED + 200 + i)
        rows = choice_table(draw, "MMMU Pro" if "Pro" in dataset else "MMMU")
        if "Pro_V" in dataset:
            for row in rows:
                row["image"] = draw.picture()
                del row["question"]
        cls = "MMMUProDataset" if "Pro" in dataset else "MMMUDataset"
        yield dataset, kind, cls, rows, choice_predictions(draw, rows), "choice"
    yield "ChartQA_TEST", "chartqa", "ImageVQADataset", *chartqa_table(Draw(SEED + 300)), None
    yield "MathVista_MINI", "mathvista", "MathVista", *mathvista_table(Draw(SEED + 301)), "mathvista"
    yield "MMVet", "mm-vet", "MMVet", *mmvet_table(Draw(SEED + 302)), "mm_vet"
    yield "digits_yes_no", "yes-no", "ImageYORNDataset", *yes_no_table(Draw(SEED + 303)), "yes_no"
    yield "AMBER", "amber", "ImageYORNDataset", *yes_no_table(Draw(SEED + 304)), None


# ---- running them ---------------------------------------------------------------------------------------------------


def open_dataset(modules, cls, dataset, path):
    module = next(m for name, m in modules.items() if name.startswith("dataset.image") and hasattr(m, cls))
    kind = type(cls, (getattr(module, cls),), {"load_data": lambda self, _: modules["smp"].load(str(path))})
    return module, kind(dataset=dataset)


def prompts(data):
    """Parts of each prompt; a picture is the hash of its file's bytes as they stand in the table."""
    out = {}
    for i in range(len(data.data)):
        row = data.data.iloc[i]
        images = row["image"] if isinstance(row["image"], list) else [row["image"]]
        names = [f"{row['index']}_{k}.png" for k in range(len(images))] if len(images) > 1 or isinstance(row["image"], list) \
            else [f"{row['index']}.png"]
        shown = {name: hashlib.sha256(base64.b64decode(image)).hexdigest()[:16] for name, image in zip(names, images)}
        parts = [{"text": m["value"]} if m["type"] == "text" else {"picture": shown[os.path.basename(m["value"])]}
                 for m in data.build_prompt(row)]
        out[str(row["index"])] = parts
    return out


def table_of(frame):
    """Every number of a report: (split or None, label, value)."""
    rows = []
    for record in frame.to_dict("records"):
        split = record.pop("split", None)
        label = record.pop("Task&Skill", None) or record.pop("Category", None)
        for name, value in record.items():
            if isinstance(value, (int, float, np.floating)) and not pd.isna(value):
                rows.append([split, name if label is None else f"{label}|{name}", float(value)])
    # Splits come out of a set there, in an order of each process.
    return sorted(rows, key=lambda row: (row[0] or "", row[1]))


def hits(modules, cls, files, folder):
    load = modules["smp"].load
    if cls == "MathVista":
        data = load(files("_judge"))
        check = modules["dataset.utils.mathvista"].post_check
        return {str(i): float(check(data.iloc[k], prefetch=False)) for k, i in enumerate(data["index"])}
    if cls == "MMVet":
        data = load(files("_judge"))
        return {str(i): float(s) for i, s in zip(data["index"], data["score"])}
    if cls == "ImageVQADataset":
        data = load(files("_results"))
        return {str(i): float(max(ast.literal_eval(m.replace("np.True_", "True").replace("np.False_", "False")))) for i, m in zip(data["index"], data["eval_match"])}
    if cls == "ImageYORNDataset":
        data = load(files("_auxmatch"))
        return {str(i): float(s) for i, s in zip(data["index"], data["score"])}
    found = [p for p in folder.glob("*_result.xlsx")]
    data = load(str(found[0]))
    return {str(i): float(h) for i, h in zip(data["index"], data["hit"])}


def evaluate(modules, module, data, case, judge, scratch):
    dataset, _, cls, _, predictions, _ = case
    folder = Path(tempfile.mkdtemp(dir=scratch))
    frame = data.data.drop(columns="image")
    frame["prediction"] = [predictions[i] for i in frame["index"]]
    eval_file = str(folder / f"m_{dataset}.xlsx")
    modules["smp"].dump(frame, eval_file)
    module.build_judge = lambda **_: judge
    report = data.evaluate(eval_file, model="judge" if judge else "exact_matching", nproc=1)
    files = lambda suffix: eval_file.replace(".xlsx", f"{suffix}.xlsx")
    result = {"hits": hits(modules, cls, files, folder), "table": table_of(report)}
    if cls == "MMVet":
        fine = modules["smp"].load(files("_judge").replace(".xlsx", "_score_fine.csv"))
        result["fine"] = table_of(fine)
    if judge:
        result["calls"] = judge.calls
        result["prompts"] = sorted(hashlib.sha256(prompt.encode()).hexdigest()[:16] for prompt in judge.tries)
    return result


def run_case(modules, case, scratch):
    dataset, kind, cls, rows, predictions, pool = case
    frame = pd.DataFrame(rows)
    if frame.get("split") is not None and frame["split"].isna().all():
        del frame["split"]
    text = frame.to_csv(sep="\t", index=False)
    path = Path(scratch) / f"{dataset}.tsv"
    path.write_text(text)
    module, data = open_dataset(modules, cls, dataset, path)
    out = {"dataset": dataset, "kind": kind, "tsv": text, "prompts": prompts(data),
           "predictions": {str(k): v for k, v in predictions.items()}}
    if cls not in ("MathVista", "MMVet"):
        out["exact"] = evaluate(modules, module, data, case, None, scratch) if dataset != "AMBER" else None
    if pool:
        out["pool"] = pool
        out["judged"] = evaluate(modules, module, data, case, Judge(REPLIES[pool]), scratch)
    return out


# ---- single functions -----------------------------------------------------------------------------------------------

ANSWERS = [
    "A", "b", "C.", "(D)", "A. teddy bear", "The answer is B.", "the correct answer is **c**. Here's why: it is", "B or C",
    "teddy bear", "A teddy bear is shown", "I see a dog and a cat", "a dog", "It is a DOG!", "rabbit.", "answer is a rabbit",
    "Answer is\tD", "answer  is **A**", "The answer isB", "answer isn't A", "[B]", "{C}", "#A#", "A:", "*B*", "C,D", "Z", "(Z)",
    "E", "None", "Sorry, I can't help with images of people yet.", "I can't process this file. A", "Cannot determine the answer",
    "I'm sorry, but without the image provided I cannot say B", "Failed to obtain answer via API. B",
    "A because it is the only one that makes sense here", "It makes sense to say that the best option is A",
    "After a long and careful look at every part of the picture I choose\nC", "B B B", "A B", "C C", "ABCD", "A/B", "A-B",
    "A;B", "option A!", "“A”", "Ａ", "A\u00a0B", "A\u3000", "B\x1c", "ANSWER IS c", "anſwer is d", "answer ıs b", "Ⓑ",
    "The correct answer is D, not A", "answer is A and answer is B", "answer is Z", "answer is e", "猫", "选B", "选 B",
    "the moon is to the left of the tree", "Point A", "Point A is closer", "point b", "Point", "3/11", "It is 3/11.", "11",
    "12 cm", "12", "1.50", "1.5", "", " ", "\n", "ΟΔΟΣ", "οδος", "İstanbul", "i̇stanbul", "STRASSE", "straße",
    "a very long explanation " * 10 + "dog", "D) all of the above are wrong but d", "it's A.", "A?", "<A>", "A\n\nB", "A\nA",
    "my answer: B, since A is too small", "C is right. I am sure of it", "C is right. I am quite sure", "answer is *", "answer is",
    "B one two three", "B one two three four", "one B two three four", "one B two three four five",
]
CHOICES = [
    {"A": "teddy bear", "B": "rabbit", "C": "cat", "D": "dog"},
    {"A": "Point A", "B": "Point B"},
    {"A": "3/11", "B": 11, "C": 1.5, "D": "12 cm", "E": "猫"},
    {"A": "yes", "B": "no", "C": "answer", "D": ""},
    {"A": "ΟΔΟΣ", "B": "İstanbul", "C": "straße", "D": "The moon is to the left of the tree"},
]
RELAXED = [
    ("14", "14"), ("14", "14.6"), ("14", "14.7"), ("14", "14.71"), ("14", "13.3"), ("14", "13.29"), ("0", "0"), ("0", "0.0"),
    ("0", "-0"), ("0.0", "0"), ("12%", "12%"), ("12%", "0.12"), ("12%", "12"), ("12%", "0.126"), ("12%%", "0.12"), ("%", "%"),
    ("5 %", "0.05"), ("yes", "Yes"), ("yes", "yes."), ("1,000", "1000"), ("1,000", "1,000"), ("1_000", "1000"), ("1e3", "1000"),
    ("inf", "inf"), ("inf", "Infinity"), ("nan", "nan"), ("nan", "NaN"), ("-3", "-3.1"), ("-3", "3"), (".5", "0.5"), ("5.", "5"),
    ("٣", "3"), ("３", "3"), ("²", "2"), ("1e400", "1e400"), ("ΟΔΟΣ", "οδος"), ("ß", "SS"), ("İ", "i̇"), ("0x10", "16"), ("+5", "5"),
    ("5", "five"), ("2010", "2100"), ("2010", "2111"), ("1", "1.05"), ("100", "105"), ("100", "105.00000001"), ("3", "3.15"),
    ("0.1", "0.105"), ("0.3", "0.315"), ("7", "7.35"), ("1 000", "1000"), ("", ""), ("a", ""), ("$5", "5"), ("5", "$5"),
]


# Columns a to f of a file; each is typed by itself. A text column stands beside them, as in every benchmark.
COLUMNS = [
    ["1", "2", "3"], ["1", "", "3"], ["007", "+5", "-0"], ["1.50", "2", "x"], ["1.50", "2", "3e2"], ["true", "False", "TRUE"],
    ["true", "", "False"], ["True", "yes", "1"], ["NA", "N/A", "null"], ["None", "nan", "NULL"], ["none", "Nan", "na"], ["<NA>", "#N/A", "-nan"],
    [" 1", "2 ", " 3 "], [" 1.5", "2", "3 "], ["1_000", "2", "3"], ["1,000", "2", "3"], ["inf", "1", "2"], ["Infinity", "-inf", "1"],
    ["9223372036854775807", "1", "2"], ["-9223372036854775808", "1", "2"], ["0x10", "1", "2"], ["1e5", "2", "3"], ["1e400", "1", "2"],
    ["0.1", "0.30000000000000004", "1e-7"], ["1e22", "123456789.123", "5e-324"], ["1.", ".5", "-.5"], ["١", "2", "3"], ["１", "2", "3"],
    [" ", "1", "2"], ["", " ", "  "], ["a b", " a", "a "], ["'1'", "2", "3"], ["12%", "1", "2"], ["1e", "1", "2"], ["-", "1", "2"],
    ["+1", "-1", "1"], ["1.0", "2.0", ""], ["1 2", "3", "4"], ["e5", "1", "2"], ["1e+05", "1E-3", "2"], ["TRUE", "1", ""],
]
FILES_AS_THEY_ARE = [
    'index\tq\n1\t"a\tb"\n2\t"c ""d"" e"\n', 'index\tq\r\n1\ta\r\n2\tb\r\n', 'index\tq\n1\t"two\nlines"\n2\tb',
    'index\tq\n1\tab"cd"\n2\t"ab"cd\n', 'index\tq\n\n1\ta\n\n   \n2\tb\n\n', '\ufeffindex\tq\n1\ta\n', 'index\tq\tr\n1\ta\n2\tb\tc\n',
    'index\tq\n1\t""\n2\t"NA"\n', 'index\tq\n1\t"a"""\n2\t" b "\n', 'index\tq\n1\ta\r2\tb\n', 'index\tq\tq\n1\ta\tb\n', '"index"\t"q"\n"1"\t"a"\n',
    'index\tq\n1\ta\\tb\n2\tc\\"d\n', 'index\tq\n1\t#a\n', 'index\tq\n1\t"1"\n2\t"2"\n', 'index\tq\n1\tx\u2028y\n', 'index\tq\n1\t"a\r\nb"\n',
]


def cells(modules, scratch):
    """What VLMEvalKit's `load` makes of files, as `str()` prints it; null where a value is missing."""
    texts = [pd.DataFrame({"index": ["a", "b", "c"], "q": ["x", "y", "z"], "v": column}).to_csv(sep="\t", index=False)
             for column in COLUMNS]
    out = []
    for text in texts + FILES_AS_THEY_ARE:
        path = Path(scratch) / "cells.tsv"
        path.write_bytes(text.encode())
        frame = modules["smp"].load(str(path))
        # Every benchmark has a column of text, so that a row of it keeps the types of its columns.
        rows = [frame.astype(object).iloc[i] for i in range(len(frame))]
        values = [{name: None if pd.isna(row[name]) else f"{row[name]}" for name in frame.columns} for row in rows]
        out.append({"tsv": text, "rows": values})
    return out


def functions(modules):
    can_infer = modules["utils"].can_infer
    yorn, vqa = modules["dataset.utils.yorn"], modules["dataset.utils.vqa_eval"]
    infer = []
    for number, choices in enumerate(CHOICES):
        said = [can_infer(answer, dict(choices)) or None for answer in ANSWERS]
        infer.append({"choices": {k: str(v) for k, v in choices.items()}, "results": said})
    more = [w.replace(" ", s) for w in YES_NO for s in (" ", ", ", " - ")] + [f"{a} {b}" for a in YES_NO for b in YES_NO[:8]]
    texts = YES_NO + sorted(set(more) - set(YES_NO))
    return {
        "answers": ANSWERS, "infer": infer,
        "yes_no": [[text, yorn.YOrN_Extraction(text)] for text in texts],
        "relaxed": [[truth, said, bool(vqa.relaxed_correctness(truth, said))] for truth, said in RELAXED],
    }


def mm_vet_v2(git):
    """The prompt of MM-Vet v2's evaluator, with its own template and its own line that fills it."""
    source = subprocess.run(["git", f"--git-dir={git}", "show", f"{MM_VET_COMMIT}:v2/mm-vet-v2_evaluator.py"], check=True,
                            capture_output=True, text=True).stdout
    tree = ast.parse(source)
    assigns = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    template = next(node for node in assigns if node.targets[0].id == "prompt")
    fill = next(node for node in assigns if node.targets[0].id == "question")
    cases = []
    for query, answer, said in [("What is x?<image>", "-1<AND>-5", "x = -1\nor so"), ("<image>See\n<image>", "a<OR>b", "{} a")]:
        scope = {"query": query, "line": {"answer": answer}, "model_pred": said}
        exec(compile(ast.Module([template, fill], []), "mm-vet-v2_evaluator.py", "exec"), scope)
        cases.append([query, answer, said, scope["question"]])
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlmevalkit", required=True, help="git directory")
    parser.add_argument("--mm-vet", required=True, help="git directory")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        checkout(args.vlmevalkit, COMMIT, FILES, scratch)
        os.environ["LMUData"] = scratch
        modules = import_vlmevalkit(scratch)
        with contextlib.redirect_stdout(sys.stderr):
            cases = [run_case(modules, case, scratch) for case in benchmarks()]
        fixture = {
            "source": f"open-compass/VLMEvalKit {COMMIT}; yuweihao/MM-Vet {MM_VET_COMMIT}",
            "script": "scripts/reference/vlmevalkit.py", "seed": SEED,
            "versions": {"python": sys.version.split()[0], "pandas": pd.__version__, "numpy": np.__version__},
            "replies": REPLIES, "functions": functions(modules), "mm_vet_v2": mm_vet_v2(args.mm_vet), "runs": cases,
            "cells": cells(modules, scratch),
        }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(fixture, ensure_ascii=False, indent=0, sort_keys=True) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(cases)} runs")


if __name__ == "__main__":
    main()
