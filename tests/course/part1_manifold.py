"""visualize_manifold: the decoder's mean pictures over a grid of percentiles of the prior.

Accepted: either latent variable along x, and either direction; one call of the decoder or many; any padding of the
grid; tensors or arrays; one or three channels; `torch.distributions` for the percentiles (the template's hint). The
stand-in decoder writes a running number into each picture, in pixels of which it is nearly sure, so that each picture
of the grid can be traced to its latent vector whatever is done with the grey values.
"""

import ast
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor

from course.criterion import Failure, criterion, expect
from course.standins_part1 import Decoder

GRID = 20
SURE = 60.0
# Logits of a 0 and of a 1: no grey value of the 0 is as likely as that of the 1, so that the largest probability tells
# them apart, too.
BITS = torch.full((2, 16), -SURE)
BITS[0, 0], BITS[0, 1], BITS[1, 15] = math.log(0.7), math.log(0.3), 0.0
TILTS = (-0.5, -0.15, 0.0, 0.2, 0.6)  # of the five distributions over the grey values, p_k ~ exp(tilt * k)


class NumberedDecoder(Decoder):
    """Rows 0 .. 13 of each picture hold its number in binary, and a white and a black bar; rows 14 .. 27 hold five
    bands of known distributions."""

    def __init__(self):
        super().__init__(z_dim=2)
        self.count = 0

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z.detach())
        self.linear(z)
        numbers = torch.arange(self.count, self.count + len(z))
        self.count += len(z)
        logits = torch.zeros(len(z), 16, 28, 28)
        for column in range(14):
            bit = (numbers >> column) & 1 if column < 10 else torch.full_like(numbers, int(column < 12))
            logits[:, :, :14, 2 * column : 2 * column + 2] = BITS[bit].view(-1, 16, 1, 1)
        for band, tilt in enumerate(TILTS):
            columns = slice(5 * band, 5 * band + 5 if band < 4 else 28)
            logits[:, :, 14:, columns] = tilt * torch.arange(16.0).view(1, 16, 1, 1)
        return (F.log_softmax(logits, dim=1).to(z.device) + 0 * self.logits).contiguous()


class PlainDecoder(Decoder):
    """Pictures of two grey values that it is sure of."""

    def __init__(self, low: int, high: int):
        super().__init__(z_dim=2)
        picture = torch.full((28, 28), low)
        picture[7:21, 7:21] = high
        self.logits.data = SURE * F.one_hot(picture, 16).permute(2, 0, 1).unsqueeze(0).float()


def _grid(part, decoder: Decoder, grid_size: int = GRID) -> Tensor:
    """The picture as [H, W] floats."""
    decoder.eval()
    result: Any = part.utils.visualize_manifold(decoder, grid_size=grid_size)
    if isinstance(result, (tuple, list)):
        result = result[0]
    expect(isinstance(result, (Tensor, np.ndarray)), "visualize_manifold returns the image of make_grid",
           got=type(result).__name__)  # fmt: skip
    image = torch.as_tensor(result).detach().cpu().float().squeeze()
    if image.dim() == 3:
        image = image[..., 0] if image.shape[-1] == 3 else image[0]
    expect(image.dim() == 2, "visualize_manifold returns one image of make_grid", got=torch.as_tensor(result).shape)
    return image


def _cells(image: Tensor) -> Tensor:
    """The pictures of the grid, [rows, columns, 28, 28]."""
    for padding in (2, 0, 1, 3, 4, 5, 8, 10):
        for border in (padding, 0):
            if all((size - 2 * border + padding) % (28 + padding) == 0 for size in image.shape):
                inner = image[border : image.shape[0] - border, border : image.shape[1] - border]
                windows = inner.unfold(0, 28, 28 + padding).unfold(1, 28, 28 + padding)
                return windows
    raise Failure("the image is no grid of 28 x 28 pictures (make_grid)", got=image.shape)


def _numbers(cells: Tensor) -> Tensor:
    """The numbers written into the pictures, [rows, columns]."""
    bars = cells[..., :14, :].mean(dim=-2).unflatten(-1, (14, 2)).mean(dim=-1)  # (rows, columns, 14)
    white, black = bars[..., 10:12].mean(dim=-1, keepdim=True), bars[..., 12:14].mean(dim=-1, keepdim=True)
    bits = ((bars[..., :10] - (white + black) / 2) * (white - black) > 0).long()
    return (bits * 2 ** torch.arange(10)).sum(dim=-1)


@criterion("1.9")
def manifold_percentiles(part):
    """The latent grid lies at the percentiles (i + 0.5) / grid_size of N(0, 1)."""
    decoder = NumberedDecoder()
    _call(part, decoder)
    z = decoder.latents()
    expected = torch.tensor(norm.ppf((np.arange(GRID) + 0.5) / GRID), dtype=torch.float32)
    expect(z.shape[-1] == 2, "the decoder gets latent vectors of two values", got=z.shape)
    for axis in (0, 1):
        values = z[:, axis].double().mul(1e4).round().div(1e4).unique()
        hint = "the percentiles are (i + 0.5) / grid_size, i = 0 .. grid_size - 1, put through the ppf of N(0, 1)"
        if not values.isfinite().all():
            hint = "the percentiles 0 and 1 lie at infinity: begin at 0.5 / grid_size and end at 1 - 0.5 / grid_size"
        elif len(values) == GRID and np.allclose(np.diff(values), np.diff(values)[0], rtol=0.01):
            hint = (
                "the latents are evenly spaced: it is the percentiles that are, so put them through the ppf of N(0, 1)"
            )
        right = len(values) == GRID and np.allclose(values, expected, atol=2e-3)
        expect(right, hint, given="grid_size 20", expected=f"20 values from {expected[0]:.3g} to {expected[-1]:.3g}",
               got=f"{len(values)} values from {float(values[0]):.3g} to {float(values[-1]):.3g}")  # fmt: skip


@criterion("1.9")
def manifold_axes(part):
    """One latent variable runs along x and the other along y, through all their combinations."""
    decoder = NumberedDecoder()
    cells = _cells(_grid(part, decoder))
    z = decoder.latents()
    given = "grid_size 20"
    rows, columns = cells.shape[:2]
    expect((rows, columns) == (GRID, GRID), "the grid needs as many columns as rows: make_grid(..., nrow=grid_size)",
           given=given, expected="20 rows, 20 columns", got=f"{rows} rows, {columns} columns")  # fmt: skip
    numbers = _numbers(cells)
    if numbers.max() >= len(z):
        raise Failure("the pictures of the grid are not those that the decoder made")
    if cells.max() - cells.min() < 1e-3:
        return  # empty pictures, which manifold_shows_the_mean tells
    if len(z[:, 0].unique()) > 5 * GRID:
        return  # no grid, which manifold_percentiles tells
    places = z[numbers]  # (rows, columns, 2)
    for along_x in (0, 1):
        x, y = places[..., along_x], places[..., 1 - along_x]
        if _runs_along_columns(x) and _runs_along_columns(y.T):
            return
    hint = "the pictures are not in the order of the latents: one variable grows along x, the other along y"
    if torch.equal(places[..., 0], places[..., 1]):
        hint = "both latent variables have the same value in every picture: the grid needs all pairs (torch.meshgrid)"
    elif len({tuple(pair) for pair in places.flatten(end_dim=1).tolist()}) < GRID**2:
        hint = "the same pairs of latents are shown several times: the grid needs all pairs (torch.meshgrid)"
    raise Failure(hint, given=given)


def _runs_along_columns(values: Tensor) -> bool:
    """Whether each row is the same, and monotone."""
    row = values[0]
    return torch.equal(values, row.expand_as(values)) and bool((row[1:] > row[:-1]).all() or (row[1:] < row[:-1]).all())


@criterion("1.9")
def manifold_shows_the_mean(part):
    """Each pixel is the mean of its distribution: softmax over the 16 grey values, then the expectation."""
    cells = _cells(_grid(part, NumberedDecoder()))[0, :, 14:]  # (columns, 14, 28)
    values = torch.arange(16.0)
    probabilities = torch.softmax(torch.tensor(TILTS).unsqueeze(1) * values, dim=1)  # (5, 16)
    expected = (probabilities * values).sum(dim=1) / 15
    bands = [cells[..., 5 * band : 5 * band + 5] for band in range(len(TILTS))]
    got = torch.stack([band.mean() for band in bands])
    if got.max() > 1.5:
        got = got / 15  # manifold_brightness judges the range
    spread = max(float(band.std()) for band in bands)
    modes = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    hint = "each pixel must show the mean, sum_k k * softmax(logits)_k / 15"
    if spread > 1e-3 * max(1.0, float(got.abs().max())):
        hint = "the picture shows drawn pixels: question 1.9 asks for the mean"
    elif torch.allclose(got, modes, atol=0.02):
        hint = "the picture shows the most likely grey value (argmax): question 1.9 asks for the mean"
    elif got.min() < -0.05 or got.max() > 1.1:
        hint = "the expectation is taken of the logits: they need a softmax over the 16 grey values first"
    # Rounding to one of the 16 grey values passes, and so does division by 16.
    right = spread < 0.01 and any(torch.allclose(got, expected * scale, atol=0.035) for scale in (1, 15 / 16))
    expect(right, hint, given="pixels of five distributions", expected=expected, got=got)


@criterion("1.9")
def manifold_keeps_the_contrast(part):
    """The contrast is not stretched: grey values keep their brightness."""
    cells = _cells(_grid(part, PlainDecoder(4, 10)))[0, 0]
    low, high = float(cells[0, 0]), float(cells[14, 14])
    stretched = abs(low) < 0.01 and (abs(high - 1) < 0.01 or abs(high - 15) < 0.15)
    hint = "the contrast is stretched (make_grid's normalize without value_range): divide by 15 instead"
    expect(
        not stretched, hint, given="pictures of the grey values 4 and 10", expected=[4 / 15, 10 / 15], got=[low, high]
    )


@criterion("1.9")
def manifold_brightness(part):
    """The image lies in [0, 1], as save_image takes it."""
    cells = _cells(_grid(part, PlainDecoder(0, 15)))[0, 0]
    high = float(cells.max())
    if _divided_by_the_caller(part):
        return
    # A wrong mean is judged by manifold_shows_the_mean: here only the whole range counts.
    hint = "the grey values must be divided by 15, so that the picture lies in [0, 1]"
    expect(not 14 < high < 16, hint, given="pictures of the grey values 0 and 15", expected=1, got=high)
    hint = "the grey values are divided too often: the picture must lie in [0, 1]"
    twice = any(abs(high * times - 1) < 0.03 for times in (15, 16, 225, 240, 255, 256)) and float(cells.min()) < 1e-3
    expect(not twice, hint, given="pictures of the grey values 0 and 15", expected=1, got=high)


@criterion("1.9")
def manifold_grid_size(part):
    """grid_size decides how many pictures there are."""
    counts = {}
    for grid_size in (GRID, 7):
        decoder = NumberedDecoder()
        _call(part, decoder, grid_size)
        counts[grid_size] = decoder.count
    if counts[GRID] == GRID**2:  # otherwise judged by manifold_axes
        expect(
            counts[7] == 49,
            "the grid has grid_size pictures in each direction",
            given="grid_size 7",
            expected=49,
            got=counts[7],
        )


def _call(part, decoder: Decoder, grid_size: int = GRID) -> None:
    """Call it for the latents it asks for; what goes wrong after the decoder is judged elsewhere."""
    try:
        part.utils.visualize_manifold(decoder.eval(), grid_size=grid_size)
    except Exception:
        if not decoder.seen:
            raise


def _divided_by_the_caller(part) -> bool:
    """Whether train_vae itself scales the image: a division, or normalize=True, in a statement that has its name."""
    try:
        tree = ast.parse((part.folder / "train_pl.py").read_text())
    except (OSError, SyntaxError):
        return False
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name == "train_vae":
            text = [ast.unparse(node) for node in ast.walk(function) if isinstance(node, (ast.Assign, ast.Expr))]
            lines = [line for line in text if "manifold" in line]
            return any("/ 15" in line or "normalize=True" in line for line in lines)
    return False
