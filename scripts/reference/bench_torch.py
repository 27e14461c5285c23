"""The worker of scripts/bench.py in PyTorch and transformers: the same work as examples/bench on the same inputs.

    pip install -r scripts/reference/requirements.txt

Work is done once for each line on stdin, in float32: sdpa attention, `inference_mode` where there is no gradient, a
cache of keys and values for `generate` alone (`dynamic` unless `--cache` says otherwise), fused AdamW, `logits_to_keep` so
that only completion positions reach the head, `selective_log_softmax` of TRL. As in TRL, a picture stands in each row of its
prompt, and `generate` expands the rows before it reads the prompts. Not compiled.
"""

import copy

import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, rotate_half
from trl.trainer.utils import selective_log_softmax

import bench_worker

OPERATORS = ["linear", "rms-norm", "swiglu", "rotary", "attention", "log-probs"]
parser = bench_worker.parser(["rollout", "update", "score", "step", "preprocess", *OPERATORS])
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
        "logits_to_keep": responses.shape[1] + 1, "use_cache": False,
    }


def log_probs(model, rows):
    logits = model(**rows).logits[:, :-1]
    return selective_log_softmax(logits, inputs["responses"])


def sample(model, samples, **more):
    ids = inputs["prompts"]
    config = {"cache_implementation": args.cache} if args.cache else {}
    end = model.config.vision_start_token_id
    forbidden = [model.config.image_token_id, model.config.video_token_id, end, model.config.vision_end_token_id]
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_patches"],
            image_grid_thw=inputs["grid_thw"], mm_token_type_ids=types(ids, model), do_sample=True, temperature=1.0,
            top_p=0.95, top_k=50, num_return_sequences=samples, max_new_tokens=args.new_tokens,
            suppress_tokens=forbidden, eos_token_id=end, pad_token_id=end, **config, **more,
        )
    return out[:, ids.shape[1]:].clone()


def rollout():
    model = load()
    return lambda: float(sample(model, args.samples).numel())


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


SYSTEM = (
    "You are a discriminator. You are given one response in <response></response> tags. It was written either by a "
    "teacher model or by a student model. Answer 0 if the teacher wrote it and 1 if the student wrote it."
)
GROUP, MICRO_BATCH = 4, 8


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)


def step():
    """A whole step of RIL, written plainly: four samples and four teacher responses a question, in rows of 8."""
    policy = load().train()
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    body = copy.deepcopy(policy.model)
    head = torch.nn.Linear(policy.config.text_config.hidden_size, 1)
    torch.nn.init.normal_(head.weight, std=0.02)
    discriminator = [*body.parameters(), *head.parameters()]
    policy_optimizer, discriminator_optimizer = adamw(policy.parameters()), adamw(discriminator)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    pieces = [piece for row in inputs["responses"] for piece in row.split(args.new_tokens) if len(piece) == args.new_tokens]
    teachers = [tokenizer.decode(piece) for piece in pieces]
    questions = len(inputs["prompts"])
    patches = inputs["pixel_patches"].split(inputs["grid_thw"].prod(1).tolist())

    def discriminator_rows(texts):
        chats = [
            tokenizer.apply_chat_template(
                [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"<response> {text} </response>"}],
                add_generation_prompt=True, tokenize=False,
            )
            for text in texts
        ]
        return tokenizer(chats, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)

    def discriminate(rows, keep):
        mask = rows["attention_mask"][keep]
        length = int(mask.sum(1).max())
        mask, ids = mask[:, :length], rows["input_ids"][keep, :length]
        hidden = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return head(hidden[torch.arange(len(ids)), mask.sum(1) - 1]).squeeze(1)

    def policy_rows(owner, responses):
        prompts = inputs["prompts"][owner]
        ids = torch.cat([prompts, responses], 1)
        return {
            "input_ids": ids, "attention_mask": torch.cat([torch.ones_like(prompts), (responses >= 0).long()], 1),
            "pixel_values": torch.cat([patches[at] for at in owner]), "image_grid_thw": inputs["grid_thw"][owner],
            "mm_token_type_ids": types(ids, policy), "logits_to_keep": responses.shape[1] + 1, "use_cache": False,
        }

    def scored(model, rows, targets):
        return selective_log_softmax(model(**rows).logits[:, :-1], targets)

    def run():
        policy.eval()
        sampled = sample(policy, GROUP, repetition_penalty=1.05)
        policy.train()
        # Students first, then teachers, question by question.
        texts, ids, is_student = [], [], []
        for question in range(questions):
            own = sampled[question * GROUP : (question + 1) * GROUP]
            texts += [tokenizer.decode(row, skip_special_tokens=True) for row in own]
            texts += teachers[question * GROUP : (question + 1) * GROUP]
            ids += [*own, *(tokenizer(text, return_tensors="pt")["input_ids"][0] for text in texts[-GROUP:])]
            is_student += [1.0] * GROUP + [0.0] * GROUP
        labels = torch.tensor(is_student)
        rows = discriminator_rows(texts)
        for keep in torch.randperm(len(texts)).split(MICRO_BATCH):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(discriminate(rows, keep), labels[keep], reduction="sum")
            (loss / (len(texts) / 2)).backward()
        torch.nn.utils.clip_grad_norm_(discriminator, 1.0)
        discriminator_optimizer.step()
        discriminator_optimizer.zero_grad(set_to_none=True)
        with torch.inference_mode():
            logits = torch.cat([discriminate(rows, keep) for keep in torch.arange(len(texts)).split(MICRO_BATCH)])
        right = torch.tensor([float(len(text.encode()) % 2 == 0) for text in texts])
        rewards = ((logits < 0).float() + right).view(questions, -1)
        advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()
        owner = torch.arange(len(texts)) // (2 * GROUP)
        budget = len(texts) * args.new_tokens
        for keep in torch.arange(len(texts)).split(MICRO_BATCH):
            padded = torch.nn.utils.rnn.pad_sequence([ids[at] for at in keep], batch_first=True, padding_value=-1)
            mask, targets = padded >= 0, padded.clamp(min=0)
            batch = policy_rows(owner[keep], padded)
            batch["input_ids"] = batch["input_ids"].clamp(min=0)
            with torch.inference_mode():
                before = scored(reference, batch, targets)
            current = scored(policy, batch, targets)
            ratio, advantage = (current - current.detach()).exp(), advantages[keep].unsqueeze(1)
            surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            away = before.clone() - current
            kl = away.exp() - away - 1
            (-((surrogate - 0.01 * kl) * mask).sum() / budget).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        policy_optimizer.step()
        policy_optimizer.zero_grad(set_to_none=True)
        return float(sampled.numel())

    return run


def preprocess():
    processor = AutoImageProcessor.from_pretrained(args.model)
    pictures = list(inputs["pictures"].permute(0, 3, 1, 2))

    def run():
        return float(processor(images=pictures, return_tensors="pt")["pixel_values"].flatten()[::997].double().sum())

    return run


PASSES, ROW = 10, 128


def operator():
    """One operator, forward and backward, as transformers' model and TRL run it."""
    leaves = []

    def track(tensor):
        leaves.append(tensor.requires_grad_())
        return tensor

    leaf = lambda name: track(inputs[f"operators.{name}"])
    heads = lambda tensor: tensor.unflatten(0, (-1, ROW)).transpose(1, 2)
    if args.work == "linear":
        x, weight = leaf("x"), track(inputs["operators.weight"].t().contiguous())
        forward = lambda: torch.nn.functional.linear(x, weight)
    elif args.work == "rms-norm":
        x, norm = leaf("x"), Qwen2RMSNorm(inputs["operators.gain"].numel(), eps=1e-6)
        norm.weight.data.copy_(inputs["operators.gain"])
        track(norm.weight)
        forward = lambda: norm(x)
    elif args.work == "swiglu":
        x, up = leaf("gate"), leaf("up")
        forward = lambda: torch.nn.functional.silu(x) * up
    elif args.work == "rotary":
        x, angles = leaf("q"), inputs["operators.angles"].repeat(1, 2).unsqueeze(1)
        cos, sin = angles.cos(), angles.sin()
        forward = lambda: x * cos + rotate_half(x) * sin
    elif args.work == "attention":
        x, k, v = leaf("q"), leaf("k"), leaf("v")
        attend = torch.nn.functional.scaled_dot_product_attention
        forward = lambda: attend(heads(x), heads(k), heads(v), is_causal=True, enable_gqa=True)
    else:
        head, x = track(load().lm_head.weight.detach().clone()), leaf("x")
        rows = lambda tensor: tensor.unflatten(0, (-1, ROW))
        targets = rows(inputs["operators.targets"])
        forward = lambda: selective_log_softmax(torch.nn.functional.linear(rows(x), head), targets)

    # Once, a loss whose gradient passes neither a wrong forward nor a wrong backward.
    out = forward()
    out = (out.transpose(1, 2) if args.work == "attention" else out).flatten()
    pull = (torch.arange(out.numel()) * 7919 % 1000) / 500 - 1
    ((0.5 * out + pull) * out).sum().backward()
    check = float(x.grad[ROW - 1].norm())
    ones = torch.ones_like(forward())

    def run():
        for _ in range(PASSES):
            for tensor in leaves:
                tensor.grad = None
            forward().backward(ones)
        return check

    return run


works = {"rollout": rollout, "score": score, "update": update, "step": step, "preprocess": preprocess}
bench_worker.serve(works.get(args.work, operator)())
