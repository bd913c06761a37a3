"""What a criterion is, and how it says what it found.

A criterion is a function of one argument, the student's part. It returns where all is right, and raises `Failure` where
something is wrong; the first line of its docstring is its title:

    @criterion("1.7")
    def kl_value(part):
        '''KL divergence of a Gaussian from the prior.'''
        got = part.utils.KLD(mean, log_std)
        expect(close(got, 0.5), "the ½ of the closed form is missing", given="mean 1, log std 0", expected=0.5, got=got)
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Variables that the template's functions return or use without giving them a value.
VARIABLES = {
    "z", "KLD", "bpd", "img_grid", "L_rec", "L_reg", "x_samples", "x_mean", "mean", "log_std", "optimizer",
    "recon_x", "preds", "ae_loss", "gen_loss", "recon_loss", "disc_loss", "loss_real", "loss_fake", "logging_dict",
    "y", "att", "q", "k", "v", "logits", "probs", "idx_next",
}  # fmt: skip


class Failure(Exception):
    """A mistake, in a student's words.

    Args:
        hint: one sentence that names the likely mistake and what the assignment asks for.
        given: the input; expected: the right answer; got: the student's. Tensors and numbers are printed briefly.
    """

    empty = False  # whether nothing was there to be judged

    def __init__(self, hint: str, *, given: Any = None, expected: Any = None, got: Any = None):
        super().__init__(hint)
        self.hint = hint
        self.given, self.expected, self.got = given, expected, got


class Nothing(Failure):
    """Nothing happens where something should: criteria that pass only because of that (`points.NEEDS`) give no
    points, either."""

    empty = True


class Remark(Failure):
    """A finding that costs no points: it is shown, and the criterion counts as passed."""


class Unjudged(Exception):
    """Nothing can be said here, since a mistake that another criterion tells hides it: no points, and no mistake."""


class NotANumber(Unjudged):
    """A loss is NaN, which the criteria that look at its logits tell."""


NAN = "the loss is NaN: is a logarithm taken of raw logits, which may be negative?"


def expect(ok: Any, hint: str, *, given: Any = None, expected: Any = None, got: Any = None) -> None:
    """Raise `Failure` unless `ok`, a truth value, a tensor of one element or of several that must all hold."""
    if hasattr(ok, "all") and not isinstance(ok, bool):
        ok = ok.all()
    if not bool(ok):
        raise Failure(hint, given=given, expected=expected, got=got)


def last_own_frame(error: BaseException, folder: Path) -> traceback.FrameSummary | None:
    """The innermost frame of an exception in the files below a folder."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(folder))]
    return own[-1] if own else None


def place(error: BaseException, folder: Path) -> str:
    """Where in a student's folder an exception arose, such as 'part3/gpt.py, line 7'; nothing where it did not."""
    frame = last_own_frame(error, folder)
    return f"{Path(frame.filename).relative_to(folder.parent)}, line {frame.lineno}" if frame else ""


def said(error: BaseException) -> str:
    """An exception's kind, beginning of its text, and place in the student's files, the working directory."""
    where = place(error, Path.cwd())
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}" + (f" ({where})" if where else "")


def is_gap(error: BaseException) -> bool:
    """Whether this is what a template's gap raises: NotImplementedError, a bare `raise`, or, where a gap without an
    exception leaves a variable without a value, or with None or `...`, UnboundLocalError, the name of a variable of the
    template, and what None cannot do."""
    if isinstance(error, (AttributeError, TypeError)):
        return "NoneType" in str(error) or "ellipsis" in str(error)
    if isinstance(error, NameError) and error.name in VARIABLES:
        return True
    return isinstance(error, (NotImplementedError, UnboundLocalError)) or "No active exception to reraise" in str(error)


@dataclass(frozen=True)
class Criterion:
    """One registered criterion; `question` is the assignment's number, such as '1.7'."""

    name: str
    question: str
    title: str
    function: Callable[[Any], None]

    @property
    def part(self) -> str:
        """'part1', 'part2' or 'part3', by the question's first digit."""
        return f"part{self.question[0]}"


REGISTRY: dict[str, Criterion] = {}


def criterion(question: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the decorated function as a criterion of this question. Raises ValueError for a name that is taken, and
    for a function without a docstring."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        name, text = function.__name__, (function.__doc__ or "").strip()
        if name in REGISTRY:
            raise ValueError(f"two criteria are called {name}")
        if not text:
            raise ValueError(f"the criterion {name} has no docstring, whose first line is its title")
        REGISTRY[name] = Criterion(name, question, text.splitlines()[0].rstrip("."), function)
        return function

    return register
