import torch.nn.functional as F
import torch
from torchvision.utils import make_grid
import numpy as np
from scipy.stats import norm


def sample_reparameterize(mean, std):
    assert not (std < 0).any().item(), 'neg'
    eps = torch.normal(mean=0.0, std=1.0, size=mean.shape, device=mean.device)
    return mean + eps * std


def KLD(mean, log_std):
    return -0.5 * torch.sum(1 + 2*log_std - mean.pow(2) - (2*log_std).exp(), -1)


def elbo_to_bpd(elbo, img_shape):
    import math
    return elbo * math.log(math.e, 2) / math.prod(img_shape[1:])


def visualize_manifold(decoder, grid_size=20):
    p = torch.linspace(0.5/grid_size, (grid_size-0.5)/grid_size, grid_size)
    c = torch.distributions.Normal(0,1).icdf(p)
    rows = []
    for b in c:
        z = torch.stack([c, b.repeat(grid_size)], -1).to(decoder.device)
        p = decoder(z).softmax(1)
        rows.append(torch.einsum('nkhw,k->nhw', p, torch.arange(16.).to(p.device)).unsqueeze(1))
    return make_grid(torch.cat(rows), nrow=grid_size, normalize=True, value_range=(0, 15))
