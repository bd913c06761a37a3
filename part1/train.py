"""Train the VAE: `python train.py --help` lists the flags, README.md the files that a run leaves.

The same command as `train_pl.py`, under the name that all three parts share.
"""

from args import parse_args

if __name__ == "__main__":
    ARGS = parse_args()  # first, since importing PyTorch takes seconds

    from run import run_command
    from train_pl import train_vae

    raise SystemExit(run_command(train_vae, ARGS))
