"""How often a training waits for a GPU: at most in one step of fifty, apart from the ends of an epoch."""

from argparse import Namespace

import pytest

from fake_cuda import Waits

EVERY = 50  # steps between two looks at the losses


def check(waits: Waits, steps: int) -> None:
    assert waits.steps == steps > 2 * EVERY
    assert list(waits.during_steps()) == list(range(EVERY, steps, EVERY)), waits.during_steps()


@pytest.mark.parametrize("ema", [0, 0.9])
def test_a_training_of_part_1(part1, tmp_path, ema):
    flags = Namespace(dataset="digits", batch_size=13, num_filters=2, z_dim=3, epochs=1, ema=ema, progress_bar=True,
                      log_dir=str(tmp_path))  # fmt: skip
    assert part1.train_pl
    with Waits() as waits:
        part1.train_pl.train_vae(flags)
    check(waits, steps=1350 // 13 + 1)


def test_a_training_of_part_2(part2, tmp_path):
    flags = Namespace(dataset="digits", batch_size=14, z_dim=3, epochs=1, progress_bar=True, log_dir=str(tmp_path))
    assert part2.train
    with Waits() as waits:
        part2.train.main(flags)
    check(waits, steps=1500 // 14 + 1)


def test_a_training_of_part_3(part3, tmp_path):
    (tmp_path / "text.txt").write_text("abcdefgh" * 40)
    flags = Namespace(txt_file=str(tmp_path / "text.txt"), model_type="gpt-nano", block_size=8, train_batch_size=2,
                      max_steps=110, val_every_n_steps=110,
                      generate_batch_size=1, progress_bar=True, log_dir=str(tmp_path))  # fmt: skip
    assert part3.train
    with Waits() as waits:
        part3.train.train(flags)
    check(waits, steps=110)
