"""Writes tiny random Qwen2.5-VL checkpoints and what transformers computes with them.

    pip install -r scripts/reference/requirements.txt      (transformers 5.23.0, trl 1.16.0, torch 2.15.0)
    HF_HUB_OFFLINE=1 python scripts/reference/qwen2_5_vl.py [OUT]

OUT is crates/ril-models/tests/fixtures/qwen2_5_vl unless given. It gets `images/` and one folder a checkpoint,
each with the files that users have, plus `golden.json` and `golden.safetensors`:

    nested   config.json as transformers 5 writes it, processor_config.json; untied; patches of 14 pixels
    flat     config.json, preprocessor_config.json and chat_template.json as on the hub; tied, one key-value head
    sharded  three text layers in several shards with an index; every head has its keys; gradients of every weight;
             an epsilon of the norms so large that a reader who ignores it is seen
    bf16     bfloat16 weights; tied; the goldens are computed in float32 from them

Everything golden comes from transformers and torch: prompt ids, patches, position ids, image embeddings, logits,
log-probs, greedy completions, and the gradient of a Dr.GRPO loss over a padded batch.
"""

import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import safetensors.torch
import tokenizers
import torch
import transformers
import trl
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from open_saved import encode, open_folder, response_ids

OUT = Path(__file__).parents[2] / "crates/ril-models/tests/fixtures/qwen2_5_vl"
SPECIAL = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> <|quad_start|>
<|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>""".split()
PLAIN = """<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>""".split()
BASE_VOCAB, VOCAB = 288, 312  # the embedding is wider than the tokenizer, as in the real models
IDS = {token: BASE_VOCAB + i for i, token in enumerate(SPECIAL + PLAIN)}
IM_END, PAD = IDS["<|im_end|>"], IDS["<|endoftext|>"]
STOP_IDS = [IM_END, PAD]
VISION_IDS = [IDS[f"<|{name}|>"] for name in ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")]
GREEDY_TOKENS, MAX_COMPLETION_LEN, EPSILON, BETA = 12, 16, 0.2, 0.01


@dataclass
class Folder:
    """One checkpoint: its architecture, its pixel limits and its conversations."""

    name: str
    seed: int
    text: dict
    vision: dict
    pixels: tuple[int, int]
    cases: dict[str, tuple[list, str]]
    batch: list[str]
    tied: bool = False
    save: dict = field(default_factory=dict)
    gradients: list[str] | None = None  # None: of every weight


def image(name):
    return {"type": "image", "image": str(name)}


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": list(content)}


def turn(role, words):
    return {"role": role, "content": words}


SOME_GRADIENTS = """model.embed_tokens.weight model.norm.weight lm_head.weight model.layers.0.input_layernorm.weight
model.layers.0.self_attn.q_proj.weight model.layers.0.self_attn.q_proj.bias model.layers.0.self_attn.k_proj.weight
model.layers.0.self_attn.k_proj.bias model.layers.1.self_attn.v_proj.weight model.layers.1.self_attn.v_proj.bias
model.layers.1.self_attn.o_proj.weight model.layers.1.mlp.down_proj.weight model.layers.0.mlp.gate_proj.weight
model.layers.1.post_attention_layernorm.weight visual.blocks.0.attn.qkv.weight visual.blocks.0.attn.qkv.bias
visual.blocks.1.attn.proj.weight visual.blocks.1.norm1.weight visual.blocks.1.mlp.up_proj.bias visual.merger.ln_q.weight
visual.merger.mlp.0.bias visual.merger.mlp.2.weight""".split()

FOLDERS = [
    Folder(
        "nested", 12,
        text=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=60.0, mrope_section=[1, 1, 2])),
        vision=dict(depth=3, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=14, window_size=56,
                    fullatt_block_indexes=[1]),
        pixels=(28 * 28 * 2, 28 * 28 * 16),
        cases={
            "text": ([user(text("What is 2 + 3?"))], "5."),
            "one_image": ([user(image("stripes.png"), text("What do you see?"))], "A cat."),
            "two_images": ([user(image("gray.png"), text("and "), image("stripes.png"), text("Are they the same?"))], "No, not so."),
        },
        batch=["two_images", "text", "one_image"],
        gradients=[name for name in SOME_GRADIENTS if "embed_tokens" not in name and "lm_head" not in name],
    ),
    Folder(
        "flat", 22,
        text=dict(hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                  rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=1000.0, mrope_section=[2, 3, 3])),
        vision=dict(depth=3, hidden_size=16, intermediate_size=20, num_heads=2, patch_size=4, window_size=16,
                    fullatt_block_indexes=[1]),
        pixels=(256, 960),
        tied=True,
        cases={
            "text": ([turn("system", "Be brief."), turn("user", "Où est l'été? 你好")], "Là."),
            "one_image": ([user(text("Look:\n"), image("tall.png"), text("What is it?"))], "It is a cat, I see."),
            "two_images": ([user(image("wide.png"), image("photo.png"), text("Which one is a cat?"))], "The first."),
        },
        batch=["text", "two_images", "one_image"],
        gradients=[*SOME_GRADIENTS, "visual.patch_embed.proj.weight"],
    ),
    Folder(
        "sharded", 33,
        text=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
                  rms_norm_eps=0.02, rope_parameters=dict(rope_type="default", rope_theta=200.0, mrope_section=[1, 1, 2])),
        vision=dict(depth=2, hidden_size=16, intermediate_size=20, num_heads=1, patch_size=4, window_size=24,
                    fullatt_block_indexes=[1]),
        pixels=(256, 960),
        save=dict(max_shard_size="60KB"),
        cases={
            "text": ([user(text("Say yes."))], "yes yes yes"),
            "one_image": ([user(image("wide.png"), text("What do you see?"))], "I see 7."),
            "two_turns": ([user(image("dot.png"), text("What is it?")), turn("assistant", "A dot."),
                           user(text("And this?"), image("tall.png"))], "A tree, I see."),
        },
        batch=["one_image", "two_turns", "text"],
    ),
    Folder(
        "bf16", 44,
        text=dict(hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3])),
        vision=dict(depth=4, hidden_size=16, intermediate_size=20, num_heads=2, patch_size=4, window_size=24,
                    fullatt_block_indexes=[0, 2]),
        pixels=(256, 960),
        tied=True,
        cases={
            "text": ([user(text("What is 2 + 3?"))], "5."),
            "one_image": ([user(image("photo.png"), text("What do you see?"))], "A sea."),
            "same_image_twice": ([user(image("tall.png"), image("dot.png"), image("tall.png"), text("Same?"))], "yes."),
        },
        batch=["one_image", "same_image_twice", "text"],
        gradients=["model.layers.0.self_attn.q_proj.weight", "visual.patch_embed.proj.weight", "visual.blocks.3.attn.qkv.bias"],
    ),
]


def write_images(folder):
    """Smooth pictures with a little noise; the sizes in the names' order are width x height."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    sizes = {"stripes": (84, 56), "gray": (45, 30), "tall": (24, 40), "wide": (56, 16), "photo": (71, 45), "dot": (9, 7)}
    for name, (width, height) in sizes.items():
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x * a + c) * np.cos(y * b - c) for a, b, c in rng.uniform(0.05, 0.6, (3, 3))]
        pixels = np.stack(waves, -1) * 100 + 128 + rng.integers(-4, 5, (height, width, 1))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        (picture.convert("L") if name == "gray" else picture).save(folder / f"{name}.png", optimize=True)


def make_tokenizer():
    """Byte-level BPE as Qwen's, with a handful of merges."""
    tokenizer = Tokenizer(models.BPE(fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(PRETOKENIZE_REGEX), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    corpus = ["system user assistant helpful You are a helpful assistant.", "What is it? What do you see? you see"] * 3
    trainer = trainers.BpeTrainer(vocab_size=BASE_VOCAB, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    assert tokenizer.get_vocab_size() == BASE_VOCAB
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLAIN])
    assert all(tokenizer.token_to_id(token) == i for token, i in IDS.items())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=131072)


def make_processor(spec):
    template = Path(trl.__file__).parent / "chat_templates/qwen2_5_vl.jinja"
    images = Qwen2VLImageProcessorPil(
        size=dict(shortest_edge=spec.pixels[0], longest_edge=spec.pixels[1]), patch_size=spec.vision["patch_size"])
    return Qwen2_5_VLProcessor(images, make_tokenizer(), Qwen2VLVideoProcessor(), chat_template=template.read_text())


@torch.no_grad()
def randomise(model):
    """Weights at which attention is peaked, logits spread, and no bias or norm is neutral."""
    for name, p in model.named_parameters():
        if "norm" in name or "ln_q" in name:
            p.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            p.normal_(0.0, 0.3)
        elif "embed_tokens" in name or "lm_head" in name:
            p.normal_(0.0, 2.5 / p.shape[1] ** 0.5)
        elif "o_proj" in name or "down_proj" in name:
            p.normal_(0.0, 2.0 / p.shape[1] ** 0.5)
        else:
            p.normal_(0.0, 1.2 / p[0].numel() ** 0.5)


def make_model(spec):
    torch.manual_seed(spec.seed)
    config = Qwen2_5_VLConfig(
        text_config=dict(spec.text, vocab_size=VOCAB, max_position_embeddings=4096, bos_token_id=PAD, eos_token_id=IM_END, pad_token_id=None),
        vision_config=dict(spec.vision, out_hidden_size=spec.text["hidden_size"], tokens_per_second=2),
        image_token_id=IDS["<|image_pad|>"], video_token_id=IDS["<|video_pad|>"], vision_start_token_id=IDS["<|vision_start|>"],
        vision_end_token_id=IDS["<|vision_end|>"], tie_word_embeddings=spec.tied)
    model = Qwen2_5_VLForConditionalGeneration(config)
    randomise(model)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=PAD, pad_token_id=PAD, eos_token_id=STOP_IDS,
        do_sample=True, temperature=1e-6, repetition_penalty=1.05)
    return model.eval()


def as_on_the_hub(spec, folder):
    """Rewrites configurations and template in the form that the released checkpoints have."""
    config = json.loads((folder / "config.json").read_text())
    inner, vision = config["text_config"], config["vision_config"]
    keep = ("attention_dropout bos_token_id hidden_act hidden_size initializer_range intermediate_size max_position_embeddings "
            "num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps use_cache use_sliding_window vocab_size").split()
    rope = spec.text["rope_parameters"]
    flat = {k: config[k] for k in ("architectures", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    flat |= {k: inner[k] for k in keep}
    flat |= dict(
        model_type="qwen2_5_vl", vision_token_id=IDS["<|vision_pad|>"], eos_token_id=IM_END, max_window_layers=70, sliding_window=32768,
        tie_word_embeddings=spec.tied, torch_dtype="float32", transformers_version="4.41.2", rope_theta=rope["rope_theta"],
        rope_scaling=dict(type="mrope", mrope_section=rope["mrope_section"]),
        vision_config=dict(
            {k: vision[k] for k in "depth hidden_act hidden_size intermediate_size num_heads out_hidden_size patch_size "
             "spatial_merge_size window_size fullatt_block_indexes tokens_per_second temporal_patch_size".split()},
            in_chans=3, spatial_patch_size=vision["patch_size"]))
    (folder / "config.json").write_text(json.dumps(flat, indent=2) + "\n")
    processor = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    hub = dict(min_pixels=spec.pixels[0], max_pixels=spec.pixels[1], image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen2_5_VLProcessor")
    hub |= {k: processor[k] for k in "patch_size temporal_patch_size merge_size image_mean image_std".split()}
    (folder / "preprocessor_config.json").write_text(json.dumps(hub, indent=2) + "\n")
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps(dict(chat_template=template.read_text()), indent=2) + "\n")
    template.unlink()


def write_checkpoint(spec, folder):
    model = make_model(spec)
    if spec.name == "bf16":
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder, **spec.save)
    make_processor(spec).save_pretrained(folder)
    if spec.name == "flat":
        as_on_the_hub(spec, folder)


def hub_name(parameter):
    return parameter.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


class Golden:
    """What transformers makes of one folder, read back from disk as a user would."""

    def __init__(self, spec, folder, images):
        self.spec, self.images, self.tensors = spec, images, {}
        self.processor, self.model = open_folder(folder)
        assert isinstance(self.processor.image_processor, Qwen2VLImageProcessorPil)

    def keep(self, name, tensor):
        self.tensors[name] = tensor.detach().float().contiguous().clone()

    def image(self, name):
        """Patches and grid of one image alone."""
        picture = Image.open(self.images / name)
        out = self.processor.image_processor([picture.convert("RGB")], return_tensors="pt")
        grid = out["image_grid_thw"][0].tolist()
        side = self.spec.vision["patch_size"]
        self.keep(f"image.{name}.pixel_patches", out["pixel_values"])
        return dict(grid_thw=grid, resized=(grid[2] * side, grid[1] * side) != picture.size)

    def encode(self, messages):
        """The processor's output for a conversation whose images are file names."""
        filled = json.loads(json.dumps(messages), object_hook=lambda d: d | {"image": str(self.images / d["image"])} if "image" in d else d)
        return encode(self.processor, filled)

    def positions(self, ids, grids, mask=None):
        types = (ids == IDS["<|image_pad|>"]).int()
        return self.model.model.get_rope_index(ids, types, image_grid_thw=grids, attention_mask=mask)[0]

    def logits(self, ids, pixels, grids, mask=None):
        positions = self.positions(ids, grids, mask)
        mask = torch.ones_like(ids) if mask is None else mask
        return self.model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pixels, image_grid_thw=grids).logits

    @torch.no_grad()
    def case(self, name, messages, response):
        inputs = self.encode(messages)
        prompt = inputs["input_ids"]
        pixels, grids = inputs.get("pixel_values"), inputs.get("image_grid_thw")
        files = [part["image"] for m in messages if isinstance(m["content"], list) for part in m["content"] if "image" in part]
        if files:
            assert torch.equal(pixels, torch.cat([self.tensors[f"image.{f}.pixel_patches"] for f in files]))
            self.keep(f"case.{name}.image_embeddings", torch.cat(self.model.model.get_image_features(pixels, grids).pooler_output))
        answer = response_ids(self.processor, response)
        ids = torch.cat([prompt, answer], 1)
        logits = self.logits(ids, pixels, grids)
        own = self.model(input_ids=ids, pixel_values=pixels, image_grid_thw=grids, mm_token_type_ids=(ids == IDS["<|image_pad|>"]).int())
        assert (own.logits - logits).abs().max() < 1e-5, "position ids are not the model's own"
        kept = [i for i in range(ids.shape[1]) if i >= prompt.shape[1] - 2 or i % 11 == 0]
        self.keep(f"case.{name}.logits", logits[0, kept])
        log_probs = logits.log_softmax(-1)[0, prompt.shape[1] - 1 : -1].gather(1, answer.T)[:, 0]
        self.keep(f"case.{name}.log_probs", log_probs)
        completion, margin = self.greedy(inputs)
        return dict(
            messages=messages, images=files, prompt_ids=prompt[0].tolist(), response=response, response_ids=answer[0].tolist(),
            position_ids=self.positions(ids, grids)[:, 0].tolist(), logit_positions=kept, greedy_ids=completion, greedy_margin=margin)

    def greedy(self, inputs):
        """Most likely tokens, vision ids excluded; and the smallest lead of a winner over the runner-up."""
        plain = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=GREEDY_TOKENS, suppress_tokens=VISION_IDS, eos_token_id=STOP_IDS, pad_token_id=PAD,
            output_scores=True, return_dict_in_generate=True)
        self.model.generation_config = plain  # the folder's own asks for a repetition penalty
        out = self.model.generate(**inputs)
        best = torch.cat(out.scores).topk(2).values
        return out.sequences[0, inputs["input_ids"].shape[1] :].tolist(), round((best[:, 0] - best[:, 1]).min().item(), 4)

    def batch(self, cases):
        """Left-padded prompts, right-padded responses, their logits, and the gradient of a Dr.GRPO loss."""
        names = self.spec.batch
        inputs = [self.encode(self.spec.cases[name][0]) for name in names]
        prompt_len = max(len(cases[n]["prompt_ids"]) for n in names)
        response_len = max(len(cases[n]["response_ids"]) for n in names)
        ids = torch.full((len(names), prompt_len + response_len), PAD)
        mask = torch.zeros_like(ids)
        for row, name in enumerate(names):
            prompt, response = cases[name]["prompt_ids"], cases[name]["response_ids"]
            real = slice(prompt_len - len(prompt), prompt_len + len(response))
            ids[row, real], mask[row, real] = torch.tensor(prompt + response), 1
        pixels = torch.cat([i["pixel_values"] for i in inputs if "pixel_values" in i])
        grids = torch.cat([i["image_grid_thw"] for i in inputs if "image_grid_thw" in i])
        logits = self.logits(ids, pixels, grids, mask)
        for row, name in enumerate(names):  # padding does not change a row: its logits are those of the case
            alone = self.tensors[f"case.{name}.logits"]
            start = prompt_len - len(cases[name]["prompt_ids"])
            assert (logits[row, [start + i for i in cases[name]["logit_positions"]]] - alone).abs().max() < 1e-5
        response_mask = mask[:, prompt_len:].float()
        log_probs = logits[:, prompt_len - 1 : -1].log_softmax(-1).gather(2, ids[:, prompt_len:, None])[..., 0]
        generator = torch.Generator().manual_seed(self.spec.seed)
        noise = torch.randn(2, *log_probs.shape, generator=generator)
        old, ref = log_probs.detach() + 0.3 * noise[0], log_probs.detach() + 0.2 * noise[1]
        advantages = torch.tensor([1.0, -0.75, 0.5])
        ratio = (log_probs - old).exp() * 1.0
        surrogate = torch.minimum(ratio * advantages[:, None], ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages[:, None])
        k3 = (ref - log_probs).exp() - (ref - log_probs) - 1
        loss = ((BETA * k3 - surrogate) * response_mask).sum() / (len(names) * MAX_COMPLETION_LEN)
        self.model.zero_grad()
        loss.backward()
        gradients = {hub_name(n): p.grad for n, p in self.model.named_parameters()}
        assert all(g.norm() > 1e-5 for g in gradients.values()), "a weight does not matter"
        chosen = [n for n in gradients if self.spec.gradients is None or n in self.spec.gradients]
        for name in chosen:
            self.keep(f"gradient.{name}", gradients[name])
        for key, value in dict(log_probs=log_probs, old_log_probs=old, ref_log_probs=ref).items():
            self.keep(f"batch.{key}", value * response_mask)
        return dict(
            cases=names, prompt_len=prompt_len, ids=ids.tolist(), mask=mask.tolist(), position_ids=self.positions(ids, grids, mask).tolist(),
            advantages=advantages.tolist(), epsilon=EPSILON, beta=BETA, max_completion_len=MAX_COMPLETION_LEN,
            loss=loss.item(), gradients=chosen)

    @torch.no_grad()
    def effects(self, case):
        """How far the logits move when one thing is done wrong: each must be far above the tests' tolerance."""
        inputs = self.encode(self.spec.cases[case][0])
        ids, pixels, grids = inputs["input_ids"], inputs["pixel_values"], inputs["image_grid_thw"]
        right, positions = self.logits(ids, pixels, grids), self.positions(ids, grids)
        run = lambda **kw: self.model(**(dict(input_ids=ids, position_ids=positions, pixel_values=pixels, image_grid_thw=grids) | kw)).logits
        away = lambda logits: round((logits - right)[:, -1].abs().max().item(), 4)
        visual = self.model.model.visual
        effects = dict(
            positions_without_axes=away(run(position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1))),
            height_and_width_swapped=away(run(position_ids=positions[[0, 2, 1]])),
            temporal_and_width_swapped=away(run(position_ids=positions[[2, 1, 0]])),
            no_image=away(run(pixel_values=pixels * 0)))
        before, visual.fullatt_block_indexes = visual.fullatt_block_indexes, list(range(len(visual.blocks)))
        effects["full_attention_everywhere"] = away(run())
        visual.fullatt_block_indexes = []
        effects["windows_everywhere"] = away(run())
        visual.fullatt_block_indexes = before
        assert min(effects.values()) > 1e-2, effects
        return effects


def dump(value, path):
    """JSON with one line a list of numbers."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    path.write_text(re.sub(r"\[[\d\s,.\-e]*\]", lambda m: re.sub(r"\s+", "", m[0]).replace(",", ", "), text) + "\n")


def write_golden(spec, folder, images):
    golden = Golden(spec, folder, images)
    used = sorted({m for messages, _ in spec.cases.values() for m in re.findall(r"'image': '([^']+)'", str(messages))})
    pictures = {name: golden.image(name) for name in used}
    cases = {name: golden.case(name, *case) for name, case in spec.cases.items()}
    versions = {m.__name__: m.__version__ for m in (transformers, torch, trl, tokenizers, np, PIL)}
    record = dict(
        script="scripts/reference/qwen2_5_vl.py", seed=spec.seed, versions=versions, stop_ids=STOP_IDS, forbidden_ids=VISION_IDS, pad_id=PAD,
        images=pictures, cases=cases, batch=golden.batch(cases), effects=golden.effects(list(spec.cases)[2]))
    dump(record, folder / "golden.json")
    safetensors.torch.save_file(golden.tensors, folder / "golden.safetensors", metadata={"reference": json.dumps(dict(seed=spec.seed) | versions)})
    spread = golden.tensors["case.one_image.logits"].std(-1).mean().item()
    margin = min(case["greedy_margin"] for case in cases.values())
    assert spread > 1.0 and margin > 1e-2, (spread, margin)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{spec.name}: {size} bytes, logits spread {spread:.2f}, greedy margin {margin}, effects {record['effects']}")


def write_sampling(path, vocabulary=40, seed=20):
    """What transformers' own chain of logits processors makes of random logits: the processed log-probs, -inf as null."""
    torch.manual_seed(seed)
    model, cases = make_model(FOLDERS[0]), []
    for index in range(32):
        settings = dict(
            temperature=[1.0, 0.7, 1.6, 0.2][index % 4], top_k=[0, 5, 12, 1][index // 4 % 4], top_p=[1.0, 0.9, 0.5, 0.99][(index + index // 4) % 4],
            repetition_penalty=[1.0, 1.3, 0.8][index % 3])
        forbidden = [[], [3, 17]][index // 2 % 2]
        logits, seen = torch.randn(1, vocabulary) * 3, torch.randint(vocabulary, (1, 9))
        # top_k=0 of a GenerationConfig switches the warper off, as it does here.
        config = transformers.GenerationConfig(do_sample=True, suppress_tokens=forbidden or None, **settings)
        chain = model._get_logits_processor(config, input_ids_seq_length=9, logits_processor=transformers.LogitsProcessorList(), device="cpu")
        log_probs = chain(seen, logits.clone()).log_softmax(-1)[0]
        kept = [None if value == -torch.inf else value for value in log_probs.tolist()]
        cases.append(dict(settings, forbidden=forbidden, seen=seen[0].tolist(), logits=logits[0].tolist(), log_probs=kept))
    versions = {m.__name__: m.__version__ for m in (transformers, torch)}
    path.write_text(json.dumps(dict(script="scripts/reference/qwen2_5_vl.py", seed=seed, versions=versions, cases=cases)) + "\n")


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    torch.set_num_threads(1)
    for spec in FOLDERS:
        shutil.rmtree(out / spec.name, ignore_errors=True)
    shutil.rmtree(out / "images", ignore_errors=True)
    write_images(out / "images")
    for spec in FOLDERS:
        write_checkpoint(spec, out / spec.name)
        write_golden(spec, out / spec.name, out / "images")
    write_sampling(out / "sampling.json")


if __name__ == "__main__":
    main()
