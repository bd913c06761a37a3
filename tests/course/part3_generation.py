"""GPT.generate: which logits it reads, and what it returns. The model's logits are set by hand."""

from unittest.mock import patch

import torch

from course.criterion import criterion, expect
from course.gpt_probes import BLOCK, VOCAB, Markov, NoAttention, attempt, call_generate, config
from course.pretended_gpu import on_gpu, stays_on_gpu

ALWAYS = 7  # the token that follows in the criteria on lengths
PEAK = 60.0  # logits that leave no chance to another token


def _always() -> torch.Tensor:
    table = torch.zeros(VOCAB)
    table[ALWAYS] = PEAK
    return table


def _surely(part) -> dict:
    """Arguments with which the most probable token is taken: where greedy generation is wrong or breaks off, which has
    a criterion of its own, drawing does it too."""
    errors = []
    for draw in (False, True):
        try:
            if ALWAYS in Markov(part, _always())(torch.tensor([[1]]), 1, do_sample=draw)[0].tolist():
                return {"do_sample": draw}
        except Exception as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]  # neither way gets to its end: nothing can be judged
    return {}


def _is_sure(part) -> bool:
    """Whether a token without alternatives is taken at all; where it is not, criteria on the choice of tokens tell."""
    return bool(_surely(part))


def _next(token: int) -> int:
    return (3 * token + 5) % VOCAB


def _successors() -> torch.Tensor:
    table = torch.zeros(VOCAB, VOCAB)
    for token in range(VOCAB):
        table[token, _next(token)] = PEAK
    return table


@criterion("3.3")
def generate_returns_the_prompt(part):
    """What is returned begins with the prompt, once."""
    if not _is_sure(part):
        return
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6], [6, 5, 4]])
    out = Markov(part, _always())(prompt, 2, **_surely(part))
    rows = [[token for token in row if token != ALWAYS] for row in out.tolist()]
    expect(
        rows == prompt.tolist(),
        "the prompt must be returned before the new tokens, once",
        given="prompts [1, 2, 3], [4, 5, 6] and [6, 5, 4], two new tokens 7",
        expected="[1, 2, 3, 7, 7], [4, 5, 6, 7, 7] and [6, 5, 4, 7, 7]",
        got=str(out.tolist()),
    )
    tail = [row[len(row) - row.count(ALWAYS) :] for row in out.tolist()]
    expect(all(set(row) == {ALWAYS} for row in tail), "new tokens must come after the prompt", got=str(out.tolist()))
    long = torch.tensor([[1, 2, 3, 4, 5, 6]])
    try:
        out = Markov(part, _always())(long, 1, **_surely(part))
    except Exception:
        return  # which generate_crops_the_context tells
    expect(
        out.tolist()[0][: long.size(1)] == long.tolist()[0],
        "the new token must be appended to the whole text, not to the context that is cropped for the model",
        given=f"a prompt of 6 tokens, block_size {BLOCK}",
        expected="[1, 2, 3, 4, 5, 6, 7]",
        got=str(out.tolist()[0]),
    )


@criterion("3.3")
def generate_adds_as_many_tokens_as_asked(part):
    """max_new_tokens tokens are added."""
    if not _is_sure(part):
        return
    for count in (1, 3):
        out = Markov(part, _always())(torch.tensor([[1], [4], [2]]), count, **_surely(part))
        new = [row.count(ALWAYS) for row in out.tolist()]
        expect(
            new == [count] * 3,
            "generate adds another number of tokens than max_new_tokens",
            given=f"max_new_tokens {count}",
            expected=count,
            got=new[0],
        )


@criterion("3.3")
def generate_reads_the_last_position(part):
    """The next token comes from the logits of the last position."""
    if not _is_sure(part):
        return
    prompt = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]])
    out = Markov(part, _successors())(prompt, 1, **_surely(part))
    ok = all(_next(row[2].item()) in new for row, new in zip(prompt, out.tolist(), strict=True))
    places = (
        "first"
        if all(_next(row[0].item()) in new for row, new in zip(prompt, out.tolist(), strict=True))
        else "second last"
    )
    expect(
        ok,
        f"the next token comes from the logits of another position (the {places}?): take logits[:, -1, :]",
        given="prompts of three tokens",
        expected=[_next(2), _next(1), _next(0)],
        got=out[:, -1].tolist(),
    )


@criterion("3.3")
def generate_crops_the_context(part):
    """The model is asked about the last block_size tokens."""
    prompt = torch.tensor([[0, 1, 2, 3, 4, 5, 6]])
    surely = _surely(part)
    short = Markov(part, _successors())
    short(prompt[:, :3], 1, **surely)  # where that fails, length is not what matters
    model = Markov(part, _successors())
    attempt(
        lambda: model(prompt, 2, **surely),
        "generate fails for prompts longer than block_size: crop the context to the last block_size tokens",
        given=f"7 tokens, block_size {BLOCK}",
    )
    expect(
        model.contexts and model.contexts[0].tolist() == prompt[:, -BLOCK:].tolist(),
        "the context must be the last block_size tokens",
        given=f"tokens 0 to 6, block_size {BLOCK}",
        expected=str(prompt[0, -BLOCK:].tolist()),
        got=str(model.contexts[0][0].tolist()) if model.contexts else None,
    )
    expect(
        short.contexts[0].tolist() == prompt[:, :3].tolist(),
        "the model must be asked about the whole prompt",
        expected="[0, 1, 2]",
        got=str(short.contexts[0][0].tolist()),
    )


@criterion("3.3")
def generate_on_the_device_of_the_prompt(part):
    """Generation makes its tensors on the model's device."""
    hint = "generate makes a tensor on the CPU, whatever the model's device"
    with stays_on_gpu(hint), patch.object(part.gpt, "CausalSelfAttention", NoAttention, create=True):
        model = on_gpu(part.gpt.GPT(config(part, device="cuda")).eval())
        for draw, top_k in ((True, 3), (False, None)):
            call_generate(model, on_gpu(torch.zeros(3, 2, dtype=torch.long)), 1, do_sample=draw, top_k=top_k)
