"""The same seed gives the same figures, with any number of loader workers; and nobody is called on the network."""

from argparse import Namespace

import pytest
import torch

from gpt_models import byte_pairs, small_gpt

TEXT = "".join(f"{i} and {i * i % 17} make {(i + i * i) % 17}.\n" for i in range(60))


def small_part1(part1, monkeypatch) -> None:
    """90 digits for training, 30 for each of validation and test."""
    original = part1.mnist.digits

    def few(batch_size=45, num_workers=0, seed=None, pin_memory=False):
        train, val, test = original()
        sets = [torch.utils.data.Subset(loader.dataset, range(n)) for loader, n in ((train, 90), (val, 30))]
        test = part1.mnist.ImageDataset(*test.dataset[:30])
        sets = [part1.mnist.ImageDataset(*(torch.stack(c) for c in zip(*(s[i] for i in range(len(s))), strict=True)))
                for s in sets]  # fmt: skip
        for s in sets:
            s.images = s.images.byte()
        return part1.mnist._loaders(*sets, test, batch_size, num_workers, seed, pin_memory)

    monkeypatch.setattr(part1.mnist, "digits", few)


@pytest.fixture(params=["part1", "part2", "part3"])
def train(request, monkeypatch, tmp_path):
    """Trains a part for a moment and returns `metrics.csv`."""
    part = request.getfixturevalue(request.param)

    def run(name: str, seed: int = 3, num_workers: int = 0) -> str:
        common = {"log_dir": str(tmp_path / name), "seed": seed, "num_workers": num_workers}
        if part.folder.name == "part1":
            with monkeypatch.context() as patch:
                small_part1(part, patch)
                part.train_pl.train_vae(
                    Namespace(dataset="digits", num_filters=4, z_dim=2, epochs=2, batch_size=45, **common)
                )
        elif part.folder.name == "part2":
            with request.getfixturevalue("tiny_digits")(part):
                part.train.main(Namespace(dataset="digits", batch_size=60, z_dim=2, epochs=2, **common))
        else:
            (tmp_path / "sums.txt").write_text(TEXT)
            part.train.train(
                Namespace(model_type="gpt-nano", block_size=13, train_batch_size=5, max_steps=6, val_every_n_steps=3,
                          generate_every_n_steps=6, generate_batch_size=2, txt_file=tmp_path / "sums.txt", **common)
            )  # fmt: skip
        (file,) = (tmp_path / name).rglob("metrics.csv")
        return without_times(file.read_text())

    return run


def without_times(table: str) -> str:
    """A table without the columns that are measured with a clock."""
    rows = [line.split(",") for line in table.splitlines()]
    clock = [i for i, name in enumerate(rows[0]) if "second" in name or "time" in name or name.endswith("_per_s")]
    return "\n".join(",".join(cell for i, cell in enumerate(row) if i not in clock) for row in rows)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_training_repeats_itself_with_three_workers_and_calls_nobody(train, no_network):
    first = train("first")
    assert len(first.splitlines()) >= 3
    assert train("three", num_workers=3) == first


@pytest.mark.slow
def test_a_training_repeats_itself_with_one_worker_and_differs_with_another_seed(train):
    first = train("first")
    assert train("again") == first
    assert train("one", num_workers=1) == first
    assert train("other", seed=4) != first


def test_generating_with_local_weights_calls_nobody(part3, no_network, tmp_path):
    small_gpt(part3, vocab_size=283).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(byte_pairs(), encoding="utf-8")
    assert part3.generate.main(["--checkpoint", str(tmp_path), "--prompt", "the cat", "--n_steps", "3"]) == 0
