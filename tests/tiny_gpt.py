"""What the tests of part 3's files share: a tiny tokenizer, and tiny models."""

import torch
from tokenizers.implementations import ByteLevelBPETokenizer

END_OF_TEXT = "<|endoftext|>"


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


def new_model(part3, vocab_size: int, block_size: int = 13, **changes):
    """A GPT with random weights, whose predictions depend on all that it sees; in evaluation mode."""
    config = part3.gpt.GPT.get_default_config()
    sizes = {"n_layer": 2, "n_head": 3, "n_embd": 21, "vocab_size": vocab_size, "block_size": block_size}
    for name, value in {**sizes, **changes}.items():
        setattr(config, name, value)
    model = part3.gpt.GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def chain_model(part3, tokens: list[int], vocab_size: int, block_size: int = 13):
    """A GPT whose most probable token after `tokens[i]` is `tokens[i + 1]`, and the first after the last, by a wide
    margin. Its blocks add nothing; a token's embedding has its own dimension."""
    assert len(set(tokens)) == len(tokens)
    config = part3.gpt.GPT.get_default_config()
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": vocab_size, "vocab_size": vocab_size, "block_size": block_size}
    for name, value in sizes.items():
        setattr(config, name, value)
    model = part3.gpt.GPT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
                parameter.zero_()
        model.transformer.wte.weight.copy_(torch.eye(vocab_size))
        for token, following in zip(tokens, tokens[1:] + tokens[:1], strict=True):
            model.lm_head.weight[following, token] = 100.0
    return model.eval()
