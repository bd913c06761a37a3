"""The command line and the functions behind it: flags, streams, signals, and what a call leaves behind (promises 3, 5
and 6)."""

import concurrent.futures
import io
import os
import signal
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from short_runs import PARTS

SCRIPTS = ["part1/train.py", "part1/train_pl.py", "part1/generate.py", "part2/train.py", "part2/generate.py",
           "part3/train.py", "part3/generate.py", "part3/export.py"]  # fmt: skip
BAD_FLAGS = [
    ("part1", "epochs", "0"), ("part1", "z_dim", "2.5"), ("part1", "lr", "nan"), ("part1", "lr", "inf"),
    ("part1", "batch_size", "-1"), ("part1", "seed", "-1"), ("part1", "dataset", "cifar"), ("part1", "devices", "0"),
    ("part1", "precision", "bf16-true"), ("part1", "data_dir", ""), ("part1", "log_dir", "~no_such_user/logs"),
    ("part2", "lambda_", "1.5"), ("part2", "d_lr", "0"), ("part2", "encoder", "vae"), ("part2", "epochs", "many"),
    ("part3", "betas", "0.9 1"), ("part3", "learning_rate", "0"), ("part3", "weight_decay", "-1"),
    ("part3", "model_type", "gpt-5"), ("part3", "max_steps", "0"), ("part3", "clip_grad_norm", "nan"),
]  # fmt: skip


@pytest.fixture(params=PARTS)
def part(request):
    """Modules of each part in turn."""
    return request.getfixturevalue(request.param)


def train_function(part):
    name = {"part1": "train_vae", "part2": "main", "part3": "train"}[part.folder.name]
    return getattr(part.train_pl if part.folder.name == "part1" else part.train, name)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_bad_flags_come_without_pytorch(repository, tmp_path, script):
    (tmp_path / "torch.py").write_text("raise ImportError('PyTorch was imported')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run, pipes = [sys.executable, str(repository / script)], {"env": env, "capture_output": True, "text": True}
    listed = subprocess.run([*run, "--help"], check=True, **pipes)
    assert "--seed" in listed.stdout or "--checkpoint" in listed.stdout
    refused = subprocess.run([*run, "--sed", "1", "--output_dir", str(tmp_path)], **pipes)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--sed" in refused.stderr


@pytest.mark.parametrize("name, flag, value", BAD_FLAGS)
def test_values_that_cannot_be_used(request, capsys, name, flag, value):
    part = request.getfixturevalue(name)
    words = [f"--{flag}", *(value.split() or [""])]
    with pytest.raises(SystemExit) as stop:
        part.args.parse_args(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"--{flag}" in error and error.count("\n") == 1


@pytest.mark.parametrize("name, flag, value", BAD_FLAGS)
def test_a_namespace_is_checked_like_a_command_line(request, name, flag, value):
    part = request.getfixturevalue(name)
    value = value.split() if flag == "betas" else value
    with pytest.raises(part.run.InputError, match=f"--{flag}"):
        train_function(part)(Namespace(**{flag: value}))


def test_a_name_that_is_no_flag(part):
    wrong, right = ("num_epoch", "num_epochs") if part.folder.name == "part3" else ("epoch", "epochs")
    with pytest.raises(part.run.InputError, match=f"{wrong} is no flag .* {right}"):
        train_function(part)(Namespace(**{wrong: 5}))


def test_relative_paths(part, tmp_path, monkeypatch):
    """What is given starts in the current directory, what is not in that of the part."""
    monkeypatch.chdir(tmp_path)
    parser = part.args.build_parser()
    assert parser.default_flags()["data_dir"] == str(part.folder.parent / "data")
    assert parser.given_flags(Namespace(data_dir="../data/"))["data_dir"] == str(tmp_path / ".." / "data")
    assert vars(part.args.parse_args(["--log_dir", "logs"]))["log_dir"] == str(tmp_path / "logs")


def test_a_function_leaves_its_process_as_it_was(part, tmp_path, monkeypatch):
    """A training in a notebook returns its results, and changes no setting of the process."""
    from short_runs import FLAGS, TEXT

    def state() -> list:
        tiny = torch.tensor(1e-40) * 1  # 0 where denormals are flushed
        return [
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            ("ignore", None, Warning, None, 0) in warnings.filters,
            [os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "CUDA_VISIBLE_DEVICES")],
            tiny.item(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            [sys.stdout, sys.stderr],
        ]

    monkeypatch.setenv("RANK", "1")
    (tmp_path / "sums.txt").write_text(TEXT)
    words = [*FLAGS[part.folder.name], "--log_dir", str(tmp_path / "runs")]
    if part.folder.name == "part3":
        words += ["--max_steps", "1", "--txt_file", str(tmp_path / "sums.txt")]
    else:
        monkeypatch.setattr(part.mnist, "digits", lambda *args, digits=part.mnist.digits: digits(*args, limit=160))
        words += ["--epochs", "1"]
    before = state()
    results = train_function(part)(part.args.parse_args(words))
    assert state() == before
    assert {"part1": "test_bpd", "part2": "test_recon_loss", "part3": "val_loss"}[part.folder.name] in (
        results[0] if isinstance(results, list) else results
    )


def test_output_that_nobody_reads(runs):
    """As with `| head`: it ends quietly, and the run can be resumed."""
    result = runs.train("unread", *runs.flags, stdout="unread")
    assert result.code == 141 and "Traceback" not in result.output
    assert not runs.last("unread").exists() or runs.finish("unread") is None


def test_output_that_is_closed(runs):
    result = runs.train("closed", *runs.flags, stdout="closed")
    assert (result.code, result.output) == (0, "")
    assert (runs.run("closed") / "summary.json").is_file()


def test_characters_that_the_output_lacks_are_escaped(part1, monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="ascii"))
    assert part1.run.run_command(lambda args: print("λ"), Namespace()) == 0
    assert file.getvalue() == b"\\u03bb\n"


def test_a_command_puts_back_what_it_sets(part1, monkeypatch):
    """As in IPython, whose `%run train.py` is one of many commands."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", file)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    part1.run.run_command(lambda args: signal.signal(signal.SIGINT, signal.SIG_IGN), Namespace())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (file.errors, file.line_buffering) == ("strict", False)


def test_a_notebook_s_backend_is_not_asked_for(repository):
    """A command that a notebook starts inherits its MPLBACKEND, which may not be installed beside PyTorch."""
    code = "import args; args.parse_args(); import matplotlib; print(matplotlib.get_backend())"
    env = {**os.environ, "MPLBACKEND": "module://no_such.backend", "PYTHONPATH": str(repository / "part1")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "agg"


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_a_proxy_that_no_library_can_use_is_named(part1, capsys, monkeypatch, name):
    monkeypatch.setenv(name, "socks5://127.0.0.1:9")

    def download(args):
        raise part1.run.InputError("the data cannot be downloaded (no route)")

    assert part1.run.run_command(download, Namespace()) == 2
    assert f"({name} names a socks proxy" in capsys.readouterr().err


def test_ignored_sigint_stays_ignored(part1, monkeypatch):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        seen = []
        part1.run.run_command(lambda args: seen.append(signal.getsignal(signal.SIGINT)), Namespace())
        assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGINT, previous)


def test_too_little_memory_is_one_sentence(part1, capsys):
    def allocate(args):
        torch.empty(2**60, dtype=torch.uint8)

    assert part1.run.run_command(allocate, Namespace()) == 2
    assert "memory does not suffice" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(part1):
    with pytest.raises(ZeroDivisionError):
        part1.run.run_command(lambda args: 1 / 0, Namespace())


def test_eight_runs_that_start_at_once(part1, tmp_path):
    def start(_) -> Path:
        with part1.run.open_run(tmp_path / "runs", None) as run_dir:
            (run_dir / "file").touch()
            return run_dir

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        directories = list(pool.map(start, range(8)))
    assert {path.name for path in directories} == {f"version_{i}" for i in range(8)}


def test_a_second_training_of_a_run_is_refused(part1, tmp_path):
    with part1.run.open_run(tmp_path, None) as run_dir:
        with pytest.raises(part1.run.InputError, match="is going on"), part1.run.open_run(tmp_path, run_dir):
            pass
        (run_dir / "file").touch()
    with part1.run.open_run(tmp_path, run_dir):
        pass


def test_a_new_run_that_fails_at_once_leaves_no_directory(part1, tmp_path):
    with pytest.raises(ValueError), part1.run.open_run(tmp_path / "runs", None):
        raise ValueError
    assert list((tmp_path / "runs").iterdir()) == []
