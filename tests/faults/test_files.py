"""Full and read-only disks, leftovers of killed processes (promise 4)."""

import re
import signal

import pytest


def test_a_disk_that_is_full_when_a_checkpoint_is_written(runs):
    """Or events. The earlier checkpoint stays, and the training goes on from there as soon as there is room."""
    size = runs.last("whole").stat().st_size
    result = runs.train("full", *runs.flags, max_bytes=size // 2)
    assert result.code == 2 and result.output.count("error:") == 1 and "Traceback" not in result.output
    assert re.search(rf"cannot (write|use) {runs.run('full')}.* \(File too large\)", result.output)
    assert not list(runs.run("full").rglob("*.tmp"))
    first = next(i for i, moment in enumerate(runs.moments) if moment == f"after replacing {runs.last('whole').name}")
    assert runs.train("full later", *runs.flags, moment=first).code == -signal.SIGKILL
    before = runs.last("full later").read_bytes()
    result = runs.train("full later", "--resume", runs.run("full later"), max_bytes=size // 2)
    assert result.code == 2 and runs.last("full later").read_bytes() == before
    runs.finish("full later")


def test_a_directory_that_cannot_be_written(runs, read_only):
    result = runs.commands(runs.part, "train.py", *runs.flags, "--log_dir", read_only / "logs")
    assert result.code == 2 and result.output.count("\n") <= 2 and str(read_only) in result.output


def test_leftovers_of_killed_processes_are_removed(runs):
    first = next(i for i, moment in enumerate(runs.moments) if moment == f"after replacing {runs.last('whole').name}")
    assert runs.train("leftovers", *runs.flags, moment=first).code == -signal.SIGKILL
    leftover = runs.run("leftovers") / "checkpoints" / f".{runs.last('whole').name}.{'0' * 32}.tmp"
    leftover.write_bytes(b"half")
    runs.finish("leftovers")
    assert not leftover.exists()


def test_a_write_that_fails_leaves_the_old_file(part1, tmp_path, monkeypatch):
    file = tmp_path / "file"
    part1.run.atomic_write(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(part1.run.InputError, match="No space left on device"):
        part1.run.atomic_write(file, "new")
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["file"]
