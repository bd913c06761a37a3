"""What a trained GPT attends to, and how it continues a text at several temperatures (questions 3.2 and 3.3).

Writes `language.json` into the run directory of a run of part 3:
`python report/language.py --checkpoint part3/logs/gpt_shakespeare/lightning_logs/version_0`
"""
# ruff: noqa: E402

import argparse
import json
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part3"))
from args import BEST, with_defaults
from run import InputError, Parser, atomic_write, find_run, path, run_command, whole_number


def build_parser() -> Parser:
    parser = Parser("language.py", __doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True, default=argparse.SUPPRESS, metavar="RUN",
                        help="a run directory of part 3")  # fmt: skip
    parser.add_argument("--prompt", default="The king said to her", help="what to attend to, and to continue")
    parser.add_argument("--n_steps", type=whole_number(1, 10**6), default=240, help="characters to add")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the sampled texts")
    parser.add_argument("--output_dir", type=path, default=argparse.SUPPRESS,
                        help="where the file goes (default: the run directory)")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_given()  # first, since importing PyTorch takes seconds

import torch
from torch import Tensor

from generate import generate
from gpt import load_gpt
from vocabulary import Characters

TEMPERATURES = (0.5, 0.8, 1.0, 1.5)


@torch.no_grad()
def attention_weights(model, idx: Tensor) -> Tensor:
    """Attention weights of all layers and heads.

    Args:
        model: a `GPT` in evaluation mode.
        idx: tokens, long [1, T].

    Returns:
        [n_layer, n_head, T, T]: rows, one a query, sum to 1, and are 0 beyond the query's own position.
    """
    found, attentions = [], [block.attn for block in model.transformer.h]
    fused = [attention.fused for attention in attentions]
    hooks = [attention.attn_dropout.register_forward_hook(lambda dropout, inputs, output: found.append(inputs[0][0]))
             for attention in attentions]  # fmt: skip
    try:
        for attention in attentions:
            attention.fused = False  # the fused function does not return its weights
        model(idx)
    finally:
        for attention, was_fused, hook in zip(attentions, fused, hooks, strict=True):
            attention.fused = was_fused
            hook.remove()
    return torch.stack(found)


def mean_distance(weights: Tensor) -> Tensor:
    """How many positions back a head looks, averaged over its weights and over the queries: [..., T, T] to [...]."""
    positions = torch.arange(weights.size(-1), dtype=weights.dtype, device=weights.device)
    return (weights * (positions[:, None] - positions)).sum(dim=-1).mean(dim=-1)


def heads_to_show(distances: Tensor) -> tuple[int, list[int]]:
    """The layer whose heads differ most in how far they look back, and its heads with the least, the median and the
    largest distance, as far as it has three.

    Args:
        distances: [n_layer, n_head].
    """
    spread = distances.amax(dim=1) - distances.amin(dim=1)
    layer = int(spread.argmax())
    order = distances[layer].argsort(stable=True).tolist()
    return layer, sorted({order[0], order[len(order) // 2], order[-1]}, key=order.index)


def attention(model, vocabulary, prompt: str) -> dict:
    """The weights that are worth showing, and numbers of all heads; layers and heads are counted from 0."""
    weights = attention_weights(model, torch.tensor([vocabulary.encode(prompt)]))
    distances = mean_distance(weights)
    layer, heads = heads_to_show(distances)
    return {
        "characters": list(prompt),
        "layer": layer,
        "heads": [
            {"head": head, "weights": [[round(w, 4) for w in row] for row in weights[layer, head].tolist()]}
            for head in heads
        ],
        "mean_distance": [[round(value, 3) for value in row] for row in distances.tolist()],
    }


def continuations(model, vocabulary, prompt: str, n_steps: int, seed: int) -> dict:
    """A greedy text and one for each temperature, all characters allowed, each from the same seed."""

    def text(temperature: float) -> str:
        generator = torch.Generator().manual_seed(seed)
        return generate(model, "", prompt, 1, n_steps, temperature > 0, None, temperature, verbose=False,
                        vocabulary=vocabulary, generator=generator)[0]  # fmt: skip

    return {
        "n_steps": n_steps,
        "top_k": None,
        "top_p": None,
        "greedy": text(0),
        "sampled": [{"temperature": temperature, "text": text(temperature)} for temperature in TEMPERATURES],
    }


def compute(args: argparse.Namespace) -> None:
    """Write the results that the flags ask for, and print the path of their file; a missing flag has its default."""
    begin, args = time.perf_counter(), with_defaults(args, build_parser())
    run_dir = find_run(args.checkpoint.removesuffix(BEST), Path.cwd(), BEST)
    model, vocabulary, checkpoint = load_gpt(run_dir / BEST)
    if not isinstance(vocabulary, Characters):
        raise InputError(f"{run_dir} was trained on pieces of words: name a run that was trained on characters")
    if not 2 <= len(args.prompt) <= model.block_size:
        raise InputError(f"--prompt must have 2 to {model.block_size} characters, not {len(args.prompt)}")
    vocabulary.encode(args.prompt)  # an unknown character is reported
    result = {
        "prompt": args.prompt,
        "step": checkpoint["global_step"],
        "attention": attention(model, vocabulary, args.prompt),
        "continuations": continuations(model, vocabulary, args.prompt, args.n_steps, args.seed),
        "command": f"python report/language.py --checkpoint RUN --prompt {shlex.quote(args.prompt)} "
        f"--n_steps {args.n_steps} --seed {args.seed}",
        "seed": args.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    file = Path(args.output_dir or run_dir, "language.json")
    atomic_write(file, json.dumps(result, ensure_ascii=False) + "\n")
    print(file)


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))
