"""Short runs of each part that are interrupted, resumed, and compared with an uninterrupted one."""

import json
import shutil

import pytest
import torch

from kill_server import KillServer
from runs import assert_equal, points_of, rows_of

TEXT = "".join(f"{i} and {i * i % 17} make {(i + i * i) % 17}.\n" for i in range(120))
FLAGS = {
    "part1": ["--dataset", "digits", "--epochs", "3", "--batch_size", "60", "--num_filters", "2", "--z_dim", "2"],
    "part2": ["--dataset", "digits", "--epochs", "3", "--batch_size", "60", "--z_dim", "2"],
    "part3": ["--model_type", "gpt-nano", "--block_size", "13", "--train_batch_size", "5", "--max_steps", "7",
              "--val_every_n_steps", "3", "--generate_every_n_steps", "4", "--generate_batch_size", "1"],
}  # fmt: skip
PARTS = sorted(FLAGS)
RUNS = {"part1": "lightning_logs", "part2": "", "part3": "lightning_logs"}
LAST = {"part1": "last.ckpt", "part2": "model_checkpoint.pt", "part3": "last.ckpt"}
TIMES = {"seconds", "tokens_per_second", "epoch_seconds"}  # in metrics.csv and TensorBoard
MACHINE = {"command", "finished", "train_seconds", "median_epoch_seconds", "median_tokens_per_second", "flags"}


class Bench:
    """Runs of one part: an uninterrupted one, and others that are compared with it."""

    def __init__(self, server: KillServer, part: str, folder):
        self.server, self.part, self.folder = server, part, folder
        (folder / "sums.txt").write_text(TEXT)
        self.flags = [*FLAGS[part], *(["--txt_file", str(folder / "sums.txt")] if part == "part3" else [])]
        self.whole = self.runs("whole") / "version_0"
        code, self.moments, output = self.train("whole", *self.flags)
        assert code == 0, output

    def runs(self, name: str):
        return self.folder / name / RUNS[self.part]

    def train(self, name: str, *argv: str, **kill):
        """Run `train.py` with a log directory of this name."""
        argv = [*argv, "--log_dir", str(self.folder / name)]
        return self.server.train(self.part, argv, self.folder / "moments.txt", **kill)

    def killed_and_resumed(self, name: str, **kill) -> None:
        """Train with a kill, resume, and compare with the uninterrupted run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        code, moments, output = self.train(name, *self.flags, **kill)
        assert code != 0 or "seconds" in kill, output
        run = self.runs(name) / "version_0"
        self.finish(name, run, why=f"killed: {kill}, {moments[-1] if moments else 'before the first moment'}")

    def finish(self, name: str, run, why: str) -> None:
        if (run / "checkpoints" / LAST[self.part]).is_file() and not (run / "summary.json").is_file():
            code, _, output = self.train(name, "--resume", str(run))
            assert code == 0, (why, output)
        elif not (run / "summary.json").is_file():  # killed before the first checkpoint
            code, _, output = self.train(name, "--resume", str(run))
            assert code == 2 and "is no run with a checkpoint" in output, (why, output)
            code, _, output = self.train(name, *self.flags)
            assert code == 0, (why, output)
            run = max(self.runs(name).glob("version_*"))
        self.compare(run, why)

    def compare(self, run, why: str) -> None:
        for path in sorted((self.whole / "checkpoints").iterdir()):
            one, other = (torch.load(p, weights_only=True) for p in (path, run / "checkpoints" / path.name))
            for key in ("state_dict", "optimizer_states", "optimizer_ae", "optimizer_disc", "epoch", "global_step"):
                assert_equal(one.get(key), other.get(key))
        rows, expected = rows_of(run), rows_of(self.whole)
        assert [without_times(row) for row in rows] == [without_times(row) for row in expected], why
        points, expected = points_of(run), points_of(self.whole)
        assert points.keys() == expected.keys(), why
        for tag in points:
            steps = [step for step, _ in points[tag]]
            assert steps == [step for step, _ in expected[tag]], (why, tag, "each once, in their order")
            if tag not in TIMES:
                assert points[tag] == expected[tag], (why, tag)
        summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, self.whole)]
        assert_equal(*({k: v for k, v in s.items() if k not in MACHINE and "seconds_to" not in k} for s in summaries))
        assert files_of(run) == files_of(self.whole), why


def without_times(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in TIMES}


def files_of(run) -> set[str]:
    return {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and "tfevents" not in p.name}


@pytest.fixture(scope="session")
def server():
    """Trains, and kills where asked to."""
    server = KillServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def benches(server, tmp_path_factory):
    """The bench of each part that is asked for."""
    benches = {}

    def bench(part: str) -> Bench:
        if part not in benches:
            benches[part] = Bench(server, part, tmp_path_factory.mktemp(part))
        return benches[part]

    return bench
