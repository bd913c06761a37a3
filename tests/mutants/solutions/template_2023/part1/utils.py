import torch
from torchvision.utils import make_grid
import numpy as np
from scipy.stats import norm


def sample_reparameterize(mean, std):
    """Samples from a Gaussian with the reparameterization trick.

    Inputs:
        mean - means, any shape
        std - strictly positive standard deviations, of the same shape
    Outputs:
        z - a sample of the same shape
    """
    assert not (std < 0).any().item(), "The reparameterization trick got a negative std. Is it a log-std?"
    eps = torch.randn_like(std)
    z = mean + std * eps
    return z


def KLD(mean, log_std):
    """KL divergence of N(mean, exp(log_std)^2) from the unit Gaussian, summed over the last dimension."""
    KLD = 0.5 * (torch.exp(2 * log_std) + mean ** 2 - 1 - 2 * log_std).sum(dim=-1)
    return KLD


def elbo_to_bpd(elbo, img_shape):
    """Converts the summed negative log likelihood into bits per dimension.

    Inputs:
        elbo - [batch_size]
        img_shape - [batch, channels, height, width]
    """
    num_dims = np.prod(img_shape[1:])
    bpd = elbo * np.log2(np.e) / num_dims
    return bpd


@torch.no_grad()
def visualize_manifold(decoder, grid_size=20):
    """Visualizes the manifold of a two-dimensional latent space.

    Inputs:
        decoder - decoder of a VAE with z_dim 2
        grid_size - images per axis; neighbours are 1/grid_size apart in percentiles
    Outputs:
        img_grid - grid of images
    """
    percentiles = (torch.arange(grid_size) + 0.5) / grid_size
    values = torch.from_numpy(norm.ppf(percentiles.numpy())).float()
    z1, z2 = torch.meshgrid(values, values, indexing='ij')
    z = torch.stack([z1, z2], dim=-1).reshape(-1, 2).to(decoder.device)
    logits = decoder(z)
    probs = torch.softmax(logits, dim=1)
    grey = torch.arange(16, device=probs.device).reshape(1, 16, 1, 1)
    imgs = (probs * grey).sum(dim=1, keepdim=True) / 15
    img_grid = make_grid(imgs, nrow=grid_size)
    return img_grid
