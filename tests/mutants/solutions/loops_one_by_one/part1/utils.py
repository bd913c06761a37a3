import torch.nn.functional as F
import torch
from torchvision.utils import make_grid
import numpy as np
from scipy.stats import norm


def sample_reparameterize(mean, std):
    assert not (std < 0).any().item(), 'neg'
    z = torch.zeros_like(mean)
    for i in range(mean.shape[0]):
        z[i] = mean[i] + std[i] * torch.randn(mean.shape[1:], device=mean.device)
    return z


def KLD(mean, log_std):
    out = []
    for m, s in zip(mean.reshape(-1, mean.shape[-1]), log_std.reshape(-1, mean.shape[-1])):
        k = 0
        for d in range(m.shape[0]):
            k = k + (torch.exp(2*s[d]) + m[d]**2 - 1 - 2*s[d]) / 2
        out.append(k)
    return torch.stack(out).reshape(mean.shape[:-1])


def elbo_to_bpd(elbo, img_shape):
    d = 1
    for s in img_shape[1:]:
        d *= s
    return elbo * (1/np.log(2)) * (1/d)


def visualize_manifold(decoder, grid_size=20):
    p = torch.linspace(0.5/grid_size, (grid_size-0.5)/grid_size, grid_size)
    c = torch.distributions.Normal(0,1).icdf(p)
    imgs = []
    for a in c:
        for b in c:
            z = torch.tensor([[a, b]]).to(decoder.device)
            p = F.softmax(decoder(z), dim=1)
            m = torch.zeros(1,28,28)
            for k in range(16):
                m += k * p[0,k].detach().cpu()
            imgs.append(m/15)
    return make_grid(imgs, nrow=grid_size, pad_value=1)
