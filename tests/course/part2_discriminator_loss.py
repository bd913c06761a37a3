"""The discriminator's loss, its accuracy, and the prior that it compares with.

Accepted: the sum of both terms or their mean; one call for both kinds of codes or two; accuracy as a share or in
percent; thresholds with or without equality; a discriminator with a sigmoid together with losses on probabilities;
smoothed labels, with a remark.
"""

import itertools

import torch

from course.aae_standins import (
    Judge,
    Z,
    close,
    codes,
    discriminator_losses,
    expect_normal,
    gives_probabilities,
    has_swapped_roles,
    new_model,
    number,
    on_logits,
    prior_draws,
)
from course.criterion import NAN, Failure, NotANumber, Nothing, Remark, Unjudged, criterion, expect
from course.cross_entropy import SMOOTHED, smoothed, softplus
from course.pretended_gpu import on_gpu, stays_on_gpu


def _depends(part, probabilities: bool) -> tuple[bool, bool]:
    """Whether disc_loss depends on the logits of draws from the prior, and on those of codes."""

    def total(real: float, fake: float) -> float:
        return discriminator_losses(part, real, fake, probabilities).total

    return abs(total(2.0, 0.0) - total(-2.0, 0.0)) > 1e-3, abs(total(0.0, 2.0) - total(0.0, -2.0)) > 1e-3


@criterion("2.5")
def discriminator_has_both_terms(part):
    """The discriminator's loss asks about draws from the prior and about codes."""

    def check(probabilities: bool) -> None:
        if not any(_depends(part, probabilities)):
            raise Nothing("disc_loss is the same whatever the discriminator says: it must be asked about both kinds")
        for name, high, low in (
            ("draws from the prior", (2.0, 0.0), (-2.0, 0.0)),
            ("the encoder's codes", (0.0, 2.0), (0.0, -2.0)),
        ):
            a, b = (discriminator_losses(part, *logits, probabilities).total for logits in (high, low))
            expect(
                abs(a - b) > 1e-3,
                f"the term for {name} is missing in disc_loss",
                given=f"logits 2, then -2 for {name}",
                got=f"{a:.4g}, then {b:.4g}",
            )

    on_logits(part, check)


@criterion("2.5")
def discriminator_roles(part):
    """Draws from the prior are real, the encoder's codes are fake."""

    def check(probabilities: bool) -> None:
        def total(real: float, fake: float) -> float:
            return discriminator_losses(part, real, fake, probabilities).total

        expect(
            total(2.0, 0.0) < total(-2.0, 0.0) + 1e-3,
            "the loss rises when draws from the prior are called real: their target must be 1",
        )
        expect(
            total(0.0, -2.0) < total(0.0, 2.0) + 1e-3,
            "the loss rises when the encoder's codes are called fake: their target must be 0",
        )

    on_logits(part, check)


@criterion("2.5")
def discriminator_is_cross_entropy(part):
    """Both terms are binary cross entropies on logits, averaged over the batch."""

    def check(probabilities: bool) -> None:
        points = ((1.5, -0.5), (-1.0, 2.0), (0.3, 0.7))
        try:
            if not all(_depends(part, probabilities)):
                return  # which discriminator_has_both_terms tells
            got = [discriminator_losses(part, real, fake, probabilities).total for real, fake in points]
        except NotANumber as error:
            raise Failure(NAN, given="logits of both signs", expected="a number", got="NaN") from error
        forms = [
            [a * softplus(s * real) + b * softplus(t * fake) for real, fake in points]
            for a, b, s, t in itertools.product((-1, -0.5, 0, 0.5, 1), (-1, -0.5, 0, 0.5, 1), (1, -1), (1, -1))
            if 0 in (a, b) or abs(a) == abs(b)  # discriminator_roles tells of wrong signs
        ]
        squash = [[torch.tensor(logit).sigmoid().item() for logit in point] for point in points]
        twice = any(
            all(close(c * (softplus(-real) + softplus(fake)), b) for (real, fake), b in zip(squash, got, strict=True))
            for c in (0.5, 1)
        )
        if smoothed(got, points):
            raise Remark(SMOOTHED)
        hint = "disc_loss is not the binary cross entropy of the discriminator's logits"
        if twice:
            hint = "the sigmoid is applied twice: binary_cross_entropy_with_logits takes the logits as they are"
        expected = [(softplus(-real) + softplus(fake)) / 2 for real, fake in points]
        expect(
            any(all(close(a, b) for a, b in zip(form, got, strict=True)) for form in forms),
            hint,
            given="logits of prior and codes 1.5 and -0.5, -1 and 2, 0.3 and 0.7",
            expected=expected,
            got=got,
        )

    on_logits(part, check)


@criterion("2.5")
def discriminator_loss_reaches_its_weights(part):
    """Gradients of the discriminator's loss reach the discriminator."""
    model = new_model(part)
    model.discriminator = judge = Judge(0.3, -0.4, gives_probabilities(part))
    loss = model.get_loss_discriminator(codes())[0]
    expect(loss.requires_grad, "disc_loss has no graph: the discriminator cannot learn from it")
    loss.backward()
    moved = [p.grad is not None and bool(p.grad.abs() > 0) for p in (judge.real, judge.fake)]
    expect(any(moved), "no gradient of disc_loss reaches the discriminator")


@criterion("2.5")
def discriminator_log(part):
    """The logged disc_loss is the loss that is minimised, and both terms and the accuracy are logged."""

    def check(probabilities: bool) -> None:
        found = discriminator_losses(part, 1.0, 2.0, probabilities)
        for name in ("disc_loss", "loss_real", "loss_fake", "accuracy"):
            expect(name in found.logged, f"the logging dictionary has no {name}", got=", ".join(map(str, found.logged)))
        logged = number(found.logged["disc_loss"])
        expect(
            close(logged, found.total),
            "the logged disc_loss is not the loss that is returned",
            expected=found.total,
            got=logged,
        )
        if not all(_depends(part, probabilities)):
            return  # which discriminator_has_both_terms tells
        other = discriminator_losses(part, 1.0, -2.0, probabilities).logged
        expect(
            close(number(found.logged["loss_real"]), number(other["loss_real"])),
            "loss_real changes with the logit of the encoder's codes: it is the term for draws from the prior",
        )

    on_logits(part, check)


def _accuracy(part, real: float, fake: float, probabilities: bool) -> float:
    """As a share; for a loss with swapped roles, which has its own criterion, as that one counts."""
    logged = discriminator_losses(part, real, fake, probabilities).logged
    expect("accuracy" in logged, "the logging dictionary has no accuracy", got=", ".join(map(str, logged)))
    value = number(logged["accuracy"])
    value = value / 100 if value > 1.5 else value
    return 1 - value if has_swapped_roles(part, probabilities) else value


@criterion("2.5")
def accuracy_threshold(part):
    """A discriminator that is always right has accuracy 1, one that is always wrong 0."""

    def check(probabilities: bool) -> None:
        right, wrong = _accuracy(part, 3.0, -3.0, probabilities), _accuracy(part, -3.0, 3.0, probabilities)
        mirrored = has_swapped_roles(part, probabilities) and close(right, 0) and close(wrong, 1)
        expect(
            mirrored or (close(right, 1) and close(wrong, 0)),
            "the accuracy is wrong: a logit above 0 calls a code real (a probability above 0.5 does)",
            given="logits 3 and -3 for prior and codes, then -3 and 3",
            expected="1, then 0",
            got=f"{right:.4g}, then {wrong:.4g}",
        )
        if not mirrored:
            got = _accuracy(part, 0.3, -0.3, probabilities)
            hint = "the threshold is wrong: a logit above 0 calls a code real, and only for probabilities it is 0.5"
            expect(close(got, 1), hint, given="logits 0.3 and -0.3 for prior and codes", expected=1, got=got)

    on_logits(part, check)


@criterion("2.5")
def accuracy_counts_both(part):
    """The accuracy is over draws from the prior and codes together."""

    def check(probabilities: bool) -> None:
        right, wrong = _accuracy(part, 3.0, -3.0, probabilities), _accuracy(part, -3.0, 3.0, probabilities)
        if not close(abs(right - wrong), 1):
            return  # which accuracy_threshold tells
        for logit, says in ((3.0, "real"), (-3.0, "fake")):
            got = _accuracy(part, logit, logit, probabilities)
            # Not 0.5 where draws and codes differ in number, which has its own criterion.
            expect(
                0.01 < got < 0.99,
                "the accuracy counts one half only, codes or draws from the prior: it is over both",
                given=f"a discriminator that calls everything {says}",
                expected=0.5,
                got=got,
            )

    on_logits(part, check)


@criterion("2.5")
def prior_is_normal(part):
    """The prior is a standard normal distribution, drawn anew in each step."""
    draws = prior_draws(part, 256, calls=30)
    if not draws:
        raise Unjudged("the discriminator is shown no draws from the prior")
    expect_normal(
        torch.cat([draw.flatten() for draw in draws[:30]]), "the prior must be N(0, I): draw from it with torch.randn"
    )
    first, second = draws[0], draws[-1]
    expect(
        first.shape != second.shape or not torch.equal(first, second),
        "the draws from the prior are the same in each step",
    )


@criterion("2.5")
def prior_has_the_shape_of_the_codes(part):
    """As many draws from the prior as there are codes, each with z_dim numbers of its own."""
    for batch in (7, 11):
        draws = prior_draws(part, batch)
        if not draws:
            raise Unjudged("the discriminator is shown no draws from the prior")
        draw = draws[0]
        expect(
            tuple(draw.shape) == (batch, Z),
            "the draws from the prior must have the shape of the codes",
            given=f"{batch} codes of 3 numbers",
            expected=[batch, Z],
            got=list(draw.shape),
        )
        expect(
            draw.std(dim=0).min() > 1e-3 and draw.std(dim=1).max() > 1e-3,
            "all draws of a batch are equal: each code is compared with a draw of its own",
        )


@criterion("2.5")
def prior_on_the_device_of_the_codes(part):
    """Draws from the prior, and the targets of both losses, are made on the model's device."""
    with stays_on_gpu("get_loss_autoencoder makes a tensor on the CPU, whatever the model's device"):
        model, x = on_gpu(new_model(part)), on_gpu(torch.zeros(4, 1, 28, 28))
        model.get_loss_autoencoder(x, x + 1, on_gpu(torch.zeros(4, Z)), 0.5)
    with stays_on_gpu("draws from the prior, or targets, are made on the CPU, whatever the model's device"):
        model = on_gpu(new_model(part))
        model.get_loss_discriminator(on_gpu(torch.zeros(4, Z)))
