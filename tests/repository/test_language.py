"""`report/language.py`: attention weights and continuations of a GPT, against what the model itself computes."""

import json
from argparse import Namespace

import pytest
import torch

from gpt_models import small_gpt
from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")

TEXT = "".join(f"{a} and {b} are {a + b}.\n" for a in range(12) for b in range(12))


@pytest.fixture
def language(part3, repository):
    return load_script(repository / "report" / "language.py")


def test_weights_are_those_of_the_model(language, part3):
    """With them, the layer's output is theirs times the values; the rows sum to one and see nothing to come."""
    model = small_gpt(part3)
    idx = torch.randint(0, 13, (1, 7))
    weights = language.attention_weights(model, idx)
    assert weights.shape == (2, 3, 7, 7)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 7))
    assert (weights.triu(diagonal=1) == 0).all()

    seen = {}
    attention = model.transformer.h[1].attn
    hook = attention.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0], y=output))
    with torch.no_grad():
        model(idx)
        hook.remove()
        values = attention.c_attn(seen["x"])[..., 30:].view(7, 3, 5).transpose(0, 1)  # (nh, T, hs)
        heads = (weights[1] @ values).transpose(0, 1).reshape(1, 7, 15)
        torch.testing.assert_close(attention.c_proj(heads), seen["y"])
    assert not any(block.attn._forward_hooks for block in model.transformer.h)


def test_distances_by_hand(language):
    own, previous, first = torch.eye(4), torch.zeros(4, 4), torch.zeros(4, 4)
    previous[0, 0] = previous[1, 0] = previous[2, 1] = previous[3, 2] = 1
    first[:, 0] = 1
    even = torch.ones(4, 4).tril() / torch.arange(1.0, 5.0)[:, None]
    weights = torch.stack([own, previous, first, even])
    # Query t looks back t / 2 on average where all weights are equal: (0 + 1/2 + 1 + 3/2) / 4.
    assert language.mean_distance(weights).tolist() == pytest.approx([0, 3 / 4, 6 / 4, 3 / 4])


def test_the_command(language, part3, tmp_path):
    """For a GPT of characters after seven steps."""
    (tmp_path / "sums.txt").write_text(TEXT)
    part3.train.train(
        Namespace(
            model_type="gpt-nano", block_size=13, train_batch_size=5, max_steps=7, val_every_n_steps=3, seed=3,
            generate_every_n_steps=7, generate_batch_size=1, txt_file=str(tmp_path / "sums.txt"), log_dir=str(tmp_path),
        )
    )  # fmt: skip
    run = tmp_path / "lightning_logs" / "version_0"
    flags = {"checkpoint": str(run), "prompt": "3 and 4", "n_steps": 29, "seed": 5}
    language.compute(Namespace(**flags))
    result = json.loads((run / "language.json").read_text())
    assert (result["prompt"], result["seed"]) == ("3 and 4", 5)
    shown = result["attention"]
    assert shown["characters"] == list("3 and 4") and len(shown["heads"]) == 3
    distances = [shown["mean_distance"][shown["layer"]][head["head"]] for head in shown["heads"]]
    assert distances == sorted(distances)
    texts = result["continuations"]
    assert texts["n_steps"] == 29 and [text["temperature"] for text in texts["sampled"]] == [0.5, 0.8, 1.0, 1.5]
    for text in (texts["greedy"], *(sampled["text"] for sampled in texts["sampled"])):
        assert len(text) == 7 + 29 and text.startswith("3 and 4")
    for bad in ({"prompt": "3 + 4"}, {"prompt": "3"}, {"prompt": "3 and 4 are 7."}, {"checkpoint": "nowhere"}):
        with pytest.raises(part3.run.InputError):
            language.compute(Namespace(**{**flags, **bad}))
