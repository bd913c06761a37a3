"""Train the VAE: `python train.py --help` lists the flags, README.md the files that a run leaves.

The same command as `train_pl.py`, under the name that all three parts share.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part1.train` and `python -P`
    from cli import start
    from inputs import parse_args

    ARGS = start(parse_args)

from train_pl import main

if __name__ == "__main__":
    raise SystemExit(main(ARGS))
