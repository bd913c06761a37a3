"""`train.py` as a process of its own: two devices, and an interruption in the middle of an epoch."""

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

SMALL = ["--dataset", "digits", "--num_filters", "4", "--z_dim", "3", "--seed", "3"]


@pytest.mark.parametrize("configured", [False, True])
def test_train_vae_reports_progress_where_nobody_configured_logging(repository, tmp_path, configured):
    """As in a notebook. An application that has configured logging gets each message once, in its own format."""
    code = (
        f"import sys, logging; sys.path.insert(0, {str(repository / 'part1')!r})\n"
        + "logging.basicConfig(level='INFO', format='APP %(message)s', stream=sys.stdout)\n" * configured
        + "from argparse import Namespace\n"
        "from train_pl import train_vae\n"
        "train_vae(Namespace(dataset='digits', epochs=2, num_filters=1, z_dim=2, batch_size=675, log_dir='.'))\n"
        "import training_run\n"
        "assert len(logging.getLogger('part1').handlers) == (not logging.getLogger().handlers)\n"
        "logging.basicConfig(stream=sys.stderr)\n"
        "training_run.log_to_stdout()\n"
        "assert logging.getLogger('part1').handlers == [], 'configured since then'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    begin = "APP " if configured else ""
    lines = [line for line in done.stdout.splitlines() if "epoch 1/2: train " in line]
    assert len(lines) == 1 and lines[0].startswith(f"{begin}epoch 1/2: train ")
    assert f"\n{begin}test: " in done.stdout


def command(repository: Path, *argv: str) -> list[str]:
    return [sys.executable, str(repository / "part1" / "train.py"), *SMALL, *argv]


def environment() -> dict[str, str]:
    """One thread for each process, as two of them share the machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_two_devices_share_each_epoch(repository, tmp_path):
    argv = ["--epochs", "1", "--batch_size", "225", "--devices", "2", "--strategy", "ddp", "--log_dir", str(tmp_path)]
    done = subprocess.run(command(repository, *argv), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "lightning_logs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_devices"] == 2
    (row,) = rows_of(run)
    assert row["step"] == "3", "1,350 images in batches of 225 are six steps, three for each of two processes"
    assert 3 < float(row["train_bpd"]) < 4.5


def test_an_interrupted_run_says_how_to_go_on_and_does(repository, tmp_path):
    argv = ["--epochs", "1000", "--batch_size", "135", "--log_dir", str(tmp_path / "all logs")]
    run = tmp_path / "all logs" / "lightning_logs" / "version_0"
    place = {"env": environment(), "cwd": tmp_path, "text": True,
             "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}  # fmt: skip
    with subprocess.Popen(command(repository, *argv), preexec_fn=interruptible, **place) as first:
        try:
            while not ((run / "metrics.csv").exists() and len(rows_of(run)) >= 2):
                assert first.poll() is None, "the training ended by itself"
                time.sleep(0.1)
            output = interrupt(first)
        finally:
            first.kill()
    assert first.returncode == 130, output
    assert "Traceback" not in output

    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert f"interrupted, epoch {saved} is saved: continue with {shlex.quote(sys.executable)} " in output
    more = ["--epochs", str(saved + 1)]
    again = subprocess.run([*command_to_go_on(output), *more], **place)
    assert again.returncode == 0, again.stdout
    assert [row["epoch"] for row in rows_of(run)] == [str(epoch) for epoch in range(1, saved + 2)]
