"""Promise 1: a training that is killed at any moment is resumed as if nothing had happened."""

import shutil
import signal

import pytest

from short_runs import assert_same_run


def number_of(moments: list[str], name: str, after: int = -1) -> int:
    """Number of the first moment with this beginning after another one."""
    return next(i for i, moment in enumerate(moments) if moment.startswith(name) and i > after)


def test_killed_before_its_checkpoint(runs):
    """The curves of the second epoch or round are written by then."""
    first = number_of(runs.moments, "after replacing metrics.csv")
    second = number_of(runs.moments, "after replacing metrics.csv", after=first)
    assert runs.train("before", *runs.flags, moment=second).code == -signal.SIGKILL
    runs.finish("before")


def test_killed_between_steps_and_again_while_resumed(runs):
    first = number_of(runs.moments, "after replacing metrics.csv")
    step = number_of(runs.moments, "after a gradient", after=first)
    assert runs.train("step", *runs.flags, moment=step).code == -signal.SIGKILL
    assert runs.train("step", "--resume", runs.run("step"), moment=3).code == -signal.SIGKILL
    runs.finish("step")


def test_killed_before_the_first_checkpoint(runs):
    assert runs.train("early", *runs.flags, moment=number_of(runs.moments, "after a gradient")).code == -signal.SIGKILL
    runs.finish("early")


@pytest.mark.parametrize(
    "part, signum, code",
    [("part1", signal.SIGINT, 130), ("part1", signal.SIGTERM, 143), ("part2", signal.SIGTERM, 143),
     ("part3", signal.SIGINT, 130)],
)  # fmt: skip
def test_signals_tell_how_to_go_on(runs_of, part, signum, code):
    """Promise 2."""
    runs = runs_of(part)
    first = number_of(runs.moments, "after replacing metrics.csv")
    step = number_of(runs.moments, "after a gradient", after=first)
    name = f"signal{code}"
    result = runs.train(name, *runs.flags, moment=step, signum=signum)
    assert result.code == code and "Traceback" not in result.output
    assert result.output.rstrip().endswith(f"--resume {runs.run(name)}")
    runs.finish(name)


def test_stopped_before_the_first_checkpoint(runs):
    result = runs.train("stopped", *runs.flags, moment=number_of(runs.moments, "before a gradient"),
                        signum=signal.SIGINT)  # fmt: skip
    assert result.code == 130 and "there is no checkpoint yet" in result.output


def test_a_one_cycle_schedule_is_resumed(runs_of):
    """Its last epoch is fixed at the start: another number of epochs would be another training."""
    runs = runs_of("part1")
    flags = [*runs.flags, "--lr_schedule", "one-cycle"]
    moments = runs.train("cycle", *flags).moments
    first = number_of(moments, "after replacing last.ckpt")
    assert runs.train("half a cycle", *flags, moment=first + 3).code == -signal.SIGKILL
    result = runs.train("half a cycle", "--resume", runs.run("half a cycle"), "--epochs", "3")
    assert result.code == 2 and "was planned for --epochs 2" in result.output
    assert runs.train("half a cycle", "--resume", runs.run("half a cycle")).code == 0
    assert_same_run(runs.run("half a cycle"), runs.run("cycle"))


@pytest.mark.parametrize("part", ["part1", "part3"])
def test_a_moved_run_keeps_its_best_score(runs_of, part):
    runs = runs_of(part)
    second = number_of(
        runs.moments, "before replacing best.ckpt", after=number_of(runs.moments, "after replacing best")
    )
    assert runs.train("original", *runs.flags, moment=second).code == -signal.SIGKILL
    shutil.move(runs.folder / "original", runs.folder / "moved")
    runs.finish("moved")


def test_a_complete_run_is_not_resumed_but_extended(runs):
    result = runs.train("whole", "--resume", runs.whole)
    assert result.code == 2 and "raise --" in result.output
    assert (runs.whole / "summary.json").is_file()


def test_a_resumed_run_keeps_the_flags_that_its_weights_depend_on(runs):
    flag, other = ("--block_size", "12") if runs.part == "part3" else ("--z_dim", "3")
    result = runs.train("whole", "--resume", runs.whole, flag, other)
    assert result.code == 2 and f"{flag} {other} was given" in result.output
