"""The package that the assignment forbids."""

import torch

from course.criterion import Failure, criterion, is_gap
from course.forbidden import find_distributions
from course.gpt_probes import VOCAB, Markov


@criterion("3.3")
def gpt_without_distributions(part):
    """Part 3 does without torch.distributions."""
    refuse_gap(part)
    find_distributions(part.folder)


def refuse_gap(part) -> None:
    """Let through what a `generate` raises that is not implemented."""
    try:
        Markov(part, torch.zeros(VOCAB))(torch.zeros(1, 1, dtype=torch.long), 1)
    except Exception as error:
        if isinstance(error, Failure) or is_gap(error):
            raise
