"""Write a trained GPT in the format of transformers: `python export.py --help` lists the flags."""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part3.export` and `python -P`
    from generate_inputs import build_export_parser

    ARGS = build_export_parser().parse_args()

import argparse

from generate_inputs import build_export_parser
from inputs import LOG_DIR, InputError, ensure_writable, find_checkpoint, resolve_path
from pretrained import save
from run_folder import load_gpt


def main(argv: list[str] | argparse.Namespace | None = None) -> int:
    """Run the command line.

    Args:
        argv: its words, or the parsed flags; None: those of this process.

    Returns:
        The exit code: 0; 2 after one sentence about input that cannot be used.
    """
    args = argv if isinstance(argv, argparse.Namespace) else build_export_parser().parse_args(argv)
    try:
        model, vocabulary, _ = load_gpt(find_checkpoint(args.checkpoint, resolve_path(args.log_dir, LOG_DIR), "best"))
        folder = Path(args.output_dir).expanduser()
        ensure_writable(folder, "--output_dir")
        save(model, folder, vocabulary)
    except InputError as error:
        print(f"export.py: error: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(ARGS))
