"""Encoder and decoder.

Accepted: any architecture, functional or of modules, that works for 32 filters and the latent sizes 20 and 2; scaling
of the images in the encoder or in VAE.forward, to any range around [-1, 1]; more outputs than two; normalised logits.
"""

import copy

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from course.criterion import Failure, criterion, expect, is_gap, said
from course.one_sided import expect_both_signs
from course.standins_part1 import Z_DIM, construct, images, network

WEIGHTED = ("convolution", "addmm", "mm", "bmm", "linear")


@criterion("1.7")
def encoder_outputs(part):
    """The encoder returns mean and log std, one of each per latent dimension."""
    outputs = network(part, "CNNEncoder")(_encodable(part))
    expect(isinstance(outputs, (tuple, list)) and len(outputs) >= 2, "the encoder returns two tensors: mean, log_std")
    for name, output in zip(("mean", "log_std"), outputs, strict=False):
        expect(output.shape == (5, Z_DIM), f"{name} has the shape [batch, z_dim]", given="5 images, z_dim 20",
               expected=[5, Z_DIM], got=output.shape)  # fmt: skip


@criterion("1.7")
def encoder_outputs_differ(part):
    """Mean and log std are different functions of the image."""
    encoder, imgs = network(part, "CNNEncoder"), _encodable(part)
    with torch.no_grad():
        mean, log_std = encoder.eval()(imgs)[:2]
    expect_both_signs(encoder, lambda: encoder(imgs)[0], "the means are never negative: leave out the activation after "
                      "the layer of the means, since latents of N(0, I) have both signs")  # fmt: skip
    expect(not torch.equal(mean, log_std), "mean and log_std are the same tensor: each needs outputs of its own")
    hint = "every image gets the same {}: it must depend on the image"
    expect(not torch.allclose(mean[0], mean[1], rtol=0, atol=1e-12), hint.format("mean"))
    expect(not torch.allclose(log_std[0], log_std[1], rtol=0, atol=1e-12), hint.format("log_std"))


@criterion("1.7")
def encoder_scales_its_input(part):
    """Grey values 0 .. 15 are scaled to about [-1, 1] before the first layer."""
    low, high = _first_input(lambda: network(part, "CNNEncoder")(images()))
    if high is None or high > 4:  # perhaps VAE.forward scales
        outer_low, outer_high = _first_input(lambda: construct(part.train_pl.VAE)(images()))
        low, high = (outer_low, outer_high) if outer_high is not None else (low, high)
    expect(high is not None, "the encoder must accept the images as they come: long, with grey values 0 .. 15")
    given, expected = "grey values 0 .. 15", "about -1 to 1"
    got = f"{low:.3g} to {high:.3g} at the first layer"
    hint = "the images reach the first layer unscaled: divide by 15, times 2, minus 1"
    expect(max(-low, high) <= 4, hint, given=given, expected=expected, got=got)
    hint = "the images are scaled too far: they have 16 grey values, not 256, and are scaled once"
    expect(high - low >= 0.5, hint, given=given, expected=expected, got=got)


@criterion("1.7")
def decoder_outputs(part):
    """The decoder returns logits of 16 grey values for each of 28 x 28 pixels."""
    decoder = network(part, "CNNDecoder").eval()
    with torch.no_grad():
        logits = decoder(torch.randn(5, Z_DIM))
    expect(isinstance(logits, Tensor), "the decoder returns a tensor of logits", got=type(logits).__name__)
    hint = "the decoder returns 16 logits for each pixel of 28 x 28"
    expect(logits.shape[-2:] == (28, 28), hint + ": is the output padding right?",
           given="5 latent vectors", expected=[5, 16, 28, 28], got=logits.shape)  # fmt: skip
    expect(logits.shape == (5, 16, 28, 28), hint,
           given="5 latent vectors", expected=[5, 16, 28, 28], got=logits.shape)  # fmt: skip
    expect(not torch.equal(logits[0], logits[1]), "every latent vector gives the same logits")


@criterion("1.7")
def decoder_logits_are_not_squashed(part):
    """No activation limits the logits at the decoder's end."""
    decoder, z = network(part, "CNNDecoder").eval(), 5 * torch.randn(8, Z_DIM)
    ranges = {}
    with torch.no_grad():
        decoder(z)  # gives lazy layers their weights
        for factor in (4, 8):
            larger = copy.deepcopy(decoder)
            for parameter in larger.parameters():
                parameter.mul_(factor)
            logits = larger(z)
            ranges[factor] = float(logits.min()), float(logits.max())
            total = logits.flatten(2).sum(dim=1)
    (low, high), (lower, higher) = ranges[4], ranges[8]
    given, got = "a decoder with large weights", f"logits from {lower:.3g} to {higher:.3g}"
    if lower >= -1e-6:
        hint = "the logits are never negative: leave out the activation after the last layer"
        if torch.allclose(total, torch.ones_like(total), atol=1e-3):
            hint = "the decoder ends with a softmax: it must return logits, cross_entropy has the softmax in it"
        elif higher <= 1 + 1e-6:
            hint = "the decoder ends with a sigmoid: it must return logits, without an activation"
        expect(False, hint, given=given, expected="logits of both signs", got=got)
    hint = "hardly any logit is negative: leave out the activation (GELU, ELU, SiLU) after the last layer"
    expect(lower < -1.001 or higher < 20, hint, given=given, expected="logits of both signs", got=got)
    hint = "the logits are limited: leave out the activation after the last layer"
    if higher <= 1 + 1e-6:
        hint = "the decoder ends with a tanh: its logits stay within -1 and 1, and bpd cannot go below 1.6"
    expect(higher - lower > 1.5 * (high - low), hint, given=given, expected="logits without limits", got=got)


@criterion("1.9")
def networks_with_two_latents(part):
    """Encoder and decoder take z_dim=2, as question 1.9 asks for."""
    imgs = _encodable(part)
    encoder, decoder = network(part, "CNNEncoder", z_dim=2).eval(), network(part, "CNNDecoder", z_dim=2).eval()
    hint = "the {} does not work for z_dim 2: the linear layer beside the latents must have the width z_dim"
    with torch.no_grad():
        try:
            name = "encoder"
            mean, log_std = encoder(imgs)[:2]
            name = "decoder"
            logits = decoder(torch.randn(5, 2))
        except NotImplementedError:
            raise
        except RuntimeError as error:
            raise Failure(hint.format(name), given="z_dim 2", got=said(error)) from error
    with torch.no_grad():
        usual = (
            network(part, "CNNEncoder").eval()(imgs)[0].shape,
            network(part, "CNNDecoder").eval()(torch.randn(5, 20)),
        )
    if usual[0] != (5, 20) or usual[1].shape != (5, 16, 28, 28):
        return  # which encoder_outputs and decoder_outputs tell
    given = "z_dim 2"
    expect(mean.shape == log_std.shape == (5, 2), "z_dim decides the width of mean and log_std", given=given,
           expected=[5, 2], got=mean.shape)  # fmt: skip
    expect(logits.shape[0] == 5 and logits.numel() == 5 * 16 * 784, "the decoder's output does not depend on z_dim",
           given=given, expected=[5, 16, 28, 28], got=logits.shape)  # fmt: skip


def _encodable(part) -> Tensor:
    """Images as the encoder takes them: long, or scaled floats where VAE.forward scales."""
    encoder = network(part, "CNNEncoder")
    try:
        with torch.no_grad():
            encoder.eval()(images())
        return images()
    except RuntimeError as error:
        if "dtype" not in str(error) and "type" not in str(error):
            raise
        return images() / 7.5 - 1


class _FirstInput(TorchDispatchMode):
    """Notes the range of what enters the first operation with weights."""

    def __init__(self):
        super().__init__()
        self.range: tuple[float, float] | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.range is None and func.overloadpacket.__name__ in WEIGHTED:
            value = args[1] if func.overloadpacket.__name__ == "addmm" else args[0]
            if value.is_floating_point():
                self.range = float(value.min()), float(value.max())
        return func(*args, **(kwargs or {}))


def _first_input(call) -> tuple[float | None, float | None]:
    watch = _FirstInput()
    try:
        with torch.no_grad(), watch:
            call()
    except Exception as error:
        if is_gap(error):
            raise
    return watch.range or (None, None)


def parameters_of(module: nn.Module) -> set[int]:
    """Identities of a module's parameters that are trained."""
    return {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
