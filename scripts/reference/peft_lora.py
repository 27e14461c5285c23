"""Puts random LoRA adapters on the tiny checkpoints with PEFT, and records what they compute.

    pip install -r scripts/reference/requirements.txt      (peft 0.21.2, transformers 5.23.0, torch 2.15.0)
    HF_HUB_OFFLINE=1 python scripts/reference/peft_lora.py [OUT]
    HF_HUB_OFFLINE=1 python scripts/reference/peft_lora.py --score BASE ADAPTER --prompt "What is it?" --response "A cat."

OUT is crates/ril-models/tests/fixtures/qwen2_5_vl/lora unless given. It gets one folder an adapter, as PEFT writes it
(`adapter_config.json`, `adapter_model.safetensors`), with `golden.json` and `golden.safetensors`:

    attention   q, k, v, o of the decoder
    all_linear  every linear layer, those of the vision tower too; tied base
    rslora      the decoder's seven products by a regular expression, alpha / sqrt(r)
    patterns    ends of names that decoder and tower share, one layer left out, ranks and alphas of single layers
    bf16        bfloat16 base and adapters; the goldens are computed in float32 from them

The goldens are logits of every conversation of the base's own fixture, with and without adapters merged, and the
gradients of A and B for the summed cross-entropy of one response. `--score` opens an adapter that somebody else wrote and
prints what `open_saved.py` prints; `--image` may be repeated.
"""

import argparse
import json
import shutil
from pathlib import Path

import peft
import safetensors.torch
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from open_saved import open_folder, score

BASES = Path(__file__).parents[2] / "crates/ril-models/tests/fixtures/qwen2_5_vl"
DECODER = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
ADAPTERS = {
    "attention": ("nested", 1, dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])),
    "all_linear": ("flat", 2, dict(r=3, lora_alpha=5, target_modules="all-linear", lora_dropout=0.1)),
    "rslora": ("sharded", 3, dict(r=4, lora_alpha=3, target_modules=DECODER, use_rslora=True)),
    "patterns": ("nested", 4, dict(
        r=4, lora_alpha=6, target_modules=["self_attn.q_proj", "gate_proj", "attn.proj", "mlp.2"], exclude_modules=["blocks.1.mlp.gate_proj"],
        rank_pattern={r"layers\.1\.self_attn\.q_proj": 2, "q_proj": 5}, alpha_pattern={"blocks.[02].mlp.gate_proj": 3})),
    "bf16": ("bf16", 5, dict(r=2, lora_alpha=4, target_modules=["down_proj", "v_proj"])),
}
CASE = "one_image"


@torch.no_grad()
def randomise(model, seed):
    """Factors at which the adapters move the logits by more than rounding; B is 0 in a fresh adapter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            deviation = 0.4 / parameter.shape[1] ** 0.5
            parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))


def tidy(folder, base):
    """The settings file without the order of Python's sets and the path of a machine."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | dict(base_model_name_or_path=base)
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").unlink()


def inputs_of(base, golden, tensors, case):
    """Ids, patches and grids of a conversation and its response, from the base's own fixture."""
    record = golden["cases"][case]
    ids = torch.tensor([record["prompt_ids"] + record["response_ids"]])
    inputs = dict(input_ids=ids, mm_token_type_ids=(ids == base.config.image_token_id).int())
    if record["images"]:
        inputs["pixel_values"] = torch.cat([tensors[f"image.{name}.pixel_patches"] for name in record["images"]])
        inputs["image_grid_thw"] = torch.tensor([golden["images"][name]["grid_thw"] for name in record["images"]])
    return inputs, len(record["prompt_ids"])


def write(out, name):
    base, seed, settings = ADAPTERS[name]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model = get_peft_model(open_folder(BASES / base)[1], LoraConfig(task_type="CAUSAL_LM", **settings))
    randomise(model, seed)
    if name == "bf16":
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(folder)
    tidy(folder, base)

    # As a user reads it back.
    plain = open_folder(BASES / base)[1]
    golden = json.loads((BASES / base / "golden.json").read_text())
    tensors = safetensors.torch.load_file(BASES / base / "golden.safetensors")
    cases = {case: inputs_of(plain, golden, tensors, case) for case in golden["cases"]}
    with torch.no_grad():
        before = {case: plain(**inputs).logits[0] for case, (inputs, _) in cases.items()}
    # Reads as float32, whatever the file has.
    model = PeftModel.from_pretrained(plain, folder, is_trainable=True).float().eval()
    kept, moved = {}, []
    with torch.no_grad():
        for case, (inputs, _) in cases.items():
            logits = model(**inputs).logits[0]
            moved.append((logits - before[case]).abs().max().item())
            kept[f"case.{case}.logits"] = logits[golden["cases"][case]["logit_positions"]]
    inputs, prompt = cases[CASE]
    ids = inputs["input_ids"]
    log_probs = model(**inputs).logits[0, prompt - 1 : -1].log_softmax(-1)
    loss = -log_probs.gather(1, ids[0, prompt:, None]).sum()
    loss.backward()
    stored = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    gradients = {n.replace(".default", ""): p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert gradients.keys() == stored.keys(), "other parameters are trained than are stored"
    assert all(gradient.norm() > 1e-4 for gradient in gradients.values()), "a factor does not matter"
    kept |= {f"gradient.{name}": gradient for name, gradient in gradients.items()}
    assert min(moved) > 0.1, moved
    with torch.no_grad():
        merged = model.merge_and_unload()(**inputs).logits[0]
        merged_gap = (merged[golden["cases"][CASE]["logit_positions"]] - kept[f"case.{CASE}.logits"]).abs().max().item()
    assert merged_gap < 1e-4, merged_gap
    versions = {m.__name__: m.__version__ for m in (peft, transformers, torch)}
    record = dict(
        script="scripts/reference/peft_lora.py", seed=seed, versions=versions, base=base, case=CASE, loss=loss.item(), tensors=len(stored),
        moved=[round(value, 3) for value in moved])
    (folder / "golden.json").write_text(json.dumps(record, indent=1) + "\n")
    safetensors.torch.save_file(
        {name: tensor.detach().float().contiguous() for name, tensor in kept.items()}, folder / "golden.safetensors",
        metadata={"reference": json.dumps(dict(seed=seed) | versions)})
    (folder / "adapter_model.safetensors").chmod(0o644)
    print(f"{name}: {sum(f.stat().st_size for f in folder.iterdir())} bytes, {record}, merged {merged_gap:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=BASES / "lora")
    parser.add_argument("--score", nargs=2, metavar=("BASE", "ADAPTER"))
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--prompt")
    parser.add_argument("--response")
    args = parser.parse_args()
    if args.score:
        base, adapter = args.score
        processor, model = open_folder(base)
        model = PeftModel.from_pretrained(model, adapter).eval()
        stored = safetensors.torch.load_file(Path(adapter) / "adapter_model.safetensors")
        expected = {name.replace(".default", "") for name, _ in model.named_parameters() if "lora_" in name}
        assert expected == stored.keys(), f"PEFT expects other tensors: {sorted(expected ^ stored.keys())[:4]}"
        content = [{"type": "image", "image": path} for path in args.image] + [{"type": "text", "text": args.prompt}]
        print(json.dumps(score(processor, model, [{"role": "user", "content": content}], args.response)[0]))
        return
    torch.set_num_threads(1)
    for name in ADAPTERS:
        write(args.out, name)


if __name__ == "__main__":
    main()
