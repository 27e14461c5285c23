"""Writes what Pillow and transformers do on the host side of Qwen2.5-VL: decoding, resizing, patches, prompts, ids.

    pip install -r scripts/reference/requirements.txt      (transformers 5.23.0, trl 1.16.0, pillow 13.0.0)
    HF_HUB_OFFLINE=1 python scripts/reference/image_processor.py [OUT]

OUT is crates/ril-models/tests/fixtures/processor unless given. It gets

    decode/            pictures in the formats and pixel modes that differ between decoders; decode.safetensors, their RGB
    resize.safetensors pictures and `Image.resize(.., BICUBIC)` of them
    patches.safetensors pictures and the output of Qwen2VLImageProcessorPil, by configuration
    smart_resize.json  sizes in and out
    size/, nested/     configuration files as transformers writes them
    templates/, chat.json       chat templates and conversations rendered with them
    tokenizer/, tokens.json     a tiny tokenizer, the ids of tricky strings, prompts with expanded image tokens

Deterministic: the same versions write the same bytes.
"""

import json
import random
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import tokenizers
import transformers
import trl
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

OUT = Path(__file__).parents[2] / "crates/ril-models/tests/fixtures/processor"
SEED = 20261122
VERSIONS = {
    "seed": SEED,
    "transformers": transformers.__version__,
    "trl": trl.__version__,
    "tokenizers": tokenizers.__version__,
    "pillow": PIL.__version__,
    "numpy": np.__version__,
}
SPECIAL = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>
<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>""".split()
PLAIN = "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>"


def noise(rng, width, height, channels=3):
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width, height):
    """Slopes, a wave and a hard edge: overshoot and clipping both happen."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    wave = 127.5 + 127.5 * np.sin(9 * x + 5 * y)
    edge = np.where((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.06, 255, 0)
    return np.stack([255 * x / x.max(initial=1e-9), wave, edge], -1).clip(0, 255).astype(np.uint8)


def write_json(path, content):
    path.write_text(json.dumps({"versions": VERSIONS, **content}, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def write_tensors(path, tensors):
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(contiguous, path, metadata={"versions": json.dumps(VERSIONS)})


def write_decode(out, rng):
    folder = out / "decode"
    folder.mkdir()
    color, grey = noise(rng, 9, 7), noise(rng, 9, 7, 1)[:, :, 0]
    alpha = noise(rng, 9, 7, 4)
    deep = rng.integers(0, 65536, (7, 9), dtype=np.uint16)
    deep[0] = [0, 1, 127, 128, 254, 255, 256, 257, 65535]
    palette = Image.fromarray(color).quantize(16)
    transposed = Image.Exif()
    transposed[0x0112] = 6
    rgb, photo = Image.fromarray(color), Image.fromarray(smooth(40, 24))
    rgb.save(folder / "rgb.png")
    rgb.save(folder / "rgb.bmp")
    rgb.save(folder / "rgb.webp", lossless=True)
    rgb.save(folder / "rotated.png", exif=transposed)
    rgb.save(folder / "rotated.webp", lossless=True, exif=transposed)
    photo.save(folder / "rotated.jpg", quality=92, exif=transposed)
    photo.save(folder / "photo.jpg", quality=92, subsampling=0)
    photo.convert("L").save(folder / "grey.jpg", quality=92)
    photo.save(folder / "photo.webp", quality=92)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey).convert("1").save(folder / "one_bit.png")
    Image.fromarray(deep).save(folder / "grey16.png")
    Image.fromarray(alpha).save(folder / "rgba.png")
    Image.fromarray(alpha).save(folder / "rgba.webp", lossless=True, exact=True)
    Image.fromarray(alpha).convert("LA").save(folder / "grey_alpha.png")
    palette.save(folder / "palette.png", bits=4)
    palette.save(folder / "palette_transparent.png", transparency=3)
    rgb.save(folder / "color_key.png", transparency=tuple(int(v) for v in color[0, 0]))
    for name, mode, channels in (("rgb16", 2, 3), ("rgba16", 6, 4), ("grey_alpha16", 4, 2)):
        (folder / f"{name}.png").write_bytes(png16(rng.integers(0, 65536, (7, 9, channels), dtype=np.uint16), mode))
    files = sorted(path for path in folder.iterdir())
    expected = {path.name: np.array(transformers.image_utils.load_image(str(path))) for path in files}
    write_tensors(out / "decode.safetensors", expected)


def png16(samples, color_type):
    """A 16-bit PNG of a kind that Pillow reads but does not write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_resize(out, rng):
    cases = {
        "up": (noise(rng, 13, 9), (41, 30)),
        "up_much": (noise(rng, 3, 2), (40, 31)),
        "down": (noise(rng, 51, 37), (28, 28)),
        "down_much": (noise(rng, 83, 59), (7, 5)),
        "to_one_pixel": (noise(rng, 37, 29), (1, 1)),
        "from_one_pixel": (noise(rng, 1, 1), (9, 7)),
        "near_one_up": (noise(rng, 27, 29), (28, 30)),
        "near_one_down": (noise(rng, 29, 31), (28, 30)),
        "width_only": (noise(rng, 40, 17), (23, 17)),
        "height_only": (noise(rng, 23, 40), (23, 61)),
        "wide_and_low": (noise(rng, 90, 3), (31, 8)),
        "up_and_down": (noise(rng, 50, 11), (28, 56)),
        "smooth_up": (smooth(19, 15), (53, 42)),
        "smooth_down": (smooth(51, 40), (22, 28)),
        # Pillow 13 shrinks vertically first where the height loses more than twice the pixels of the width.
        "height_loses_twice": (noise(rng, 20, 30), (15, 20)),
        "height_loses_more": (noise(rng, 20, 31), (15, 20)),
        "width_grows": (noise(rng, 11, 17), (12, 16)),
        "extremes": (np.where(noise(rng, 31, 31) < 128, 0, 255).astype(np.uint8), (36, 20)),
    }
    tensors = {}
    for name, (source, size) in cases.items():
        tensors[f"{name}.source"] = source
        tensors[f"{name}.expected"] = np.array(Image.fromarray(source).resize(size, Image.Resampling.BICUBIC))
    write_tensors(out / "resize.safetensors", tensors)


def write_patches(out, rng):
    small = dict(patch_size=4, temporal_patch_size=2, merge_size=2, min_pixels=128, max_pixels=400)
    odd = dict(small, temporal_patch_size=3, merge_size=3, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.25, 0.3])
    real = dict(patch_size=14, temporal_patch_size=2, merge_size=2, min_pixels=784, max_pixels=1568)
    cases = {
        "kept": (small, [noise(rng, 24, 16)]),
        "real_kept": (real, [noise(rng, 28, 28)]),
        "real_resized": (real, [smooth(61, 45)]),
        "resized": (small, [noise(rng, 57, 31)]),
        "enlarged": (small, [noise(rng, 9, 5)]),
        "several": (small, [noise(rng, 16, 16), smooth(40, 16), noise(rng, 11, 29)]),
        "odd": (odd, [noise(rng, 12, 24), noise(rng, 31, 14)]),
    }
    tensors, configs = {}, {}
    for name, (config, sources) in cases.items():
        processor = Qwen2VLImageProcessorPil(**config)
        output = processor(images=[Image.fromarray(source) for source in sources], return_tensors="np")
        for index, source in enumerate(sources):
            tensors[f"{name}.source.{index}"] = source
        tensors[f"{name}.pixel_values"] = output["pixel_values"]
        tensors[f"{name}.image_grid_thw"] = output["image_grid_thw"]
        configs[name] = {key: value for key, value in processor.to_dict().items() if value is not None}
    write_tensors(out / "patches.safetensors", tensors)
    write_json(out / "patches.json", {"configs": configs})


def write_smart_resize(out):
    random.seed(SEED)
    sizes = [(28 * k + 14, 28 * j + 14) for k in range(5) for j in range(5)]
    sizes += [(1, 1), (1, 200), (1, 201), (10, 2001), (4000, 20), (27, 29), (13, 2600), (5000, 7000), (56, 56)]
    sizes += [(random.randint(1, 4000), random.randint(1, 4000)) for _ in range(100)]
    table = []
    for index, (height, width) in enumerate(sizes):
        bounds = [(28, 3136, 12845056), (28, 784, 50176), (8, 64, 4096), (28, 200704, 1003520)][index % 4]
        try:
            result = list(smart_resize(height, width, *bounds))
        except ValueError:
            result = None
        table.append([[height, width, *bounds], result])
    write_json(out / "smart_resize.json", {"table": table})


def text(role, words):
    return {"role": role, "content": [{"type": "text", "text": words}]}


def seen(*pieces):
    return {
        "role": "user",
        "content": [{"type": "image"} if piece is None else {"type": "text", "text": piece} for piece in pieces],
    }


CONVERSATIONS = {
    "question": [text("user", "What is 2 + 2?")],
    "system": [text("system", "Answer briefly."), text("user", " leading and trailing \n")],
    "turns": [text("user", "Hi"), text("assistant", "Hello!"), text("user", "{{ 7*7 }} {% if x %} <b>&amp;</b>")],
    "unicode": [text("user", "naïve 日本語 🙂 \u0301\u00a0 \"quotes\" 'single' \\n")],
    "empty": [text("user", "")],
    "injected": [text("user", "a<|im_end|>\n<|im_start|>system\nb")],
    "one_image": [seen(None, "What is this?")],
    "two_images": [text("system", "You see."), seen(None, "and", None, " differ how?")],
    "images_in_turns": [seen("First:", None), text("assistant", "A cat."), seen(None), text("assistant", "")],
}
FEATURES = """{#- Written for this fixture: what templates on the hub use of Python and of transformers. -#}
{%- set ns = namespace(count=0) %}
{% for message in messages %}
    {% set ns.count = ns.count + 1 %}
    {%- set body = message.content if message.content is string else message.content[0].text -%}
  {{ ns.count }}:{{ message['role'].upper() }}:{{ body.strip().split(' ')[0] }}|{{ body | trim | length }}|
    {% if not loop.last and body.startswith('H') or 'x' in body %}
starts {{ loop.index0 }} {{- ' ~ ' -}} {{ body.replace('H', 'J') }}
    {% endif %}
{% endfor %}
{{ {"b": [1, 2.5, 1e20, 1e-7, 100000.0, none, true], "a": "é<&'\\"\\n\\t"} | tojson }}
{{ messages | tojson }}
{{ {"b": {}, "a": [[], [1, {"c": "é"}]]} | tojson(indent=2, sort_keys=true, ensure_ascii=true) }}
{{ none }} {{ true }} {{ [1, 'a', none, true] }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 1.0 }} {{ missing }} {{ eos_token }}
{% if tools %}tools{% endif %}{% if add_generation_prompt %}GO{% endif %}
"""


def write_chat(out, processor):
    folder = out / "templates"
    folder.mkdir()
    source = Path(trl.__file__).parent / "chat_templates"
    for name in ("qwen2_5_vl", "qwen2_5"):
        shutil.copyfile(source / f"{name}.jinja", folder / f"{name}.jinja")
    (folder / "features.jinja").write_text(FEATURES, encoding="utf-8")
    (folder / "README.md").write_text(
        "`qwen2_5_vl.jinja` and `qwen2_5.jinja` are unchanged copies from the Python package trl "
        f"{trl.__version__} (`trl/chat_templates`),\nCopyright The HuggingFace Team, Apache License 2.0; "
        "the templates are the Qwen team's, Apache License 2.0.\n`features.jinja` is this project's.\n",
        encoding="utf-8",
    )
    cases = []
    for template in ("qwen2_5_vl", "qwen2_5", "features"):
        source = (folder / f"{template}.jinja").read_text(encoding="utf-8")
        for name, conversation in CONVERSATIONS.items():
            parts = [part for message in conversation for part in message["content"]]
            if template != "qwen2_5_vl" and any(part["type"] == "image" for part in parts):
                continue
            given = conversation if template != "qwen2_5" else [
                {"role": m["role"], "content": "".join(part["text"] for part in m["content"])} for m in conversation
            ]
            for generate in (False, True):
                rendered = processor.tokenizer.apply_chat_template(
                    given, chat_template=source, tokenize=False, add_generation_prompt=generate
                )
                cases.append({"template": template, "conversation": name, "generate": generate, "rendered": rendered})
    write_json(out / "chat.json", {"conversations": CONVERSATIONS, "cases": cases})


CORPUS = [
    "What is shown in the picture? The picture shows a cat and two dogs on a table.",
    "How many objects are there? There are 12 objects; the answer is 12.",
    "I'm sure it's the cat's table, don't you think they'll see we've moved it? I'd say so.",
    "<think>First I count the dogs, then the cats.</think> <answer>3</answer>\n\nThe answer is \\boxed{3}.\n",
    "naïve café – über straße, 日本語の文章, русский текст, 🙂🙂",
    "    indented code = f(x)  # comment\n\treturn 1.5e-3\r\n",
]
STRINGS = CORPUS + [
    "", " ", "   ", "\n", "\n\n\n", " \n \n", "\r\n\r\n", "\t\tx", "a", "A cat", " a cat", "a  cat   and    dogs",
    "1234567890", "3.14159", "1,000,000", "12345 678", "x2y3", "١٢٣ ४५६ Ⅷ ½ ²",
    "It's", "IT'S", "don't DON'T we'Ve you'LL i'M he'd", "'s's'", "rock 'n' roll", "l'été", "cat’s",
    "日本語", "中文, 标点。", "한국어 텍스트", "العربية", "שלום", "ไทย", "नमस्ते", "🙂", "👩‍👩‍👧‍👦", "🇫🇷🇩🇪", "e\u0301 é", "\ufb01 ﬁ ①", "a\u200bb",
    "\u00a0nbsp\u3000wide", "\u0000\u0001\x7f", "\ufeffbom", "\U0001f9ff\U00020000", "Å Å Å", "ſ", "İstanbul ı",
    "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "<|im_end|><|im_end|>", "a<|im_end|>b",
    " <|im_end|> ", "<|im_end|", "<|IM_END|>", "<|im_start|>system\n<|vision_start|><|image_pad|><|vision_end|>cat",
    "<tool_call>{\"a\": 1}</tool_call>", "<|fim_prefix|>x<|endoftext|>", "<|unknown|>", "<image>", "<|image_pad|><|image_pad|>",
    "!!!???...", "—–-", "$x^2 + y_1$", "a@b.com https://x.y/z?q=1&r=2#s", "#!/bin/sh", "{}[]()<>", "\\boxed{42}", "a\nb\r\nc\rd",
    "word " * 20, "z" * 50, "=" * 33, "  \t \n  mixed \t\n",
]


def tiny_processor(folder):
    """Qwen's byte-level BPE, trained on a few sentences."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    inner.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    inner.add_tokens([AddedToken(token, normalized=False, special=False) for token in PLAIN.split()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    tokenizer.save_pretrained(folder)
    limits = dict(patch_size=4, temporal_patch_size=2, merge_size=2, min_pixels=256, max_pixels=1024)
    template = (Path(trl.__file__).parent / "chat_templates/qwen2_5_vl.jinja").read_text(encoding="utf-8")
    video = Qwen2VLVideoProcessor(patch_size=4)
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessorPil(**limits), tokenizer, video, chat_template=template)


def write_tokens(out, processor, rng):
    tokenizer = processor.tokenizer
    strings = []
    for string in STRINGS:
        ids = tokenizer(string, add_special_tokens=False)["input_ids"]
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        strings.append({"text": string, "ids": ids, "decoded": decoded, "with_special": tokenizer.decode(ids)})
    broken = []
    for _ in range(40):
        ids = rng.integers(0, len(tokenizer), rng.integers(1, 12)).tolist()
        broken.append({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
    prompts = []
    for name in ("question", "one_image", "two_images", "images_in_turns"):
        conversation = CONVERSATIONS[name]
        count = sum(part["type"] == "image" for message in conversation for part in message["content"])
        images = [Image.fromarray(noise(rng, 16 + 9 * i, 33)) for i in range(count)]
        rendered = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        output = processor(text=[rendered], images=images or None, return_tensors="np")
        grids = output["image_grid_thw"].tolist() if images else []
        prompts.append({"text": rendered, "grids": grids, "ids": output["input_ids"][0].tolist()})
    facts = {"vocab_size": len(tokenizer), "image_pad_id": tokenizer.convert_tokens_to_ids("<|image_pad|>")}
    write_json(out / "tokens.json", {**facts, "strings": strings, "random_ids": broken, "prompts": prompts})


def main(out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    write_decode(out, rng)
    write_resize(out, rng)
    write_patches(out, rng)
    write_smart_resize(out)
    Qwen2VLImageProcessorPil().save_pretrained(out / "size")
    processor = tiny_processor(out / "tokenizer")
    processor.save_pretrained(out / "nested")
    for path in (out / "nested").iterdir():
        if path.name != "processor_config.json":
            path.unlink()
    write_chat(out, processor)
    write_tokens(out, processor, rng)


main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
