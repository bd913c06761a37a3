"""What a criterion is, and how it says what it found.

A criterion is a function of one argument, the student's part. It returns where all is right, and raises `Failure` where
something is wrong; the first line of its docstring is its title:

    @criterion("1.7")
    def kl_value(part):
        '''KL divergence of a Gaussian from the prior.'''
        got = part.utils.KLD(mean, log_std)
        expect(close(got, 0.5), "the ½ of the closed form is missing", given="mean 1, log std 0", expected=0.5, got=got)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Failure(Exception):
    """A mistake, in a student's words.

    Args:
        hint: one sentence that names the likely mistake and what the assignment asks for.
        given: the input; expected: the right answer; got: the student's. Tensors and numbers are printed briefly.
    """

    def __init__(self, hint: str, *, given: Any = None, expected: Any = None, got: Any = None):
        super().__init__(hint)
        self.hint = hint
        self.given, self.expected, self.got = given, expected, got


class Remark(Failure):
    """A finding that costs no points: it is shown, and the criterion counts as passed."""


def expect(ok: Any, hint: str, *, given: Any = None, expected: Any = None, got: Any = None) -> None:
    """Raise `Failure` unless `ok`, a truth value, a tensor of one element or of several that must all hold."""
    if hasattr(ok, "all") and not isinstance(ok, bool):
        ok = ok.all()
    if not bool(ok):
        raise Failure(hint, given=given, expected=expected, got=got)


def is_gap(error: BaseException) -> bool:
    """Whether this is what a template's gap raises: NotImplementedError, a bare `raise`, or, where a gap without an
    exception leaves a variable without a value or with None, UnboundLocalError and what None cannot do."""
    if isinstance(error, (AttributeError, TypeError)):
        return "NoneType" in str(error)
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
