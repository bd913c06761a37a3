"""torch.distributions, which the assignment forbids.

Accepted: an import that nothing uses; in visualize_manifold a use is a remark, since the template's hint points there.
"""

import torch

from course.criterion import Failure, Remark, criterion, is_gap
from course.forbidden import HINT, uses_in


@criterion("1.7")
def no_torch_distributions(part):
    """The code does without torch.distributions."""
    try:
        part.utils.sample_reparameterize(torch.zeros(1, 1), torch.ones(1, 1))
    except Exception as error:
        if is_gap(error):
            raise
    remarks = []
    for function, text, place in uses_in(part.folder):
        if function != "visualize_manifold":
            raise Failure(HINT, got=f"{text} in {place}")
        remarks.append(place)
    if remarks:
        raise Remark("torch.distributions is used for the percentiles, as the template's hint suggests", got=remarks[0])
