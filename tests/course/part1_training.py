"""The optimizer, the training step, and what is logged.

Accepted: Adam in all its variants, with weight decay or schedules; other adaptive optimizers with a remark; as the loss
bpd, the ELBO, or any positive multiple; self.log or self.log_dict; one number more or fewer in training's logs;
Lightning 1 and 2.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from course.criterion import Failure, Remark, criterion, expect, is_gap
from course.part1_networks import parameters_of
from course.standins_part1 import NATS_PER_BIT, PIXELS, close, construct, images, make_vae

LR = 0.0123
LOSSES = {
    "reconstruction_loss": 300.0,
    "regularization_loss": 20.0,
    "ELBO": 320.0,
    "bpd": 320 / (PIXELS * NATS_PER_BIT),
}

RETURNED = ("reconstruction_loss", "regularization_loss", "bpd")  # by VAE.forward


def _vae(part):
    """The student's VAE with its own networks, or with right ones where those cannot be made."""
    try:
        return construct(part.train_pl.VAE, lr=LR)
    except Exception as error:
        if is_gap(error):
            raise
        return make_vae(part, lr=LR)


def _optimizers(part, vae) -> list[torch.optim.Optimizer]:
    result: Any = vae.configure_optimizers()
    if isinstance(result, dict):
        result = result.get("optimizer")
    if isinstance(result, (tuple, list)):
        first = result[0]
        result = [entry["optimizer"] if isinstance(entry, dict) else entry
                  for entry in (first if isinstance(first, (list, tuple)) else result)]  # fmt: skip
    entries = result if isinstance(result, list) else [result]
    found = [entry for entry in entries if isinstance(entry, torch.optim.Optimizer)]
    expect(found, "configure_optimizers returns no optimizer: nothing is trained", got=type(result).__name__)
    return found


@criterion("1.7")
def optimizer_has_all_parameters(part):
    """The optimizer trains encoder and decoder."""
    vae = _vae(part)
    held = {id(parameter) for optimizer in _optimizers(part, vae) for group in optimizer.param_groups
            for parameter in group["params"]}  # fmt: skip
    for name in ("encoder", "decoder"):
        missing = parameters_of(getattr(vae, name)) - held
        hint = f"the optimizer does not get all parameters of the {name}: use self.parameters()"
        expect(not missing, hint, expected="all", got=f"{len(missing)} tensors are left out")


@criterion("1.7")
def optimizer_has_the_learning_rate(part):
    """The learning rate is the lr that VAE was given."""
    for optimizer in _optimizers(part, _vae(part)):
        for group in optimizer.param_groups:
            rates = [group.get(name) for name in ("lr", "initial_lr", "max_lr")]
            right = any(rate is not None and close(rate, LR) for rate in rates)
            expect(
                right, "the learning rate is self.hparams.lr", given=f"VAE(..., lr={LR})", expected=LR, got=group["lr"]
            )


@criterion("1.7")
def optimizer_is_adam(part):
    """The optimizer is Adam, or one of its variants."""
    for optimizer in _optimizers(part, _vae(part)):
        name = type(optimizer).__name__
        if "adam" in name.lower():
            continue
        if isinstance(optimizer, torch.optim.SGD):
            hint = "the optimizer is Adam: plain gradient steps of this size do not train this model in 80 epochs"
            raise Failure(hint, expected="Adam", got=name)
        raise Remark("the template's optimizer is Adam", expected="Adam", got=name)


def _stand_in_forward(vae: Any, values: Callable[[], tuple[Any, Any, Any]]) -> None:
    """Let VAE.forward return these losses, and beside them what the student's returns."""
    try:
        with torch.no_grad():
            usual = vae(images(4))
    except Exception as error:
        if is_gap(error):
            raise
        usual = ()

    def forward(*args: Any, **kwargs: Any) -> Any:
        losses = values()
        if hasattr(usual, "_replace") and len(usual) >= 3:  # a named tuple
            return usual._replace(**dict(zip(usual._fields, losses, strict=False)))
        return (*losses, *tuple(usual)[3:])

    vae.forward = forward


def _batches(count: int) -> DataLoader:
    imgs = images(4)
    return DataLoader([(imgs[i % 4], i % 4) for i in range(4 * count)], batch_size=4)


class _Board(TensorBoardLogger):
    """Keeps what is logged."""

    def __init__(self, folder: str):
        super().__init__(folder)
        self.logged: dict[str, float] = {}

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        self.logged.update({name: float(value) for name, value in metrics.items()})


def _fit(vae: Any, folder: str, test: bool = False) -> dict[str, float]:
    """Train for two batches, validate, and test if asked to; gives what was logged."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    board = _Board(folder)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=board, enable_checkpointing=False, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(vae, _batches(2), _batches(1))
    if test:
        trainer.test(vae, _batches(1), verbose=False)
    return board.logged


@criterion("1.7")
def training_minimises_bpd(part):
    """training_step returns bpd, or the ELBO, as the loss to be minimised."""
    vae = make_vae(part)
    rec, reg, bpd = leaves = tuple(torch.tensor(LOSSES[name], requires_grad=True) for name in RETURNED)
    _stand_in_forward(vae, lambda: leaves)
    vae.log = vae.log_dict = lambda *args, **kwargs: None
    try:
        loss = vae.training_step((images(4), torch.arange(4)), 0)
    except (RuntimeError, AttributeError, TypeError):
        loss = _loss_in_training(vae)
    if isinstance(loss, dict):
        loss = loss.get("loss")
    expect(
        isinstance(loss, Tensor) and loss.requires_grad,
        "training_step returns no loss with a gradient",
        got=type(loss).__name__,
    )
    gradients = torch.autograd.grad(loss.sum(), (rec, reg, bpd), allow_unused=True)
    by_rec, by_reg, by_bpd = (0.0 if gradient is None else float(gradient) for gradient in gradients)
    given = "the losses that VAE.forward returns"
    expected = "a positive multiple of bpd, or of L_rec + L_reg"
    got = f"{by_rec:.3g} L_rec + {by_reg:.3g} L_reg + {by_bpd:.3g} bpd"
    hint = "the loss is turned round: bpd is minimised, not maximised"
    expect(min(by_rec, by_reg, by_bpd) >= 0, hint, given=given, expected=expected, got=got)
    hint = "the loss to be minimised is bpd, with both terms of the ELBO in it"
    expect(close(by_rec, by_reg) and by_rec + by_bpd > 0, hint, given=given, expected=expected, got=got)


def _loss_in_training(vae: Any) -> Any:
    """What training_step returns where it needs a trainer."""
    returned: list[Any] = []
    step = vae.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        returned.append(step(*args, **kwargs))
        raise KeyError("enough")

    vae.training_step = training_step
    del vae.log, vae.log_dict
    with tempfile.TemporaryDirectory() as folder:
        try:
            _fit(vae, folder)
        except BaseException:
            if not returned:
                raise
    return returned[0]


@criterion("1.7")
def losses_are_logged(part):
    """All losses of training and validation are logged under their names, and test_bpd."""
    vae = make_vae(part)
    zero = vae.decoder.logits  # its gradient is zero, so that the step changes nothing
    _stand_in_forward(vae, lambda: tuple(LOSSES[name] + 0 * zero.sum() for name in RETURNED))
    # What is optimised, and by what, other criteria judge.
    vae.configure_optimizers = lambda: torch.optim.Adam(nn.ParameterList(vae.parameters()), lr=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        logged = _fit(vae, folder, test=True)
    wanted = {f"{mode}_{name}": value for mode in ("train", "val") for name, value in LOSSES.items()}
    wanted["test_bpd"] = LOSSES["bpd"]
    for name, value in wanted.items():
        got = next((logged[key] for key in (name, f"{name}_epoch") if key in logged), None)
        expect(got is not None, f"nothing is logged under the name {name}", got=", ".join(sorted(logged)))
        hint = f"another loss is logged under the name {name}"
        right = close(got, value) or (name.endswith("ELBO") and close(got, -value))
        expect(right, hint, given="losses of known size", expected=value, got=got)
