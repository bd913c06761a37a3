"""The loss of the VAE's first training steps, which the means over epochs hide (question 1.7).

Trains as the run `vae_z20` begins, with its seed, and writes the loss of each step into
`report/results/first_steps.json`: `python report/first_steps.py --data_dir DATA`
"""

import itertools
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part1"))
if __name__ == "__main__":  # first of all: importing PyTorch takes seconds, in which the command may be interrupted
    from cli import start

    start()

import torch

REPOSITORY = Path(__file__).resolve().parents[1]


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


def build_parser():
    from inputs import Parser

    parser = Parser(prog="first_steps.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", default="../data/", help="directory that holds MNIST/raw")
    parser.add_argument("--steps", type=int, default=100, help="number of steps, at most one epoch")
    parser.add_argument("--seed", type=int, default=42, help="seed of the weights and of the batches")
    parser.add_argument("--output_dir", default=str(REPOSITORY / "report" / "results"),
                        help="where first_steps.json goes")  # fmt: skip
    return parser


def compute(args) -> None:
    """Write the results that the flags ask for, and print the paths of their files."""
    from cli import check_paths, check_whole_numbers, ensure_writable, resolve_path
    from mnist import mnist
    from train_pl import VAE

    check_whole_numbers(args, {"steps": (1, 10**6), "seed": (0, 2**32 - 1)})
    check_paths(args, ("data_dir", "output_dir"))
    output_dir = resolve_path(args.output_dir)
    ensure_writable(output_dir, "--output_dir", keep=False)

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
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "first_steps.json"
    path.write_text(json.dumps(result) + "\n")
    print(path)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 after one sentence about what cannot be used, or 128 + number
    after a signal."""
    from cli import run_command

    return run_command(compute, build_parser().parse_args(argv), "first_steps.py")


if __name__ == "__main__":
    raise SystemExit(main())
