"""Short runs of each part: an uninterrupted one, and others that are compared with it. Fixtures for other folders."""

import csv
import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from forked import Commands, Result

TEXT = "".join(f"{i} and {i * i % 17} make {(i + i * i) % 17}.\n" for i in range(120))
FLAGS = {
    "part1": ["--dataset", "digits", "--epochs", "2", "--batch_size", "60", "--num_filters", "2", "--z_dim", "2"],
    "part2": ["--dataset", "digits", "--epochs", "2", "--batch_size", "60", "--z_dim", "2"],
    "part3": ["--model_type", "gpt-nano", "--block_size", "13", "--train_batch_size", "5", "--max_steps", "7",
              "--val_every_n_steps", "3", "--generate_every_n_steps", "4", "--generate_batch_size", "1"],
}  # fmt: skip
PARTS = sorted(FLAGS)
LAST = {"part1": "last.ckpt", "part2": "model_checkpoint.pt", "part3": "last.ckpt"}
WEIGHTS = ("state_dict", "optimizer_states", "optimizer_ae", "optimizer_disc", "epoch", "global_step")
TIMES = {"seconds", "tokens_per_second", "epoch_seconds"}  # in metrics.csv and TensorBoard


class Runs:
    """Runs of one part in a folder of their own, and an uninterrupted one, `whole`."""

    def __init__(self, commands: Commands, part: str, folder: Path):
        self.commands, self.part, self.folder = commands, part, folder
        (folder / "sums.txt").write_text(TEXT)
        self.flags = [*FLAGS[part], *(["--txt_file", str(folder / "sums.txt")] if part == "part3" else [])]
        result = self.train("whole", *self.flags)
        assert result.code == 0, result.output
        self.moments, self.whole = result.moments, self.run("whole")

    def run(self, name: str) -> Path:
        """The run directory below the log directory of this name."""
        runs = self.folder / name if self.part == "part2" else self.folder / name / "lightning_logs"
        return runs / "version_0"

    def train(self, name: str, *argv: object, **job) -> Result:
        """Run `train.py` with a log directory of this name."""
        return self.commands(self.part, "train.py", *argv, "--log_dir", self.folder / name, **job)

    def last(self, name: str) -> Path:
        """The checkpoint from which a run is resumed."""
        return self.run(name) / "checkpoints" / LAST[self.part]

    def finish(self, name: str) -> None:
        """Resume a run that was killed, or begin it again where it has no checkpoint, and compare it."""
        if self.last(name).is_file():
            result = self.train(name, "--resume", self.run(name))
            assert result.code == 0, result.output
            assert_same_run(self.run(name), self.whole)
        else:
            result = self.train(name, "--resume", self.run(name))
            assert result.code == 2 and "no such run with a checkpoint" in result.output


def assert_same_run(run: Path, whole: Path) -> None:
    """The same weights, rows, curves, results and files."""
    for path in sorted((whole / "checkpoints").iterdir()):
        one, other = (torch.load(file, weights_only=True) for file in (path, run / "checkpoints" / path.name))
        assert_equal({key: one.get(key) for key in WEIGHTS}, {key: other.get(key) for key in WEIGHTS})
    assert rows_of(run) == rows_of(whole)
    curves, expected = curves_of(run), curves_of(whole)
    assert {tag: curves.get(tag) for tag in expected} == expected and curves.keys() == expected.keys()
    assert results_of(run) == results_of(whole)
    assert files_of(run) == files_of(whole)


def rows_of(run: Path) -> list[dict[str, str]]:
    """Rows of `metrics.csv`, without times."""
    with open(run / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def curves_of(run: Path) -> dict[str, list]:
    """Steps of all tags, with the values of scalars, as TensorBoard shows them."""
    board, curves = EventAccumulator(str(run), tensor_size_guidance={}).Reload(), {}
    for tag in board.Tags()["tensors"]:
        is_time = tag in TIMES or board.SummaryMetadata(tag).plugin_data.plugin_name != "scalars"
        events = board.Tensors(tag)
        curves[tag] = [e.step if is_time else (e.step, make_ndarray(e.tensor_proto).item()) for e in events]
    return curves


def results_of(run: Path) -> dict:
    """`summary.json` without times and flags."""
    summary = json.loads((run / "summary.json").read_text())
    return {name: value for name, value in summary.items()
            if "second" not in name and name not in ("command", "finished", "flags")}  # fmt: skip


def files_of(run: Path) -> set[str]:
    """Names of all files of a run but those of events, of which each start has its own."""
    return {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and "tfevents" not in p.name}


def assert_equal(a, b) -> None:
    """Equality of nested containers of tensors, bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.fixture(scope="session")
def commands():
    """Runs a part's command: `commands("part1", "train.py", "--epochs", 2)`."""
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def runs_of(commands, tmp_path_factory):
    """The `Runs` of a part, of which the uninterrupted one is there already."""
    runs = {}

    def of(part: str) -> Runs:
        if part not in runs:
            runs[part] = Runs(commands, part, tmp_path_factory.mktemp(part))
        return runs[part]

    return of


@pytest.fixture(params=PARTS)
def runs(request, runs_of):
    """The `Runs` of each part in turn."""
    return runs_of(request.param)
