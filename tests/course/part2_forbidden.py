"""The package that the assignment forbids."""

from course.criterion import criterion
from course.forbidden import find_distributions


@criterion("2.5")
def aae_without_distributions(part):
    """Part 2 does without torch.distributions."""
    find_distributions(part.folder)
