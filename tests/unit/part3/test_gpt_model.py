"""The GPT as a model: sizes, configuration, initialisation, and which weights decay."""

import copy
import math
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from gpt_models import small_gpt

SIZES = {
    "openai-gpt": (12, 12, 768), "gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600), "gopher-44m": (8, 16, 512), "gpt-mini": (6, 6, 192), "gpt-micro": (4, 4, 128),
    "gpt-nano": (3, 3, 48),
}  # fmt: skip


def config_of_type(part3, model_type: str, vocab_size: int = 17, block_size: int = 19) -> Namespace:
    config = part3.gpt.GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = model_type, vocab_size, block_size
    return config


def num_parameters(L: int, C: int, V: int, T: int) -> int:
    """Of embeddings, L blocks and the last layer norm, without the last layer: two layer norms of 2 C, attention of
    C to 3 C and C to C, a network of C to 4 C and back, each with biases."""
    block = 2 * 2 * C + (C * 3 * C + 3 * C) + (C * C + C) + (C * 4 * C + 4 * C) + (4 * C * C + C)
    return V * C + T * C + L * block + 2 * C


@pytest.mark.parametrize("model_type", SIZES)
def test_number_of_parameters_of_each_type(part3, model_type):
    layers, heads, channels = SIZES[model_type]
    with torch.device("meta"):
        model = part3.gpt.GPT(config_of_type(part3, model_type))
    assert sum(p.numel() for p in model.transformer.parameters()) == num_parameters(layers, channels, 17, 19)
    assert len(model.transformer.h) == layers
    assert model.transformer.h[0].attn.n_head == heads


def test_gpt2_has_its_published_size(part3):
    """124,439,808: what the paper's smallest model is known to have, with its last layer tied."""
    config = config_of_type(part3, "gpt2")
    config.vocab_size, config.block_size = 50257, 1024
    with torch.device("meta"):
        model = part3.gpt.GPT(config)
    assert sum(p.numel() for p in model.transformer.parameters()) == 124_439_808


def test_default_config(part3):
    config = part3.gpt.GPT.get_default_config()
    names = ("model_type", "n_layer", "n_head", "n_embd", "vocab_size", "block_size")
    assert all(hasattr(config, name) for name in names)
    assert (config.embd_pdrop, config.resid_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.1)


def test_a_type_and_sizes_together_are_refused_and_so_is_neither(part3):
    both = config_of_type(part3, "gpt-nano")
    both.n_layer, both.n_head, both.n_embd = 3, 3, 48
    neither = config_of_type(part3, "gpt-nano")
    neither.model_type = None
    for config in (both, neither):
        with pytest.raises((ValueError, AssertionError)):
            part3.gpt.GPT(config)


def test_an_unknown_type_and_what_is_missing_are_named(part3):
    with pytest.raises(ValueError, match=r"unknown model_type gpt-huge: .*gpt-nano"):
        part3.gpt.GPT(config_of_type(part3, "gpt-huge"))
    with pytest.raises(ValueError, match="the config lacks vocab_size"):
        part3.gpt.GPT(config_of_type(part3, "gpt-nano", vocab_size=None))


def test_setting_up_a_model_prints_nothing_and_leaves_the_config_alone(part3, capsys):
    config = config_of_type(part3, "gpt-nano")
    before = copy.deepcopy(config)
    part3.gpt.GPT(config)
    assert config == before
    assert capsys.readouterr().out == ""


def test_initial_scales(part3):
    """Of gpt-mini, whose matrices have so many entries that a standard deviation is known within one percent."""
    model = part3.gpt.GPT(config_of_type(part3, "gpt-mini", vocab_size=199, block_size=101))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / math.sqrt(2 * 6) if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(parameter.mean().item()) < 0.1 * std, name


def test_an_untrained_model_is_about_as_good_as_guessing(part3):
    model = part3.gpt.GPT(config_of_type(part3, "gpt-nano", vocab_size=101)).eval()
    idx = torch.randint(101, (7, 20))
    loss = F.cross_entropy(model(idx[:, :-1]).flatten(end_dim=1), idx[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(101), abs=0.1)


def test_logits_are_those_of_gpt2(part3):
    """With the parameters of transformers' GPT-2, whose linear layers are stored transposed and whose last one is the
    embedding of the tokens."""
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=13, n_positions=11, n_embd=15, n_layer=2, n_head=3)).eval()
    model = small_gpt(part3)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)  # far away from where it begins, so that it counts
            transposed = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
            module, _, kind = name.rpartition(".")
            getattr(model.get_submodule(module), kind).copy_(parameter.T if transposed else parameter)
        model.lm_head.weight.copy_(theirs.transformer.wte.weight)
        idx = torch.randint(13, (3, 11))
        torch.testing.assert_close(model(idx), theirs(idx).logits, atol=2e-5, rtol=1e-5)


def test_the_activation_by_hand(part3):
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which differs from the exact GELU by up to 5e-4."""
    xs = [-3.0, -1.0, 0.0, 0.5, 2.0]
    expected = [0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in xs]
    x = torch.tensor(xs, dtype=torch.float64)
    found = part3.gpt.NewGELU()(x)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert not torch.allclose(found, F.gelu(x), atol=1e-5)


def test_only_weights_of_linear_layers_decay(part3):
    model = part3.gpt.GPT(config_of_type(part3, "gpt-nano"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = model.configure_optimizers(Namespace(learning_rate=1e-3, weight_decay=0.3, betas=(0.7, 0.8)))
    assert isinstance(optimizer, torch.optim.AdamW)
    decay = {}
    for group in optimizer.param_groups:
        assert group["lr"] == 1e-3 and tuple(group["betas"]) == (0.7, 0.8)
        decay.update({names[id(parameter)]: group["weight_decay"] for parameter in group["params"]})
    assert decay.keys() == set(names.values()), "each parameter is in one group"
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight", "lm_head.weight")
    for name, value in decay.items():
        assert value == (0.3 if name.endswith(linear) else 0.0), name


def test_a_shared_last_layer_does_not_decay_and_stays_shared(part3):
    config = config_of_type(part3, "gpt-nano")
    config.tie_weights = True
    model = part3.gpt.GPT(config)
    assert model.lm_head.weight is model.transformer.wte.weight
    optimizer = model.configure_optimizers(Namespace(learning_rate=1e-3, weight_decay=0.3, betas=(0.7, 0.8)))
    decaying = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert id(model.lm_head.weight) not in decaying


def test_a_step_of_the_optimizer_is_adamw_as_published(part3):
    """One step, from the algorithm of Loshchilov and Hutter: the first moments are unbiased to g and g^2, so that a
    weight goes by lr (sign(g) + decay w), but for epsilon."""
    model = part3.gpt.GPT(config_of_type(part3, "gpt-nano")).double()
    optimizer = model.configure_optimizers(Namespace(learning_rate=1e-2, weight_decay=0.5, betas=(0.9, 0.95)))
    before = copy.deepcopy(dict(model.named_parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0).double()
    optimizer.step()
    for name in ("lm_head.weight", "transformer.wte.weight", "transformer.ln_f.weight"):
        after, w = dict(model.named_parameters())[name], before[name]
        decay = 0.5 if name == "lm_head.weight" else 0.0
        torch.testing.assert_close(after, w - 1e-2 * (after.grad + decay * w), rtol=0, atol=1e-8)


def test_more_tokens_than_positions_are_refused(part3):
    with pytest.raises(ValueError, match="12 tokens are more than the model's block_size of 11"):
        small_gpt(part3)(torch.zeros(1, 12, dtype=torch.long))
