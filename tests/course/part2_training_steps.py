"""train_aae: which gradients each step sees.

Accepted: either step first; codes that are detached in train_aae, in the loss, or nowhere if the gradients are cleared
before they do harm; one pass through the encoder or two; any use of the loggers.
"""

import torch

from course.aae_standins import expect_own_loss, play
from course.criterion import Nothing, criterion, expect


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(max(a.abs().max(), b.abs().max(), 1e-9)))


def _pile_up(steps: list[torch.Tensor]) -> bool:
    return any(not _same(step, steps[0]) for step in steps)


@criterion("2.4")
def autoencoder_learns(part):
    """An epoch changes encoder and decoder."""
    found = play(part, lr=0.05)
    if not found.ae:
        raise Nothing("train_aae never calls optimizer_ae.step()")
    for network in ("encoder", "decoder"):
        moved = any(
            not torch.equal(p, found.start[name])
            for name, p in found.model.named_parameters()
            if name.startswith(network)
        )
        expect(moved, f"train_aae leaves the {network} as it was")
    expect_own_loss(play(part, d_scale=0.0, lambda_=0.1), "ae")


@criterion("2.5")
def discriminator_learns(part):
    """An epoch changes the discriminator."""
    found = play(part, lr=0.05)
    if not found.disc:
        raise Nothing("train_aae never calls optimizer_disc.step()")
    parameters = found.model.named_parameters()
    moved = any(not torch.equal(p, found.start[name]) for name, p in parameters if name.startswith("discriminator"))
    expect(moved, "train_aae leaves the discriminator as it was")
    expect_own_loss(play(part, ae_scale=0.0), "disc")


@criterion("2.4")
def autoencoder_gradients_are_cleared(part):
    """Each step of the autoencoder has the gradients of its own batch."""
    expect(
        not _pile_up(play(part, d_scale=0.0).ae),
        "the autoencoder's gradients pile up from batch to batch: call optimizer_ae.zero_grad() before each backward",
        given="the same batch three times",
    )


@criterion("2.5")
def discriminator_gradients_are_cleared(part):
    """Each step of the discriminator has the gradients of its own batch."""
    expect(
        not _pile_up(play(part, ae_scale=0.0).disc),
        "the discriminator's gradients pile up from batch to batch: call "
        "optimizer_disc.zero_grad() before each backward",
        given="the same batch three times",
    )


@criterion("2.5")
def discriminator_leaves_the_encoder_alone(part):
    """What the discriminator learns from does not change the encoder."""
    with_it, without = play(part).ae, play(part, d_scale=0.0).ae
    expect(
        all(map(_same, with_it, without)),
        "gradients of disc_loss reach the encoder and change it: detach z_fake, or clear "
        "them before the autoencoder's step",
        given="disc_loss times 1, then times 0",
    )


@criterion("2.5")
def generator_leaves_the_discriminator_alone(part):
    """What the generator learns from does not change the discriminator."""
    without = play(part, ae_scale=0.0).disc
    if _pile_up(without):
        return  # which has its own criterion
    with_it = play(part).disc
    expect(
        all(map(_same, with_it, without)),
        "gradients of ae_loss are still there in the discriminator's step, which then also moves it as the generator "
        "wants: call optimizer_disc.zero_grad() right before disc_loss.backward()",
        given="ae_loss times 1, then times 0",
    )


@criterion("2.5")
def lambda_is_handed_on(part):
    """train_aae hands λ on to the loss."""
    got = [float(value) for value in getattr(play(part, lambda_=0.3).model, "lambdas", [])]
    expect(
        all(abs(value - 0.3) < 1e-6 for value in got),
        "train_aae does not hand its lambda_ on to get_loss_autoencoder",
        given="train_aae(..., lambda_=0.3)",
        expected=0.3,
        got=got[:1],
    )
