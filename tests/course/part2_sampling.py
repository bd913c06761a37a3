"""AdversarialAE.sample. Accepted: images in [-1, 1] as the decoder makes them, or scaled to [0, 1]."""

import torch

from course.aae_standins import Decoder, Z, expect_normal, new_model
from course.criterion import criterion, expect
from course.pretended_gpu import on_gpu, stays_on_gpu


@criterion("2.5")
def sample_decodes_the_prior(part):
    """Samples are the decoder's images of draws from N(0, I)."""
    model = new_model(part)
    model.decoder = decoder = Decoder(Z)
    images = model.sample(2000)
    expect(
        tuple(images.shape) == (2000, 1, 28, 28),
        "sample must give as many images as it is asked for",
        given="sample(2000)",
        expected=[2000, 1, 28, 28],
        got=list(images.shape),
    )
    expect(decoder.seen, "sample does not use the decoder: a sample is the decoder's image of a draw from N(0, I)")
    z = torch.cat([codes.reshape(len(codes), -1) for codes in decoder.seen])  # in one call or in many
    expect(
        tuple(z.shape) == (2000, Z),
        "each sample needs a draw of its own, with z_dim numbers",
        expected=[2000, Z],
        got=list(z.shape),
    )
    expect_normal(z, "samples must be decoded from the prior N(0, I)")
    right = decoder(z)
    same = torch.allclose(images, right, atol=1e-4) or torch.allclose(images, right / 2 + 0.5, atol=1e-4)
    expect(same, "the samples are not what the decoder makes of the draws")


@criterion("2.5")
def samples_on_the_device_of_the_model(part):
    """Draws are made on the model's device."""
    with stays_on_gpu("the draws are made on the CPU, whatever the model's device"):
        on_gpu(new_model(part)).sample(4)
