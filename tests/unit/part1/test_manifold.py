"""The picture of the latent plane, with a decoder made up so that the right picture is known."""

import pytest
import torch
from scipy.stats import norm
from torch import nn


class PercentileDecoder(nn.Module):
    """Draws grey value 15 with a probability p and 0 otherwise; p is the prior's distribution function at z_1 in the
    left half of the image, and at z_2 in the right half. The mean intensity is p; the most likely one 0 or 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, z):
        p = torch.as_tensor(norm.cdf(z.cpu().numpy()), dtype=torch.float32).clamp(1e-6, 1 - 1e-6)  # (B, 2)
        logits = torch.full((len(z), 16, 28, 28), -60.0)
        for half, p_half in ((slice(0, 14), p[:, 0]), (slice(14, 28), p[:, 1])):
            logits[:, 0, :, half] = (1 - p_half).log().view(-1, 1, 1)
            logits[:, 15, :, half] = p_half.log().view(-1, 1, 1)
        return logits + 0 * self.weight  # so that it has a gradient, which the picture must not keep

    @property
    def device(self):
        return self.weight.device


def tiles(grid: torch.Tensor, grid_size: int) -> torch.Tensor:
    """The pictures of a `make_grid` image, [grid_size, grid_size, 28, 28], whatever its padding is."""
    assert grid.ndim == 3 and grid.shape[1] == grid.shape[2], f"shape {tuple(grid.shape)}"
    padding = (grid.shape[1] - 28 * grid_size) // (grid_size + 1)
    starts = [padding + i * (28 + padding) for i in range(grid_size)]
    return torch.stack([torch.stack([grid[0, r : r + 28, c : c + 28] for c in starts]) for r in starts])


@pytest.mark.parametrize("grid_size", [5, 20])
def test_percentiles_and_mean_intensity(part1, grid_size):
    grid = part1.utils.visualize_manifold(PercentileDecoder(), grid_size=grid_size)
    pictures = tiles(grid.float(), grid_size)
    z_1, z_2 = pictures[..., 7, 7], pictures[..., 7, 20]  # (grid_size, grid_size), by row and column
    expected = ((torch.arange(grid_size) + 0.5) / grid_size).expand(grid_size, -1)
    torch.testing.assert_close(z_1, expected, rtol=0, atol=1e-3)  # grows to the right
    torch.testing.assert_close(z_2, expected.T, rtol=0, atol=1e-3)  # grows downwards


def test_default_size_and_range(part1):
    grid = part1.utils.visualize_manifold(PercentileDecoder())
    assert grid.shape[0] == 3
    assert tiles(grid, 20).shape == (20, 20, 28, 28)
    assert grid.min() >= 0 and grid.max() <= 1
    assert not grid.requires_grad


def test_of_the_real_decoder(part1):
    decoder = part1.cnn_encoder_decoder.CNNDecoder(num_filters=4, z_dim=2)
    grid = part1.utils.visualize_manifold(decoder, grid_size=3)
    assert tiles(grid, 3).isfinite().all()
