"""`report/reproduce.py`: which runs it starts, resumes, repeats or leaves alone, with a stand-in for the trainings."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")

# Leaves the files of a run. The data folder's name says how it ends (only run b waits), and each call is noted.
TRAINING = """
import argparse, json, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ("--z_dim", "--txt_file", "--data_dir", "--log_dir", "--resume"):
    parser.add_argument(flag)
flags = vars(parser.parse_args())
runs = Path(flags["log_dir"], "lightning_logs")
run = Path(flags["resume"] or runs / f"version_{len(list(runs.glob('*')))}")
with open("calls", "a") as file:
    print(*sys.argv[1:], file=file)
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / "checkpoints" / "last.ckpt").touch()
if Path(flags["data_dir"]).name == "fails":
    sys.exit(3)
if Path(flags["data_dir"]).name == "waits" and flags["z_dim"] == "3":
    try:
        print("waiting", flush=True)
        for _ in range(6000):
            time.sleep(0.1)  # an interruption that comes just before a sleep begins is noticed when it ends
    except KeyboardInterrupt:
        time.sleep(2)
        print("saved", flush=True)
        sys.exit(130)
(run / "metrics.csv").write_text(str(run))
summary = {"test_bpd": 0.5, "command": "", "flags": flags, "finished": f"{flags['z_dim']} {run.name}"}
(run / "summary.json").write_text(json.dumps(summary))
"""
# Leaves the file of an analysis, and a note of the call; it fails where the file `breaks` is in the data folder.
ANALYSIS = """
import json, sys
from pathlib import Path

data_dir, run = sys.argv[2], Path(sys.argv[4])
with open("analyses", "a") as file:
    print(*sys.argv[1:], file=file)
if Path(data_dir, "breaks").exists():
    sys.exit(5)
(run / "likelihood.json").write_text(json.dumps({"of": str(run)}))
"""


@pytest.fixture
def reproduce_itself(repository) -> ModuleType:
    return load_script(repository / "report" / "reproduce.py")


@pytest.fixture
def reproduce(reproduce_itself, tmp_path) -> ModuleType:
    """The module with two runs of the stand-in, in a repository of its own."""
    module = reproduce_itself
    (tmp_path / "part1").mkdir()
    (tmp_path / "part1" / "train.py").write_text(TRAINING)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "likelihood.py").write_text(ANALYSIS)
    module.REPOSITORY, module.RESULTS = tmp_path, tmp_path / "results"
    module.ANALYSES = {"part1": module.ANALYSES["part1"][:1]}
    module.RUNS = {"a": "part1/train.py --z_dim 2", "b": "part1/train.py --z_dim 3"}
    return module


def run_folder(root: Path, name: str, number: int) -> Path:
    return root / "part1" / "VAE_logs" / name / "lightning_logs" / f"version_{number}"


def calls(root: Path) -> list[str]:
    """What follows `--data_dir` in the calls of the stand-in so far."""
    return [line.split(" --data_dir ")[1] for line in (root / "calls").read_text().splitlines()]


def analyses(root: Path) -> list[str]:
    """The calls of the stand-in for the analysis so far."""
    return (root / "analyses").read_text().splitlines() if (root / "analyses").exists() else []


def run(module: ModuleType, *argv: str) -> None:
    module.reproduce(module.build_parser().parse_args(argv))


def call(root: Path, name: str, data_dir: str, resumed: int | None = None) -> str:
    """What a call of the stand-in should have after `--data_dir`."""
    resume = "" if resumed is None else f" --resume {run_folder(root, name, resumed)}"
    return f"{os.path.abspath(data_dir)} --log_dir {root / 'part1' / 'VAE_logs' / name}{resume}"


def test_finished_runs_are_collected_and_left_alone(reproduce, tmp_path, capfd):
    for _ in range(2):
        run(reproduce, "--data_dir", "data")
    assert calls(tmp_path) == [call(tmp_path, "a", "data"), call(tmp_path, "b", "data")]
    assert "a: finished, see report/results/a" in capfd.readouterr().out
    summary = json.loads((tmp_path / "results" / "a" / "summary.json").read_text())
    assert summary == {
        "test_bpd": 0.5, "command": "python part1/train.py --z_dim 2 --data_dir DATA",
        "flags": {"z_dim": "2", "resume": None, "txt_file": None}, "finished": "2 version_0",
    }  # fmt: skip
    assert analyses(tmp_path) == [
        f"--data_dir {os.path.abspath('data')} --checkpoint {run_folder(tmp_path, name, 0)}" for name in "ab"
    ]
    for name in "ab":
        likelihood = json.loads((tmp_path / "results" / name / "likelihood.json").read_text())
        assert likelihood == {"of": str(run_folder(tmp_path, name, 0))}


@pytest.mark.parametrize("argv", [[], ["--force"]])
def test_a_run_that_broke_off_is_resumed(reproduce, tmp_path, argv):
    """Also one that a finished run stands before."""
    if argv:
        run(reproduce, "a", "--data_dir", "data")
    broken = len(argv)
    with pytest.raises(reproduce.InputError, match=r"a: part1/train\.py stopped with exit code 3"):
        run(reproduce, "a", "--data_dir", "fails", *argv)
    run(reproduce, "a", "--data_dir", "data", *argv)
    assert calls(tmp_path)[-2:] == [call(tmp_path, "a", "fails"), call(tmp_path, "a", "data", resumed=broken)]
    assert (tmp_path / "results" / "a" / "metrics.csv").read_text() == str(run_folder(tmp_path, "a", broken))


def test_a_missing_analysis_is_made_up_for(reproduce, tmp_path, capfd):
    """From the checkpoint of this very run, also if a newer one broke off; not without its checkpoint."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "breaks").touch()
    with pytest.raises(reproduce.InputError, match=r"a: report/likelihood\.py stopped with exit code 5"):
        run(reproduce, "a", "--data_dir", str(tmp_path / "data"))
    assert not (tmp_path / "results" / "a" / "summary.json").exists(), "not finished before its analysis is"
    (tmp_path / "data" / "breaks").unlink()
    result = tmp_path / "results" / "a" / "likelihood.json"
    for place in (result, run_folder(tmp_path, "a", 0) / "likelihood.json"):
        run(reproduce, "a", "--data_dir", str(tmp_path / "data"))
        assert json.loads(result.read_text()) == {"of": str(run_folder(tmp_path, "a", 0))}
        place.unlink()
    with pytest.raises(reproduce.InputError):
        run(reproduce, "a", "--data_dir", "fails", "--force")
    run(reproduce, "a", "--data_dir", "data")
    assert json.loads(result.read_text()) == {"of": str(run_folder(tmp_path, "a", 0))}
    shutil.rmtree(tmp_path / "part1" / "VAE_logs")
    result.unlink()
    run(reproduce, "a", "--data_dir", "data")
    assert "a: finished, but without likelihood.json" in capfd.readouterr().out
    assert len(calls(tmp_path)) == 2, "it was trained once, and once by force"
    with pytest.raises(reproduce.InputError, match="no run x: there are a, b"):
        run(reproduce, "x")


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_commands_have_flags_that_exist(reproduce_itself, repository, request, name):
    part = request.getfixturevalue(name)
    commands = [command for command in reproduce_itself.RUNS.values() if command.startswith(name)]
    for command in commands:
        part.args.parse_args(command.split()[1:])
    for script, *flags in (command.split() for command, _ in reproduce_itself.ANALYSES[name]):
        load_script(repository / script).build_parser().parse_args([*flags, "--checkpoint", "RUN"])
    assert commands


@pytest.mark.slow
def test_an_interruption_waits_for_the_run_s_last_words(repository, reproduce, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(repository / 'report')!r})\n"
        f"sys.argv = ['reproduce.py', '--force', 'a', 'b', '--data_dir', 'waits']\n"
        "import reproduce; from pathlib import Path; from run import run_command\n"
        f"reproduce.REPOSITORY, reproduce.RESULTS = Path({str(tmp_path)!r}), Path({str(tmp_path / 'results')!r})\n"
        f"reproduce.RUNS = {reproduce.RUNS!r}\n"
        "raise SystemExit(run_command(reproduce.reproduce, reproduce.build_parser().parse_args()))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while process.stdout.readline() != "waiting\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to both processes
        output, _ = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130
    assert output.startswith("saved\n") and "the same command for b alone" in output
