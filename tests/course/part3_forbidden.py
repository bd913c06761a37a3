"""The package that the assignment forbids."""

from course.criterion import criterion
from course.forbidden import find_distributions


@criterion("3.3")
def gpt_without_distributions(part):
    """Part 3 does without torch.distributions."""
    find_distributions(part.folder)
