"""Train a VAE on MNIST: `python train.py --help` lists the flags, `README.md` what a run leaves behind."""

import logging
import os
import sys

from inputs import InputError, parse


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 after one sentence about what cannot be used, 130 after an
    interruption, or 143 after SIGTERM."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        from train_pl import train_vae  # after the flags are parsed: importing torch takes seconds

        train_vae(args)
    except InputError as error:
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0":  # once, and not from each process
            print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # Lightning's way to end: with a code after Ctrl-C, with none after SIGTERM
        return 130 if stop.code else 143
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
