"""`train.py` as a process of its own: two devices, and an interruption in the middle of an epoch."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.own

SMALL = ["--dataset", "digits", "--num_filters", "4", "--z_dim", "3", "--seed", "3"]


def command(repository: Path, *argv: str) -> list[str]:
    return [sys.executable, str(repository / "part1" / "train.py"), *SMALL, *argv]


def environment() -> dict[str, str]:
    """One thread for each process, as two of them share the machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def epochs_of(run: Path) -> list[str]:
    with open(run / "metrics.csv", newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_two_devices_share_each_epoch(repository, tmp_path):
    argv = ["--epochs", "1", "--batch_size", "225", "--devices", "2", "--strategy", "ddp", "--log_dir", str(tmp_path)]
    done = subprocess.run(command(repository, *argv), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "lightning_logs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_devices"] == 2
    with open(run / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "3", "1,350 images in batches of 225 are six steps, three for each of two processes"
    assert 3 < float(row["train_bpd"]) < 4.5


def test_an_interrupted_run_says_how_to_go_on_and_does(repository, tmp_path):
    argv = ["--batch_size", "135", "--log_dir", str(tmp_path)]
    first = subprocess.Popen(
        command(repository, "--epochs", "1000", *argv), env=environment(), stdout=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    while not (metrics.exists() and len(epochs_of(metrics.parent)) >= 2):
        assert first.poll() is None, "the training ended by itself"
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "continue with --resume" in output

    finished = len(epochs_of(metrics.parent))
    again = subprocess.run(
        command(repository, "--epochs", str(finished + 1), "--resume", *argv),
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert epochs_of(metrics.parent) == [str(epoch) for epoch in range(1, finished + 2)]
