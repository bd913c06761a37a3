"""What `main` makes its optimizers of. Accepted: any kind of optimizer, any groups, any learning rates."""

import ast
import copy
import struct
import tempfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from course.aae_standins import standing_in
from course.criterion import criterion, expect


class _Stop(BaseException):
    """Ends `main` where the first epoch would begin."""


class _Args(Namespace):
    """Flags, and what the script may have added to them by itself; `vars` does not show the latter."""

    device, cuda, progress_bar = torch.device("cpu"), False, False


def _own_defaults(part) -> dict:
    """Defaults of all flags in the student's train.py; None where one cannot be told."""
    defaults = {}
    tree = ast.parse((Path(part.folder) / "train.py").read_text(encoding="utf-8", errors="replace"))
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"):
            continue
        names = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        given = {keyword.arg: _value(keyword.value, part.train) for keyword in call.keywords}
        long = [given["dest"]] if given.get("dest") else [name for name in names if name.startswith("--")]
        if long:
            fallback = {"store_true": False, "store_false": True}.get(str(given.get("action")))
            defaults[long[0].lstrip("-").replace("-", "_")] = given.get("default", fallback)
    return defaults


def _value(node: ast.expr, module: ModuleType) -> Any:
    """The value of an expression in a module, or None."""
    try:
        return eval(compile(ast.Expression(node), "default", "eval"), dict(vars(module)))
    except Exception:
        return None


def _write_mnist(folder: Path) -> None:
    """Black images in the files of MNIST, which torchvision then does not download."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        with open(raw / f"{name}-images-idx3-ubyte", "wb") as file:
            file.write(struct.pack(">4i", 2051, count, 28, 28))
            file.truncate(16 + count * 784)
        labels = bytes(range(10)) * (count // 10)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels)
    for name in ("FashionMNIST", "KMNIST"):
        (folder / name).symlink_to(folder / "MNIST")


def _loader(*args, **kwargs) -> torch.utils.data.DataLoader:
    data = torch.utils.data.TensorDataset(torch.zeros(8, 1, 28, 28), torch.zeros(8, dtype=torch.long))
    return torch.utils.data.DataLoader(data, batch_size=4)


def _main(part) -> SimpleNamespace:
    """Run the student's `main` up to its first epoch: the model and the optimizers that `train_aae` gets."""
    found = {}

    def first_epoch(epoch, model, train_loader, logger_ae, logger_disc, optimizer_ae, optimizer_disc, *args, **kwargs):
        found.update(model=model, ae=optimizer_ae, disc=optimizer_disc)
        raise _Stop

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_mnist(folder / "data")
        args = Namespace(
            z_dim=3,
            batch_size=4,
            lambda_=0.7,
            ae_lr=1e-3,
            d_lr=5e-3,
            data_dir=str(folder / "data"),
            epochs=2,
            seed=1,
            num_workers=0,
            log_dir=str(folder / "logs") + "/",
            no_cuda=True,
        )
        args = _Args(**{**_own_defaults(part), **vars(args)})
        instead = {
            "train_aae": first_epoch,
            "generate_and_save": lambda *a, **k: None,
            "save_reconstruction": lambda *a, **k: None,
        }
        loader = {"mnist": _loader} if "mnist" in vars(part.train) else {}
        for more in (loader, {}):  # a loader of one's own may return something else: it finds the files that it reads
            with standing_in(part), patch.multiple(part.train, create=True, **instead, **more):
                try:
                    part.train.main(copy.copy(args))
                except _Stop:
                    break
                except Exception:
                    if not more:
                        raise
    expect(found, "main never calls train_aae")
    return SimpleNamespace(**found)


def _compare(
    optimizer, wanted: dict[str, torch.nn.Parameter], others: dict[str, torch.nn.Parameter], name: str
) -> None:
    expect(optimizer is not None and hasattr(optimizer, "param_groups"), f"main makes no {name}")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = sorted(key for key, p in wanted.items() if id(p) not in held)
    extra = sorted(key for key, p in others.items() if id(p) in held)
    networks = sorted({key.split(".")[0] for key in missing}), sorted({key.split(".")[0] for key in extra})
    expect(
        not missing,
        f"{name} does not hold the parameters of the {' and the '.join(networks[0])}, which can never learn",
    )
    expect(
        not extra,
        f"{name} also holds the parameters of the {' and the '.join(networks[1])}: the other player's step moves them",
    )


@criterion("2.4")
def autoencoder_optimizer(part):
    """optimizer_ae holds the parameters of encoder and decoder, all and no others."""
    found = _main(part)
    named = dict(found.model.named_parameters())
    own = {key: p for key, p in named.items() if "discriminator" not in key}
    _compare(found.ae, own, {key: p for key, p in named.items() if key not in own}, "optimizer_ae")


@criterion("2.5")
def discriminator_optimizer(part):
    """optimizer_disc holds the parameters of the discriminator, all and no others."""
    found = _main(part)
    named = dict(found.model.named_parameters())
    own = {key: p for key, p in named.items() if "discriminator" in key}
    _compare(found.disc, own, {key: p for key, p in named.items() if key not in own}, "optimizer_disc")
