"""Files of a run: directories that no two runs share, the lock, full disks, directories that are read-only."""

import errno
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from part_loader import load_script
from run_bench import FLAGS, LAST, PARTS, RUNS
from runs import assert_equal
from soak_record import SEED


@pytest.fixture
def run_files(part1):
    return part1.run_files


def forked(function) -> int:
    """Process number of a process that calls a function and ends."""
    process = os.fork()
    if process == 0:
        try:
            function()
        finally:
            os._exit(0)
    return process


# ------------------------------------------------------------------------------------------------------------- claims


def test_eight_runs_that_start_at_once_have_eight_directories(run_files, tmp_path):
    ready, go = os.pipe()

    def claim() -> None:
        os.read(ready, 1)
        run_dir = run_files.claim_run_dir(tmp_path / "logs" / "runs")
        (tmp_path / f"{os.getpid()}.txt").write_text(run_dir.name)

    processes = [forked(claim) for _ in range(8)]
    os.write(go, b"12345678")
    for process in processes:
        os.waitpid(process, 0)
    claimed = [path.read_text() for path in tmp_path.glob("*.txt")]
    assert sorted(claimed) == [f"version_{n}" for n in range(8)]


def test_numbers_go_on_after_the_highest(run_files, tmp_path):
    for name in ("version_3", "version_x", "other"):
        (tmp_path / name).mkdir()
    assert run_files.claim_run_dir(tmp_path).name == "version_4"


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_trainings_that_start_together(repository, tmp_path, part, soak):
    """Three commands in one log directory: three whole runs."""
    (tmp_path / "text.txt").write_text("abcdefgh " * 200)
    flags = {"part1": ["--num_filters", "1"], "part2": ["--z_dim", "2"], "part3": []}[part]
    common = ["--dataset", "digits", "--epochs", "1", "--batch_size", "1350"] if part != "part3" else \
        [*FLAGS[part], "--txt_file", str(tmp_path / "text.txt")]  # fmt: skip
    command = [sys.executable, str(repository / part / "train.py"), *common, *flags, "--log_dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    runs = sorted((tmp_path / RUNS[part]).glob("version_*"))
    assert [run.name for run in runs] == ["version_0", "version_1", "version_2"]
    for run in runs:
        assert json.loads((run / "summary.json").read_text()) and (run / "checkpoints" / LAST[part]).is_file()
        assert len(list(run.glob("events.out.tfevents.*"))) >= 1
    soak(trainings_at_once=3)


# --------------------------------------------------------------------------------------------------------------- lock


def test_a_second_training_of_a_run_is_refused(run_files, tmp_path):
    refused = pytest.raises(run_files.InputError, match=rf"is going on \(process {os.getpid()} on ")
    with run_files.RunLock(tmp_path), refused:
        run_files.RunLock(tmp_path).__enter__()
    with run_files.RunLock(tmp_path):
        pass


def test_a_dead_process_holds_no_lock(run_files, tmp_path):
    """Not even through a loader's worker process that has outlived it."""

    def hold() -> None:
        with run_files.RunLock(tmp_path):
            forked(lambda: ((tmp_path / "worker").write_text(str(os.getpid())), time.sleep(60)))
            time.sleep(60)

    holder = forked(hold)
    worker = tmp_path / "worker"
    while not worker.exists() or not worker.read_text():
        time.sleep(0.01)
    with pytest.raises(run_files.InputError, match=f"process {holder} on "):
        run_files.RunLock(tmp_path).__enter__()
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        with run_files.RunLock(tmp_path):
            pass
    finally:
        os.kill(int(worker.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("part", PARTS)
def test_resuming_a_run_that_is_still_training(run_files, benches, part):
    bench = benches(part)
    before = {path: path.read_bytes() for path in bench.whole.rglob("*") if path.is_file() and path.name != ".lock"}
    with run_files.RunLock(bench.whole):
        flag = ["--max_steps", "9"] if part == "part3" else ["--epochs", "4"]
        code, _, output = bench.train("whole", "--resume", "version_0", *flag)
    assert code == 2 and output.count("\n") == 1, output
    assert f"a training of {bench.whole} is going on" in output
    after = {path: path.read_bytes() for path in bench.whole.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


@pytest.mark.parametrize("part", PARTS)
def test_resuming_a_run_that_has_gone_on_meanwhile(request, benches, part, monkeypatch):
    """Another training replaces the checkpoint after it was read, and ends before the lock is taken."""
    run, modules = benches(part).whole, request.getfixturevalue(part)
    before = sorted(run.rglob("*"))
    more = {"max_steps": 9} if part == "part3" else {"epochs": 4}
    settings = modules.inputs.resolve_settings(Namespace(resume=str(run), **more), modules.run_folder.read_checkpoint)
    os.utime(settings.checkpoint)
    first = Namespace(is_global_zero=True, broadcast=lambda outcome: outcome)
    with pytest.raises(modules.inputs.InputError, match=r"has replaced .* since it was read: give the command again"):
        if part == "part2":
            modules.run_record.RunRecord(settings, first).__enter__()
        else:
            modules.rewind.run_directory(first, None, settings).__enter__()
    assert sorted(run.rglob("*")) == before and (run / "summary.json").is_file()


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_write_that_fails_leaves_the_old_file_and_names_the_cause(run_files, tmp_path):
    """PyTorch turns the error of the disk into one of its own, which says nothing."""
    file = tmp_path / "x.ckpt"
    file.write_text("old")

    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(file):
        file._file = Full()
        torch.save({"a": torch.zeros(1000)}, file)

    with pytest.raises(run_files.InputError) as error, run_files.naming_failed_writes(tmp_path):
        run_files.atomic_write(file, write, mode="wb")
    assert str(error.value).startswith(f"cannot write into {tmp_path} (No space left on device): make room")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_errors_of_other_places_are_no_failed_writes(run_files, tmp_path):
    with pytest.raises(FileNotFoundError), run_files.naming_failed_writes(tmp_path / "run"):
        open(tmp_path / "elsewhere")  # noqa: SIM115
    with pytest.raises(run_files.InputError, match="No such file"), run_files.naming_failed_writes(tmp_path / "run"):
        open(tmp_path / "run" / "file", "w")  # noqa: SIM115


def test_leftovers_of_killed_processes_are_removed(run_files, tmp_path):
    left, kept = "." + "last.ckpt." + "0a" * 16 + ".tmp", "results/notes.tmp"
    for name in (left, f"results/{left}", f"generated/{left}", kept):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with run_files.open_run(tmp_path.parent, tmp_path):
        pass
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {".lock", kept, f"generated/{left}"}


def full_disk(bench, name: str, max_bytes: int, template: Path) -> None:
    """Resume a run of one epoch or round where no file can become larger: one sentence, and nothing is lost."""
    run = bench.runs(name) / "version_0"
    shutil.rmtree(bench.folder / name, ignore_errors=True)
    shutil.copytree(template, run)
    last = run / "checkpoints" / LAST[bench.part]
    before = torch.load(last, weights_only=True)
    code, _, output = bench.train(name, "--resume", str(run), max_bytes=max_bytes)
    assert code == 2, output
    errors = [line for line in output.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert len(errors) == 1 and re.search(rf"cannot write into {run} \(File too large\): make room", errors[0]), output
    after = torch.load(last, weights_only=True)
    for key in ("state_dict", "optimizer_states", "optimizer_ae", "epoch"):
        assert_equal(before.get(key), after.get(key))
    bench.finish(name, run, why=f"files of at most {max_bytes} bytes")


@pytest.fixture
def template(benches, tmp_path):
    """Function that makes a run of one epoch or round, which another one has interrupted."""

    def make(part: str) -> Path:
        bench = benches(part)
        moment = [i for i, name in enumerate(bench.moments) if name == "after replacing metrics.csv"][1]
        shutil.rmtree(bench.folder / "template", ignore_errors=True)
        bench.train("template", *bench.flags, moment=moment)
        return bench.runs("template") / "version_0"

    return make


@pytest.mark.parametrize("part", PARTS)
def test_a_disk_that_is_full_when_a_checkpoint_is_written(benches, template, part):
    run = template(part)
    size = (run / "checkpoints" / LAST[part]).stat().st_size
    full_disk(benches(part), "full", size - 100, run)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_disk_that_is_full_at_other_times(benches, template, part, soak):
    """Pictures, events, metrics and checkpoints, whatever is the first file that is too large."""
    run, random_ = template(part), random.Random(SEED)
    size = (run / "checkpoints" / LAST[part]).stat().st_size
    for max_bytes in (700, 1500, 4000, random_.randrange(4000, size // 2), random_.randrange(size // 2, size)):
        full_disk(benches(part), "full", max_bytes, run)
        soak(full_disks_survived=1)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_disk_that_is_really_full(benches, template, part, soak):
    """A small file system, which becomes larger before the run is resumed."""
    bench, run = benches(part), template(part)
    disk, size = bench.folder / "disk", sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    copy = bench.runs("disk") / "version_0"
    for room in (20_000, 60_000):
        disk.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * size + 20_000_000}", "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            shutil.copytree(run, copy)
            (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - room))
            code, _, output = bench.train("disk", "--resume", str(copy))
            assert code == 2 and output.count("cannot write into") == output.count("No space left on device") == 1
            assert "Traceback" not in output and "Error" not in output, output
            (disk / "other").unlink()
            bench.finish("disk", copy, why=f"{room} bytes of room")
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        soak(full_disks_survived=1)


@pytest.mark.parametrize("part", ["part1", "part2"])
def test_pictures_and_a_full_disk(request, benches, part, tmp_path, monkeypatch, capsys):
    """`generate.py` says so in a sentence, and leaves no half picture."""
    bench, modules = benches(part), request.getfixturevalue(part)

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(modules.pictures, "save_image", full)
    argv = ["--checkpoint", str(bench.whole), "--output_dir", str(tmp_path / "out"), "--pictures", "samples"]
    assert modules.generate.main(argv) == 2
    error = capsys.readouterr().err
    assert f"cannot write into {tmp_path / 'out'} (No space left on device)" in error and error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_an_export_onto_a_full_disk(part3, benches, tmp_path, capsys):
    """No file can become larger than a few bytes: what was exported before stays whole."""
    argv = ["--checkpoint", str(benches("part3").whole), "--output_dir", str(tmp_path)]
    assert part3.export.main(argv) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for max_bytes in (100, 10_000):
        capsys.readouterr()
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
        try:
            assert part3.export.main(argv) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sentence = capsys.readouterr().err
        assert (
            sentence.count("\n") == 1 and f"cannot write into {tmp_path}" in sentence and "File too large" in sentence
        )
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("part", "command", "words", "flag"),
    [
        ("part1", "train", ["--dataset", "digits"], "--log_dir"),
        ("part2", "train", ["--dataset", "digits"], "--log_dir"),
        ("part3", "train", ["--txt_file", "pydoc"], "--log_dir"),
        ("part1", "generate", ["--checkpoint", "RUN"], "--output_dir"),
        ("part2", "generate", ["--checkpoint", "RUN"], "--output_dir"),
        ("part3", "export", ["--checkpoint", "RUN"], "--output_dir"),
        ("part1", "likelihood", ["--checkpoint", "RUN"], "--output_dir"),
        ("part2", "codes", ["--checkpoint", "RUN"], "--output_dir"),
        ("part3", "language", ["--checkpoint", "RUN", "--prompt", "1 and"], "--output_dir"),
        ("part1", "first_steps", [], "--output_dir"),
        ("part2", "initialisation", [], "--output_dir"),
    ],
)
def test_a_directory_that_is_read_only(request, repository, benches, read_only, capsys, part, command, words, flag):
    modules = request.getfixturevalue(part)
    script = repository / "report" / f"{command}.py"
    module = load_script(script) if script.exists() else getattr(modules, command)
    words = [str(benches(part).whole) if word == "RUN" else word for word in words]
    for directory in (read_only, read_only / "new"):
        assert getattr(module, "cli", module.main)([*words, flag, str(directory)]) == 2
        sentence = capsys.readouterr().err
        assert sentence.count("\n") == 1 and sentence.endswith(f" (Read-only file system): give another {flag}\n")
