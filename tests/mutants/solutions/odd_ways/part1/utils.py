import torch
from torchvision.utils import make_grid


def sample_reparameterize(mean, std):
    """Samples from a Gaussian with the reparameterization trick.

    Inputs:
        mean - means, any shape
        std - strictly positive standard deviations, of the same shape
    Outputs:
        z - a sample of the same shape
    """
    assert not (std < 0).any().item(), "The reparameterization trick got a negative std. Is it a log-std?"
    z = torch.empty_like(std).normal_().mul(std).add_(mean)
    return z


def KLD(mean, log_std):
    """KL divergence of N(mean, exp(log_std)^2) from the unit Gaussian, summed over the last dimension."""
    var = log_std.exp().pow(2)
    KLD = torch.stack([(v + m * m - 1 - torch.log(v)) / 2 for m, v in zip(mean.unbind(-1), var.unbind(-1))]).sum(0)
    return KLD


def elbo_to_bpd(elbo, img_shape):
    """Converts the summed negative log likelihood into bits per dimension.

    Inputs:
        elbo - [batch_size]
        img_shape - [batch, channels, height, width]
    """
    bpd = elbo / torch.log(torch.tensor(2.0)) / torch.Size(img_shape).numel() * img_shape[0]
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
    lowest = 0.5 / grid_size
    percentiles = torch.linspace(lowest, 1 - lowest, grid_size)
    values = 2**0.5 * torch.erfinv(2 * percentiles - 1)
    imgs = []
    for z2 in reversed(values.tolist()):
        for z1 in values.tolist():
            logits = decoder(torch.tensor([[z1, z2]]).to(next(decoder.parameters()).device)).squeeze(0)
            weights = logits.exp() / logits.exp().sum(0)
            imgs.append(torch.tensordot(torch.linspace(0, 1, 16).type_as(weights), weights, dims=1)[None])
    img_grid = make_grid(imgs, nrow=grid_size, padding=0)
    return img_grid
