"""Checkpoints that are damaged, foreign, too new or malicious: one sentence, for --resume and for generate.py."""

import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from run_bench import LAST, PARTS
from runs import assert_equal
from soak_record import SEED

MODEL = {"part1": "VAE", "part2": "adversarial autoencoder", "part3": "GPT"}


@pytest.fixture(params=PARTS)
def part(request):
    return request.param


@pytest.fixture
def modules(request, part):
    return request.getfixturevalue(part)


@pytest.fixture
def checkpoint(benches, part, tmp_path) -> Path:
    """A copy of a checkpoint, in the directory of a run."""
    copy = tmp_path / "run" / "checkpoints" / LAST[part]
    copy.parent.mkdir(parents=True)
    return Path(shutil.copy(benches(part).whole / "checkpoints" / LAST[part], copy))


@pytest.fixture
def refused(modules, part, capsys, tmp_path):
    """Function: the sentence with which both commands refuse a checkpoint."""

    def refused(path: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        train = modules.train.cli if part == "part2" else modules.train.main
        prompt = ["--prompt", "1 and"] if part == "part3" else ["--output_dir", str(tmp_path / "pictures")]
        messages = []
        for main, argv in (
            (train, ["--resume", str(path), "--log_dir", str(tmp_path)]),
            (modules.generate.main, ["--checkpoint", str(path), *prompt]),
        ):
            assert main(argv) == 2
            prog, _, message = capsys.readouterr().err.partition(": error: ")
            assert prog in ("train.py", "generate.py") and message.count("\n") == 1, message
            messages.append(message.strip())
        assert messages[0] == messages[1]
        assert sorted(tmp_path.rglob("*")) == before, "nothing new on the disk"
        return messages[0]

    return refused


def rewrite(path: Path, change) -> None:
    """Replace a checkpoint by one whose content was changed."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_a_truncated_checkpoint(refused, checkpoint):
    content, random_ = checkpoint.read_bytes(), random.Random(SEED)
    for size in (0, 1, len(content) - 1, *(random_.randrange(len(content)) for _ in range(20))):
        checkpoint.write_bytes(content[:size])
        assert refused(checkpoint) == f"{checkpoint} is damaged or no checkpoint: choose another one, or train again"


def flip(content: bytes, random_: random.Random, count: int) -> bytes:
    damaged = bytearray(content)
    for _ in range(count):
        damaged[random_.randrange(len(damaged))] ^= random_.randrange(1, 256)
    return bytes(damaged)


def flips(modules, checkpoint: Path, random_: random.Random, times: int) -> int:
    """Flip bytes at random places; returns how often the checkpoint was refused. Else its content must be unharmed, as
    where the bytes lie between the files of the archive."""
    content, original = checkpoint.read_bytes(), torch.load(checkpoint, weights_only=True)
    count = 0
    for _ in range(times):
        checkpoint.write_bytes(flip(content, random_, random_.choice((1, 1, 2, 8))))
        try:
            assert_equal(modules.run_folder.read_checkpoint(checkpoint), original)
        except modules.inputs.InputError as error:
            assert "\n" not in str(error)
            count += 1
    return count


def test_flipped_bytes(refused, modules, checkpoint):
    """In the middle of the weights, where PyTorch alone would read wrong numbers; and anywhere."""
    content = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        weights = max((e for e in archive.infolist() if "/data/" in e.filename), key=lambda e: e.file_size)
    damaged = bytearray(content)
    damaged[weights.header_offset + 200 + weights.file_size // 2] ^= 1
    checkpoint.write_bytes(damaged)
    torch.load(checkpoint, weights_only=True)
    assert "is damaged or no checkpoint" in refused(checkpoint)
    checkpoint.write_bytes(content)
    assert flips(modules, checkpoint, random.Random(SEED), times=20) > 10


def test_weights_that_are_marked_as_a_directory(refused, checkpoint):
    """One bit of the archive's directory, which no checksum covers: PyTorch would read zeros."""
    with zipfile.ZipFile(checkpoint) as archive:
        start = archive.start_dir
    damaged = bytearray(checkpoint.read_bytes())
    while damaged[start : start + 4] == b"PK\1\2":
        name, extra, comment = (int.from_bytes(damaged[start + i : start + i + 2], "little") for i in (28, 30, 32))
        if b"/data/" in damaged[start + 46 : start + 46 + name]:
            damaged[start + 38] |= 0x10
        start += 46 + name + extra + comment
    checkpoint.write_bytes(damaged)
    assert "is damaged or no checkpoint" in refused(checkpoint)


@pytest.mark.slow
def test_many_flipped_bytes(modules, checkpoint, soak):
    assert flips(modules, checkpoint, random.Random(SEED + 1), times=300) > 150
    soak(files_broken=300)


def test_a_checkpoint_of_another_part(benches, refused, part, tmp_path):
    for other in PARTS:
        if other != part:
            message = refused(benches(other).whole / "checkpoints" / LAST[other])
            assert f"is not a checkpoint of this {MODEL[part]}: choose one that part {part[-1]} wrote" in message


def test_a_checkpoint_of_another_size(refused, checkpoint, part):
    def smaller(content: dict) -> None:
        name = max(content["state_dict"], key=lambda name: content["state_dict"][name].numel())
        content["state_dict"][name] = content["state_dict"][name][:-1].clone()

    rewrite(checkpoint, smaller)
    assert f"is a checkpoint of another model than this {MODEL[part]}" in refused(checkpoint)


@pytest.mark.parametrize("missing", ["state_dict", "flags"])
def test_a_checkpoint_that_lacks_something(refused, checkpoint, part, missing):
    rewrite(checkpoint, lambda content: content.pop(missing))
    assert f"is not a checkpoint of this {MODEL[part]}" in refused(checkpoint)


def test_a_checkpoint_of_a_newer_version(refused, checkpoint, part):
    rewrite(checkpoint, lambda content: content.update(format=2))
    assert f"has format 2, and this version of part {part[-1]} reads format 1" in refused(checkpoint)


def test_a_checkpoint_of_a_newer_pytorch(refused, checkpoint):
    newer = checkpoint.with_name("newer.ckpt")
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(newer, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, b"99\n" if entry.filename.endswith("/version") else old.read(entry))
    assert "was written by a newer version of PyTorch" in refused(newer)


class Execute:
    """Its pickle runs a command when it is read."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["archive", "old archive", "pickle"])
def test_code_in_a_checkpoint_is_not_run(refused, checkpoint, tmp_path, form):
    sentinel = tmp_path / "sentinel"
    content = {**torch.load(checkpoint, weights_only=True), "flags": Execute(f"touch '{sentinel}'")}
    if form == "pickle":
        checkpoint.write_bytes(pickle.dumps(content["flags"]))
    else:
        torch.save(content, checkpoint, _use_new_zipfile_serialization=form == "archive")
    assert "is damaged or no checkpoint" in refused(checkpoint)
    assert not sentinel.exists()
    pickle.loads(pickle.dumps(content["flags"]))
    assert sentinel.exists(), "the pickle does run code where it is read without care"


def test_a_checkpoint_that_cannot_be_opened(refused, modules, checkpoint, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(modules.run_files.zipfile, "ZipFile", forbidden)
    assert f"cannot read {checkpoint} (Permission denied)" in refused(checkpoint)
