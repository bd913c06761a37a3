"""Part 2's `train.py` at the command line: help, two devices, and an interruption in the middle of an epoch."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from runs import command_to_go_on, rows_of

SMALL = ["--dataset", "digits", "--z_dim", "3", "--seed", "3"]


@pytest.mark.parametrize("script", ["train", "generate"])
@pytest.mark.parametrize("how", ["{0}.py", "-P part2/{0}.py", "-m part2.{0}"])
def test_help_answers_without_importing_torch(repository, script, how):
    """In each way to start a script; from within its folder, and from the repository."""
    folder = repository / "part2" if how == "{0}.py" else repository
    argv = [sys.executable, "-X", "importtime", *how.format(script).split(), "--help"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"train": "--lambda_", "generate": "--num_samples"}[script] in done.stdout
    assert "inputs" in imported(done.stderr) and "torch" not in imported(done.stderr)


def imported(report: str) -> set[str]:
    """Names of the modules in the report of `-X importtime`."""
    return {line.split("|")[-1].strip() for line in report.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(("script", "flag"), [("train", "--z_dim"), ("generate", "--num_samples")])
def test_a_value_that_makes_no_sense_is_refused_without_importing_torch(repository, script, flag):
    argv = [sys.executable, "-X", "importtime", str(repository / "part2" / f"{script}.py"), flag, "0"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2
    (error,) = (line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert error.startswith(f"{script}.py: error: {flag} must be ")
    assert "torch" not in imported(done.stderr)


def test_the_course_s_functions_can_be_imported(part2):
    for name in ("train_aae", "generate_and_save", "save_reconstruction", "main"):
        assert callable(getattr(part2.train, name))


def test_two_devices_do_what_one_does_with_batches_of_twice_the_size(server, tmp_path):
    """With λ = 1 no noise is involved: the ordinary autoencoder comes out the same but for rounding."""
    scores = []
    for devices, batch_size in ((1, 60), (2, 30)):
        log_dir = tmp_path / str(devices)
        argv = ["--epochs", "2", "--lambda_", "1", "--batch_size", str(batch_size), "--devices", str(devices)]
        argv = [*SMALL, *argv, "--log_dir", str(log_dir)]
        code, _, output = server.train("part2", argv, tmp_path / "moments.txt", processes=devices)
        assert code == 0, output
        summary = json.loads((log_dir / "version_0" / "summary.json").read_text())
        assert summary["num_devices"] == devices
        assert [row["step"] for row in rows_of(log_dir / "version_0")] == ["2", "4"]
        scores.append((summary["train_recon_loss"], summary["test_recon_loss"]))
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_two_devices_end_where_the_data_cannot_be_read(server, tmp_path):
    """And do not wait for each other."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"short")
    argv = ["--dataset", "mnist", "--data_dir", str(tmp_path), "--devices", "2", "--log_dir", str(tmp_path / "logs")]
    code, _, output = server.train("part2", argv, tmp_path / "moments.txt", processes=2)
    assert code == 2
    assert output.count("train.py: error: ") == 1 and "Traceback" not in output


def test_an_interrupted_run_says_how_to_go_on_and_does(part2, tiny_digits, tmp_path, monkeypatch, caplog):
    """Ctrl-C comes in the second epoch. (test_gpt_command_line.py presses it in a process of its own.)"""
    argv = [*SMALL, "--epochs", "9", "--batch_size", "60", "--log_dir", str(tmp_path / "all logs")]
    original = part2.train.train_aae

    def interrupted(epoch, *args, **kwargs):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(epoch, *args, **kwargs)

    with tiny_digits(part2):
        with monkeypatch.context() as patch, caplog.at_level("INFO"):
            patch.setattr(part2.train, "train_aae", interrupted)
            assert part2.train.cli(argv) == 130
        assert f"interrupted, epoch 1 is saved: continue with {shlex.quote(sys.executable)} " in caplog.text
        _, script, *argv = command_to_go_on(caplog.text)
        assert script == str(part2.folder / "train.py")
        assert part2.train.cli([*argv, "--epochs", "2"]) == 0
    assert [row["epoch"] for row in rows_of(tmp_path / "all logs" / "version_0")] == ["1", "2"]
