"""Repeats the runs whose numbers stand in the README: finished ones are skipped, broken-off ones resumed.

Numbers and pictures of a run are copied into `report/results/<run>/`.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "report" / "results"

# name: command line without data and log folders. `make reproduce` runs them in this order.
RUNS = {
    "vae_z20": "part1/train.py --z_dim 20 --epochs 80 --seed 42 --importance_samples 100",
    "vae_z2": "part1/train.py --z_dim 2 --epochs 80 --seed 42 --importance_samples 100",
    "ae_z8": "part2/train.py --z_dim 8 --lambda_ 1 --epochs 100 --seed 42",
    "ae_z2": "part2/train.py --z_dim 2 --lambda_ 1 --epochs 100 --seed 42",
    "aae_z8": "part2/train.py --z_dim 8 --lambda_ 0.995 --epochs 100 --seed 42",
    "aae_z2": "part2/train.py --z_dim 2 --lambda_ 0.995 --epochs 100 --seed 42",
    "aae_z20": "part2/train.py --z_dim 20 --lambda_ 0.995 --epochs 100 --seed 42",
    "gpt_shakespeare": "part3/train.py --max_steps 1500 --val_every_n_steps 100 --generate_every_n_steps 500 --seed 0",
}
# Where a part's runs are, and the file that a run can be resumed from.
LOG_DIRS = {"part1": "VAE_logs", "part2": "AAE_logs", "part3": "logs"}
CHECKPOINTS = {"part1": "last.ckpt", "part2": "model_checkpoint.pt", "part3": "last.ckpt"}
# What is small enough for the repository and needed to look at a run; a name that a run does not have is left out.
KEPT = [
    "metrics.csv",
    "bpd_curve.png",
    "epoch_0_samples.png",
    "epoch_10_samples.png",
    "epoch_80_samples.png",
    "vae_manifold.png",
    "codes.png",
    "curves.png",
    "manifold.png",
    *(f"texts/step_{step}.txt" for step in (0, 500, 1000, 1500)),
    *(f"results/Prior_samples/samples_epoch_{epoch}.png" for epoch in (0, 20, 50, 100)),
    *(f"results/Reconstruction/reconstruction_{epoch}.png" for epoch in (0, 20, 50, 100)),
]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="reproduce.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"some of {', '.join(RUNS)}; all by default")
    parser.add_argument("--data_dir", default=os.environ.get("DATA_DIR", str(REPOSITORY / "data")),
                        help="folder with MNIST/raw and text (default: DATA_DIR if it is set, else data)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="repeat runs that are finished, from their start")
    return parser


def bring_to_its_end(name: str, data_dir: str, force: bool) -> None:
    """Start or resume a run and copy what it leaves; a finished one is started anew by force, and else only copied."""
    part = RUNS[name].split("/")[0]
    logs = REPOSITORY / part / LOG_DIRS[part] / name
    run = newest_run(logs, CHECKPOINTS[part])
    finished = run is not None and (run / "summary.json").exists()
    if force or not finished:
        command = f"{RUNS[name]} --data_dir {shlex.quote(data_dir)} --log_dir {shlex.quote(str(logs))}"
        if run and not finished:
            command += f" --resume {shlex.quote(str(run))}"
        print(f"{name}: python {command}", flush=True)
        execute([sys.executable, *shlex.split(command)])
        run = newest_run(logs, CHECKPOINTS[part])
    collect(run, name)


def newest_run(logs: Path, checkpoint: str) -> Path | None:
    """Folder of the run whose checkpoint was written last; None where there is none."""
    found = max(logs.rglob(f"checkpoints/{checkpoint}"), key=lambda path: path.stat().st_mtime, default=None)
    return found and found.parent.parent


def execute(command: list[str]) -> None:
    """Run a command to its end, which it also reaches by itself when it is interrupted.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal has told the process, too: let it say what it has saved
            process.wait()
            raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def collect(run: Path, name: str) -> None:
    """Copy a finished run's numbers and pictures; what only this machine's paths could say is left out."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        if (run / file).exists():
            shutil.copyfile(run / file, target / Path(file).name)
    summary = json.loads((run / "summary.json").read_text())
    summary["command"] = f"python {RUNS[name]} --data_dir DATA"
    for flag in ("data_dir", "log_dir"):
        summary["flags"].pop(flag)
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if unknown := [name for name in args.runs if name not in RUNS]:
        print(f"reproduce.py: error: no run {unknown[0]}: there are {', '.join(RUNS)}", file=sys.stderr)
        return 2
    names = args.runs or list(RUNS)
    for i, name in enumerate(names):
        if (RESULTS / name / "summary.json").exists() and not args.force:
            print(f"{name}: finished, see report/results/{name}")
            continue
        try:
            bring_to_its_end(name, args.data_dir, args.force)
        except subprocess.CalledProcessError as failure:
            print(f"reproduce.py: error: {name} stopped with exit code {failure.returncode}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            # By force, the runs that are finished by now would be repeated again.
            runs = f" for {' '.join(names[i:])} alone" if args.force and i else ""
            print(f"reproduce.py: {name} was interrupted: the same command{runs} goes on with it", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
