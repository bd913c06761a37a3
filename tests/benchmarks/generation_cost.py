"""Measures the time per new token of GPT-2 (124 million weights) after contexts of 64 to 1,000 tokens, with and without
the cache, and writes `report/results/generation_cost.json`: `python tests/benchmarks/generation_cost.py`.
"""
# ruff: noqa: E402

import argparse
import itertools
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "part3"))
from args import SIZES
from run import Parser, atomic_write, device_name, path, run_command, whole_number

CONTEXTS = (64, 128, 256, 512, 768, 1000)


def build_parser() -> Parser:
    parser = Parser("generation_cost.py", __doc__.split("\n\n")[0])
    parser.add_argument("--model_type", choices=tuple(SIZES), default="gpt2", help="a smaller one to try this out")
    parser.add_argument("--rounds", type=whole_number(1, 1000), default=3, help="how often each context is measured")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the weights and the inputs")
    parser.add_argument("--output", type=path, default=str(REPOSITORY / "report" / "results" / "generation_cost.json"),
                        help="JSON file")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch

from gpt import GPT


def seconds_per_token(model: GPT, context: int, new_tokens: int, use_cache: bool) -> list[float]:
    """Seconds of each token but the first, for which even the cached model reads the whole context."""
    times = []
    hook = model.lm_head.register_forward_hook(lambda *_: times.append(time.perf_counter()))
    model.generate(torch.randint(50257, (1, context)), new_tokens + 1, use_cache=use_cache)
    hook.remove()
    return [end - start for start, end in itertools.pairwise(times)]


def compute(args: argparse.Namespace) -> None:
    begin = time.perf_counter()
    torch.manual_seed(args.seed)
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size, config.tie_weights = args.model_type, 50257, 1024, True
    model = GPT(config).eval()
    seconds_per_token(model, 64, 5, True)  # a warm-up that is not counted
    found = {context: {True: [], False: []} for context in CONTEXTS}
    for _ in range(args.rounds):  # alternately, to spread a disturbance of the machine over all
        for context in CONTEXTS:
            found[context][True] += seconds_per_token(model, context, 15, True)
            found[context][False] += seconds_per_token(model, context, 2, False)
    rows = []
    for context, seconds in found.items():
        cached, recomputed = (1000 * statistics.median(seconds[use_cache]) for use_cache in (True, False))
        rows.append({"context": context, "cached_ms": round(cached, 2), "recomputed_ms": round(recomputed, 2),
                     "ratio": round(recomputed / cached, 2)})  # fmt: skip
        print(f"{context:5d} tokens: {cached:7.1f} ms a token with the cache, {recomputed:8.1f} ms without")
    result = {
        "model_type": args.model_type,
        "rows": rows,
        "cached_1000_over_64": round(rows[-1]["cached_ms"] / rows[0]["cached_ms"], 3),
        "recomputed_1000_over_64": round(rows[-1]["recomputed_ms"] / rows[0]["recomputed_ms"], 3),
        "rounds": args.rounds,
        "seed": args.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "device": device_name(torch.device("cpu")),
        "versions": {name: metadata.version(name) for name in ("torch",)},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(Path(args.output), json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))
