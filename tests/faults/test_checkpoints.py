"""Checkpoints that are damaged, foreign or malicious: one sentence, and nothing is overwritten (promise 4)."""

import random
import shutil
import zipfile

import pytest
import torch

PART_OF = {"part1": "part2", "part2": "part3", "part3": "part1"}


class Malicious:
    """Creates a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def truncated(file, *_):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file, *_):
    file.write_bytes(b"")


def flipped(file, *_):
    """A byte of the largest tensor: PyTorch alone would read wrong weights."""
    with zipfile.ZipFile(file) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(file.read_bytes())
    content[entry.header_offset + len(entry.FileHeader()) + entry.file_size // 2] ^= 1
    file.write_bytes(content)


def marked_as_a_directory(file, *_):
    """PyTorch alone would read zeros."""
    content = bytearray(file.read_bytes())
    for position in range(len(content) - 46):
        if content[position : position + 4] == b"PK\x01\x02" and b"/data/0" in content[position : position + 80]:
            content[position + 38] |= 0x10
    file.write_bytes(content)


def malicious(file, _, marker):
    torch.save({**torch.load(file, weights_only=True), "state_dict": Malicious(marker)}, file)


def of_another_part(file, runs_of, _, part):
    shutil.copy(runs_of(PART_OF[part]).last("whole"), file)


def of_another_model(file, *_):
    content = torch.load(file, weights_only=True)
    name, weight = next((name, weight) for name, weight in content["state_dict"].items() if weight.dim() > 1)
    content["state_dict"][name] = weight[:1]
    torch.save(content, file)


def a_list(file, *_):
    torch.save([1, 2], file)


@pytest.mark.parametrize(
    "damage",
    [truncated, empty, flipped, marked_as_a_directory, malicious, of_another_part, of_another_model, a_list],
    ids=lambda damage: damage.__name__,
)
def test_a_checkpoint_that_cannot_be_used(runs, runs_of, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(runs.whole, run)
    (run / "summary.json").unlink()
    file = run / "checkpoints" / runs.last("whole").name
    damage(file, runs_of, tmp_path / "marker", *([runs.part] if damage is of_another_part else []))
    before = file.read_bytes()
    result = runs.commands(runs.part, "train.py", "--resume", run, "--log_dir", tmp_path)
    assert result.code == 2 and result.output.count("\n") == 1 and str(file) in result.output, result.output
    assert file.read_bytes() == before and not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_many_flipped_bytes(runs, request):
    """Each byte that matters is noticed, wherever it is: the file is refused, or its content is the same."""
    part = request.getfixturevalue(runs.part)
    wanted, file = ("state_dict",), runs.folder / "flipped.ckpt"
    content, random_ = runs.last("whole").read_bytes(), random.Random(18)
    weights = torch.load(runs.last("whole"), weights_only=True)["state_dict"]
    for _ in range(300):
        changed = bytearray(content)
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
        file.write_bytes(changed)
        try:
            read = part.run.read_checkpoint(file, wanted, runs.part)["state_dict"]
        except part.run.InputError:
            continue
        assert all(torch.equal(read[name], weight) for name, weight in weights.items())
