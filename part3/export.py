"""Write a trained GPT as transformers does, which can load it then: `python export.py --help` lists the flags."""

import argparse
import sys
from pathlib import Path

from inputs import LOG_DIR, InputError, Parser, beside, make_writable


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="export.py",
        description="Write a trained GPT as config.json, model.safetensors and its tokenizer, for transformers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", default="newest", metavar="RUN",
                        help="a run's folder or name, a checkpoint, or 'newest'")  # fmt: skip
    parser.add_argument("--log_dir", default=LOG_DIR, help="folder of all runs, where 'newest' and names are looked up")
    parser.add_argument("--output_dir", required=True, help="where the files go", default=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 after one sentence about what cannot be used."""
    args = build_parser().parse_args(argv)
    try:
        from pretrained import save
        from run_folder import find_checkpoint, load_gpt

        model, vocabulary, _ = load_gpt(find_checkpoint(args.checkpoint, beside(args.log_dir, LOG_DIR), "best"))
        folder = Path(args.output_dir).expanduser()
        make_writable(folder, "--output_dir")
        save(model, folder, vocabulary)
    except InputError as error:
        print(f"export.py: error: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
