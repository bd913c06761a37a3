"""`train.py` of part 1: progress messages, two devices, and an interruption in the middle of an epoch."""

import contextlib
import io
import json
import logging
import os
import shlex
import signal
import sys
from argparse import Namespace

import pytest

from runs import command_to_go_on, not_configured_logging, rows_of

SMALL = ["--dataset", "digits", "--num_filters", "2", "--z_dim", "3", "--seed", "3"]


@pytest.mark.parametrize("configured", [False, True])
def test_train_vae_reports_progress_where_nobody_configured_logging(part1, tmp_path, capsys, configured):
    """As in a notebook, also where the output of an earlier training went elsewhere. An application that has configured
    logging gets each message once, in its own format."""
    args = Namespace(dataset="digits", epochs=2, num_filters=1, z_dim=2, batch_size=675, log_dir=str(tmp_path))
    log = logging.getLogger("part1")
    with not_configured_logging(part1) as root:
        with contextlib.redirect_stdout(io.StringIO()) as earlier:
            part1.training_run.log_to_stdout()
        earlier.close()
        if configured:
            logging.basicConfig(level="INFO", format="APP %(message)s", stream=sys.stdout)
        part1.train_pl.train_vae(args)
        assert len(log.handlers) == (not root.handlers)
        logging.basicConfig(stream=sys.stderr)
        part1.training_run.log_to_stdout()
        assert log.handlers == [], "configured since then"
    begin, out = "APP " if configured else "", capsys.readouterr().out
    lines = [line for line in out.splitlines() if "epoch 1/2: train " in line]
    assert len(lines) == 1 and lines[0].startswith(f"{begin}epoch 1/2: train ")
    assert f"\n{begin}test: " in out


def test_two_devices_share_each_epoch(server, tmp_path):
    argv = ["--epochs", "1", "--batch_size", "20", "--devices", "2", "--strategy", "ddp", "--log_dir", str(tmp_path)]
    code, _, output = server.train("part1", [*SMALL, *argv], tmp_path / "moments.txt", processes=2)
    assert code == 0, output
    (run,) = (tmp_path / "lightning_logs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_devices"] == 2
    (row,) = rows_of(run)
    assert row["step"] == "3", "120 images in batches of 20 are six steps, three for each of two processes"
    assert 3 < float(row["train_bpd"]) < 4.5


def test_an_interrupted_run_says_how_to_go_on_and_does(part1, tmp_path, monkeypatch, caplog):
    """Ctrl-C comes in the second epoch. (test_gpt_command_line.py presses it in a process of its own.)"""
    argv = [*SMALL, "--epochs", "9", "--batch_size", "675", "--log_dir", str(tmp_path / "all logs")]
    original = part1.train_pl.VAE.training_step

    def interrupted(self, *args):
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(part1.train_pl.VAE, "training_step", interrupted)
        assert part1.train.main(argv) == 130
    assert f"interrupted, epoch 1 is saved: continue with {shlex.quote(sys.executable)} " in caplog.text
    _, script, *argv = command_to_go_on(caplog.text)
    assert script == str(part1.folder / "train.py")
    assert part1.train.main([*argv, "--epochs", "2"]) == 0
    run = tmp_path / "all logs" / "lightning_logs" / "version_0"
    assert [row["epoch"] for row in rows_of(run)] == ["1", "2"]
