"""The package that the assignment forbids."""

from course.aae_standins import discriminator_losses
from course.criterion import criterion, is_gap
from course.forbidden import find_distributions


@criterion("2.5")
def aae_without_distributions(part):
    """Part 2 does without torch.distributions."""
    try:
        discriminator_losses(part, 0.0, 0.0)
    except Exception as error:
        if is_gap(error):
            raise
    find_distributions(part.folder)
