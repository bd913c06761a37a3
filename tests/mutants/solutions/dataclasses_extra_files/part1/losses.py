from typing import NamedTuple

import torch
from torch.nn import functional

from utils import KLD, elbo_to_bpd


class Losses(NamedTuple):
    L_rec: torch.Tensor
    L_reg: torch.Tensor
    bpd: torch.Tensor
    per_image: torch.Tensor


def losses(log_probs, imgs, mean, log_std):
    rec = functional.nll_loss(log_probs, imgs.squeeze(dim=1), reduction="none").flatten(1).sum(1)
    reg = KLD(mean, log_std)
    return Losses(rec.mean(), reg.mean(), elbo_to_bpd(rec + reg, imgs.shape).mean(), rec + reg)
