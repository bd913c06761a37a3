"""How autoencoders begin with the bias of the decoder's last layer at MNIST's mean grey value, and at PyTorch's default
(question 2.4).

Trains with several seeds for a few steps each, counts those that end in black images, and trains the first of these
(λ = 1, PyTorch's bias) for some epochs to see whether they recover. All goes into
`report/results/initialisation.json`: `python report/initialisation.py --data_dir DATA`
"""

import argparse
import itertools
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part2"))
if __name__ == "__main__":  # first of all: importing PyTorch takes seconds, in which the command may be interrupted
    from cli import start

    start()

import torch
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[1]
BLACK = -0.99  # an image whose pixels, in [-1, 1], are all below this
SETTINGS = ((1.0, 2), (1.0, 8), (0.995, 2), (0.995, 8))  # λ and latent dimensions


class Silent:
    """Takes the place of TensorBoard."""

    def add_values(self, values: dict) -> None:
        pass


def with_default_bias(model: nn.Module) -> None:
    """Draw the bias of the decoder's last layer as PyTorch does in a new layer of its kind."""
    last = model.decoder.net[-2]
    last.bias = nn.ConvTranspose2d(last.in_channels, last.out_channels, last.kernel_size).bias


def begin(flags: argparse.Namespace, seed: int, default_bias: bool, batches, images: torch.Tensor) -> dict:
    """A training on a few batches.

    Args:
        flags: those of `part2/train.py`, of which the sizes, λ and the learning rates count.
        seed: of weights and noise.
        default_bias: begin with PyTorch's bias instead of the mean grey value.
        batches: an iterable of images and labels.
        images: to reconstruct at the end [N, 1, 28, 28].

    Returns:
        `recon_loss`: mean squared error of the reconstructions of `images`; `black`: share of them that are black;
        `std`: of their codes, mean over the dimensions.
    """
    from models import AdversarialAE
    from train import train_aae
    from training_run import make_optimizers

    torch.manual_seed(seed)
    model = AdversarialAE(flags.z_dim).to(memory_format=torch.channels_last)
    if default_bias:
        with_default_bias(model)
    optimizers = make_optimizers(model, flags.ae_lr, flags.d_lr)
    train_aae(1, model, batches, Silent(), Silent(), *optimizers, flags.lambda_)
    with torch.no_grad():
        recon, codes = model(images)
    return {
        "recon_loss": nn.functional.mse_loss(recon, images).item(),
        "black": (recon.flatten(1).amax(dim=1) < BLACK).float().mean().item(),
        "std": codes.std(dim=0).mean().item(),
    }


def is_black(row: dict, recon_loss_of_black: float) -> bool:
    """Whether a training with λ = 1 and PyTorch's bias ended in images that are nearly black."""
    return row["lambda"] == 1 and row["default_bias"] and row["recon_loss"] > 0.95 * recon_loss_of_black


def epochs(loader, number: int, seed: int):
    """The batches of several epochs, in the order of the first one as the short training had it."""
    for epoch in range(number):
        loader.sampler.set_epoch(seed + epoch)
        yield from loader


def build_parser() -> argparse.ArgumentParser:
    from inputs import DATA_DIR, Parser

    parser = Parser(prog="initialisation.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", default=DATA_DIR, help="directory that holds MNIST/raw")
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument("--seeds", type=int, default=8, help="trainings of each setting, with seeds 0, 1, ...")
    parser.add_argument("--follow", type=int, default=3, help="black trainings (λ = 1) that continue")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of the trainings that continue")
    parser.add_argument("--output_dir", default=str(REPOSITORY / "report" / "results"),
                        help="where initialisation.json goes")  # fmt: skip
    return parser


def compute(args) -> None:
    """Write the results that the flags ask for, and print the paths of their files."""
    from cli import check_paths, check_whole_numbers, resolve_path
    from inputs import InputError, ensure_writable
    from inputs import build_parser as training_flags
    from mnist import mnist, mnist_test
    from run_folder import device_name, write_json

    check_whole_numbers(args, {"steps": (1, 10**6), "seeds": (1, 1000), "follow": (0, 1000), "epochs": (1, 1000)})
    check_paths(args, ("data_dir", "output_dir"))
    output_dir = resolve_path(args.output_dir)
    started = time.perf_counter()
    ensure_writable(output_dir, "--output_dir", keep=False)
    flags = training_flags().parse_args([])
    images = next(iter(mnist_test(args.data_dir, batch_size=1000)))[0]
    loader = mnist(args.data_dir, flags.batch_size, num_workers=0, seed=0)
    if args.steps > len(loader):
        raise InputError(f"--steps must be at most {len(loader)}, the steps of an epoch, not {args.steps}")
    rows = []
    for lambda_, z_dim in SETTINGS:
        flags.lambda_, flags.z_dim = lambda_, z_dim
        for default_bias, seed in itertools.product((True, False), range(args.seeds)):
            loader.sampler.set_epoch(seed)
            found = begin(flags, seed, default_bias, itertools.islice(loader, args.steps), images)
            rows.append({"lambda": lambda_, "z_dim": z_dim, "default_bias": default_bias, "seed": seed, **found})
            print(f"λ {lambda_:g}, z_dim {z_dim}, {'default bias' if default_bias else 'mean grey'}, seed {seed}: "
                  f"reconstruction {found['recon_loss']:.3f}, {found['black']:.0%} black", flush=True)  # fmt: skip
    recon_loss_of_black = (images + 1).square().mean().item()
    flags.lambda_ = 1.0
    later = []
    for row in [row for row in rows if is_black(row, recon_loss_of_black)][: args.follow]:
        flags.z_dim = row["z_dim"]
        found = begin(flags, row["seed"], True, epochs(loader, args.epochs, row["seed"]), images)
        later.append({**row, **found})
        print(f"z_dim {row['z_dim']}, default bias, seed {row['seed']}, after {args.epochs} epochs: "
              f"reconstruction {found['recon_loss']:.3f}, {found['black']:.0%} black", flush=True)  # fmt: skip
    result = {
        "rows": rows,
        "later": later,
        "epochs": args.epochs,
        "recon_loss_of_black": recon_loss_of_black,
        "steps": args.steps,
        "seeds": args.seeds,
        "device": device_name(torch.device("cpu")),
        "command": f"python report/initialisation.py --steps {args.steps} --seeds {args.seeds} --follow {args.follow} "
        f"--epochs {args.epochs} --data_dir DATA",
        "seconds": round(time.perf_counter() - started, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "initialisation.json", result)
    print(output_dir / "initialisation.json")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 after one sentence about what cannot be used, or 128 + number
    after a signal."""
    from cli import run_command

    return run_command(compute, build_parser().parse_args(argv), "initialisation.py")


if __name__ == "__main__":
    raise SystemExit(main())
