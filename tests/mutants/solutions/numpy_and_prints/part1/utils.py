import torch.nn.functional as F
import torch
from torchvision.utils import make_grid
import numpy as np
from scipy.stats import norm


def sample_reparameterize(mean, std):
    assert not (std < 0).any().item(), 'neg'
    eps = torch.from_numpy(np.random.normal(0, 1, size=tuple(std.shape))).float().to(std.device)
    return mean + eps * std


def KLD(mean, log_std):
    D = mean.shape[-1]
    return 0.5*(torch.exp(2*log_std).sum(-1) + (mean**2).sum(-1) - D - 2*log_std.sum(-1))


def elbo_to_bpd(elbo, img_shape):
    B, C, H, W = img_shape
    return elbo * np.log2(np.exp(1)) * (H*W*C)**-1


def visualize_manifold(decoder, grid_size=20):
    import matplotlib.pyplot as plt
    p = torch.linspace(0.5/grid_size, (grid_size-0.5)/grid_size, grid_size)
    c = torch.distributions.Normal(0,1).icdf(p)
    z = torch.cartesian_prod(c, c).to(decoder.device)
    logits = decoder(z)
    p = torch.softmax(logits, 1)
    img = (p*torch.arange(16,device=p.device).view(1,16,1,1)).sum(1,keepdim=True)/15
    grid = make_grid(img, nrow=grid_size)
    plt.imshow(grid.detach().cpu().permute(1,2,0).numpy())
    plt.axis('off')
    plt.savefig('m.png')
    return grid
