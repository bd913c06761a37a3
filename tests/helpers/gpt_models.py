"""What the tests of part 3 share: small models, and a tiny tokenizer."""

import json
from argparse import Namespace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers.implementations import ByteLevelBPETokenizer

END_OF_TEXT = "<|endoftext|>"
THEIRS = {"vocab_size": 37, "n_positions": 17, "n_embd": 21, "n_layer": 2, "n_head": 3}


def attention_config(**changes) -> Namespace:
    """What a `CausalSelfAttention` needs: 3 heads of 5 channels, 11 positions, no dropout."""
    return Namespace(**{"n_embd": 15, "n_head": 3, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "block_size": 11, **changes})


def small_gpt(part3, **changes):
    """A GPT with 2 layers, 3 heads of 5 channels, 13 tokens and 11 positions, in evaluation mode; its weights are large
    enough for the logits to differ clearly, and to depend on all that the model sees."""
    model = new_gpt(part3, **{"n_layer": 2, "n_head": 3, "n_embd": 15, "vocab_size": 13, "block_size": 11, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def chain_model(part3, tokens: list[int], vocab_size: int, block_size: int = 13):
    """A GPT whose most probable token after `tokens[i]` is `tokens[i + 1]`, and the first after the last, by a wide
    margin. Its blocks add nothing; a token's embedding has its own dimension."""
    assert len(set(tokens)) == len(tokens)
    model = new_gpt(part3, n_layer=1, n_head=1, n_embd=vocab_size, vocab_size=vocab_size, block_size=block_size)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
                parameter.zero_()
        model.transformer.wte.weight.copy_(torch.eye(vocab_size))
        for token, following in zip(tokens, tokens[1:] + tokens[:1], strict=True):
            model.lm_head.weight[following, token] = 100.0
    return model.eval()


def new_gpt(part3, **settings):
    """A GPT as it is before training, with the default configuration but for the settings."""
    config = part3.gpt.GPT.get_default_config()
    config.model_type = None  # which, in a solution, may be a type, that the sizes below would contradict
    for name, value in settings.items():
        setattr(config, name, value)
    return part3.gpt.GPT(config)


def byte_pairs(vocab_size: int = 283) -> str:
    """Content of a `tokenizer.json` like GPT-2's: 256 bytes, END_OF_TEXT, and as many pairs as there is room for, of
    which none is of bytes beyond ASCII."""
    tokenizer = ByteLevelBPETokenizer()
    texts = ["the cat sat on the mat and that was that", "a dog and a cat met on the mat at ten"]
    tokenizer.train_from_iterator(
        texts, vocab_size=vocab_size, min_frequency=1, special_tokens=[END_OF_TEXT], show_progress=False
    )
    assert tokenizer.get_vocab_size() == vocab_size
    return tokenizer.to_str()


def their_model(**changes):
    """A tiny GPT-2 of transformers. Each parameter is moved far away from where it begins, so that each counts."""
    from transformers import GPT2Config, GPT2LMHeadModel  # here, since most tests don't need it

    model = GPT2LMHeadModel(GPT2Config(**THEIRS, bos_token_id=None, eos_token_id=None, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def change_weights(folder: Path, change) -> None:
    """Rewrite `model.safetensors` after `change(tensors)`."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))
