"""The loss of the VAE's first training steps, which the means over epochs hide (question 1.7).

Trains as the run `vae_z20` begins, with its seed, and writes the loss of each step into
`report/results/first_steps.json`: `python report/first_steps.py --data_dir DATA`
"""
# ruff: noqa: E402

import argparse
import itertools
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part1"))
from run import Parser, atomic_write, path, run_command, whole_number

REPOSITORY = Path(__file__).resolve().parents[1]


def build_parser() -> Parser:
    parser = Parser("first_steps.py", __doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", type=path, default=str(REPOSITORY / "data"), help="directory with MNIST/raw")
    parser.add_argument("--steps", type=whole_number(1, 422), default=100, help="number of steps, at most one epoch")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=42, help="seed of weights and batches")
    parser.add_argument("--output_dir", type=path, default=str(REPOSITORY / "report" / "results"),
                        help="where first_steps.json goes")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch

from mnist import mnist
from train_pl import VAE


def first_losses(model, batches) -> list[float]:
    """Train on each batch once; returns the bits per dimension before each step.

    Args:
        model: a `VAE`.
        batches: an iterable of images, long [B, 1, 28, 28] with values 0 .. 15, and labels.
    """
    optimizer, losses = model.configure_optimizers(), []
    for images, _ in batches:
        bpd = model(images)[2]
        optimizer.zero_grad()
        bpd.backward()
        optimizer.step()
        losses.append(bpd.item())
    return losses


def compute(args: argparse.Namespace) -> None:
    """Write the results that the flags ask for, and print the path of their file."""
    loader = mnist(args.data_dir, num_workers=0, seed=args.seed)[0]
    torch.manual_seed(args.seed)
    model = VAE(num_filters=32, z_dim=20, lr=1e-3)
    losses = first_losses(model, itertools.islice(loader, args.steps))
    result = {
        "bpd": [round(loss, 4) for loss in losses],
        "z_dim": 20,
        "seed": args.seed,
        "command": f"python report/first_steps.py --steps {args.steps} --seed {args.seed} --data_dir DATA",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    file = Path(args.output_dir, "first_steps.json")
    atomic_write(file, json.dumps(result) + "\n")
    print(file)


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))
