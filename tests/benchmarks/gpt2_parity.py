"""Compares part 3 with transformers on a full GPT-2 of 124 million random weights, and writes
`report/results/gpt2_parity.json`.

Transformers makes and saves the model, so nothing is downloaded: `python tests/benchmarks/gpt2_parity.py`.
"""
# ruff: noqa: E402

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "part3"))
from run import Parser, atomic_write, device_name, path, run_command, whole_number


def build_parser() -> Parser:
    parser = Parser("gpt2_parity.py", __doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the weights and the inputs")
    parser.add_argument("--output", type=path, default=str(REPOSITORY / "report" / "results" / "gpt2_parity.json"),
                        help="JSON file")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch
import transformers

from gpt import GPT, CausalSelfAttention
from vocabulary import read_vocabulary

SAMPLE = "Grüße, 世界! naïve cafe\u0301 🙂👩‍🚀\n\n  tabs\tand  spaces 3.14159 don't WE'LL <|endoftext|>end"

# Read from /proc: getrusage reports the parent's peak if that is higher. Linux only.
LOAD = """
import json, pathlib, re, sys
sys.path.insert(0, sys.argv[1])
import torch, safetensors.torch, pretrained
from gpt import GPT
def memory(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
model = GPT.from_pretrained(sys.argv[2])
print(json.dumps({"before": before, "after": memory("VmHWM")}))
"""


def compute(args: argparse.Namespace) -> None:
    begin = time.perf_counter()
    torch.manual_seed(args.seed)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        size = Path(folder, "model.safetensors").stat().st_size
        load = [sys.executable, "-c", LOAD, str(REPOSITORY / "part3"), folder]
        peak = json.loads(subprocess.run(load, capture_output=True, text=True, check=True).stdout)
        start = time.perf_counter()
        ours = GPT.from_pretrained(folder)
        load_seconds = time.perf_counter() - start

    idx = torch.randint(50257, (1, 1024))
    prompt = torch.randint(50257, (10, 17))
    with torch.no_grad():
        a, b = theirs(idx).logits, ours(idx)
        greedy = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=50256, eos_token_id=None)
        found = ours.generate(prompt, 20)
        for attention in (module for module in ours.modules() if isinstance(module, CausalSelfAttention)):
            attention.fused = False
        c = ours(idx)
    result = {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "logits_compared": a.numel(),
        "largest_logit": a.abs().max().item(),
        "largest_difference_of_logits": (a - b).abs().max().item(),
        "largest_difference_written_out": (a - c).abs().max().item(),
        "greedy_tokens": 10 * 20,
        "greedy_tokens_equal": int((greedy == found)[:, 17:].sum()),
        "greedy_tokens_distinct": found[:, 17:].unique().numel(),
        "weights_bytes": size,
        "peak_memory_of_loading_over_weights": round((peak["after"] - peak["before"]) / size, 3),
        "load_seconds": round(load_seconds, 2),
        **compare_tokens(),
        "seed": args.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "device": device_name(torch.device("cpu")),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "safetensors", "tokenizers")},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(Path(args.output), json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def compare_tokens() -> dict:
    """Compare the token ids of a Unicode sample, with GPT-2's tokenizer from `$DATA_DIR/gpt2`."""
    folder = Path(os.environ.get("DATA_DIR", REPOSITORY / "data"), "gpt2")
    if not (folder / "tokenizer.json").is_file():
        return {"tokens_compared": 0}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).encode(SAMPLE)
    vocabulary = read_vocabulary(folder)
    ours = vocabulary.encode(SAMPLE)
    return {"tokens_compared": len(theirs), "tokens_equal": ours == theirs,
            "text_restored": vocabulary.decode(ours) == SAMPLE}  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))
