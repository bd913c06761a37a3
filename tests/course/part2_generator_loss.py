"""The generator's loss and λ.

Accepted for the generator: -log D(E(x)), and equation 15 literally, log(1 - D(E(x))); a discriminator with a sigmoid
together with losses on probabilities (its own criterion speaks of it); smoothed labels, with a remark; logged values as
tensors or numbers.
"""

import torch

from course.aae_standins import (
    Judge,
    autoencoder_losses,
    close,
    codes,
    gives_probabilities,
    new_model,
    number,
    on_logits,
)
from course.criterion import NAN, Failure, NotANumber, Nothing, Remark, criterion, expect
from course.cross_entropy import SMOOTHED, smoothed, softplus


def _gen(part, logit: float, probabilities: bool) -> float:
    return autoencoder_losses(part, logit=logit, probabilities=probabilities).gen


@criterion("2.5")
def generator_asks_the_discriminator(part):
    """The generator's loss depends on what the discriminator says of the codes."""

    def check(probabilities: bool) -> None:
        fooled, caught = _gen(part, 2.0, probabilities), _gen(part, -2.0, probabilities)
        if abs(fooled - caught) < 1e-3:
            raise Nothing(
                "gen_loss is the same whatever the discriminator says of the codes: it must be asked about z_fake",
                given="codes with logit 2, then -2",
                got=f"{fooled:.4g}, then {caught:.4g}",
            )

    on_logits(part, check)


@criterion("2.5")
def generator_wants_real(part):
    """The generator's loss falls the more the discriminator takes codes for real."""

    def check(probabilities: bool) -> None:
        fooled, caught = _gen(part, 2.0, probabilities), _gen(part, -2.0, probabilities)
        expect(
            fooled < caught + 1e-3,
            "the generator's loss falls when the discriminator is right: its target must be 'real'",
            given="codes called real (logit 2), then fake (-2)",
            expected="0.1269, then 2.127",
            got=f"{fooled:.4g}, then {caught:.4g}",
        )

    on_logits(part, check)


@criterion("2.5")
def generator_is_cross_entropy(part):
    """The generator's loss is the binary cross entropy on logits, averaged over the batch."""

    def check(probabilities: bool) -> None:
        logits = (-2.0, 0.5, 3.0)
        try:
            got = [_gen(part, logit, probabilities) for logit in logits]
        except NotANumber as error:
            raise Failure(NAN, given=f"codes with logit {logits[0]}", expected="a number", got="NaN") from error
        if max(got) - min(got) < 1e-3:
            return  # asks no discriminator, which has its own criterion
        right = [softplus(-logit) for logit in logits]
        forms = [[s * softplus(t * logit) for logit in logits] for s in (1, -1) for t in (1, -1)]
        ok = any(all(close(a, b) for a, b in zip(form, got, strict=True)) for form in forms)
        squashed = [softplus(-torch.tensor(logit).sigmoid().item()) for logit in logits]
        twice = all(close(a, b) for a, b in zip(squashed, got, strict=True))
        summed = any(all(close(6 * a, b) for a, b in zip(form, got, strict=True)) for form in forms)
        if smoothed(got, [(logit, None) for logit in logits]):
            raise Remark(SMOOTHED)
        hint = "gen_loss is not the binary cross entropy of the discriminator's logits"
        if twice:
            hint = "the sigmoid is applied twice: binary_cross_entropy_with_logits takes the logits as they are"
        elif summed:
            hint = "gen_loss is summed up over the batch: take the mean"
        expect(ok, hint, given=f"6 codes with logit {logits[0]}, {logits[1]}, {logits[2]}", expected=right, got=got)

    on_logits(part, check)


@criterion("2.5")
def generator_reaches_the_encoder(part):
    """Gradients come back through the discriminator to the codes, and to the reconstructions."""
    model, z = new_model(part), codes().requires_grad_()
    probabilities = gives_probabilities(part)
    model.discriminator = Judge(0.0, 0.0, probabilities)
    x = torch.zeros(6, 1, 28, 28)
    recon = (x + 0.5).requires_grad_()
    loss = model.get_loss_autoencoder(x, recon, z, 0.5)[0]
    expect(loss.requires_grad, "the loss has no graph: nothing can learn from it")
    loss.backward()
    asked = abs(_gen(part, 2.0, probabilities) - _gen(part, -2.0, probabilities)) > 1e-3
    expect(
        recon.grad is not None and recon.grad.abs().sum() > 0,
        "no gradient reaches the reconstructions: the decoder cannot learn",
    )
    expect(
        not asked or (z.grad is not None and z.grad.abs().sum() > 0),
        "no gradient of the generator's loss reaches the "
        "codes: the encoder cannot learn to deceive the discriminator (z_fake must not be detached here)",
    )


@criterion("2.5")
def lambda_weighs_both(part):
    """ae_loss is λ times the reconstruction loss plus (1 - λ) times the generator's."""

    def check(probabilities: bool) -> None:
        for lambda_ in (0.25, 0.9, 1.0):
            found = autoencoder_losses(part, logit=-2.0, delta=0.6, lambda_=lambda_, probabilities=probabilities)
            expected = lambda_ * found.recon + (1 - lambda_) * found.gen
            hint = "the loss is not λ · recon_loss + (1 - λ) · gen_loss"
            if close(found.total, lambda_ * found.gen + (1 - lambda_) * found.recon):
                hint = "λ is swapped: it weighs the reconstruction, and 1 - λ the generator"
            elif close(found.total, lambda_ * found.recon + found.gen):
                hint = "the generator's loss is not weighed by 1 - λ"
            elif close(found.total, found.recon + (1 - lambda_) * found.gen):
                hint = "the reconstruction loss is not weighed by λ"
            given = f"λ = {lambda_}, recon_loss {found.recon:.4g}, gen_loss {found.gen:.4g}"
            expect(close(found.total, expected), hint, given=given, expected=expected, got=found.total)

    on_logits(part, check)


@criterion("2.5")
def autoencoder_log(part):
    """The logged ae_loss is the loss that is minimised, and all three losses are logged."""

    def check(probabilities: bool) -> None:
        found = autoencoder_losses(part, logit=-2.0, delta=0.6, lambda_=0.25, probabilities=probabilities)
        for name in ("gen_loss", "recon_loss", "ae_loss"):
            expect(name in found.logged, f"the logging dictionary has no {name}", got=", ".join(map(str, found.logged)))
        expect(not found.exchanged, "recon_loss and gen_loss are logged under each other's names")
        logged = number(found.logged["ae_loss"])
        expect(
            close(logged, found.total),
            "the logged ae_loss is not the loss that is returned (is λ in it?)",
            given="λ = 0.25",
            expected=found.total,
            got=logged,
        )

    on_logits(part, check)
