"""Weights in transformers' format: read into part 3's GPT and written by it, with transformers as the oracle."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt_models import THEIRS, change_weights, new_gpt, their_model

OURS = {"vocab_size": 37, "block_size": 17, "n_embd": 21, "n_layer": 2, "n_head": 3}


def as_published(tensors: dict) -> None:
    """The names in the files on the hub: without a prefix, and with the masks of all layers."""
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)
    size = THEIRS["n_positions"]
    for layer in range(THEIRS["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(size, size).tril().view(1, 1, size, size)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


def with_masks(tensors: dict) -> None:
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 17, 17).tril()
    tensors["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e9)


def with_the_shared_head(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()


@pytest.mark.parametrize(
    ("changes", "layout"),
    [
        ({}, None),
        ({}, as_published),
        ({}, with_masks),
        ({}, with_the_shared_head),
        ({"tie_word_embeddings": False}, None),
        ({"layer_norm_epsilon": 0.3}, None),
        ({"activation_function": "gelu_pytorch_tanh"}, None),
    ],
)
def test_logits_and_greedy_continuations_are_those_of_transformers(part3, tmp_path, changes, layout):
    theirs = their_model(**changes)
    theirs.save_pretrained(tmp_path)
    if layout:
        change_weights(tmp_path, layout)
    idx = torch.randint(0, 37, (3, 5))
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-11)):
        ours = part3.gpt.GPT.from_pretrained(str(tmp_path), dtype)
        theirs.to(dtype)
        with torch.no_grad():
            for tokens in (idx, torch.randint(0, 37, (2, 17))):
                torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=tolerance)
        expected = theirs.generate(
            idx, attention_mask=torch.ones_like(idx), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        assert ours.generate(idx, 12).tolist() == expected.tolist()


def test_a_loaded_model_is_ready_for_use(part3, tmp_path):
    their_model(attn_pdrop=0.2, resid_pdrop=0.3, embd_pdrop=0.4).save_pretrained(tmp_path)
    model = part3.gpt.GPT.from_pretrained(tmp_path)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in model.parameters())
    assert (model.config.attn_pdrop, model.config.resid_pdrop, model.config.embd_pdrop) == (0.2, 0.3, 0.4)
    assert model.block_size == 17
    model.train()(torch.randint(0, 37, (2, 5))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_tied_weights_stay_one_tensor(part3, tmp_path):
    their_model().save_pretrained(tmp_path / "tied")
    their_model(tie_word_embeddings=False).save_pretrained(tmp_path / "untied")
    for name, tied in (("tied", True), ("untied", False)):
        model = part3.gpt.GPT.from_pretrained(tmp_path / name)
        assert (model.lm_head.weight is model.transformer.wte.weight) == tied
        # 37 x 21 and 17 x 21 embeddings, 12 x 21^2 + 13 x 21 in each of two layers, 2 x 21 in the last layer norm.
        assert sum(p.numel() for p in model.parameters()) == 777 + 357 + 2 * 5565 + 42 + (0 if tied else 777)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_number_formats(part3, tmp_path, stored):
    theirs = their_model().to(stored)
    theirs.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        model = part3.gpt.GPT.from_pretrained(tmp_path, dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        attention = theirs.transformer.h[1].attn
        assert torch.equal(model.transformer.wte.weight, theirs.transformer.wte.weight.to(dtype))
        assert torch.equal(model.transformer.h[1].attn.c_attn.weight, attention.c_attn.weight.t().to(dtype))
        assert model(torch.tensor([[3, 5, 7]])).dtype == dtype


# -------------------------------------------------------------------------------------------------------------- saving


def take_steps(model) -> None:
    """Three large steps of training on random tokens."""
    optimizer = model.configure_optimizers(Namespace(learning_rate=0.03, weight_decay=0.1, betas=(0.9, 0.95)))
    for _ in range(3):
        tokens = torch.randint(0, 37, (5, 12))
        logits = model.train()(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_lie_in_memory_as_a_single_vector_is_multiplied_fastest(part3, tmp_path, dtype):
    their_model().save_pretrained(tmp_path)
    model = part3.gpt.GPT.from_pretrained(tmp_path, dtype)
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == 9
    for layer in layers:
        by_columns = dtype == torch.float32
        assert layer.weight.t().is_contiguous() == by_columns and layer.weight.is_contiguous() != by_columns


@pytest.mark.parametrize(
    "changes", [{}, {"tie_weights": True}, {"layer_norm_epsilon": 0.3}, {"resid_pdrop": 0.7, "attn_pdrop": 0.0}]
)
def test_transformers_loads_a_model_that_was_trained_here(part3, tmp_path, changes):
    model = new_gpt(part3, **OURS, **changes)
    take_steps(model)
    model.save_pretrained(tmp_path / "new" / "folder")
    assert model.training, "the mode is left alone"
    theirs, report = GPT2LMHeadModel.from_pretrained(tmp_path / "new" / "folder", output_loading_info=True)
    assert not any(report.values()), report
    tokens = torch.randint(0, 37, (3, 17))
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(tokens).logits, model.eval()(tokens), rtol=0, atol=2e-5)
    tied = theirs.lm_head.weight is theirs.transformer.wte.weight
    assert tied == theirs.config.tie_word_embeddings == changes.get("tie_weights", False)
    assert theirs.config.resid_pdrop == changes.get("resid_pdrop", 0.1)
    assert theirs.config.bos_token_id is None and theirs.config.eos_token_id is None, "none among 37 tokens"


@pytest.mark.parametrize("tied", [True, False])
def test_loading_and_saving_gives_the_same_file(part3, tmp_path, tied):
    their_model(tie_word_embeddings=tied).save_pretrained(tmp_path / "theirs")
    part3.gpt.GPT.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saving_and_loading_gives_the_same_model(part3, tmp_path, dtype):
    model = new_gpt(part3, **OURS, layer_norm_epsilon=0.2)
    take_steps(model)
    model.to(dtype).save_pretrained(tmp_path)
    again = part3.gpt.GPT.from_pretrained(tmp_path, dtype)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    tokens = torch.randint(0, 37, (3, 17))
    assert torch.equal(again(tokens), model.eval()(tokens))


# -------------------------------------------------------------------------------------------------------------- memory

# A process's peak is read from /proc, since the one of getrusage begins with what the process had that started it.
MEASURE = """
import sys

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

sys.path.insert(0, sys.argv[1])
import gpt, pretrained
before = peak()
model = gpt.GPT.from_pretrained(sys.argv[2])
print(peak() - before, sum(p.numel() * 4 for p in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_holds_no_second_model_in_memory(part3, tmp_path):
    """Peak memory at most 1.3 times the weights, in a process of its own."""
    with torch.device("meta"):
        sizes = {"vocab_size": 7919, "n_positions": 131, "n_embd": 512, "n_layer": 6, "n_head": 8}
        theirs = GPT2LMHeadModel(GPT2Config(**sizes))
    theirs.config.save_pretrained(tmp_path)
    tensors = {name: torch.zeros(parameter.shape) for name, parameter in theirs.named_parameters()}
    with_the_shared_head(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", MEASURE, str(part3.folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak, weights = map(int, done.stdout.split())
    assert weights > 90_000_000
    assert weights * 0.9 < peak < weights * 1.3
