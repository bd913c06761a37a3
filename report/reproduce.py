"""Repeats the runs behind README and report: finished ones are skipped, broken-off ones resumed.

After a run, what the report needs of its checkpoint is computed, since checkpoints are too large for the repository.
Numbers and pictures of a run are then copied into `report/results/<run>/`.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part1"))
from run import InputError, Parser, path, run_command

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "report" / "results"

GPT = "--max_steps 1500 --val_every_n_steps 100 --generate_every_n_steps 500 --seed 0"
# name: command line without data and log folders; DATA stands for the data folder. `make reproduce` runs them in this
# order.
RUNS = {
    "vae_z20": "part1/train.py --z_dim 20 --epochs 80 --seed 42 --importance_samples 100",
    "vae_z2": "part1/train.py --z_dim 2 --epochs 80 --seed 42 --importance_samples 100",
    "ae_z8": "part2/train.py --z_dim 8 --lambda_ 1 --epochs 100 --seed 42",
    "ae_z2": "part2/train.py --z_dim 2 --lambda_ 1 --epochs 100 --seed 42",
    "aae_z8": "part2/train.py --z_dim 8 --lambda_ 0.995 --epochs 100 --seed 42",
    "aae_z2": "part2/train.py --z_dim 2 --lambda_ 0.995 --epochs 100 --seed 42",
    "aae_z20": "part2/train.py --z_dim 20 --lambda_ 0.995 --epochs 100 --seed 42",
    "gpt_shakespeare": f"part3/train.py {GPT}",
    "gpt_grimm": f"part3/train.py --txt_file DATA/text/grimms_fairy_tales.txt {GPT}",
}
RUNS["vae_z20_fast"] = "part1/train.py --z_dim 20 --epochs 24 --lr_schedule one-cycle --seed 42"
RUNS["vae_z20_onecycle"] = RUNS["vae_z20_fast"].replace("--epochs 24", "--epochs 80")
# The experiment of question 2.7: encoders with more or less noise, and a discriminator that learns fast. Against it and
# with lambda 0.5, the deterministic encoder does not learn in five epochs, and its codes overflow in a later one.
TWENTY = "part2/train.py --z_dim 20 --epochs 20"
RUNS |= {
    "ae_z20": f"{TWENTY} --lambda_ 1 --seed 42",
    "aae_z20_seed3": f"{TWENTY} --lambda_ 0.995 --seed 3",
    "aae_z20_strong": f"{TWENTY} --lambda_ 0.995 --d_lr 0.1 --seed 42",
    "aae_z20_gaussian": f"{TWENTY} --lambda_ 0.995 --encoder gaussian --seed 42",
    "aae_z20_gaussian_0.9": f"{TWENTY} --lambda_ 0.9 --encoder gaussian --seed 42",
    "aae_z20_gaussian_0.5": f"{TWENTY} --lambda_ 0.5 --encoder gaussian --seed 42",
    "aae_z20_gaussian_0.5_strong": f"{TWENTY} --lambda_ 0.5 --encoder gaussian --d_lr 0.1 --seed 42",
    "aae_z20_0.5_strong": "part2/train.py --z_dim 20 --epochs 5 --lambda_ 0.5 --d_lr 0.1 --seed 42",
    "aae_z20_universal": f"{TWENTY} --lambda_ 0.995 --encoder universal --seed 42",
    "aae_z20_universal_0.5": f"{TWENTY} --lambda_ 0.5 --encoder universal --seed 42",
}
# Repetitions with other seeds; of 100 epochs only the first 20, after which the test loss no longer falls.
EARLY = {name: command.replace("--epochs 100", "--epochs 20") for name, command in RUNS.items()}
RUNS |= {
    f"{name}_seed{seed}": EARLY[name].replace("--seed 42", f"--seed {seed}")
    for name in ("vae_z20", "vae_z20_fast", "ae_z8", "aae_z8", "aae_z20", "aae_z20_gaussian_0.5_strong",
                 "aae_z20_0.5_strong") for seed in (1, 2)
}  # fmt: skip
# Where those texts come from that are not downloaded.
SOURCES = {"DATA/text/grimms_fairy_tales.txt": "https://www.gutenberg.org/ebooks/2591 as plain text in UTF-8"}
# What is computed of a finished run of each part: commands without --checkpoint RUN, and the file in the run's folder
# that each writes last.
JUDGE = ("report/judge_samples.py --data_dir DATA", "samples.json")
ANALYSES = {
    "part1": [("report/likelihood.py --data_dir DATA", "likelihood.json"), JUDGE],
    "part2": [("report/codes.py --data_dir DATA", "codes.json"), JUDGE],
    "part3": [("report/language.py", "language.json")],
}
RESULT_FILES = ["metrics.csv", *sorted({file for analyses in ANALYSES.values() for _, file in analyses})]
# Where a part's runs are, and the file that a run can be resumed from.
LOG_DIRS = {"part1": "VAE_logs", "part2": "AAE_logs", "part3": "logs"}
CHECKPOINTS = {"part1": "last.ckpt", "part2": "model_checkpoint.pt", "part3": "last.ckpt"}
# What is small enough for the repository and needed to look at a run; a name that a run does not have is left out.
KEPT = [
    *RESULT_FILES,
    "bpd_curve.png",
    "epoch_0_samples.png",
    "epoch_10_samples.png",
    "epoch_80_samples.png",
    "vae_manifold.png",
    "codes.png",
    "curves.png",
    "manifold.png",
    "codes.csv",
    "texts/step_1500.txt",
    *(f"results/Prior_samples/samples_epoch_{epoch}.png" for epoch in (0, 20, 50, 100)),
    *(f"results/Reconstruction/reconstruction_{epoch}.png" for epoch in (0, 20, 50, 100)),
]


def build_parser() -> Parser:
    parser = Parser("reproduce.py", __doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", default=list(RUNS), metavar="RUN", help="runs to make")
    parser.add_argument("--data_dir", type=path, default=os.environ.get("DATA_DIR", str(REPOSITORY / "data")),
                        help="directory with MNIST/raw and text; DATA_DIR replaces the default")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="repeat runs that are finished, from their start")
    return parser


def bring_to_its_end(name: str, data_dir: str, force: bool) -> None:
    """Start or resume a run, analyse it, and copy what it leaves; a finished one is started anew by force alone.

    Raises:
        subprocess.CalledProcessError: training or analysis failed.
    """
    part = RUNS[name].split("/")[0]
    logs = REPOSITORY / part / LOG_DIRS[part] / name
    run = newest_run(logs, CHECKPOINTS[part])
    finished = run is not None and (run / "summary.json").exists()
    if force or not finished:
        command = with_data(RUNS[name], data_dir)
        command += ["--data_dir", data_dir, "--log_dir", str(logs)]
        if run and not finished:
            command += ["--resume", str(run)]
        execute(name, command)
        run = newest_run(logs, CHECKPOINTS[part])
    analyse(run, name, data_dir)
    collect(run, name)


def complete(name: str, data_dir: str) -> None:
    """Make up for analyses that a finished run lacks, where its checkpoint is on this machine; say so where not."""
    files = [file for _, file in ANALYSES[RUNS[name].split("/")[0]]]
    if missing := [file for file in files if not (RESULTS / name / file).exists()]:
        run = run_behind(name)
        if run is None:
            print(f"{name}: finished, but without {missing[0]}, which needs the run's checkpoint: --force repeats it")
            return
        analyse(run, name, data_dir)
        collect(run, name)
    print(f"{name}: finished, see report/results/{name}")


def run_behind(name: str) -> Path | None:
    """Directory of the run that was collected under this name; None if it is not on this machine."""
    part = RUNS[name].split("/")[0]
    finished = json.loads((RESULTS / name / "summary.json").read_text()).get("finished")
    for checkpoint in (REPOSITORY / part / LOG_DIRS[part] / name).rglob(f"checkpoints/{CHECKPOINTS[part]}"):
        summary = checkpoint.parent.parent / "summary.json"
        if finished and summary.exists() and json.loads(summary.read_text()).get("finished") == finished:
            return summary.parent
    return None


def analyse(run: Path, name: str, data_dir: str) -> None:
    """Compute what the report needs of a run's checkpoint, unless that has been done since the run was finished."""
    for command, file in ANALYSES[RUNS[name].split("/")[0]]:
        done = run / file
        if not done.exists() or done.stat().st_mtime < (run / "summary.json").stat().st_mtime:
            execute(name, [*with_data(command, data_dir), "--checkpoint", str(run)])


def with_data(command: str, data_dir: str) -> list[str]:
    """The words of a command, with the data folder in the place of DATA."""
    return [re.sub("^DATA(?=/|$)", lambda _: data_dir, word) for word in command.split()]


def check_text(name: str, data_dir: str) -> None:
    """Raises InputError where a run trains on a text of the data folder that is not there."""
    for word in RUNS[name].split():
        place, text = with_data(word, data_dir)[0], word.removeprefix("DATA/")
        if text != word and not os.path.isfile(REPOSITORY / place):
            raise InputError(
                f"the text of {name} is not at {place}: put it there ({SOURCES[word]}), give the folder above {text} "
                f"with --data_dir, or name the runs to make without {name}"
            )


def newest_run(logs: Path, checkpoint: str) -> Path | None:
    """Directory of the run whose checkpoint was written last; None if there is none."""
    found = max(logs.rglob(f"checkpoints/{checkpoint}"), key=lambda path: path.stat().st_mtime, default=None)
    return found and found.parent.parent


def execute(name: str, command: list[str]) -> None:
    """Run a Python script to its end, which it also reaches by itself when it is interrupted.

    Args:
        name: of the run that it is for.
        command: the script and its flags.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    print(f"{name}: python {shlex.join(command)}", flush=True)
    with subprocess.Popen([sys.executable, *command], cwd=REPOSITORY) as process:
        try:
            code = process.wait()
        except (KeyboardInterrupt, SystemExit) as stop:  # let it say what it has saved
            if isinstance(stop, SystemExit):  # of Ctrl-C, the terminal has told the process, too
                process.terminate()
            process.wait()
            raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def collect(run: Path, name: str) -> None:
    """Copy a finished run's numbers and pictures; what only this machine's paths could say is left out."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    kept = RESULT_FILES if "_seed" in name else KEPT  # of other seeds, the numbers
    for file in kept:
        if (run / file).exists():
            shutil.copyfile(run / file, target / Path(file).name)
    summary = json.loads((run / "summary.json").read_text())
    summary["command"] = f"python {RUNS[name]} --data_dir DATA"
    for flag in ("data_dir", "log_dir"):
        summary["flags"].pop(flag)
    for word in RUNS[name].split():
        if word.startswith("DATA/"):
            summary["flags"]["txt_file"] = word
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def reproduce(args: argparse.Namespace) -> None:
    """Make the runs that the flags name, one after the other.

    Raises:
        InputError: there is no such run, its text is not there, or one of the commands failed.
        KeyboardInterrupt, SystemExit: a signal has ended a run; a message has said how to go on.
    """
    names = args.runs
    if unknown := [name for name in names if name not in RUNS]:
        raise InputError(f"no run {unknown[0]}: there are {', '.join(RUNS)}")
    for name in names:  # before any training, which takes hours
        if args.force or not (RESULTS / name / "summary.json").exists():
            check_text(name, args.data_dir)
    for i, name in enumerate(names):
        try:
            if (RESULTS / name / "summary.json").exists() and not args.force:
                complete(name, args.data_dir)
            else:
                print(f"{name}: run {i + 1} of {len(names)}")
                bring_to_its_end(name, args.data_dir, args.force)
        except subprocess.CalledProcessError as failure:
            code = failure.returncode
            raise InputError(f"{name}: {failure.cmd[0]} stopped with exit code {code}") from failure
        except (KeyboardInterrupt, SystemExit):
            # By force, the runs that are finished by now would be repeated again.
            runs = f" for {' '.join(names[i:])} alone" if args.force and i else ""
            print(f"{name} was interrupted: the same command{runs} goes on with it")
            raise


if __name__ == "__main__":
    raise SystemExit(run_command(reproduce, build_parser().parse_args()))
