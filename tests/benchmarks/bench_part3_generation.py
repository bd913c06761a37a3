"""Part 3's generation against the plain way and transformers: `python tests/benchmarks/bench_part3_generation.py`.

A turn continues one prompt greedily by 256 tokens. All contestants have the same 124 million random weights in GPT-2's
shape, made and saved by transformers, so that nothing is downloaded, and all have to find the same tokens; those with
weights of fewer bits need not, and how many of their tokens are equal is stated.
"""

import argparse
import sys
import tempfile
import time

import contest

PART = contest.REPOSITORY / "part3"
PROMPT, NEW_TOKENS = 16, 256


def prompt(seed: int):
    import torch

    import limits

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(50257, (1, PROMPT), generator=generator).to(limits.device())


def timed(generate, seed: int, num_tokens: int) -> dict:
    """Seconds of a generation; `generate` maps a prompt and a number to all tokens."""
    import limits

    idx = prompt(seed)
    limits.synchronize()
    start = time.perf_counter()
    tokens = generate(idx, num_tokens)
    limits.synchronize()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens_per_second": num_tokens / seconds, "tokens": tokens[0, PROMPT:].tolist()}


def ours(args, dtype: str = "float32") -> contest.Turn:
    import training_run

    training_run.configure_cpu()
    import torch

    import limits
    from gpt import GPT

    model = GPT.from_pretrained(args.weights, dtype=getattr(torch, dtype)).to(limits.device())
    return lambda seed, steps: timed(model.generate, seed, steps)


def baseline(args) -> contest.Turn:
    """Written-out attention, and the whole context anew for each token."""
    import baseline_gpt
    import limits
    from gpt import GPT

    model = GPT.from_pretrained(args.weights)
    plain = baseline_gpt.PlainGPT(model.config)
    plain.load_state_dict(model.state_dict())
    plain.eval().to(limits.device())
    return lambda seed, steps: timed(plain.generate, seed, steps)


def peer(args) -> contest.Turn:
    """The generation of transformers, with its cache."""
    import transformers

    import limits

    model = transformers.GPT2LMHeadModel.from_pretrained(args.weights).eval().to(limits.device())
    settings = {"do_sample": False, "pad_token_id": 50256, "eos_token_id": None}
    return lambda seed, steps: timed(lambda idx, n: model.generate(idx, max_new_tokens=n, **settings), seed, steps)


CONTESTANTS = {
    "ours": ours,
    "baseline": baseline,
    "transformers": peer,
    "ours_bfloat16": lambda args: ours(args, "bfloat16"),
    "limit": contest.limit,
}


def equal_tokens(ours: list[dict], theirs: list[dict]) -> dict[str, int]:
    """How many tokens two contestants have in common over all rounds, place by place."""
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a["tokens"], b["tokens"], strict=True)]
    return {"equal": sum(a == b for a, b in pairs), "compared": len(pairs)}


def of_a_token(parameters: int, bits: int, n_layer: int = 12, n_embd: int = 768) -> dict[str, float]:
    """Operations and bytes of a new token, whose position is in the middle of the generation: each weight is read once
    and takes a multiplication and an addition, but for those of positions; of the cache all is read."""
    context = PROMPT + NEW_TOKENS / 2
    used = parameters - 1024 * n_embd
    cached = 2 * n_layer * n_embd * context
    return {"flops": round(2 * used + 2 * cached), "bytes": round((used + cached) * bits / 8)}


def make_weights(folder: str) -> int:
    """Save a GPT-2 of random weights; returns the number of its parameters."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def main() -> int:
    parser = contest.build_parser(__doc__.splitlines()[0], steps=NEW_TOKENS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = contest.parse(parser, fewest_steps=1)
    if args.steps > 1024 - PROMPT:
        parser.error(f"--steps must be at most {1024 - PROMPT}, so that the text fits into GPT-2, not {args.steps}")
    sys.path.insert(0, str(PART))
    if args.worker:
        contest.serve(CONTESTANTS, args)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        parameters = make_weights(folder)
        found = contest.hold(__file__, CONTESTANTS, args, ["--weights", folder])
    import limits

    rows, wanted = contest.table(found), found["ours"]
    per_token = {name: rows[name]["seconds"]["median"] / args.steps for name in ("ours", "ours_bfloat16")}
    result = {
        "task": f"GPT-2 with {parameters:,} weights, one prompt of {PROMPT} tokens, {args.steps} new tokens, greedily",
        "rows": rows,
        "token": limits.shares(of_a_token(parameters, 32), per_token["ours"], rows["limit"]),
        "token_bfloat16": limits.shares(of_a_token(parameters, 16), per_token["ours_bfloat16"], rows["limit"]),
        "tokens_over_baseline": contest.ratios(wanted, found["baseline"], "tokens_per_second"),
        "tokens_over_transformers": contest.ratios(wanted, found["transformers"], "tokens_per_second"),
        "bfloat16_over_float32": contest.ratios(found["ours_bfloat16"], wanted, "tokens_per_second"),
        "equal_tokens": {name: equal_tokens(wanted, turns) for name, turns in found.items() if "tokens" in turns[0]},
    }
    contest.write(args.output, "part3_generation", result, ["transformers"])
    return 0


if __name__ == "__main__":
    raise SystemExit(contest.command(main))
