"""Opens a Qwen2.5-VL folder with transformers and scores one response: the check that a folder written by RIL is a
folder that everybody can read.

    pip install -r scripts/reference/requirements.txt      (transformers 5.23.0, torch 2.15.0)
    HF_HUB_OFFLINE=1 python scripts/reference/open_saved.py FOLDER --image cat.png --prompt "What is it?" --response "A cat."

Prints {"prompt_token_ids": [...], "response_token_ids": [...], "log_probs": [...]}, as `examples/score.rs` does: natural
logarithms at temperature 1, one for each token of the response, the closing <|im_end|> included. `--image` may be
repeated; the images stand before the prompt. `--logits FILE` writes all logits to a safetensors file. Weights are read
as float32, images are resized by PIL.
"""

import argparse
import json

import safetensors.torch
import torch
from transformers import AutoImageProcessor, AutoProcessor, Qwen2_5_VLForConditionalGeneration


def open_folder(folder):
    """The processor (PIL backend) and the model of a checkpoint folder."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {kind: sorted(names) for kind, names in report.items() if names and kind != "error_msgs"}
    if wrong or report.get("error_msgs"):
        raise ValueError(f"{folder} does not fit the model: {wrong or report['error_msgs']}")
    return processor, model.eval()


def encode(processor, messages):
    """Ids, patches and grids of a conversation that the assistant is to continue; images are file names."""
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")


def response_ids(processor, response):
    """Token ids of a response and of the <|im_end|> that closes it, `[1, tokens]`."""
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    return torch.tensor([processor.tokenizer(response, add_special_tokens=False)["input_ids"] + [end]])


@torch.no_grad()
def score(processor, model, messages, response):
    """Token ids, log-probs of the response, and all logits."""
    inputs = encode(processor, messages)
    prompt, answer = inputs["input_ids"], response_ids(processor, response)
    ids = torch.cat([prompt, answer], 1)
    types = (ids == model.config.image_token_id).int()
    logits = model(
        input_ids=ids, mm_token_type_ids=types, pixel_values=inputs.get("pixel_values"), image_grid_thw=inputs.get("image_grid_thw")
    ).logits[0]
    log_probs = logits[prompt.shape[1] - 1 : -1].log_softmax(-1).gather(1, answer.T)[:, 0]
    return dict(prompt_token_ids=prompt[0].tolist(), response_token_ids=answer[0].tolist(), log_probs=log_probs.tolist()), logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--response", required=True)
    parser.add_argument("--logits", help="safetensors file for the logits, [prompt + response, vocab]")
    args = parser.parse_args()
    content = [{"type": "image", "image": path} for path in args.image] + [{"type": "text", "text": args.prompt}]
    scored, logits = score(*open_folder(args.folder), [{"role": "user", "content": content}], args.response)
    if args.logits:
        safetensors.torch.save_file({"logits": logits.contiguous()}, args.logits)
    print(json.dumps(scored))


if __name__ == "__main__":
    main()
