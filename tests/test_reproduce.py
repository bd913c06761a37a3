"""`report/reproduce.py`: which runs it starts, resumes, repeats or leaves alone, with a stand-in for the trainings."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from run_files import interruptible

pytestmark = pytest.mark.own

# Leaves the files of a run. The data folder's name says how it ends (only run b waits), and each call is noted.
TRAINING = """
import argparse, json, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ("--z_dim", "--data_dir", "--log_dir", "--resume"):
    parser.add_argument(flag)
flags = vars(parser.parse_args())
runs = Path(flags["log_dir"], "lightning_logs")
run = Path(flags["resume"] or runs / f"version_{len(list(runs.glob('*')))}")
with open("calls", "a") as file:
    print(*sys.argv[1:], file=file)
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / "checkpoints" / "last.ckpt").touch()
if flags["data_dir"] == "fails":
    sys.exit(3)
if flags["data_dir"] == "waits" and flags["z_dim"] == "3":
    try:
        print("waiting", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep(2)
        print("saved", flush=True)
        sys.exit(130)
(run / "metrics.csv").write_text(str(run))
(run / "summary.json").write_text(json.dumps({"test_bpd": 0.5, "command": "", "flags": flags}))
"""


@pytest.fixture
def reproduce(repository, tmp_path) -> ModuleType:
    """The module with two runs of the stand-in, in a repository of its own."""
    spec = importlib.util.spec_from_file_location("reproduce", repository / "report" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "part1").mkdir()
    (tmp_path / "part1" / "train.py").write_text(TRAINING)
    module.REPOSITORY, module.RESULTS = tmp_path, tmp_path / "results"
    module.RUNS = {"a": "part1/train.py --z_dim 2", "b": "part1/train.py --z_dim 3"}
    return module


def run_folder(root: Path, name: str, number: int) -> Path:
    return root / "part1" / "VAE_logs" / name / "lightning_logs" / f"version_{number}"


def calls(root: Path) -> list[str]:
    """What follows `--data_dir` in the calls of the stand-in so far."""
    return [line.split(" --data_dir ")[1] for line in (root / "calls").read_text().splitlines()]


def call(root: Path, name: str, data_dir: str, resumed: int | None = None) -> str:
    """What a call of the stand-in should have after `--data_dir`."""
    resume = "" if resumed is None else f" --resume {run_folder(root, name, resumed)}"
    return f"{data_dir} --log_dir {root / 'part1' / 'VAE_logs' / name}{resume}"


def test_finished_runs_are_collected_and_left_alone(reproduce, tmp_path, capfd):
    for _ in range(2):
        assert reproduce.main(["--data_dir", "data"]) == 0
    assert calls(tmp_path) == [call(tmp_path, "a", "data"), call(tmp_path, "b", "data")]
    assert "a: finished, see report/results/a" in capfd.readouterr().out
    summary = json.loads((tmp_path / "results" / "a" / "summary.json").read_text())
    assert summary == {
        "test_bpd": 0.5, "command": "python part1/train.py --z_dim 2 --data_dir DATA",
        "flags": {"z_dim": "2", "resume": None},
    }  # fmt: skip


def test_a_finished_run_is_repeated_by_force(reproduce, tmp_path):
    for argv in ([], ["--force"], ["--force"]):
        assert reproduce.main(["a", "--data_dir", "data", *argv]) == 0
    assert calls(tmp_path) == [call(tmp_path, "a", "data")] * 3, "it is not resumed"
    assert (tmp_path / "results" / "a" / "metrics.csv").read_text() == str(run_folder(tmp_path, "a", 2))


@pytest.mark.parametrize("argv", [[], ["--force"]])
def test_a_run_that_broke_off_is_resumed(reproduce, tmp_path, capfd, argv):
    """Also one that a finished run stands before."""
    if argv:
        assert reproduce.main(["a", "--data_dir", "data"]) == 0
    broken = len(argv)
    assert reproduce.main(["a", "--data_dir", "fails", *argv]) == 2
    assert capfd.readouterr().err == "reproduce.py: error: a stopped with exit code 3\n"
    assert reproduce.main(["a", "--data_dir", "data", *argv]) == 0
    assert calls(tmp_path)[-2:] == [call(tmp_path, "a", "fails"), call(tmp_path, "a", "data", resumed=broken)]
    assert (tmp_path / "results" / "a" / "metrics.csv").read_text() == str(run_folder(tmp_path, "a", broken))


def test_a_finished_run_that_was_not_collected_is_not_run_again(reproduce, tmp_path):
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    (tmp_path / "results" / "a" / "summary.json").unlink()
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert len(calls(tmp_path)) == 1
    assert (tmp_path / "results" / "a" / "summary.json").exists()


@pytest.mark.parametrize(
    ("argv", "again"),
    [(["b"], "the same command"), (["--force", "b"], "the same command"),
     (["--force", "a", "b"], "the same command for b alone")],
)  # fmt: skip
def test_an_interruption_waits_for_the_run_s_last_words(repository, reproduce, tmp_path, argv, again):
    code = (
        f"import sys; sys.path.insert(0, {str(repository / 'report')!r})\n"
        "import reproduce; from pathlib import Path\n"
        f"reproduce.REPOSITORY, reproduce.RESULTS = Path({str(tmp_path)!r}), Path({str(tmp_path / 'results')!r})\n"
        f"reproduce.RUNS = {reproduce.RUNS!r}\n"
        f"sys.exit(reproduce.main({[*argv, '--data_dir', 'waits']!r}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=interruptible,
    )  # fmt: skip
    try:
        while process.stdout.readline() != "waiting\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to both processes
        output, _ = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130
    assert output == f"saved\nreproduce.py: b was interrupted: {again} goes on with it\n"


@pytest.mark.parametrize(("argv", "message"), [(["c"], "no run c: there are a, b"), (["--fast"], "arguments: --fast")])
def test_what_cannot_be_run(reproduce, capsys, argv, message):
    try:
        code = reproduce.main(argv)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("reproduce.py: error: ") and message in error and error.count("\n") == 1
