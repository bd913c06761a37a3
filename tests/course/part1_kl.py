"""KL divergence: 1/2 sum_d (exp(2 log_std) + mean^2 - 1 - 2 log_std), summed over the latent dimensions.

Accepted: any algebraic form; a KLD that takes the log variance, if VAE.forward gives it the log variance.
"""

import torch
from torch import Tensor

from course.criterion import Failure, criterion, expect, said
from course.standins_part1 import Decoder, close, images, kl, make_vae, number, replaced

CASES = [(0.0, 0.0), (1.3, 0.0), (0.0, -0.7), (-2.1, 0.4), (0.3, 1.5)]
MISTAKES = {
    "the 1/2 of the closed form is missing": lambda m, s: torch.exp(2 * s) + m**2 - 1 - 2 * s,
    "the sign is turned: KL is never negative": lambda m, s: -0.5 * (torch.exp(2 * s) + m**2 - 1 - 2 * s),
    "sigma stands where sigma^2 = exp(2 log_std) belongs": lambda m, s: 0.5 * (torch.exp(s) + m**2 - 1 - 2 * s),
    "log_std is taken for the log variance: sigma^2 = exp(2 log_std), log sigma^2 = 2 log_std": lambda m, s: (
        0.5 * (torch.exp(s) + m**2 - 1 - s)
    ),
    "log sigma^2 = 2 log_std: a factor 2 is missing": lambda m, s: 0.5 * (torch.exp(2 * s) + m**2 - 1 - s),
    "log_std is used as if it were the standard deviation": lambda m, s: 0.5 * (s**2 + m**2 - 1 - torch.log(s**2)),
    "the -1 is missing": lambda m, s: 0.5 * (torch.exp(2 * s) + m**2 - 2 * s),
    "the mean must be squared": lambda m, s: 0.5 * (torch.exp(2 * s) + m - 1 - 2 * s),
    "the log has the wrong sign: - 2 log_std": lambda m, s: 0.5 * (torch.exp(2 * s) + m**2 - 1 + 2 * s),
}


def _one(part, mean: float, log_std: float) -> float:
    """KL of a single latent dimension of a single image: no sum can go wrong."""
    return number(part.utils.KLD(torch.tensor([[mean]]), torch.tensor([[log_std]])))


@criterion("1.7")
def kl_value(part):
    """KL divergence of one Gaussian from the prior."""
    got = [_one(part, mean, log_std) for mean, log_std in CASES]
    mean, log_std = torch.tensor(CASES).T

    def agrees(values: Tensor) -> bool:
        return all(close(a, b) for a, b in zip(got, values.tolist(), strict=True))

    expected = kl(mean.unsqueeze(-1), log_std.unsqueeze(-1))
    if agrees(expected):
        return
    if takes_log_variance(part) and _forward_hands_over_log_variances(part):
        return
    hint = "the closed form is 1/2 (exp(2 log_std) + mean^2 - 1 - 2 log_std)"
    for mistake, formula in MISTAKES.items():
        if agrees(formula(mean, log_std)):
            hint = mistake
    wrong = next(i for i in range(len(CASES)) if not close(got[i], expected[i]))
    given = "mean {:g}, log_std {:g}".format(*CASES[wrong])
    expect(False, hint, given=given, expected=float(expected[wrong]), got=got[wrong])


@criterion("1.7")
def kl_summed_over_latents(part):
    """KL divergence is summed over the latent dimensions, and over nothing else."""
    generator = torch.Generator().manual_seed(1)
    mean, log_std = torch.randn(5, 3, generator=generator), 0.5 * torch.randn(5, 3, generator=generator)
    single = torch.tensor([[_one(part, *pair) for pair in zip(*rows, strict=True)] for rows in
                           zip(mean.tolist(), log_std.tolist(), strict=True)])  # fmt: skip
    got = part.utils.KLD(mean, log_std)
    got = torch.as_tensor(got).detach().squeeze()
    hint = "sum over the last dimension, the latent one: one number per image"
    if got.shape == (5, 3):
        hint = "the sum over the latent dimensions is missing"
    elif got.shape == (3,):
        hint = "the sum runs over the images of the batch; it belongs over the latent dimensions, the last axis"
    elif got.dim() == 0:
        hint = "one number per image is asked for: do not sum or average over the batch here"
    elif got.shape == (5,) and torch.allclose(got, single.mean(dim=1), rtol=1e-3, atol=1e-4):
        hint = "the latent dimensions are averaged: they must be summed"
    right = got.shape == (5,) and torch.allclose(got, single.sum(dim=1), rtol=1e-3, atol=1e-4)
    expect(right, hint, given="five images with three latent dimensions", expected=single.sum(dim=1), got=got)


@criterion("1.7")
def kl_of_any_shape(part):
    """KL divergence of tensors of any number of dimensions is summed over the last."""
    generator = torch.Generator().manual_seed(2)
    try:
        kl_summed_over_latents(part)
    except Failure:
        return  # wrong for two dimensions already
    for shape in ((4,), (3, 5, 4)):
        mean = torch.randn(shape, generator=generator)
        rows = part.utils.KLD(mean.reshape(-1, 4), 0.3 * mean.reshape(-1, 4)).reshape(shape[:-1])
        try:
            got = torch.as_tensor(part.utils.KLD(mean, 0.3 * mean))
        except Exception as error:
            hint = "KLD fails for tensors that have not two dimensions: the template asks for any shape"
            raise Failure(hint, given=f"the shape {list(shape)}", got=said(error)) from error
        right = got.numel() == rows.numel() and torch.allclose(got.reshape(rows.shape), rows, atol=1e-4)
        hint = "the sum is over the last dimension, dim=-1, of a tensor of any shape"
        expect(right, hint, given=f"the shape {list(shape)}", expected=list(shape[:-1]), got=got)


def takes_log_variance(part) -> bool:
    """Whether KLD is right for a log variance as its second argument."""
    try:
        return all(
            close(_one(part, mean, 2 * log_std), kl(*torch.tensor([[mean], [log_std]]))) for mean, log_std in CASES
        )
    except Exception:
        return False


def _forward_hands_over_log_variances(part) -> bool:
    """Whether VAE.forward, with right networks, gives KLD twice the log of the std that the sample gets."""
    stds, seconds = [], []

    def sample(mean, std, *args, **kwargs):
        stds.append(std.detach())
        return mean + std * torch.randn_like(mean)

    def log_variance_kld(mean, log_variance, *args, **kwargs):
        seconds.append(log_variance.detach())
        return kl(mean, 0.5 * log_variance)

    try:
        vae = make_vae(part)
        vae.decoder = Decoder()
        with replaced(part, {"sample_reparameterize": sample, "KLD": log_variance_kld}):
            vae(images())
        return torch.allclose(2 * stds[0].log(), seconds[0], atol=1e-4)
    except Exception:
        return False
