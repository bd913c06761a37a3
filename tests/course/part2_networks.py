"""Shapes and ranges of the three networks. Any layers, sizes and activations are accepted."""

import torch
from torch import nn

from course.aae_standins import Z, new_model
from course.criterion import criterion, expect, is_gap
from course.one_sided import expect_both_signs


def _images(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


@criterion("2.4")
def encoder_codes(part):
    """The encoder makes a code of z_dim numbers of each image."""
    z = part.models.ConvEncoder(z_dim=Z)(_images())
    expect(
        tuple(z.shape) == (6, Z),
        "a code must have z_dim numbers",
        given="6 images, z_dim 3",
        expected=[6, Z],
        got=list(z.shape),
    )
    expect(z.std(dim=0).max() > 0, "the codes of different images are equal: the input is not used")
    encoder = part.models.ConvEncoder(z_dim=64)
    hint = "codes are never negative: leave out the activation after the last layer, since draws of N(0, I) have both "
    expect_both_signs(encoder, lambda: encoder(_images()), hint + "signs")


@criterion("2.4")
def decoder_images(part):
    """The decoder makes an image [B, 1, 28, 28] of each code."""
    torch.manual_seed(0)
    images = part.models.ConvDecoder(z_dim=Z)(torch.randn(6, Z))
    padding = ": is the output padding right?" if tuple(images.shape[-2:]) != (28, 28) else ""
    expect(
        tuple(images.shape) == (6, 1, 28, 28),
        f"an image must have one channel of 28 x 28 pixels{padding}",
        given="6 codes",
        expected=[6, 1, 28, 28],
        got=list(images.shape),
    )
    expect(images.std(dim=0).max() > 0, "the images of different codes are equal: the code is not used")


@criterion("2.4")
def decoder_stays_in_range(part):
    """The decoder's images fill [-1, 1] and never leave it.

    Accepted: tanh, hardtanh, clamp. The last layer with weights is made a thousand times as strong.
    """
    torch.manual_seed(0)
    decoder = part.models.ConvDecoder(z_dim=Z)
    layers = [m for m in decoder.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
    with torch.no_grad():
        for parameter in layers[-1].parameters() if layers else ():
            parameter.mul_(1000)
        images = decoder(100 * torch.randn(32, Z))
    low, high = images.min().item(), images.max().item()
    given = "a decoder with large weights"
    expect(
        max(-low, high) <= 1 + 1e-4,
        "pixels leave [-1, 1], where the images lie: the decoder must end in a tanh",
        given=given,
        expected="values in [-1, 1]",
        got=f"values {low:.4g} to {high:.4g}",
    )
    expect(
        low < -0.5,
        "no pixel can be as dark as the background, -1: the decoder must end in a tanh, not in a sigmoid",
        given=given,
        expected="values from -1 on",
        got=f"values {low:.4g} to {high:.4g}",
    )


@criterion("2.5")
def discriminator_logits(part):
    """The discriminator gives one logit for each code, a nonlinear function without a sigmoid."""
    torch.manual_seed(0)
    discriminator = part.models.Discriminator(z_dim=Z)
    logits = discriminator(torch.randn(6, Z))
    expect(
        tuple(logits.shape) == (6, 1),
        "the discriminator must give one number for each code",
        given="6 codes",
        expected=[6, 1],
        got=list(logits.shape),
    )
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for parameter in discriminator.parameters():
            if not parameter.any():  # a last layer of zeros, as some begin with
                parameter.normal_(std=0.1)
        z = torch.randn(64, Z)
        bent = (discriminator(z) + discriminator(-z)) / 2 - discriminator(0 * z)
        for parameter in layers[-1].parameters() if layers else ():
            parameter.mul_(1000)
        logits = discriminator(10 * torch.randn(64, Z))
    low, high = logits.min().item(), logits.max().item()
    expect(
        max(-low, high) > 1.001,
        "the output is squashed: the discriminator gives logits (> 0 real, < 0 fake), and the loss applies the sigmoid",
        given="a discriminator with large weights",
        expected="any number",
        got=f"values {low:.4g} to {high:.4g}",
    )
    expect(
        bent.abs().max() > 1e-5,
        "the discriminator is linear: put an activation, LeakyReLU(0.2), between its layers",
        expected="a nonlinear function of the code",
    )
    expect(
        low < 0 or high < 0.5,
        "no code can be called fake: logits must be negative as well",
        got=f"{low:.4g} to {high:.4g}",
    )


@criterion("2.4")
def model_reconstructs(part):
    """AdversarialAE.forward gives reconstructions and codes, in this order.

    More outputs are accepted.
    """
    model, x = new_model(part), _images()
    recon, z = model(x)[:2]
    code = model.encoder(x)
    expect(
        tuple(z.shape) == (6, Z) and torch.allclose(z, code),
        "the second output must be the encoder's code",
        expected=list(code.shape),
        got=list(z.shape),
    )
    image = model.decoder(code)
    expect(
        recon.shape == image.shape and torch.allclose(recon, image, atol=1e-6),
        "the first output must be the decoder's image of the encoder's code",
        expected=list(image.shape),
        got=list(recon.shape),
    )


@criterion("2.6")
def networks_take_two_dimensions(part):
    """The networks work with two latent dimensions as well.

    Where they fail with three, other criteria say so.
    """
    x, models = _images(4), part.models
    shapes = {
        "ConvEncoder": lambda z_dim: (x, (4, z_dim)),
        "ConvDecoder": lambda z_dim: (torch.randn(4, z_dim), (4, 1, 28, 28)),
        "Discriminator": lambda z_dim: (torch.randn(4, z_dim), (4, 1)),
    }
    for name, make in shapes.items():
        got = {}
        for z_dim in (3, 2):
            given, right = make(z_dim)
            try:
                got[z_dim] = list(getattr(models, name)(z_dim=z_dim)(given).shape)
            except Exception as error:
                if is_gap(error):
                    raise
                got[z_dim] = type(error).__name__
            if got[z_dim] != list(right) and z_dim == 3:
                break
        else:
            expect(
                got[2] == list(right),
                f"question 2.6 asks for z_dim 2, with which {name} does not work",
                expected=list(right),
                got=got[2],
            )
