"""Draw pictures from a trained VAE: samples, reconstructions, interpolations between digits, and the manifold.

`python generate.py --help` lists the flags.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part1.generate` and `python -P`
    from cli import start
    from inputs import parse_generate_args

    ARGS = start(parse_generate_args)

import argparse

import torch

from cli import run_command
from inputs import (
    LOG_DIR,
    PICTURES,
    InputError,
    check_generate_flags,
    ensure_writable,
    find_checkpoint,
    parse_generate_args,
    resolve_path,
    run_dir_of,
)
from mnist import load_data
from pictures import interpolation_grid, reconstruction_grid, sample_grid, write_picture
from processes import explained_failures
from run_files import naming_failed_writes
from train_pl import load_vae
from utils import visualize_manifold

NEED_DATA = {"reconstructions", "interpolations"}


def check_data_dir(args: argparse.Namespace, flags: dict, needed: bool) -> None:
    """Check `--data_dir` against the flags of a run.

    Args:
        args: has `data_dir`.
        flags: of the run.
        needed: whether images are needed at all.

    Raises:
        InputError: --data_dir would be ignored, or the directory that the run was trained from does not exist any more.
    """
    if args.data_dir and flags["dataset"] == "digits":
        raise InputError(
            f"--data_dir {args.data_dir} was given, but the run was trained on the built-in digits: leave the flag out"
        )
    if needed and flags["dataset"] == "mnist" and not args.data_dir and not Path(flags["data_dir"]).is_dir():
        raise InputError(
            f"{flags['data_dir']}, which the run was trained from, does not exist any more: give the directory that "
            "holds MNIST/raw with --data_dir"
        )


def generate(args: argparse.Namespace) -> list[Path]:
    """Draw the pictures that the flags ask for; returns the paths of their files.

    Raises:
        InputError: a flag, the checkpoint, the data or the output directory cannot be used.
    """
    check_generate_flags(args)
    path = find_checkpoint(args.checkpoint, resolve_path(args.log_dir, default=LOG_DIR), "best")
    vae, checkpoint = load_vae(path)
    z_dim = vae.hparams.z_dim
    wanted = args.pictures or [name for name in PICTURES if name != "manifold" or z_dim == 2]
    if "manifold" in wanted and z_dim != 2:
        raise InputError(
            f"the manifold needs a model with z_dim 2, and this one has {z_dim}: leave it out of --pictures"
        )
    needs_data = bool(NEED_DATA & set(wanted))
    check_data_dir(args, checkpoint["flags"], needed=needs_data)
    if args.output_dir:
        output_dir = resolve_path(args.output_dir)
    else:
        output_dir = run_dir_of(path, "--checkpoint, or a directory for the pictures to --output_dir") / "generated"
    ensure_writable(output_dir, "--output_dir", keep=False)
    vae.to("cuda" if torch.cuda.is_available() else "cpu")

    images = labels = None
    if needs_data:
        flags = {**checkpoint["flags"], "num_workers": 0}
        flags["data_dir"] = str(resolve_path(args.data_dir)) if args.data_dir else flags["data_dir"]
        images, labels = load_data(argparse.Namespace(**flags))[2].dataset[:]

    draw = {
        "samples": lambda: sample_grid(vae.sample(args.num_samples)),
        "reconstructions": lambda: reconstruction_grid(vae, images, labels),
        "interpolations": lambda: interpolation_grid(vae, images, labels, tuple(args.digits), args.steps),
        "manifold": lambda: visualize_manifold(vae.decoder, grid_size=20),
    }
    torch.manual_seed(args.seed)
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in wanted:
        paths.append(output_dir / f"{name}.png")
        with naming_failed_writes(output_dir):
            write_picture(paths[-1], draw[name]())
    return paths


def print_paths(args: argparse.Namespace) -> None:
    """Draw the pictures, and print the paths of their files."""
    with explained_failures(lower="--num_samples or --steps"):
        for path in generate(args):
            print(path)


def main(argv: list[str] | argparse.Namespace | None = None) -> int:
    """Run the command line.

    Args:
        argv: its words, or the parsed flags; None: those of this process.

    Returns:
        The exit code: 0; 2 after one sentence about input that cannot be used; 130 after an interruption.
    """
    args = argv if isinstance(argv, argparse.Namespace) else parse_generate_args(argv)
    return run_command(print_paths, args, "generate.py")


if __name__ == "__main__":
    raise SystemExit(main(ARGS))
