"""Binary cross entropies of logits, and what a solution may make of them."""

import torch
import torch.nn.functional as F

SMOOTHED = "labels are smoothed: the assignment's cross entropy has the targets 1 for real and 0 for fake"


def softplus(x: float) -> float:
    """log(1 + exp(x)), the cross entropy of the logit -x of a code that is real."""
    return F.softplus(torch.tensor(x)).item()


def smoothed(losses: list[float], points: list[tuple]) -> bool:
    """Whether losses at logits of (real, fake) codes, a fake one may be None, are cross entropies with targets of at
    least 0.6 for real and at most 0.4 for fake: each is linear in how far the targets are off."""
    for weight in (0.5, 1.0):
        rest = [
            loss / weight - sum(softplus(x) for x in (-real, fake) if x is not None)
            for loss, (real, fake) in zip(losses, points, strict=True)
        ]
        columns = torch.tensor([[real, -(fake or 0.0)] for real, fake in points])
        off = torch.linalg.lstsq(columns, torch.tensor(rest)[:, None], driver="gelsd").solution[:, 0]
        fits = torch.allclose(columns @ off, torch.tensor(rest), atol=2e-3)
        if fits and bool((off > -1e-3).all() and 0.01 < off.max() < 0.4):
            return True
    return False
