"""Trainings that are killed, at any moment, and resumed: nothing is lost, nothing is there twice."""

import random
import re
import shutil
import signal

import pytest

from run_bench import LAST, PARTS
from soak_record import SEED


def places(moments: list[str], *starts: str) -> list[int]:
    return [i for i, name in enumerate(moments) if name.startswith(starts)]


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_training_is_resumed_as_if_nothing_had_happened(benches, part):
    """Once between the events of the second epoch and its checkpoint, and once in the middle of that checkpoint."""
    bench = benches(part)
    metrics = places(bench.moments, "after replacing metrics.csv")[1]
    bench.killed_and_resumed("after_metrics", moment=metrics)
    within = next(i for i in places(bench.moments, "within a checkpoint") if i > metrics)
    bench.killed_and_resumed("within", moment=within)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_moments_around_every_kind_of_file(benches, part, soak):
    """Around the last time that a file of each name is written, an event, and a gradient is computed."""
    bench = benches(part)
    kinds = {}
    for i, name in enumerate(bench.moments):
        kind = re.sub(r"[0-9]+|(?<=the event).*", "", name)
        if "checkpoint" in kind or "ckpt" in kind or "metrics" in kind or kind.startswith("after"):
            kinds[kind] = i
    for moment in sorted(kinds.values()):
        bench.killed_and_resumed("kind", moment=moment)
        soak(kills_survived=1)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_random_moments(benches, part, soak):
    """Ten of all moments, and five points of time."""
    bench, random_ = benches(part), random.Random(SEED)
    for moment in random_.sample(range(len(bench.moments)), 10):
        bench.killed_and_resumed("random", moment=moment)
        soak(kills_survived=1)
    for _ in range(5):
        bench.killed_and_resumed("timed", seconds=random_.uniform(0, 4))
        soak(kills_survived=1)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_run_that_is_killed_again_and_again(benches, part, soak):
    """Also while it begins again, and after the last epoch."""
    bench, random_ = benches(part), random.Random(SEED + 1)
    shutil.rmtree(bench.folder / "again", ignore_errors=True)
    first = places(bench.moments, "after replacing metrics.csv")[1]
    run = bench.runs("again") / "version_0"
    assert bench.train("again", *bench.flags, moment=first)[0] == -signal.SIGKILL
    for _ in range(8):
        if bench.train("again", "--resume", str(run), moment=random_.randrange(2, 30))[0] == 0:
            break
        soak(kills_survived=1)
    bench.finish("again", run, why="killed again and again")


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_that_ask_a_training_to_end(benches, part, signum, soak):
    bench, random_ = benches(part), random.Random(SEED + signum)
    gradients, metrics, within = (
        places(bench.moments, name) for name in ("before a gradient", "after replacing metrics.csv", "within a check")
    )
    for moment in (random_.choice([i for i in gradients[2:] if i < metrics[1]]), metrics[1], within[1]):
        bench.killed_and_resumed("signal", moment=moment, signum=signum)
        soak(signals_survived=1)


@pytest.mark.parametrize("part", PARTS)
def test_resuming_from_an_earlier_checkpoint(benches, part):
    """The curves go on from there; the training is killed at once, and resumed without a word of the checkpoint."""
    bench = benches(part)
    run = bench.runs("earlier") / "version_0"
    after_first = places(bench.moments, "after replacing metrics.csv")[1]
    bench.train("earlier", *bench.flags, moment=after_first)
    kept = run / "checkpoints" / "kept.ckpt"
    shutil.copy(run / "checkpoints" / LAST[part], kept)  # of the first epoch or round
    code, _, output = bench.train("earlier", "--resume", str(run))
    assert code == 0, output
    code, moments, output = bench.train("earlier", "--resume", str(kept), moment=8)
    assert code == -signal.SIGKILL, (moments, output)
    kept.unlink()
    bench.finish("earlier", run, why="resumed from an earlier checkpoint")
