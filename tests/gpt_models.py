"""Small GPTs for tests."""

from argparse import Namespace

import torch


def attention_config(**changes) -> Namespace:
    """What a `CausalSelfAttention` needs: 3 heads of 5 channels, 11 positions, no dropout."""
    return Namespace(**{"n_embd": 15, "n_head": 3, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "block_size": 11, **changes})


def small_gpt(part3, **changes):
    """A GPT with 2 layers, 3 heads of 5 channels, 13 tokens and 11 positions, in evaluation mode; its weights are large
    enough for the logits to differ clearly."""
    config = part3.gpt.GPT.get_default_config()
    sizes = {"model_type": None, "n_layer": 2, "n_head": 3, "n_embd": 15, "vocab_size": 13, "block_size": 11}
    for name, value in {**sizes, **changes}.items():
        setattr(config, name, value)
    model = part3.gpt.GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model
