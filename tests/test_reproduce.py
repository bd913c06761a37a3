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
from runs import interruptible

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


def call(root: Path, name: str, data_dir: str, resumed: int | None = None) -> str:
    """What a call of the stand-in should have after `--data_dir`."""
    resume = "" if resumed is None else f" --resume {run_folder(root, name, resumed)}"
    return f"{os.path.abspath(data_dir)} --log_dir {root / 'part1' / 'VAE_logs' / name}{resume}"


def test_finished_runs_are_collected_and_left_alone(reproduce, tmp_path, capfd):
    for _ in range(2):
        assert reproduce.main(["--data_dir", "data"]) == 0
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


def test_a_finished_run_is_repeated_by_force(reproduce, tmp_path):
    for argv in ([], ["--force"], ["--force"]):
        assert reproduce.main(["a", "--data_dir", "data", *argv]) == 0
    assert calls(tmp_path) == [call(tmp_path, "a", "data")] * 3, "it is not resumed"
    assert len(analyses(tmp_path)) == 3
    assert (tmp_path / "results" / "a" / "metrics.csv").read_text() == str(run_folder(tmp_path, "a", 2))


@pytest.mark.parametrize("argv", [[], ["--force"]])
def test_a_run_that_broke_off_is_resumed(reproduce, tmp_path, capfd, argv):
    """Also one that a finished run stands before."""
    if argv:
        assert reproduce.main(["a", "--data_dir", "data"]) == 0
    broken = len(argv)
    assert reproduce.main(["a", "--data_dir", "fails", *argv]) == 2
    assert capfd.readouterr().err == "reproduce.py: error: a: part1/train.py stopped with exit code 3\n"
    assert reproduce.main(["a", "--data_dir", "data", *argv]) == 0
    assert calls(tmp_path)[-2:] == [call(tmp_path, "a", "fails"), call(tmp_path, "a", "data", resumed=broken)]
    assert (tmp_path / "results" / "a" / "metrics.csv").read_text() == str(run_folder(tmp_path, "a", broken))


def test_a_finished_run_that_was_not_collected_is_not_run_again(reproduce, tmp_path):
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    (tmp_path / "results" / "a" / "summary.json").unlink()
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert len(calls(tmp_path)) == 1
    assert (tmp_path / "results" / "a" / "summary.json").exists()


def test_a_run_is_not_finished_before_its_analysis_is(reproduce, tmp_path, capfd):
    """Nor is it trained again then."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "breaks").touch()
    assert reproduce.main(["a", "--data_dir", str(tmp_path / "data")]) == 2
    assert capfd.readouterr().err == "reproduce.py: error: a: report/likelihood.py stopped with exit code 5\n"
    assert not (tmp_path / "results" / "a" / "summary.json").exists()
    (tmp_path / "data" / "breaks").unlink()
    assert reproduce.main(["a", "--data_dir", str(tmp_path / "data")]) == 0
    assert (len(calls(tmp_path)), len(analyses(tmp_path))) == (1, 2)
    assert (tmp_path / "results" / "a" / "likelihood.json").exists()


def test_an_analysis_that_a_finished_run_lacks_is_made_up_for(reproduce, tmp_path, capfd):
    """From the checkpoint of this very run, not of newer ones that broke off or were not collected."""
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    for folder in (run_folder(tmp_path, "a", 0), tmp_path / "results" / "a"):
        (folder / "likelihood.json").unlink()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "breaks").touch()
    for data_dir in (str(tmp_path / "broken"), "fails"):
        assert reproduce.main(["a", "--data_dir", data_dir, "--force"]) == 2
    assert (run_folder(tmp_path, "a", 1) / "summary.json").exists() and run_folder(tmp_path, "a", 2).exists()
    (run_folder(tmp_path, "a", 0) / "checkpoints" / "last.ckpt").rename(tmp_path / "last.ckpt")
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert not (tmp_path / "results" / "a" / "likelihood.json").exists()
    (tmp_path / "last.ckpt").rename(run_folder(tmp_path, "a", 0) / "checkpoints" / "last.ckpt")
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert json.loads((tmp_path / "results" / "a" / "likelihood.json").read_text()) == {
        "of": str(run_folder(tmp_path, "a", 0))
    }
    assert (len(calls(tmp_path)), len(analyses(tmp_path))) == (3, 3)


def test_an_analysis_older_than_its_run_is_made_anew(reproduce, tmp_path):
    """As it is after `train.py --resume RUN --epochs MORE`."""
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    shutil.rmtree(tmp_path / "results")
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert (len(calls(tmp_path)), len(analyses(tmp_path))) == (1, 1)
    shutil.rmtree(tmp_path / "results")
    summary = run_folder(tmp_path, "a", 0) / "summary.json"
    os.utime(summary, times=(summary.stat().st_atime, summary.stat().st_mtime + 60))
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert (len(calls(tmp_path)), len(analyses(tmp_path))) == (1, 2)


def test_without_its_checkpoint_a_run_stays_finished(reproduce, tmp_path, capfd):
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    shutil.rmtree(tmp_path / "part1" / "VAE_logs")
    (tmp_path / "results" / "a" / "likelihood.json").unlink()
    before = (tmp_path / "results" / "a" / "summary.json").read_text()
    capfd.readouterr()
    assert reproduce.main(["a", "--data_dir", "data"]) == 0
    assert capfd.readouterr().out == (
        "a: finished, but without likelihood.json, which needs the run's checkpoint: --force repeats the run\n"
    )
    assert (tmp_path / "results" / "a" / "summary.json").read_text() == before
    assert (len(calls(tmp_path)), len(analyses(tmp_path))) == (1, 1)


def test_a_text_of_the_data_folder(reproduce, tmp_path, capfd):
    """Its path is that of the folder that was given; where it is missing, one sentence says where it was looked for."""
    training = "part1/train.py --z_dim 5 --txt_file DATA/text/tales.txt"
    reproduce.RUNS, reproduce.SOURCES = {"a": reproduce.RUNS["a"], "c": training}, {"DATA/text/tales.txt": "from there"}
    data = tmp_path / "my data"
    assert reproduce.main(["--data_dir", str(data)]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"reproduce.py: error: the text of c is not at {data}/text/tales.txt: put it there (from ")
    assert error.count("\n") == 1 and not (tmp_path / "calls").exists(), "known before the first training"
    reproduce.RUNS.pop("a")
    (data / "text").mkdir(parents=True)
    (data / "text" / "tales.txt").touch()
    assert reproduce.main(["--data_dir", str(data)]) == 0
    assert (tmp_path / "calls").read_text().startswith(f"--z_dim 5 --txt_file {data}/text/tales.txt --data_dir {data}")
    summary = json.loads((tmp_path / "results" / "c" / "summary.json").read_text())
    assert summary["flags"]["txt_file"] == "DATA/text/tales.txt"
    assert summary["command"] == "python part1/train.py --z_dim 5 --txt_file DATA/text/tales.txt --data_dir DATA"


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_commands_of_the_table_have_flags_that_exist(reproduce_itself, repository, request, name):
    """Those of the runs, and those of their analyses."""
    part = request.getfixturevalue(name)
    commands = [command for command in reproduce_itself.RUNS.values() if command.startswith(name)]
    for command in commands:
        part.inputs.build_parser().parse_args(command.split()[1:])
    script, *flags = reproduce_itself.ANALYSES[name][0].split()
    load_script(repository / script).build_parser().parse_args([*flags, "--checkpoint", "RUN"])
    assert commands


def test_the_two_texts_are_trained_on_alike(reproduce_itself):
    grimm = reproduce_itself.RUNS["gpt_grimm"].replace(" --txt_file DATA/text/grimms_fairy_tales.txt", "")
    assert grimm == reproduce_itself.RUNS["gpt_shakespeare"]


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
