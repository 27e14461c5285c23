"""The worker of scripts/bench.py in PyTorch and transformers: the same work as examples/bench.rs on the same inputs.

    pip install -r scripts/reference/requirements.txt

Work is done once for each line on stdin, in float32: sdpa attention, `inference_mode` where there is no gradient, the
default (dynamic) cache, fused AdamW, TRL's `logits_to_keep` so that only completion positions reach the head, TRL's
`selective_log_softmax`. As in TRL, a picture stands in each row of its prompt, and `generate` expands the rows before it
reads the prompts.
"""

import argparse
import json
import sys
import time

import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, Qwen2_5_VLForConditionalGeneration
from trl.trainer.utils import selective_log_softmax

parser = argparse.ArgumentParser()
parser.add_argument("--work", choices=["rollout", "update", "score", "preprocess"], required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--inputs", required=True)
parser.add_argument("--samples", type=int, default=8)
parser.add_argument("--new-tokens", type=int, default=48)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--cache", default=None, help="cache_implementation of generate")
args = parser.parse_args()
torch.set_num_threads(args.threads)
inputs = load_file(args.inputs)


def load():
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def types(ids, model):
    """transformers 5 finds pictures by the type of a token: 1 on placeholders."""
    return (ids == model.config.image_token_id).int()


def rows_of_update(model):
    """8 rows over 2 prompts; the picture of a prompt stands in each of its rows, as in TRL."""
    responses = inputs["responses"]
    owner = torch.arange(len(responses)) // (len(responses) // 2)
    ids = torch.cat([inputs["prompts"][owner], responses], 1)
    patches = inputs["pixel_patches"].split(inputs["grid_thw"].prod(1).tolist())
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.cat([patches[at] for at in owner]),
        "image_grid_thw": inputs["grid_thw"][owner],
        "mm_token_type_ids": types(ids, model),
        "logits_to_keep": responses.shape[1] + 1,
    }


def log_probs(model, rows):
    logits = model(**rows).logits[:, :-1]
    return selective_log_softmax(logits, inputs["responses"])


def peak_mib():
    """Since this program began; `ru_maxrss` would count the one that started it."""
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def rollout():
    model = load()
    ids = inputs["prompts"]
    config = {"cache_implementation": args.cache} if args.cache else {}
    end = model.config.vision_start_token_id
    forbidden = [model.config.image_token_id, model.config.video_token_id, end, model.config.vision_end_token_id]

    def run():
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_patches"],
                image_grid_thw=inputs["grid_thw"], mm_token_type_ids=types(ids, model), do_sample=True, temperature=1.0,
                top_p=0.95, top_k=50, num_return_sequences=args.samples, max_new_tokens=args.new_tokens,
                suppress_tokens=forbidden, eos_token_id=end, pad_token_id=end, **config,
            )
        return float(out[:, ids.shape[1]:].numel())

    return run


def score():
    model = load()
    rows = rows_of_update(model)

    def run():
        with torch.inference_mode():
            return float(log_probs(model, rows).sum())

    return run


def update():
    model = load().train()
    rows = rows_of_update(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    advantages = inputs["advantages"].unsqueeze(1)
    budget = inputs["responses"].numel()

    def run():
        current = log_probs(model, rows)
        ratio = (current - current.detach()).exp()
        loss = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum() / budget
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)

    return run


def preprocess():
    processor = AutoImageProcessor.from_pretrained(args.model)
    pictures = list(inputs["pictures"].permute(0, 3, 1, 2))

    def run():
        return float(processor(images=pictures, return_tensors="pt")["pixel_values"].flatten()[::997].double().sum())

    return run


run = {"rollout": rollout, "score": score, "update": update, "preprocess": preprocess}[args.work]()
run()
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    check = run()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "check": check, "peak_mib": peak_mib()}), flush=True)
