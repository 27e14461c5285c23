#!/usr/bin/env python3
"""Log-probabilities of an OpenAI-compatible server beside those of `examples/score`, token by token.

    score_beside_server.py --server http://127.0.0.1:8000 --model NAME --folder DIR [--adapter DIR] --image cat.png

Asks the server for samples with an image, their token ids and log-probabilities (vLLM: `return_token_ids`), scores the same
ids under the same image with `cargo run --release --example score`, and prints the largest gap. Only the standard library is
used.
"""
import argparse
import base64
import json
import subprocess
import sys
import urllib.request

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--server", required=True)
parser.add_argument("--model", required=True, help="name of model or adapter on the server")
parser.add_argument("--folder", required=True, help="the checkpoint that the server has loaded")
parser.add_argument("--adapter", help="the PEFT folder of the adapter, when --model names one")
parser.add_argument("--image", required=True)
parser.add_argument("--prompt", default="What is in the picture? Answer in one sentence.")
parser.add_argument("--samples", type=int, default=4)
parser.add_argument("--max-tokens", type=int, default=24)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--limit", type=float, default=1e-3, help="a larger gap is a failure")
args = parser.parse_args()

picture = base64.b64encode(open(args.image, "rb").read()).decode()
content = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    {"type": "text", "text": args.prompt},
]
request = {
    "model": args.model,
    "messages": [{"role": "user", "content": content}],
    "n": args.samples,
    "max_tokens": args.max_tokens,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "repetition_penalty": 1.0,
    "seed": args.seed,
    "logprobs": True,
    "return_token_ids": True,
}
body = json.dumps(request).encode()
headers = {"content-type": "application/json"}
answer = urllib.request.Request(args.server + "/v1/chat/completions", body, headers)
answer = json.load(urllib.request.urlopen(answer, timeout=3600))

largest, tokens = 0.0, 0
for choice in answer["choices"]:
    ids, theirs = choice["token_ids"], [token["logprob"] for token in choice["logprobs"]["content"]]
    command = ["cargo", "run", "--quiet", "--release", "--example", "score", "--", "--model", args.folder]
    command += ["--image", args.image, "--prompt", args.prompt, "--response-ids", ",".join(map(str, ids))]
    command += ["--adapter", args.adapter] if args.adapter else []
    ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if ours["prompt_token_ids"] != answer["prompt_token_ids"]:
        sys.exit(f"the prompts differ: {ours['prompt_token_ids']} here, {answer['prompt_token_ids']} there")
    if not len(ids) == len(theirs) == len(ours["log_probs"]):
        sys.exit(f"{len(ids)} ids, {len(theirs)} log-probabilities there, {len(ours['log_probs'])} here")
    gap = max(abs(a - b) for a, b in zip(ours["log_probs"], theirs))
    largest, tokens = max(largest, gap), tokens + len(ids)
    print(f"sample {choice['index']}: {len(ids)} tokens, largest gap {gap:.2e} nats, {choice['message']['content']!r}")
print(f"{tokens} tokens, prompt of {len(answer['prompt_token_ids'])} tokens, largest gap {largest:.2e} nats")
sys.exit(largest > args.limit)
