"""Tensors are made on the device of the model, shown on a pretended GPU (see pretended_gpu.py).

Accepted: a move with `.to(...)`, `type_as`, `device=`, `..._like`; results on the GPU or back on the CPU. Only tensors
of two devices in one operation count as a mistake here; whatever else goes wrong is judged elsewhere.
"""

from collections.abc import Callable

import torch

from course.criterion import Failure, Remark, criterion, is_gap
from course.part1_manifold import NumberedDecoder
from course.pretended_gpu import OnGpu, on_gpu, pretended_gpu, stays_on_gpu
from course.standins_part1 import FUNCTIONS, Z_DIM, Calls, images, make_vae, network, replaced


def _stays(call: Callable[[], object], hint: str) -> object:
    """The result of a call on the pretended GPU."""
    with stays_on_gpu(hint):
        return call()
    return None


@criterion("1.7")
def device_of_the_noise(part):
    """The noise of sample_reparameterize is made on the device of the mean."""
    mean, std = on_gpu(torch.zeros(5, 3)), on_gpu(torch.ones(5, 3))
    hint = "the noise is made on the CPU: torch.randn_like(std), or device=mean.device"
    z = _stays(lambda: part.utils.sample_reparameterize(mean, std), hint)
    if isinstance(z, torch.Tensor) and not isinstance(z, OnGpu):
        raise Failure("the sample is on the CPU, while its mean is on the GPU", given="a model on a GPU")


@criterion("1.7")
def device_of_the_losses(part):
    """KLD, elbo_to_bpd and VAE.forward work on a GPU."""
    numbers = on_gpu(torch.rand(5, 3))
    _stays(lambda: part.utils.KLD(numbers, numbers), "KLD makes a tensor on the CPU: use the device of its inputs")
    hint = "elbo_to_bpd makes a tensor on the CPU: use numbers, or the device of elbo"
    _stays(lambda: part.utils.elbo_to_bpd(numbers[:, 0], (5, 1, 28, 28)), hint)
    with pretended_gpu():
        vae = on_gpu(make_vae(part))
    with replaced(part, {name: getattr(Calls(), name) for name in FUNCTIONS}):
        hint = "VAE.forward makes a tensor on the CPU: use self.device, or that of the images"
        _stays(lambda: vae(on_gpu(images())), hint)


@criterion("1.7")
def device_of_the_networks(part):
    """Encoder and decoder work on a GPU."""
    try:
        encoder, decoder = on_gpu(network(part, "CNNEncoder")), on_gpu(network(part, "CNNDecoder"))
    except Exception as error:
        if is_gap(error):
            raise
        return
    _stays(lambda: encoder(on_gpu(images())), "the encoder makes a tensor on the CPU: use the device of its input")
    _stays(
        lambda: decoder(on_gpu(torch.zeros(5, Z_DIM))), "the decoder makes a tensor on the CPU: use that of its input"
    )


@criterion("1.8")
def device_of_samples(part):
    """The latent vectors of VAE.sample are made on the model's device."""
    vae = on_gpu(make_vae(part))
    with replaced(part, {"sample_reparameterize": Calls().sample_reparameterize}):
        hint = "the latents of the samples stay on the CPU: torch.randn(..., device=self.device)"
        _stays(lambda: vae.sample(3), hint)


@criterion("1.9")
def device_of_the_manifold(part):
    """The latent grid of visualize_manifold is brought to the decoder's device (a remark: the handed-out script calls
    it after the test, when Lightning has brought the model back to the CPU)."""
    decoder = on_gpu(NumberedDecoder())
    hint = "visualize_manifold leaves latents or grey values on the CPU: decoder.device works for a model on a GPU, too"
    try:
        _stays(lambda: part.utils.visualize_manifold(decoder, grid_size=20), hint)
    except Failure as failure:
        raise Remark(hint, given=failure.given, got=failure.got) from failure
