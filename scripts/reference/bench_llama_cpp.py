"""The rollouts of scripts/bench.py in llama.cpp: prompts of the same lengths, all of them words (no picture is encoded).

    pip install xllamacpp==2026.10.11549 gguf==0.17.1
    python scripts/bench.py --work rollout --beside scripts/reference/bench_llama_cpp.py --python ENVIRONMENT/bin/python ...

The key/value cache has llama.cpp's default type, f16. `--model` is a folder of Qwen2.5-VL, of which the
decoder is written as a GGUF file of the Qwen2 architecture. The server reads a prompt once and copies its cache to the
samples. Words differ from run to run, so that nothing is left over.
"""

import json
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from safetensors.numpy import load_file

import bench_worker

parser = bench_worker.parser(["rollout"])
parser.add_argument("--dtype", choices=["f32", "bf16", "q8_0"], default="f32")
args = parser.parse_args()
inputs = load_file(args.inputs)
TYPES = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name):
    name = name.removeprefix("model.").removeprefix("language_model.")
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        module, kind = rest.rsplit(".", 1)
        return f"blk.{layer}.{NAMES[module]}.{kind}"
    return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}[name]


def convert(folder, path):
    config = json.loads((Path(folder) / "config.json").read_text())
    config = config.get("text_config", config)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(4096)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"]))
    vocab = json.loads((Path(folder) / "tokenizer.json").read_text())["model"]
    tokens = sorted(vocab["vocab"], key=vocab["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(len(tokens), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in vocab.get("merges", [])] or ["a b"])
    writer.add_eos_token_id(2)
    for file in Path(folder).glob("*.safetensors"):
        for name, values in load_file(file).items():
            if name.startswith(("visual.", "model.visual.")):
                continue
            values = values.astype(np.float32)
            kind = TYPES[args.dtype] if values.ndim == 2 else TYPES["f32"]
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


prompts = inputs["prompts"]
config = json.loads((Path(args.model) / "config.json").read_text())
vocab = config.get("text_config", config)["vocab_size"]
rows = len(prompts) * args.samples
scratch = tempfile.TemporaryDirectory()
convert(args.model, f"{scratch.name}/model.gguf")
params = xllamacpp.CommonParams()
params.model.path = f"{scratch.name}/model.gguf"
params.n_parallel = rows
params.n_ctx = rows * (prompts.shape[1] + args.new_tokens + 16)
params.n_batch = params.n_ubatch = 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
params.kv_unified = True
params.hostnames, params.port = ["127.0.0.1"], 0
server = xllamacpp.Server(params)
rng = np.random.default_rng(0)


def complete(ids):
    body = {
        "prompt": ids, "n": args.samples, "max_tokens": args.new_tokens, "temperature": 1.0, "top_p": 0.95, "top_k": 50,
        "min_p": 0.0, "samplers": ["top_k", "top_p", "temperature"], "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{server.listening_address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer = json.load(urllib.request.urlopen(request))
    # The usage counts one choice.
    ended = sum(choice["finish_reason"] == "length" for choice in answer["choices"])
    return ended * args.new_tokens


def fresh_prompts():
    return (rng.integers(16, vocab, prompts.shape).tolist(),)


def run(batch):
    with ThreadPoolExecutor(len(batch)) as pool:
        return sum(pool.map(complete, batch))


bench_worker.serve(run, fresh_prompts)
