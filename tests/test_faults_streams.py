"""Output that nobody reads, streams that are closed or in an old encoding, and signals: the command does its work and
ends as usual, or with one sentence. Most commands run in this process, since PyTorch takes seconds to import."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TRAININGS = {
    "part1": ["--dataset", "digits", "--batch_size", "1350", "--num_filters", "4", "--z_dim", "2", "--epochs", "3"],
    "part2": ["--dataset", "digits", "--batch_size", "1347", "--z_dim", "2", "--epochs", "3"],
    "part3": ["--model_type", "gpt-nano", "--block_size", "13", "--train_batch_size", "5", "--max_steps", "6",
              "--val_every_n_steps", "2", "--generate_batch_size", "1"],
}  # fmt: skip
EPOCHS = {
    "part1": "checkpoints/last.ckpt",
    "part2": "checkpoints/model_checkpoint.pt",
    "part3": "checkpoints/last.ckpt",
}


@pytest.fixture(params=TRAININGS)
def training(request, few_digits, tiny_digits, tmp_path):
    """Name of a part, its modules, its command line's function, and a short training's flags."""
    part = request.getfixturevalue(request.param)
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(50)))
    argv = [*TRAININGS[request.param], *(["--txt_file", str(text)] if request.param == "part3" else [])]
    few = {"part1": few_digits, "part2": tiny_digits}.get(request.param, contextlib.nullcontext)
    with few(part):
        yield request.param, part, part.train.cli if request.param == "part2" else part.train.main, argv


def run_of(log_dir: Path) -> Path:
    (run,) = (path.parent for path in log_dir.rglob("checkpoints"))
    return run


def broken_pipe() -> io.TextIOWrapper:
    """A stream in ASCII whose reader is gone, as that of `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="ascii", buffering=1)


# ------------------------------------------------------------------------------------------------------------- streams


def test_a_stream_outlives_its_reader(part1, capfd):
    stream = part1.streams.LastingStream(broken_pipe())
    for _ in range(3):
        assert stream.write("text\n") == 5
        stream.flush()
    assert stream.lost


def test_a_stream_escapes_what_its_encoding_lacks(part1):
    buffer = io.BytesIO()
    stream = part1.streams.LastingStream(io.TextIOWrapper(buffer, encoding="ascii", write_through=True))
    print("данные", "\udc80", "plain", file=stream)
    assert buffer.getvalue() == rb"\u0434\u0430\u043d\u043d\u044b\u0435 \udc80 plain" + b"\n" and not stream.lost


def test_a_stream_that_was_closed_before_the_start(part1):
    stream = part1.streams.LastingStream(None)
    assert stream.write("text") == 4 and stream.lost and not stream.isatty()


def test_a_stream_that_is_closed_meanwhile(part1):
    inner = io.StringIO()
    stream = part1.streams.LastingStream(inner)
    inner.close()
    stream.write("text")
    stream.flush()
    assert stream.lost


def test_a_training_whose_output_nobody_reads(training, tmp_path, monkeypatch):
    """Both streams are broken and in ASCII, the directory's name is not, and the bar is shown."""
    _, _, main, argv = training
    monkeypatch.setattr(sys, "stdout", broken_pipe())
    monkeypatch.setattr(sys, "stderr", broken_pipe())
    monkeypatch.setattr("logging.Handler.handleError", lambda *args: pytest.fail("a logging error"))
    assert main([*argv, "--progress_bar", "--log_dir", str(tmp_path / "данные ñ")]) == 0
    assert (run_of(tmp_path / "данные ñ") / "summary.json").is_file()


@pytest.mark.parametrize("command", ["part1/train.py", "part3/generate.py", "report/reproduce.py"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "| true"])
def test_help_and_errors_in_streams_that_are_closed(repository, tmp_path, command, closed):
    """Exit codes are as usual, and what can still be read has no traceback."""
    for flag, code in (("--help", 0), ("--no_such_flag=ж", 2)):
        script = f"{sys.executable} {command} {flag} {closed}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], cwd=repository, capture_output=True, text=True,
                              env={**os.environ, "PYTHONIOENCODING": "ascii"})  # fmt: skip
        assert done.returncode == code, (flag, done.stderr)
        assert "Traceback" not in done.stderr and "rror: " not in done.stderr.replace("error: ", "", 1)
        if code == 2 and "2>&-" not in closed:
            assert done.stderr.count("\n") == 1 and r"\u0436" in done.stderr


# ------------------------------------------------------------------------------------------------------------- signals


def send_during(monkeypatch, part, name: str, signum: int) -> None:
    """The signal comes in the second epoch, in the middle of it (part 2) or of a step (parts 1 and 3). SIGINT comes in
    the middle of the first checkpoint, where PyTorch replaces an exception by a RuntimeError."""
    if signum == signal.SIGINT:
        original_save, writes = torch.save, []

        def save(content, file):
            original_write = file.write

            def write(data):
                writes.append(data)
                if len(writes) == 9:
                    os.kill(os.getpid(), signum)
                return original_write(data)

            file.write = write
            original_save(content, file)

        monkeypatch.setattr(torch, "save", save)
    elif name == "part2":
        original = part.train.train_aae

        def train_aae(number, *args, **kwargs):
            if number == 2:
                os.kill(os.getpid(), signum)
            return original(number, *args, **kwargs)

        monkeypatch.setattr(part.train, "train_aae", train_aae)
    else:
        module = part.train_pl.VAE if name == "part1" else part.train.GPTLightningModule
        original_step = module.training_step

        def training_step(self, *args):
            if self.current_epoch == 1 and signum not in sent:
                sent.append(signum)
                os.kill(os.getpid(), signum)
            return original_step(self, *args)

        sent = []
        monkeypatch.setattr(module, "training_step", training_step)


@pytest.mark.parametrize(("signum", "code", "kept"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 1),
                                                     (signal.SIGUSR1, 138, 2)])  # fmt: skip
def test_a_signal_ends_a_training(training, tmp_path, monkeypatch, capsys, caplog, signum, code, kept):
    """After SIGINT in a checkpoint, the checkpoint is whole. After SIGUSR1, the epoch is finished and saved; a resumed
    run leaves what an uninterrupted one does."""
    name, part, main, argv = training
    with monkeypatch.context() as patch:
        send_during(patch, part, name, signum)
        with caplog.at_level("INFO"):
            assert main([*argv, "--log_dir", str(tmp_path / "a")]) == code
    out, err = capsys.readouterr()
    assert not err and "Traceback" not in out and "continue with" in caplog.text
    run = run_of(tmp_path / "a")
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + kept
    assert not list(Path.cwd().glob("hpc_ckpt*"))
    assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler), "handlers are put back"
    if signum == signal.SIGUSR1:
        assert main(["--resume", str(run), "--log_dir", str(tmp_path / "a")]) == 0
        assert main([*argv, "--log_dir", str(tmp_path / "b")]) == 0
        resumed, whole = (torch.load(run_of(tmp_path / log_dir) / EPOCHS[name], weights_only=True)["state_dict"]
                          for log_dir in "ab")  # fmt: skip
        assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_a_signal_whose_exception_is_replaced(part1, capsys):
    def work(args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    assert part1.cli.run_command(work, None, "x.py") == 143
    assert capsys.readouterr().err == "x.py: SIGTERM ended it before it was done: the same command starts it again\n"


def test_a_second_signal_ends_at_once(repository, tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {str(repository / 'part1')!r})\n"
        "from cli import run_command\n"
        "def work(args):\n"
        "    try:\n"
        "        print('works', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('saves', flush=True); time.sleep(60)\n"
        "sys.exit(run_command(work, None, 'x.py'))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "works\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saves\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 143


@pytest.mark.parametrize(("command", "signum", "name"), [("part1/train.py", signal.SIGINT, "SIGINT"),
                                                         ("part3/generate.py", signal.SIGTERM, "SIGTERM"),
                                                         ("report/codes.py", signal.SIGUSR1, "SIGUSR1")])  # fmt: skip
def test_a_signal_during_the_imports(repository, tmp_path, command, signum, name):
    """PyTorch's import takes seconds; a stand-in for it says when it begins."""
    (tmp_path / "torch.py").write_text("print('imports', flush=True); import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, command], cwd=repository, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(tmp_path)},
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip
    assert process.stdout.readline() == "imports\n"
    time.sleep(0.1)
    process.send_signal(signum)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signum
    assert (out, err) == ("", f"{Path(command).name}: {name} came before the work began: nothing was written\n")


def test_a_signal_while_pictures_are_drawn(part1, monkeypatch, capsys):
    monkeypatch.setattr(part1.generate, "generate", lambda args: os.kill(os.getpid(), signal.SIGTERM))
    with contextlib.suppress(SystemExit):
        assert part1.generate.main([]) == 143
    assert capsys.readouterr().err == (
        "generate.py: SIGTERM ended it before it was done: the same command starts it again\n"
    )


def test_a_wish_to_ignore_interruptions_is_granted(part1):
    """A shell starts what runs in its background so."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert part1.cli.run_command(lambda args: os.kill(os.getpid(), signal.SIGINT), None, "x.py") == 0
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("part", ["part1", "part2", "part3"])
def test_a_job_resumes_its_own_run(repository, tmp_path, part):
    """Stand-ins for srun and scontrol. The first start ends by SLURM's warning, the second one resumes."""
    folder = tmp_path / part
    bin_dir, run = tmp_path / ".venv" / "bin", tmp_path / "runs of mine" / "version_0"
    for path in (folder, bin_dir, run / "checkpoints"):
        path.mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (bin_dir / "activate").write_text(f"PATH={bin_dir}:$PATH\n")
    (bin_dir / "srun").write_text('#!/bin/bash\nprintf "%s|" "$@" >> calls; exit "$RESULT"\n')
    (bin_dir / "scontrol").write_text('#!/bin/bash\necho "$@" >> requeued\n')
    for tool in ("srun", "scontrol"):
        (bin_dir / tool).chmod(0o755)
    job = repository / part / "train.job"
    prefix = next(line for line in job.read_text().splitlines() if "--output=" in line).split("=")[1].split("_")[0]
    for count, result in (("0", 138), ("1", 0)):
        env = {**os.environ, "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": count,
               "RESULT": str(result)}  # fmt: skip
        done = subprocess.run(["bash", str(job), "--seed", "3"], env=env, capture_output=True, text=True)
        assert done.returncode == result, done.stderr
        (folder / f"{prefix}_7.out").write_text(f"5 parameters; on a GPU; run directory: {run}\nepoch 1/2\n")
    calls = (folder / "calls").read_text()
    assert calls == f"python|-u|train.py|--seed|3|python|-u|train.py|--seed|3|--resume|{run}|"
    assert (folder / "requeued").read_text() == "requeue 7\n"
