"""How autoencoders begin with the bias of the decoder's last layer at MNIST's mean grey value, and at PyTorch's default
(question 2.4).

Trains with several seeds for a few steps each; the report counts those that end in black images. The results go into
`report/results/initialisation.json`: `python report/initialisation.py --data_dir DATA`
"""
# ruff: noqa: E402

import argparse
import itertools
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part2"))
from args import build_parser as training_parser
from run import Parser, atomic_write, device_name, path, run_command, whole_number

REPOSITORY = Path(__file__).resolve().parents[1]


def build_parser() -> Parser:
    parser = Parser("initialisation.py", __doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", type=path, default=str(REPOSITORY / "data"), help="directory with MNIST/raw")
    parser.add_argument("--steps", type=whole_number(1, 938), default=200,
                        help="steps of each training, at most one epoch")  # fmt: skip
    parser.add_argument("--seeds", type=whole_number(1, 1000), default=8,
                        help="trainings of each setting, with seeds 0, 1, ...")  # fmt: skip
    parser.add_argument("--output_dir", type=path, default=str(REPOSITORY / "report" / "results"),
                        help="where initialisation.json goes")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch
from torch import nn

from mnist import mnist, mnist_test
from models import AdversarialAE
from train import make_optimizers, train_aae
from utils import TensorBoardLogger

BLACK = -0.99  # an image whose pixels, in [-1, 1], are all below this
SETTINGS = ((1.0, 2), (1.0, 8), (0.995, 2), (0.995, 8))  # λ and latent dimensions


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
    torch.manual_seed(seed)
    model = AdversarialAE(flags.z_dim).to(memory_format=torch.channels_last)
    if default_bias:
        with_default_bias(model)
    optimizers = make_optimizers(model, flags.ae_lr, flags.d_lr)
    train_aae(1, model, batches, TensorBoardLogger(None), TensorBoardLogger(None), *optimizers, flags.lambda_)
    with torch.no_grad():
        recon, codes = model(images)
    return {
        "recon_loss": nn.functional.mse_loss(recon, images).item(),
        "black": (recon.flatten(1).amax(dim=1) < BLACK).float().mean().item(),
        "std": codes.std(dim=0).mean().item(),
    }


def compute(args: argparse.Namespace) -> None:
    """Write the results that the flags ask for, and print the path of their file."""
    started, flags = time.perf_counter(), argparse.Namespace(**training_parser().default_flags())
    images = next(iter(mnist_test(args.data_dir, batch_size=1000)))[0]
    loader = mnist(args.data_dir, flags.batch_size, num_workers=0, seed=0)
    rows = []
    for lambda_, z_dim in SETTINGS:
        flags.lambda_, flags.z_dim = lambda_, z_dim
        for default_bias, seed in itertools.product((True, False), range(args.seeds)):
            loader.sampler.set_epoch(seed)
            found = begin(flags, seed, default_bias, itertools.islice(loader, args.steps), images)
            rows.append({"lambda": lambda_, "z_dim": z_dim, "default_bias": default_bias, "seed": seed, **found})
            print(f"λ {lambda_:g}, z_dim {z_dim}, {'default bias' if default_bias else 'mean grey'}, seed {seed}: "
                  f"reconstruction {found['recon_loss']:.3f}, {found['black']:.0%} black", flush=True)  # fmt: skip
    result = {
        "rows": rows,
        "recon_loss_of_black": (images + 1).square().mean().item(),
        "steps": args.steps,
        "seeds": args.seeds,
        "device": device_name(torch.device("cpu")),
        "command": f"python report/initialisation.py --steps {args.steps} --seeds {args.seeds} --data_dir DATA",
        "seconds": round(time.perf_counter() - started, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    file = Path(args.output_dir, "initialisation.json")
    atomic_write(file, json.dumps(result, indent=2) + "\n")
    print(file)


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))
