"""`make soak`: trainings that are killed at every kind of moment and at random ones, again and again (promise 1)."""

import random
import shutil
import signal

import pytest

from short_runs import assert_same_run

SEED = 18
pytestmark = pytest.mark.slow


def test_killed_around_every_kind_of_moment(runs):
    """Around the last gradient, flush of events, and writing of each file."""
    for number, moment in sorted(
        (number, moment) for moment, number in {m: i for i, m in enumerate(runs.moments)}.items()
    ):
        print(f"killed {moment}")
        shutil.rmtree(runs.folder / "kind", ignore_errors=True)
        assert runs.train("kind", *runs.flags, moment=number).code == -signal.SIGKILL
        if (runs.run("kind") / "summary.json").is_file():  # complete
            assert_same_run(runs.run("kind"), runs.whole)
        else:
            runs.finish("kind")


def test_killed_at_random_moments_again_and_again(runs):
    random_ = random.Random(SEED)
    for _ in range(5):
        shutil.rmtree(runs.folder / "again", ignore_errors=True)
        runs.train("again", *runs.flags, moment=random_.randrange(len(runs.moments)))
        for _ in range(3):
            if runs.last("again").is_file() and not (runs.run("again") / "summary.json").is_file():
                runs.train("again", "--resume", runs.run("again"), moment=random_.randrange(2, 30))
        if not (runs.run("again") / "summary.json").is_file():
            runs.finish("again")
