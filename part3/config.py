"""The sizes of a GPT."""

import argparse
import copy

# Layers, heads and channels of each model type.
SIZES = {
    "openai-gpt": (12, 12, 768),
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
    "gopher-44m": (8, 16, 512),
    "gpt-mini": (6, 6, 192),
    "gpt-micro": (4, 4, 128),
    "gpt-nano": (3, 3, 48),
}


def with_sizes(config: argparse.Namespace) -> argparse.Namespace:
    """A copy of a config with `n_layer`, `n_head` and `n_embd` filled in from its model type.

    Raises:
        ValueError: the config contradicts itself or lacks something.
    """
    config = copy.deepcopy(config)
    sizes = [getattr(config, name, None) for name in ("n_layer", "n_head", "n_embd")]
    model_type = getattr(config, "model_type", None)
    if model_type is not None and any(size is not None for size in sizes):
        raise ValueError("give either model_type or n_layer, n_head and n_embd, not both")
    if model_type is not None:
        if model_type not in SIZES:
            raise ValueError(f"unknown model_type {model_type}: choose one of {', '.join(SIZES)}")
        config.n_layer, config.n_head, config.n_embd = SIZES[model_type]
    elif None in sizes:
        raise ValueError("give model_type, or all of n_layer, n_head and n_embd")
    for name in ("vocab_size", "block_size"):
        if getattr(config, name, None) is None:
            raise ValueError(f"the config lacks {name}")
    return config
