"""Write a trained GPT in the format of transformers: `python export.py --help` lists the flags."""

from args import build_export_parser, with_defaults

if __name__ == "__main__":
    ARGS = build_export_parser().parse_given()  # first, since importing PyTorch takes seconds

import argparse
from pathlib import Path

from generate import find_checkpoint
from gpt import load_gpt
from pretrained import save
from run import run_command


def export(args: argparse.Namespace) -> None:
    """Write the files that the flags of `export.py` ask for, and print their directory.

    Raises:
        InputError: the checkpoint or the directory cannot be used.
    """
    args = with_defaults(args, build_export_parser())
    model, vocabulary, _ = load_gpt(find_checkpoint(args))
    save(model, Path(args.output_dir), vocabulary)
    print(args.output_dir)


if __name__ == "__main__":
    raise SystemExit(run_command(export, ARGS))
