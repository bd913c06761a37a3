"""Measures time and memory of one attention layer of GPT-2's shape for inputs of 128 to 4,096 positions, written out
and fused, and writes `report/results/attention_cost.json`: `python tests/benchmarks/attention_cost.py`. Linux only.
"""
# ruff: noqa: E402

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "part3"))
from run import Parser, atomic_write, device_name, path, run_command, whole_number

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
WAYS = ("written_out", "fused")


def build_parser() -> Parser:
    parser = Parser("attention_cost.py", __doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=whole_number(1, 1000), default=7, help="how often each length is measured")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the weights and the inputs")
    parser.add_argument("--output", type=path, default=str(REPOSITORY / "report" / "results" / "attention_cost.json"),
                        help="JSON file")  # fmt: skip
    parser.add_argument("--one", nargs=2, metavar=("LENGTH", "WAY"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch

from gpt import CausalSelfAttention


def memory(name: str) -> int:
    """Resident bytes of this process: now (VmRSS) or at the peak (VmHWM)."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def measure(length: int, way: str, rounds: int, seed: int) -> dict:
    """Median time and peak memory of a forward and a backward pass, in a process of its own because freed
    memory is not always returned to the system."""
    torch.manual_seed(seed)
    config = argparse.Namespace(n_embd=768, n_head=12, attn_pdrop=0.0, resid_pdrop=0.0, block_size=length,
                                fused_attention=way == "fused")  # fmt: skip
    layer = CausalSelfAttention(config)
    seconds, peaks = [], []
    for _ in range(rounds + 1):
        x = torch.randn(1, length, 768, requires_grad=True)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, start = memory("VmRSS"), time.perf_counter()
        layer(x).sum().backward()
        seconds.append(time.perf_counter() - start)
        peaks.append(memory("VmHWM") - before)
        layer.zero_grad()
    # The first pass includes PyTorch's set-up, so it is not timed; but only it allocates all of the memory.
    return {"length": length, "way": way, "ms": round(1000 * statistics.median(seconds[1:]), 3),
            "peak_mib": round(peaks[0] / 2**20, 2)}  # fmt: skip


def compute(args: argparse.Namespace) -> None:
    begin, rows = time.perf_counter(), []
    for length in LENGTHS:
        for way in WAYS:
            command = [sys.executable, __file__, "--one", str(length), way, "--rounds", str(args.rounds)]
            done = subprocess.run([*command, "--seed", str(args.seed)], capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))
            print("{length:5d} positions, {way:11s}: {ms:9.2f} ms, {peak_mib:8.1f} MiB".format(**rows[-1]))
    result = {
        "layer": "12 heads of 64 channels, one sequence, forward and backward, float32",
        "rows": rows,
        "rounds": args.rounds,
        "seed": args.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "device": device_name(torch.device("cpu")),
        "versions": {"torch": metadata.version("torch")},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(Path(args.output), json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    if ARGS.one:  # without this repository's settings of the process
        print(json.dumps(measure(int(ARGS.one[0]), ARGS.one[1], ARGS.rounds, ARGS.seed)))
    else:
        raise SystemExit(run_command(compute, ARGS))
