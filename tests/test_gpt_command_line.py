"""Part 3's `train.py` at the command line: help, errors, two devices, and an interruption."""

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

TEXT = "".join(f"{i} and {i * i % 17} make {(i + i * i) % 17}.\n" for i in range(120))


@pytest.fixture
def text_file(tmp_path) -> Path:
    (tmp_path / "sums.txt").write_text(TEXT)
    return tmp_path / "sums.txt"


def small(text_file: Path, *argv: str) -> list[str]:
    return ["--txt_file", str(text_file), "--model_type", "gpt-nano", "--block_size", "13", "--seed", "3",
            "--log_dir", str(text_file.parent / "logs"), *argv]  # fmt: skip


def command(repository: Path, *argv: str) -> list[str]:
    return [sys.executable, str(repository / "part3" / "train.py"), *argv]


def environment() -> dict[str, str]:
    """One thread for each process, as two of them share the machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_the_course_s_flags_have_their_defaults(part3):
    flags = vars(part3.inputs.build_parser().parse_args([]))
    defaults = {
        "model_type": "gpt-mini", "block_size": 128, "use_pretrained": None, "train_batch_size": 128,
        "generate_batch_size": 5, "generate_every_n_steps": 1000, "learning_rate": 5e-4, "weight_decay": 0.1,
        "betas": (0.9, 0.95), "num_epochs": 100, "clip_grad_norm": 1.0, "log_dir": "./logs", "seed": 0,
        "progress_bar": False,
    }  # fmt: skip
    assert {name: flags[name] for name in defaults} == defaults
    assert flags["txt_file"] and flags["num_workers"] == 0


def refused(part3, capsys, argv: list[str]) -> str:
    """The one line of a command that cannot be carried out."""
    try:
        code = part3.train.main(argv)
    except SystemExit as stop:  # what argparse does
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--block_size", "0"], "--block_size must be a whole number of at least 1, not 0"),
        (["--max_steps", "0"], "--max_steps must be a whole number of at least 1, not 0"),
        (["--learning_rate", "nan"], "--learning_rate must be a positive number, not nan"),
        (["--betas", "0.9", "1"], "--betas must be two numbers of at least 0 and below 1"),
        (["--min_learning_rate", "1"], "--min_learning_rate 1.0 must not be above --learning_rate 0.0005"),
        (["--min_learning_rate", "1e-5"], "but --lr_schedule is constant: leave it out, or give --lr_schedule cosine"),
        (["--warmup_steps", "9", "--max_steps", "9"], "--warmup_steps 9 must be below the 9 steps of"),
        (["--accelerator", "abacus"], "invalid choice: 'abacus'"),
        (["--clip_grad_norm", "-1"], "--clip_grad_norm must be a number of at least 0, not -1.0"),
        (["--model_type", "gpt-huge"], "invalid choice: 'gpt-huge'"),
        (["--use_pretrained"], "there are no published weights for --model_type gpt-nano: choose one of gpt2, "),
        (["--use_pretrained", "/no/such/folder"], "/no/such/folder is neither a folder nor a published model"),
        (["--use_pretrained", "gpt2"], "for the published weights give --use_pretrained --model_type gpt2"),
        (["--devices", "999"], "--devices is 999, but this machine has"),
        (["--seed", "-1"], "--seed must be a whole number of at least 0, not -1"),
        (["--block_size", "230"], "the last tenth of the text, which is for validation, is too short"),
        (["--log_dir", ""], "--log_dir must not be empty"),
        (["--train_batch_size", "5000"], "fewer than a batch of 5000: take a longer text, or lower --train_batch_size"),
        (["--txt_file", "/no/such/text"], "cannot read /no/such/text (No such file or directory)"),
        (["--resume", "version_7"], "version_7 is no run with a checkpoint"),
        (["--resume"], "has a checkpoint yet: train one first"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(part3, text_file, capsys, argv, message):
    assert message in refused(part3, capsys, small(text_file, *argv))
    assert not list(text_file.parent.rglob("version_*")), "no directory of a run that never began"


def test_a_log_folder_that_cannot_be_written(part3, text_file, capsys):
    (text_file.parent / "logs").write_text("a file")
    assert "give another --log_dir" in refused(part3, capsys, small(text_file))


def test_a_text_of_one_character_is_nothing_to_learn(part3, text_file, capsys):
    text_file.write_text("a" * 2000)
    assert "consists of 'a' alone" in refused(part3, capsys, small(text_file))


def test_foreign_and_damaged_checkpoints(part3, text_file, capsys):
    foreign, damaged = text_file.parent / "foreign.ckpt", text_file.parent / "damaged.ckpt"
    torch.save({"state_dict": {}}, foreign)
    damaged.write_bytes(foreign.read_bytes()[:100])
    assert "is not a checkpoint of this GPT" in refused(part3, capsys, small(text_file, "--resume", str(foreign)))
    assert "is damaged or no checkpoint" in refused(part3, capsys, small(text_file, "--resume", str(damaged)))


def test_a_run_cannot_be_resumed_as_another_one_nor_when_it_is_done(part3, text_file, capsys):
    argv = ["--train_batch_size", "5", "--max_steps", "2"]
    assert part3.train.main(small(text_file, *argv)) == 0
    assert "--train_batch_size 6 was given, but the run to resume was started with --train_batch_size 5" in refused(
        part3, capsys, small(text_file, "--resume", "--train_batch_size", "6", "--max_steps", "4")
    )
    assert "the run already has 2 steps: raise --max_steps" in refused(part3, capsys, small(text_file, "--resume"))


def test_two_devices_take_together_the_batches_of_one(server, text_file):
    """The losses differ by dropout and rounding alone, since both see the same windows. The first process starts the
    second one. (In the tests of the other parts, both are there from the beginning, as under torchrun.)"""
    losses = []
    for devices, batch_size in ((1, 64), (2, 32)):
        logs = text_file.parent / str(devices)
        argv = ["--train_batch_size", str(batch_size), "--max_steps", "3", "--devices", str(devices)]
        argv = small(text_file, *argv, "--log_dir", str(logs))
        code, _, output = server.train("part3", argv, text_file.parent / "moments.txt")
        assert code == 0, output
        run = logs / "lightning_logs" / "version_0"
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["num_devices"], summary["steps"], summary["tokens"]) == (devices, 3, 3 * 64 * 13)
        losses.append((summary["train_loss"], summary["val_loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_an_interrupted_run_says_how_to_go_on_and_does(part3, repository, text_file):
    argv = small(text_file, "--train_batch_size", "5", "--val_every_n_steps", "2")
    place = {"env": environment(), "cwd": text_file.parent, "text": True,
             "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}  # fmt: skip
    run = text_file.parent / "logs" / "lightning_logs" / "version_0"
    with subprocess.Popen(command(repository, *argv), preexec_fn=interruptible, **place) as first:
        try:
            while not ((run / "metrics.csv").exists() and (run / "checkpoints" / "last.ckpt").exists()):
                assert first.poll() is None, "the training ended by itself"
                time.sleep(0.1)
            output = interrupt(first)
        finally:
            first.kill()
    assert first.returncode == 130, output
    assert "Traceback" not in output
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"{kept} steps are kept; continue with {shlex.quote(sys.executable)} " in output
    _, script, *argv = command_to_go_on(output)
    assert script == str(part3.folder / "train.py")
    assert part3.train.main([*argv, "--max_steps", str(kept + 1)]) == 0
    assert rows_of(run)[-1]["step"] == str(kept + 1)
