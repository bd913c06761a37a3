"""Draw pictures from a trained VAE: samples, reconstructions, interpolations between digits, and the manifold.

`python generate.py --help` lists the flags.
"""

from args import BEST, PICTURES, build_generate_parser

if __name__ == "__main__":
    ARGS = build_generate_parser().parse_given()  # first, since importing PyTorch takes seconds

import argparse
from pathlib import Path

import torch

from mnist import load_data
from pictures import interpolation_grid, reconstruction_grid, sample_grid, write_picture
from run import InputError, find_run, run_command
from train_pl import load_vae
from utils import visualize_manifold


def generate(args: argparse.Namespace) -> list[Path]:
    """Draw the pictures that the flags ask for; prints and returns the paths of their files.

    Args:
        args: flags of `generate.py`; a missing flag has its default.

    Raises:
        InputError: a flag, the checkpoint, the data or the output directory cannot be used.
    """
    parser = build_generate_parser()
    args = argparse.Namespace(**{**parser.default_flags(), **parser.given_flags(args)})
    file = Path(args.checkpoint)
    if not file.is_file():
        file = find_run(args.checkpoint, Path(args.log_dir), BEST) / BEST
    elif not args.output_dir and file.parent.name != "checkpoints":
        raise InputError(f"{file} is not in a run directory: give a directory for the pictures with --output_dir")
    vae, checkpoint = load_vae(file)
    wanted = args.pictures or [name for name in PICTURES if name != "manifold" or vae.hparams.z_dim == 2]
    if "manifold" in wanted and vae.hparams.z_dim != 2:
        raise InputError(f"the manifold needs a model with z_dim 2, and this one has {vae.hparams.z_dim}: leave it out "
                         "of --pictures")  # fmt: skip
    vae.to("cuda" if torch.cuda.is_available() else "cpu")
    images = labels = None
    if {"reconstructions", "interpolations"} & set(wanted):
        flags = {**checkpoint["flags"], "num_workers": 0}
        flags["data_dir"] = args.data_dir or flags["data_dir"]
        images, labels = load_data(argparse.Namespace(**flags), torch.device("cpu"))[2].dataset[:]
    draw = {
        "samples": lambda: sample_grid(vae.sample(args.num_samples)),
        "reconstructions": lambda: reconstruction_grid(vae, images, labels),
        "interpolations": lambda: interpolation_grid(vae, images, labels, tuple(args.digits), args.steps),
        "manifold": lambda: visualize_manifold(vae.decoder, grid_size=20),
    }
    torch.manual_seed(args.seed)
    output_dir = Path(args.output_dir or file.parents[1] / "generated")
    for name in wanted:
        write_picture(output_dir / f"{name}.png", draw[name]())
        print(output_dir / f"{name}.png")
    return [output_dir / f"{name}.png" for name in wanted]


if __name__ == "__main__":
    raise SystemExit(run_command(generate, ARGS))
