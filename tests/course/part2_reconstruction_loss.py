"""The reconstruction loss: squared errors, averaged over batch and pixels.

Only the mean is accepted: the assignment asks for "a simple MSE loss", which goes below 0.05, and λ relies on its size.
"""

from course.aae_standins import autoencoder_losses, close
from course.criterion import criterion, expect


@criterion("2.4")
def reconstruction_is_squared(part):
    """Twice the error costs four times as much."""

    def loss(delta: float) -> float:
        return autoencoder_losses(part, delta=delta, lambda_=1.0).recon

    none, once, twice = loss(0.0), loss(0.5), loss(1.0)
    expect(abs(none) < 1e-5 * max(1, once), "a perfect reconstruction must cost nothing", expected=0.0, got=none)
    expect(
        once > 0 and close(twice / once, 4, 1e-2),
        "the reconstruction loss is the mean squared error, not L1 or cross entropy",
        given="all pixels off by 0.5, then by 1",
        expected="4 times as much",
        got=f"{once:.4g}, then {twice:.4g}",
    )


@criterion("2.4")
def reconstruction_is_a_mean(part):
    """The reconstruction loss is a mean over batch and pixels."""
    loss = autoencoder_losses(part, delta=1.0, lambda_=1.0).recon
    expect(
        0.4 < loss < 1.6,
        "the squared errors are summed up: take their mean over batch and pixels, or λ weighs nothing",
        given="6 images, all pixels off by 1",
        expected=1.0,
        got=loss,
    )
