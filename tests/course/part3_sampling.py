"""Which token GPT.generate chooses: greedy or drawn, temperature, top_k, top_p.

Accepted: anything that draws from the right distribution. Ties do not occur here. With top_p, the token that crosses p
may be kept, as Holtzman et al. do, or not.
"""

import inspect

import torch

from course.criterion import Failure, Unjudged, criterion, expect, is_gap
from course.gpt_probes import VOCAB, Markov, attempt, far, in_words, is_exchanged, shares
from course.part3_forbidden import refuse_gap

LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.1, 1.2, -0.6, 0.8, -2.0, 1.6, 0.0, -0.3])
FLAT = 0.15 * torch.tensor([3.0, 8, 1, 10, 5, 0, 7, 2, 9, 4, 6])  # all tokens likely, so that each kept one is seen


def _draws(part) -> bool:
    """Whether tokens are drawn from the softmax, which has a criterion of its own. Raises Unjudged where drawing breaks
    off."""
    try:
        return not far(shares(part, FLAT), FLAT.softmax(dim=-1))
    except Exception as error:
        if is_gap(error):
            raise
        raise Unjudged("drawing breaks off") from error


@criterion("3.3")
def do_sample_chooses_the_strategy(part):
    """do_sample True draws, False takes the most probable token."""
    for draw in (True, False):
        try:
            Markov(part, LOGITS)(torch.zeros(3, 1, dtype=torch.long), 1, do_sample=draw)
        except Exception as error:
            if is_gap(error):
                raise
            raise Unjudged("one of the two strategies breaks off") from error
    expect(
        not is_exchanged(part),
        "argmax and multinomial are exchanged: do_sample=True must draw, False take the most probable token",
    )


@criterion("3.3")
def greedy_takes_the_most_probable_token(part):
    """Without do_sample, the most probable token is taken."""
    got = shares(part, LOGITS, draw=False, rows=200)
    expect(
        got[2] == 1,
        "greedy generation must always take the token with the highest logit",
        expected="2: 100%",
        got=in_words(got),
    )


@criterion("3.3")
def sampling_draws_from_the_softmax(part):
    """With do_sample, tokens are drawn from the softmax of the logits."""
    got, right = shares(part, LOGITS), LOGITS.softmax(dim=-1)
    hint = "tokens are not drawn from the softmax of the logits: use torch.multinomial"
    if (got > 0).sum() == 1:
        hint = "do_sample=True always gives the same token: draw with torch.multinomial"
    expect(not far(got, right), hint, expected=in_words(right), got=in_words(got))


@criterion("3.3")
def temperature_divides_the_logits(part):
    """The logits are divided by the temperature before the softmax."""
    if not _draws(part) or far(shares(part, LOGITS), LOGITS.softmax(dim=-1)):
        return  # nothing is drawn, or from something else, which has a criterion of its own
    for temperature in (2.5, 0.4):
        got = shares(part, LOGITS, temperature=temperature)
        right = (LOGITS / temperature).softmax(dim=-1)
        hint = "the logits must be divided by the temperature before the softmax"
        if not far(got, LOGITS.softmax(dim=-1)):
            hint = "the temperature has no effect: divide the logits by it, before the softmax"
        elif not far(got, (LOGITS * temperature).softmax(dim=-1)):
            hint = "the logits are multiplied by the temperature: divide them"
        expect(
            not far(got, right), hint, given=f"temperature {temperature}", expected=in_words(right), got=in_words(got)
        )


@criterion("3.3")
def top_k_keeps_k_tokens(part):
    """top_k leaves the k most probable tokens."""
    if not _draws(part):
        return
    for k in (3, 6):
        got = attempt(lambda k=k: shares(part, FLAT, top_k=k), "generate fails with top_k", given=f"top_k {k}")
        best = set(FLAT.topk(k).indices.tolist())
        kept = {token for token in range(VOCAB) if got[token] > 0}
        hint = "top_k does not leave the k most probable tokens"
        if len(kept) == VOCAB:
            hint = "top_k has no effect: set all other logits to minus infinity before the softmax"
        elif abs(len(kept) - k) == 1:
            hint = "top_k keeps one token too many or too few"
        expect(kept == best, hint, given=f"top_k {k}", expected=f"tokens {sorted(best)}", got=f"tokens {sorted(kept)}")


def _kept(part, table: torch.Tensor, first: list[int], **filters: float) -> list[set[int]]:
    """Tokens that are drawn after each of two tokens, with top_k or top_p, in a batch of these tokens."""
    idx = torch.tensor(first).repeat(800)[:, None]
    out = Markov(part, table)(idx, 1, do_sample=not is_exchanged(part), **filters)[:, -1]
    return [set(out[idx[:, 0] == token].tolist()) for token in (0, 1)]


@criterion("3.3")
def top_k_is_each_sequence_s_own(part):
    """Each sequence of a batch has its own k most probable tokens."""
    if not _draws(part):
        return
    table = FLAT.repeat(VOCAB, 1)
    table[1] = FLAT.flip(0) + 3
    hint = "top_k takes one threshold for the whole batch: each sequence has its own"
    for order in ([0, 1], [1, 0]):
        try:
            apart = [_kept(part, table, [token], top_k=3)[token] for token in (0, 1)]
        except Exception as error:
            raise Unjudged("generate fails with top_k") from error
        if any(len(kept) != 3 for kept in apart):
            return  # top_k is wrong for equal sequences already, which has its own criterion
        together = attempt(lambda order=order: _kept(part, table, order, top_k=3), hint)
        expect(
            together == apart,
            hint,
            given="two kinds of sequences, top_k 3",
            expected=f"tokens {sorted(apart[0])} and {sorted(apart[1])}",
            got=f"tokens {sorted(together[0])} and {sorted(together[1])}",
        )


@criterion("3.3")
def top_p_keeps_the_most_probable_tokens(part):
    """top_p leaves the most probable tokens that make up p. Passed in editions without it."""
    refuse_gap(part)
    if "top_p" not in inspect.signature(part.gpt.GPT.generate).parameters or not _draws(part):
        return
    probs = torch.tensor([0.03, 0.15, 0.02, 0.3, 0.01, 0.4, 0.02, 0.03, 0.02, 0.01, 0.01])
    got = attempt(lambda: shares(part, probs.log(), top_p=0.6), "generate fails with top_p", given="top_p 0.6")
    kept = {token for token in range(VOCAB) if got[token] > 0}
    hint = "top_p must keep the most probable tokens, until their probabilities sum up to p"
    if len(kept) == VOCAB:
        hint = "top_p has no effect"
    elif 5 not in kept:
        hint = "top_p removes the most probable tokens: it is inverted, or its mask is left in the order of the sort"
    expect(
        5 in kept and kept <= {5, 3},
        hint,
        given="top_p 0.6; token 5 has 40 %, token 3 30 %, all others together 30 %",
        expected="tokens 3 and 5",
        got=f"tokens {sorted(kept)}",
    )
    # After 0 come tokens 5 and 3, after 1 come 6 and 4; after any of these the same two again, so that a token too
    # many, which has its own criterion, changes nothing.
    table = probs.log().repeat(VOCAB, 1)
    table[[1, 4, 6]] = probs.log().roll(1)
    after = attempt(lambda: _kept(part, table, [0, 1], top_p=0.6), "generate fails with top_p")
    if after[0] <= {5, 3} and after[1] <= {6, 4}:
        return
    try:
        top_k_is_each_sequence_s_own(part)
    except Failure:
        return  # the two may share the code that mixes up the sequences
    hint = "top_p takes the tokens of one sequence for the whole batch: each has its own"
    got = f"tokens {sorted(after[0])}, tokens {sorted(after[1])}"
    given = "two kinds of sequences, top_p 0.6"
    raise Failure(hint, given=given, expected="tokens 3 and 5, tokens 4 and 6", got=got)
