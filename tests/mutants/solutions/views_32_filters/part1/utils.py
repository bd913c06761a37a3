import torch
from torchvision.utils import make_grid
import numpy as np


def sample_reparameterize(mean, std):
    assert not (std < 0).any().item()
    epsilon = torch.normal(0, 1, size=mean.shape).to(mean.device)
    return epsilon * std + mean


def KLD(mean, log_std):
    std = torch.exp(log_std)
    return torch.sum(std.pow(2) + mean.pow(2) - 1 - torch.log(std.pow(2)), -1) / 2


def elbo_to_bpd(elbo, img_shape):
    return elbo * torch.log2(torch.exp(torch.tensor(1.0))) / torch.prod(torch.tensor(img_shape[1:]))


@torch.no_grad()
def visualize_manifold(decoder, grid_size=20):
    normal = torch.distributions.normal.Normal(0, 1)
    ps = torch.linspace(0.5 / grid_size, (grid_size - 0.5) / grid_size, grid_size)
    imgs = []
    for p in ps:
        for q in ps:
            z = torch.stack([normal.icdf(p), normal.icdf(q)]).view(1, 2)
            out = decoder(z.to(decoder.device))
            out = torch.softmax(out.permute(0, 2, 3, 1).contiguous().view(-1, 16), dim=-1)
            mean = torch.matmul(out, torch.arange(16).float().to(decoder.device))
            imgs.append(mean.view(1, 28, 28))
    imgs = torch.stack(imgs).view(grid_size ** 2, 1, 28, 28)
    return make_grid(imgs, nrow=grid_size, normalize=True, value_range=(0, 15))
