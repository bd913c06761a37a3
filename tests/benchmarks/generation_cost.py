"""Measures the time per new token of GPT-2 (124 million weights) after contexts of 64 to 1,000 tokens, with and without
the cache, and writes `report/results/generation_cost.json`: `python tests/benchmarks/generation_cost.py`.
"""

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "part3"))
CONTEXTS = (64, 128, 256, 512, 768, 1000)


def seconds_per_token(model, context: int, new_tokens: int, use_cache: bool, rounds: int) -> list[float]:
    """Seconds of each token but the first, for which even the cached model reads the whole context."""
    seconds = []
    for _ in range(rounds):
        stream = model.stream(torch.randint(50257, (1, context)), new_tokens + 1, use_cache=use_cache)
        next(stream)
        for _ in range(new_tokens):
            start = time.perf_counter()
            next(stream)
            seconds.append(time.perf_counter() - start)
        stream.close()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model_type", default="gpt2", help="gpt2, or a smaller type to try this out")
    parser.add_argument("--rounds", type=int, default=3, help="how often each context is measured")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the inputs")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "report" / "results" / "generation_cost.json")
    args = parser.parse_args()
    from gpt import GPT
    from run_folder import device_name

    begin = time.perf_counter()
    torch.manual_seed(args.seed)
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size, config.tie_weights = args.model_type, 50257, 1024, True
    model = GPT(config).eval()
    seconds_per_token(model, 64, 5, True, 1)  # a warm-up that is not counted
    found = {context: {True: [], False: []} for context in CONTEXTS}
    for _ in range(args.rounds):  # alternately, to spread a disturbance of the machine over all
        for context in CONTEXTS:
            found[context][True] += seconds_per_token(model, context, 15, True, 1)
            found[context][False] += seconds_per_token(model, context, 2, False, 1)
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
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
