"""Writes a tiny random Qwen2.5-VL checkpoint that vLLM serves on a CPU, whose kernels want heads of 64.

    pip install -r scripts/reference/requirements.txt
    HF_HUB_OFFLINE=1 python scripts/reference/served.py [OUT]

OUT is tests/servers/fixtures/student unless given. Tokenizer, processor and weights are made as qwen2_5_vl.py makes its own.
"""
import sys
from pathlib import Path

import torch
from PIL import Image

from qwen2_5_vl import Folder, make_model, make_processor

OUT = Path(__file__).parents[2] / "tests/servers/fixtures/student"
SPEC = Folder(
    "served", 55,
    text=dict(hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
              rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[8, 12, 12])),
    vision=dict(depth=2, hidden_size=32, intermediate_size=32, num_heads=1, patch_size=14, window_size=56,
                fullatt_block_indexes=[1]),
    pixels=(28 * 28 * 2, 28 * 28 * 16),
    cases={}, batch=[], tied=True,
)

out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
out.mkdir(parents=True, exist_ok=True)
make_model(SPEC).to(torch.bfloat16).save_pretrained(out)
make_processor(SPEC).save_pretrained(out)
picture = Image.new("RGB", (84, 56))
picture.putdata([(3 * x % 256, 4 * y % 256, x * y % 256) for y in range(56) for x in range(84)])
picture.save(out.parent / "waves.png", optimize=True)
