import math

import torch
from scipy.stats import norm
from torchvision.utils import make_grid


def sample_reparameterize(mean, std):
    return torch.addcmul(mean, std, torch.empty_like(std).normal_())


def KLD(mean, log_std):
    var = log_std.mul(2).exp()
    return -0.5 * torch.einsum("...d->...", 1 + var.log() - mean.square() - var)


def elbo_to_bpd(elbo, img_shape):
    b, c, h, w = img_shape
    return elbo / math.log(2) / (c * h * w)


def visualize_manifold(decoder, grid_size=20):
    z = torch.tensor([norm.ppf((i + 0.5) / grid_size) for i in range(grid_size)], dtype=torch.float32)
    with torch.no_grad():
        p = decoder(torch.cartesian_prod(z, -z).to(decoder.device)).softmax(1)
    mean = torch.einsum("bkhw,k->bhw", p, torch.linspace(0, 1, 16).to(p))
    return make_grid(mean[:, None], nrow=grid_size, padding=0)
