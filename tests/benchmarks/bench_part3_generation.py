"""Part 3's generation against the plain pipeline and transformers: `python tests/benchmarks/bench_part3_generation.py`.

A measurement continues one prompt greedily by 256 tokens. All implementations use the same 124 million random weights
in GPT-2's shape, which transformers makes and saves, so that nothing is downloaded. In float32 all must generate the
same tokens; for bfloat16 the result says how many are equal.
"""
# ruff: noqa: E402

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "part3"))
import runner
from run import Parser

PROMPT, NEW_TOKENS = 16, 256


def build_parser() -> Parser:
    most = 1024 - PROMPT  # the rest of GPT-2's context
    parser = runner.build_parser("bench_part3_generation.py", __doc__, steps=NEW_TOKENS, fewest=1, most=most)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch

import limits
from gpt import GPT


def prompt(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(50257, (1, PROMPT), generator=generator).to(limits.device())


def timed(generate, seed: int, num_tokens: int) -> dict:
    """Time `generate(prompt, num_tokens)`, which returns prompt and new tokens."""
    idx = prompt(seed)
    limits.synchronize()
    start = time.perf_counter()
    tokens = generate(idx, num_tokens)
    limits.synchronize()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens_per_second": num_tokens / seconds, "tokens": tokens[0, PROMPT:].tolist()}


def ours(args, dtype: str = "float32") -> runner.Measure:
    model = GPT.from_pretrained(args.weights, dtype=getattr(torch, dtype)).to(limits.device())
    return lambda seed, steps: timed(model.generate, seed, steps)


def baseline(args) -> runner.Measure:
    """Written-out attention, which recomputes the whole context for each token."""
    import baseline_gpt

    model = GPT.from_pretrained(args.weights)
    plain = baseline_gpt.PlainGPT(model.config)
    plain.load_state_dict(model.state_dict())
    plain.eval().to(limits.device())
    return lambda seed, steps: timed(plain.generate, seed, steps)


def transformers_cached(args) -> runner.Measure:
    """Generation by transformers with its cache."""
    import transformers

    model = transformers.GPT2LMHeadModel.from_pretrained(args.weights).eval().to(limits.device())
    settings = {"do_sample": False, "pad_token_id": 50256, "eos_token_id": None}
    return lambda seed, steps: timed(lambda idx, n: model.generate(idx, max_new_tokens=n, **settings), seed, steps)


IMPLEMENTATIONS = {
    "ours": ours,
    "baseline": baseline,
    "transformers": transformers_cached,
    "ours_bfloat16": lambda args: ours(args, "bfloat16"),
    "limit": runner.limit,
}


def equal_tokens(ours: list[dict], theirs: list[dict]) -> dict[str, int]:
    """How many tokens of two implementations are equal, position by position, over all rounds."""
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a["tokens"], b["tokens"], strict=True)]
    return {"equal": sum(a == b for a, b in pairs), "compared": len(pairs)}


def cost_of_token(parameters: int, bits: int, n_layer: int = 12, n_embd: int = 768) -> dict[str, float]:
    """Operations and bytes of one new token in the middle of the generation. Each weight but the position embeddings is
    read once and takes a multiplication and an addition; the whole cache is read."""
    context = PROMPT + NEW_TOKENS / 2
    used = parameters - 1024 * n_embd
    cached = 2 * n_layer * n_embd * context
    return {"flops": round(2 * used + 2 * cached), "bytes": round((used + cached) * bits / 8)}


def make_weights(folder: str) -> int:
    """Save a GPT-2 of random weights; returns the number of its parameters."""
    import transformers

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def compare(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parameters = make_weights(folder)
        found = runner.run_benchmark(__file__, IMPLEMENTATIONS, args, ["--weights", folder])
    rows, wanted = runner.table(found), found["ours"]
    per_token = {name: rows[name]["seconds"]["median"] / args.steps for name in ("ours", "ours_bfloat16")}
    result = {
        "task": f"GPT-2 with {parameters:,} weights, one prompt of {PROMPT} tokens, {args.steps} new tokens, greedily",
        "rows": rows,
        "token": limits.shares(cost_of_token(parameters, 32), per_token["ours"], rows["limit"]),
        "token_bfloat16": limits.shares(cost_of_token(parameters, 16), per_token["ours_bfloat16"], rows["limit"]),
        "tokens_over_baseline": runner.ratios(wanted, found["baseline"], "tokens_per_second"),
        "tokens_over_transformers": runner.ratios(wanted, found["transformers"], "tokens_per_second"),
        "bfloat16_over_float32": runner.ratios(found["ours_bfloat16"], wanted, "tokens_per_second"),
        "equal_tokens": {
            name: equal_tokens(wanted, results) for name, results in found.items() if "tokens" in results[0]
        },
    }
    runner.write(args.output, "part3_generation", result, ["transformers"])


if __name__ == "__main__":
    raise SystemExit(runner.main(IMPLEMENTATIONS, compare, ARGS))
