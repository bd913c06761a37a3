"""`--compile`, with a stand-in for torch.compile that does to a function's results what CUDA graphs do."""

import contextlib
import sys
from argparse import Namespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from runs import assert_equal, rows_of


class Graphs:
    """Functions "compiled" by it compute as before, but what they have returned becomes NaN where CUDA graphs may
    overwrite it: in the next call, or, once a program marks where its steps begin, at the next mark.

    Attributes:
        options: arguments of the last compilation.
        calls: numbers of images or texts in the calls.
    """

    def __init__(self, monkeypatch):
        self.options, self.calls, self._given, self._has_marks = None, [], [], False
        monkeypatch.setattr(torch, "compile", self._compile)
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", self._mark)
        monkeypatch.setenv("CXX", sys.executable)  # any program: the compiler is looked for, and not used

    def _compile(self, function, **options):
        self.options = options

        def compiled(*args, **kwargs):
            if not self._has_marks:
                self._overwrite()
            self.calls.append(len(args[0]))
            results = function(*args, **kwargs)
            self._given += [result for result in tree_leaves(results) if torch.is_tensor(result)]
            return results

        return compiled

    def _mark(self) -> None:
        self._has_marks = True
        self._overwrite()

    def _overwrite(self) -> None:
        for tensor in self._given:
            tensor.data.fill_(torch.nan)
        self._given.clear()


def flags_of(name: str, folder, **changes) -> Namespace:
    """A tiny training whose last batch is smaller, but that of part 3, which has no such batch."""
    (folder / "text.txt").write_text("abcdefgh" * 40)
    flags = {
        "part1": {"dataset": "digits", "batch_size": 100, "num_filters": 2, "z_dim": 3, "epochs": 2, "ema": 0.5},
        "part2": {"dataset": "digits", "batch_size": 50, "z_dim": 3, "epochs": 2},
        "part3": {"txt_file": str(folder / "text.txt"), "model_type": "gpt-nano", "block_size": 8, "max_steps": 4,
                  "train_batch_size": 3, "val_every_n_steps": 2, "generate_batch_size": 1},
    }[name]  # fmt: skip
    return Namespace(**{**flags, **changes})


def trained(part, name: str, flags: Namespace, log_dir) -> tuple[list[dict], dict]:
    """Rows of the metrics and the weights that a training leaves."""
    train = {"part1": "train_pl.train_vae", "part2": "train.main", "part3": "train.train"}[name].split(".")
    getattr(getattr(part, train[0]), train[1])(Namespace(**vars(flags), log_dir=str(log_dir)))
    (folder,) = log_dir.rglob("checkpoints")
    file = folder / ("model_checkpoint.pt" if name == "part2" else "last.ckpt")
    rows = [{key: value for key, value in row.items() if "second" not in key} for row in rows_of(folder.parent)]
    return rows, torch.load(file, weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_a_compiled_training_keeps_nothing_that_graphs_overwrite(request, tmp_path, monkeypatch, tiny_digits, name):
    part = request.getfixturevalue(name)
    with tiny_digits(part) if name == "part2" else contextlib.nullcontext():
        eager = trained(part, name, flags_of(name, tmp_path), tmp_path / "eager")
        graphs = Graphs(monkeypatch)
        compiled = trained(part, name, flags_of(name, tmp_path, compile=True), tmp_path / "compiled")
    assert_equal(compiled, eager)  # of the same names, without "_orig_mod"
    assert len(graphs.calls) >= {"part1": 2 * (14 + 2), "part2": 3 * 2 * 3, "part3": 4}[name]
    assert graphs.options == {}, "on a CPU, there are no graphs"


@pytest.mark.parametrize("encoder", ["deterministic", "gaussian", "universal"])
def test_a_step_of_the_autoencoder_is_compiled_as_a_whole(part2, encoder):
    """Forward pass and losses are three functions without a gap between compiled pieces, and compute the same."""
    found = []
    for compiled in (True, False):
        torch.manual_seed(0)
        model = (part2.compiled.CompiledAE(3, encoder, backend="eager", fullgraph=True, dynamic=False) if compiled
                 else part2.models.AdversarialAE(3, encoder))  # fmt: skip
        x = torch.rand(2, 1, 28, 28)
        recon_x, z = model(x)
        ae_loss, ae_values = model.get_loss_autoencoder(x, recon_x, z, 0.9)
        ae_loss.backward()
        assert all(weight.grad is None for weight in model.discriminator.parameters())
        disc_loss, disc_values = model.get_loss_discriminator(z.detach())
        disc_loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        found.append([ae_loss, ae_values, disc_loss, disc_values, gradients])
    assert_equal(*found)
