"""Part 2's `train.py` as a process of its own: help, two devices, and an interruption in the middle of an epoch."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runs import command_to_go_on, interrupt, interruptible, rows_of

pytestmark = pytest.mark.timeout(900)  # processes of their own, which a busy machine starves

SMALL = ["--dataset", "digits", "--z_dim", "3", "--seed", "3"]


def command(repository: Path, *argv: str) -> list[str]:
    return [sys.executable, str(repository / "part2" / "train.py"), *SMALL, *argv]


def environment() -> dict[str, str]:
    """One thread for each process, as two of them share the machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


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


def test_two_devices_do_what_one_does_with_batches_of_twice_the_size(repository, tmp_path):
    """With λ = 1 no noise is involved: the ordinary autoencoder comes out the same but for rounding."""
    scores = []
    for devices, batch_size in ((1, 300), (2, 150)):
        log_dir = tmp_path / str(devices)
        argv = ["--epochs", "1", "--lambda_", "1", "--batch_size", str(batch_size), "--devices", str(devices)]
        done = subprocess.run(
            command(repository, *argv, "--log_dir", str(log_dir)), env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads((log_dir / "version_0" / "summary.json").read_text())
        assert summary["num_devices"] == devices
        assert [row["step"] for row in rows_of(log_dir / "version_0")] == ["5"]
        scores.append((summary["train_recon_loss"], summary["test_recon_loss"]))
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_two_devices_end_where_the_data_cannot_be_read(repository, tmp_path):
    """And do not wait for each other."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"short")
    argv = ["--dataset", "mnist", "--data_dir", str(tmp_path), "--devices", "2", "--log_dir", str(tmp_path / "logs")]
    done = subprocess.run(command(repository, *argv), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("train.py: error: ") == 1 and "Traceback" not in done.stderr


def test_an_interrupted_run_says_how_to_go_on_and_does(repository, tmp_path):
    argv = ["--epochs", "1000", "--batch_size", "150", "--log_dir", str(tmp_path / "all logs")]
    run = tmp_path / "all logs" / "version_0"
    checkpoint = run / "checkpoints" / "model_checkpoint.pt"
    place = {"env": environment(), "cwd": tmp_path, "text": True,
             "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}  # fmt: skip
    with subprocess.Popen(command(repository, *argv), preexec_fn=interruptible, **place) as first:
        try:
            while not checkpoint.exists():
                assert first.poll() is None, "the training ended by itself"
                time.sleep(0.1)
            output = interrupt(first)
        finally:
            first.kill()
    assert first.returncode == 130, output
    assert "Traceback" not in output

    saved = torch.load(checkpoint, weights_only=True)["epoch"]
    assert f"interrupted, epoch {saved} is saved: continue with {shlex.quote(sys.executable)} " in output
    more = ["--epochs", str(saved + 1)]
    again = subprocess.run([*command_to_go_on(output), *more], **place)
    assert again.returncode == 0, again.stdout
    assert [row["epoch"] for row in rows_of(run)] == [str(epoch) for epoch in range(1, saved + 2)]
