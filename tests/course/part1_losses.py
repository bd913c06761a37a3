"""The losses in VAE.forward: L_rec and L_reg in nats, summed over an image and averaged over the batch, and their bpd.

Accepted: cross_entropy, nll_loss, or a sum of one's own; functions of utils.py or the same written out; scalars or
tensors of one element; an encoder whose second output is the log std, the log variance or the std, if VAE.forward
treats it alike in the sample and in the KL divergence.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course.criterion import NAN, Failure, NotANumber, Unjudged, criterion, expect, said
from course.part1_kl import takes_log_variance
from course.standins_part1 import (
    PIXELS,
    Z_DIM,
    bpd,
    close,
    either,
    find,
    images,
    kl,
    losses,
    make_vae,
    network,
    number,
    replaced,
    sure_of,
)  # fmt: skip

BATCH = 5


def _reconstruction(vae, imgs: Tensor) -> float:
    """L_rec, summed up where it is not one number."""
    return float(torch.as_tensor(losses(vae, imgs)[0]).detach().float().sum())


def _per_pixel_scale(vae) -> float:
    """What the student's L_rec is for one nat per pixel: 784 where it is right, and 1 where pixels are averaged. A
    softmax or wrong targets do not change it, since all grey values are equally likely."""
    logits = vae.decoder.logits
    vae.decoder.logits = sure_of(images(BATCH) * 0, confidence=0.0)
    scale = _reconstruction(vae, images(BATCH)) / math.log(16)
    vae.decoder.logits = logits
    return scale


@criterion("1.7")
def reconstruction_summed_and_averaged(part):
    """The reconstruction loss is summed over the pixels and averaged over the batch."""
    vae = make_vae(part)
    with torch.no_grad():
        first = torch.as_tensor(losses(vae, images(BATCH))[0])
    got, expected = _per_pixel_scale(vae) * math.log(16), PIXELS * math.log(16)
    hint = "sum the cross-entropy over the pixels of an image, and average over the images"
    for factor, mistake in (
        (1 / PIXELS, "the pixels are averaged: they must be summed (reduction='none' or 'sum')"),
        (BATCH, "the images are summed: divide by the batch size"),
        (1 / BATCH, "it is divided by the batch size twice"),
        (1 / PIXELS / BATCH, "pixels and images are averaged twice"),
        (1 / 28, "one of the two axes of the image is averaged"),
        (-1, "the sign is turned: the negative log-likelihood is a positive number"),
        (1 / math.log(2), "this is in bits: L_rec is in nats, and only bpd is converted"),
    ):
        if close(got, expected * factor):
            hint = mistake
    given = "5 images, all 16 grey values equally likely"
    expect(first.numel() == 1, "L_rec is one number: the mean over the batch is missing", given=given, got=first)
    expect(close(got, expected), hint, given=given, expected=expected, got=got)


@criterion("1.7")
def reconstruction_of_the_right_targets(part):
    """The reconstruction loss compares each pixel with its own grey value."""
    vae, imgs = make_vae(part), images(BATCH)
    scale = _per_pixel_scale(vae) or 1.0
    vae.decoder.logits = sure_of(imgs, confidence=4.0)
    right = _reconstruction(vae, imgs) / scale
    given = "a decoder that is sure of the images"
    for name, others in {
        "shifted by one grey value": (imgs + 1).clamp(max=15),
        "shifted down by one grey value": (imgs - 1).clamp(min=0),
        "inverted": 15 - imgs,
        "of the neighbouring image": imgs.roll(1, 0),
        "moved by one pixel": imgs.roll(1, 3),
        "moved by one row": imgs.roll(1, 2),
        "with the axes exchanged": imgs.transpose(2, 3).contiguous(),
    }.items():
        hint = "the loss is not lowest for the image that the decoder is sure of: the targets are the images themselves"
        got = f"a lower or equal loss for pictures {name}"
        expect(right < _reconstruction(vae, others) / scale, hint, given=given, got=got)
    # 0.24 nats where all is right, up to 2.8 with a second softmax, and 4 where the logits belong to other pixels.
    hint = "logits and pixels are not in the same order: permute(0, 2, 3, 1) before reshape(-1, 16), or no reshape"
    got = f"{right:.3g} nats per pixel"
    expect(right < 3.2, hint, given=given, expected="0.24 nats per pixel", got=got)


def _gives_log_probabilities(part) -> bool:
    """Whether the student's decoder ends in a log_softmax, or cannot be asked."""
    try:
        with torch.no_grad():
            logits = network(part, "CNNDecoder").eval()(torch.randn(2, Z_DIM))
        return bool((logits.logsumexp(dim=1).abs() < 1e-3).all())
    except Exception:
        return True


@criterion("1.7")
def reconstruction_takes_logits(part):
    """The softmax is applied once, inside the cross-entropy."""
    vae, imgs = make_vae(part), images(BATCH)
    try:
        scale = _per_pixel_scale(vae)
        vae.decoder.logits = sure_of(imgs, confidence=12.0)
        got = _reconstruction(vae, imgs) / scale
    except NotANumber as error:
        raise Failure(NAN, given="logits of both signs", expected="a number", got="NaN") from error
    hint = "the loss is not the cross-entropy of the logits"
    if 1.7 < got < 2.9:
        hint = "a softmax comes before cross_entropy, which has one in it: give it the logits as they are"
    given = "a decoder that is sure of the images"
    # A loss of wrong targets is far above the range of a second softmax, and judged elsewhere.
    expect(
        got < 0.1 or got > 2.9, hint, given=given, expected="about 0 nats per pixel", got=f"{got:.3g} nats per pixel"
    )
    if _gives_log_probabilities(part):
        return
    vae.decoder.shift = 20.0
    shifted = _reconstruction(vae, imgs) / scale
    hint = "there is no softmax over the 16 grey values: F.cross_entropy has one in it, F.nll_loss has not"
    given = "logits of a pixel that are all 20 larger"
    expect(abs(shifted - got) < 0.1, hint, given=given, expected="the same loss", got=f"{shifted - got:.3g} nats more")


@criterion("1.7")
def regularization_averaged_over_batch(part):
    """The regularisation loss is the batch mean of the KL divergences."""

    def check(vae, calls):
        with torch.no_grad():
            got = torch.as_tensor(losses(vae, images(BATCH))[1])
        mean, second = vae.encoder.means(BATCH).detach(), vae.encoder.second.detach().repeat(BATCH, 1)
        if calls and calls.kl_values:
            candidates = [calls.kl_values[-1].detach()]
        else:
            candidates = [kl(mean, log_std) for log_std in (second, second / 2, second.log())]
        expect(got.numel() == 1, "L_reg is one number: the mean over the batch is missing", got=got)
        hint = "average the KL divergences over the batch"
        for factor, mistake in (
            (BATCH, "the images are summed: divide by the batch size"),
            (1 / BATCH, "it is divided by the batch size twice"),
            (1 / 20, "the latent dimensions are averaged: they must be summed"),
            (-1, "the sign is turned"),
        ):
            if close(got, candidates[0].mean() * factor):
                hint = mistake
        right = any(close(got, candidate.mean()) for candidate in candidates)
        expect(right, hint, given="5 images", expected=candidates[0].mean(), got=got)

    either(part, check)


@criterion("1.7")
def bpd_of_both_losses(part):
    """bpd is the sum of both losses in bits per dimension."""

    def check(vae, calls):
        imgs = images(BATCH)
        vae.decoder.logits = sure_of(imgs.roll(1, 3), confidence=3.0)
        with torch.no_grad():
            rec, reg, got = (torch.as_tensor(value).float().mean() for value in losses(vae, imgs))
        if not close(rec / _per_pixel_scale(vae) * PIXELS, rec):  # a wrong L_rec: bpd may come from a right sum
            truth = -torch.log_softmax(vae.decoder.logits, dim=1).gather(1, imgs).sum() / BATCH
            if close(got, bpd(truth + reg, imgs.shape)):
                return
        expected = bpd(rec + reg, imgs.shape)
        hint = "bpd = elbo_to_bpd(L_rec + L_reg, imgs.shape)"
        for value, mistake in (
            (bpd(rec, imgs.shape), "the regularisation loss is missing in bpd"),
            (bpd(reg, imgs.shape), "the reconstruction loss is missing in bpd"),
            (bpd(rec - reg, imgs.shape), "both losses are added: L_rec + L_reg"),
            (-expected, "the sign is turned: L_rec + L_reg is the negative ELBO already"),
            (expected / BATCH, "the batch size divides twice"),
        ):
            if close(got, value):
                hint = mistake
        expect(close(got, expected), hint, given=f"L_rec {float(rec):.4g}, L_reg {float(reg):.4g}",
               expected=expected, got=got)  # fmt: skip

    either(part, check)


def _noting(function: Callable[..., Any] | None, inputs: list) -> Callable[..., Any]:
    """The student's KLD, which notes what it is given."""

    def noting(*args: Any, **kwargs: Any) -> Any:
        inputs.append([value.detach() for value in (*args, *kwargs.values()) if isinstance(value, Tensor)][:2])
        return function(*args, **kwargs)

    return noting


@criterion("1.7")
def latents_follow_the_posterior(part):
    """The decoder gets samples of N(mean, std^2), with the std that the KL divergence has."""
    of_log_variance = takes_log_variance(part)

    def check(vae, calls):
        handed = calls.kl_inputs if calls else []
        with torch.no_grad(), replaced(part, {} if calls else {"KLD": _noting(find(part, "KLD"), handed)}):
            reg = losses(vae, torch.zeros(250, 1, 28, 28, dtype=torch.long))[1]
        z, mean = vae.decoder.latents()[-250:], vae.encoder.means(250).detach()
        expect(z.shape == mean.shape, "the decoder gets one latent vector per image",
               expected=mean.shape, got=z.shape)  # fmt: skip
        noise = z - mean
        spread = torch.stack([noise[:, i::2].std() for i in (0, 1)])
        hint = "the decoder must get a sample of the posterior, not its mean: sample_reparameterize(mean, exp(log_std))"
        expect(spread.min() > 1e-3, hint, given="an encoder with std > 0", got="the mean")
        expect((noise.mean(dim=0).abs() < 0.5 * spread.max()).all(), "the samples do not lie around the encoder's mean")
        second = vae.encoder.second.detach()[:2]
        readings = {
            "log std": second.exp(),
            "log variance": (second / 2).exp(),
            "std": second,
            "variance": second.sqrt(),
        }
        reading = next((name for name, std in readings.items() if (spread / std - 1).abs().max() < 0.1), None)
        hint = "the standard deviation of the samples is exp(log_std)"
        given = f"log_std {second[0]:.2g} and {second[1]:.2g}"
        expect(reading, hint, given=given, expected=second.exp(), got=f"std {spread[0]:.3g} and {spread[1]:.3g}")
        mean_and_log_std = (mean, readings[reading].log().repeat(10).expand_as(mean))
        if handed and handed[-1][1].shape == mean.shape:
            same = torch.allclose(handed[-1][1], mean_and_log_std[1], atol=1e-3)
            if not same and reading == "log variance" and of_log_variance:
                same = torch.allclose(handed[-1][1], 2 * mean_and_log_std[1], atol=1e-3)
        elif reading == "log std":
            same = True
        else:
            expected = kl(*mean_and_log_std).mean()
            same = any(close(number(reg), expected * factor) for factor in (1, 250, 1 / 20, 1 / 250))
        hint = {
            "std": "log_std is used as the standard deviation: the sample needs std = exp(log_std)",
            "variance": "the second argument of sample_reparameterize is the standard deviation exp(log_std)",
        }.get(reading, "sample and KL divergence have different standard deviations: std = exp(log_std) in both")
        expect(same, hint, given=given, expected=f"std {float(second[0].exp()):.3g}", got=f"std {spread[0]:.3g}")

    either(part, check)


@torch.no_grad()
def _latents_move_with_the_mean(vae) -> bool:
    vae.encoder.mean += 100
    losses(vae, images(BATCH))
    vae.encoder.mean -= 100
    return bool(vae.decoder.latents()[-BATCH:].mean() > 50)


def _of_functions(part) -> list[tuple[str, Tensor]]:
    """What KLD and elbo_to_bpd make of tensors with gradients; what goes wrong there is judged elsewhere."""
    leaf, found = torch.full((5, 3), 0.5, requires_grad=True), []
    for name, arguments in (("KLD", (leaf, leaf)), ("elbo_to_bpd", (leaf.sum(), torch.Size((5, 1, 28, 28))))):
        with contextlib.suppress(Exception):
            found.append((name, getattr(part.utils, name)(*arguments)))
    return found


def _gradients_of_forward(vae, calls) -> None:
    imgs = images(BATCH)
    vae.decoder.slope = 1.0
    rec, _, loss = losses(vae, imgs)
    hint = "bpd has no gradient: do not detach the losses, or take their numbers with item()"
    expect(isinstance(loss, Tensor) and loss.requires_grad, hint)
    parameters = {"the decoder": vae.decoder.logits, "the encoder's mean": vae.encoder.mean,
                  "the encoder's log std": vae.encoder.second}  # fmt: skip
    gradients = torch.autograd.grad(loss.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        reached = gradient is not None and bool(gradient.any())
        expect(
            reached, f"the gradient of bpd does not reach {name}: nothing on the way may be detached", got="no gradient"
        )
    if not (isinstance(rec, Tensor) and rec.requires_grad):
        raise Failure("L_rec has no gradient")
    gradient = torch.autograd.grad(rec.sum(), vae.encoder.mean, allow_unused=True)[0]
    if not _latents_move_with_the_mean(vae):
        return  # the decoder gets no samples of the posterior, which latents_follow_the_posterior tells
    hint = "the reconstruction loss does not reach the encoder: the sample is detached"
    expect(gradient is not None and gradient.any(), hint, got="no gradient through the sample")
    vae.decoder.slope = 0.0  # now nothing but the regularization depends on the encoder
    rec, _, loss = losses(vae, imgs)
    if close(loss.mean(), bpd(rec.mean(), imgs.shape)):
        return  # bpd_of_both_losses tells that it is not in bpd
    gradient = torch.autograd.grad(loss.sum(), vae.encoder.mean, allow_unused=True)[0]
    hint = "the regularization loss does not reach the encoder: it is detached"
    expect(gradient is not None and gradient.any(), hint, got="no gradient")


@criterion("1.7")
def gradients_reach_both_networks(part):
    """The gradient of bpd reaches the decoder, and the encoder through the sample, too."""
    for name, result in _of_functions(part):
        expect(not isinstance(result, Tensor) or result.requires_grad, f"the gradient ends in {name}: nothing there "
               "may be detached, or become a plain number", got="no gradient")  # fmt: skip
    either(part, _gradients_of_forward)


@criterion("1.7")
def a_batch_of_one(part):
    """A batch may hold a single image."""
    vae = make_vae(part)
    with torch.no_grad():
        try:
            losses(vae, images(BATCH))
        except NotImplementedError:
            raise
        except Exception as error:  # which other criteria judge
            raise Unjudged("VAE.forward fails for every batch") from error
        hint = "a single image stops VAE.forward: imgs.squeeze() drops the batch axis, too; squeeze(1) does not"
        try:
            losses(vae, images(1))
        except Exception as error:
            raise Failure(hint, given="one image", got=said(error)) from error
