"""The student's own GPT: a step, and generation with its own attention.

Fails only where the criteria of attention and of generate find nothing.
"""

import torch
import torch.nn.functional as F

from course.criterion import criterion, expect
from course.gpt_probes import LENGTH, call_generate, config
from course.whole import blamed, single_functions

SEQUENCES, VOCAB = 3, 64


@criterion("3.3")
def gpt_works_as_a_whole(part):
    """The student's GPT with its own attention learns from a batch, and continues a text."""
    others = single_functions("part3")
    tokens = torch.randint(VOCAB, (SEQUENCES, LENGTH))
    with blamed(part, others, "a step of the student's own GPT"):
        model = part.gpt.GPT(config(part, n_layer=2))
        result = model(tokens)
        logits = result[0] if isinstance(result, (tuple, list)) else result
        expect(logits.shape == (SEQUENCES, LENGTH, VOCAB), "GPT.forward gives no logits for each position",
               expected=[SEQUENCES, LENGTH, VOCAB], got=logits.shape)  # fmt: skip
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    for draw in (False, True):
        with blamed(part, others, f"generate of the student's own GPT with do_sample={draw}"):
            out = call_generate(model.eval(), tokens, LENGTH, do_sample=draw)
            expect(out.shape[0] == SEQUENCES and out.shape[1] > LENGTH, "generate adds no tokens to a text of "
                   "block_size tokens", expected=[SEQUENCES, 2 * LENGTH], got=out.shape)  # fmt: skip
