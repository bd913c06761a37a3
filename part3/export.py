"""Write a trained GPT in the format of transformers: `python export.py --help` lists the flags."""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part3.export` and `python -P`
    from cli import start
    from generate_inputs import parse_export_args

    ARGS = start(parse_export_args)

import argparse

from safetensors import SafetensorError

from cli import run_command
from generate_inputs import parse_export_args
from inputs import LOG_DIR, InputError, ensure_writable, find_checkpoint, resolve_path
from pretrained import save
from run_files import naming_failed_writes
from run_folder import load_gpt


def export(args: argparse.Namespace) -> None:
    """Write the files, and print their directory."""
    model, vocabulary, _ = load_gpt(find_checkpoint(args.checkpoint, resolve_path(args.log_dir, LOG_DIR), "best"))
    folder = resolve_path(args.output_dir)
    ensure_writable(folder, "--output_dir")
    with naming_failed_writes(folder):
        try:
            save(model, folder, vocabulary)
        except SafetensorError as error:  # all that it reports is a text
            if "os error" not in str(error):
                raise
            raise InputError(f"cannot write into {folder} ({error}): make room there or choose another directory") \
                from error  # fmt: skip
    print(folder)


def main(argv: list[str] | argparse.Namespace | None = None) -> int:
    """Run the command line.

    Args:
        argv: its words, or the parsed flags; None: those of this process.

    Returns:
        The exit code: 0; 2 after one sentence about input that cannot be used; 128 + number after a signal.
    """
    args = argv if isinstance(argv, argparse.Namespace) else parse_export_args(argv)
    return run_command(export, args, "export.py")


if __name__ == "__main__":
    raise SystemExit(main(ARGS))
