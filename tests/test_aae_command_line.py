"""Part 2's `train.py` as a process of its own: help, two devices, and an interruption in the middle of an epoch."""

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

SMALL = ["--dataset", "digits", "--z_dim", "3", "--seed", "3"]


def command(repository: Path, *argv: str) -> list[str]:
    return [sys.executable, str(repository / "part2" / "train.py"), *SMALL, *argv]


def environment() -> dict[str, str]:
    """One thread for each process, as two of them share the machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def rows_of(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_help_answers_without_importing_torch(repository):
    code = (
        "import sys; sys.path.insert(0, 'part2')\n"
        "import train\n"
        "assert train.train_aae and train.generate_and_save and train.save_reconstruction and train.main\n"
        "try: train.cli(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--lambda_" in done.stdout


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


def test_an_interrupted_run_says_how_to_go_on_and_does(repository, tmp_path):
    argv = ["--batch_size", "150", "--log_dir", str(tmp_path)]
    first = subprocess.Popen(
        command(repository, "--epochs", "1000", *argv), env=environment(), stdout=subprocess.PIPE, text=True
    )
    run = tmp_path / "version_0"
    while not ((run / "metrics.csv").exists() and (run / "checkpoints" / "model_checkpoint.pt").exists()):
        assert first.poll() is None, "the training ended by itself"
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "continue with --resume" in output

    finished = len(rows_of(run))
    again = subprocess.run(
        command(repository, "--epochs", str(finished + 1), "--resume", *argv),
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert [row["epoch"] for row in rows_of(run)] == [str(epoch) for epoch in range(1, finished + 2)]
