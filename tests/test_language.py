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


def test_weights_are_those_that_the_model_uses(language, part3):
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


def test_the_model_is_left_as_it_was(language, part3):
    model = small_gpt(part3)
    language.attention_weights(model, torch.randint(0, 13, (1, 7)))
    assert not any(block.attn._forward_hooks for block in model.transformer.h)


def test_distances_by_hand(language):
    own, previous, first = torch.eye(4), torch.zeros(4, 4), torch.zeros(4, 4)
    previous[0, 0] = previous[1, 0] = previous[2, 1] = previous[3, 2] = 1
    first[:, 0] = 1
    even = torch.ones(4, 4).tril() / torch.arange(1.0, 5.0)[:, None]
    weights = torch.stack([own, previous, first, even])
    # Query t looks back t / 2 on average where all weights are equal: (0 + 1/2 + 1 + 3/2) / 4.
    assert language.mean_distance(weights).tolist() == pytest.approx([0, 3 / 4, 6 / 4, 3 / 4])


def test_the_layer_whose_heads_differ_most_is_shown(language):
    distances = torch.tensor([[5.0, 5.0, 5.5, 5.0, 5.0], [3.0, 1.0, 4.0, 0.5, 2.0], [9.0, 8.0, 7.0, 9.0, 8.0]])
    assert language.heads_to_show(distances) == (1, [3, 4, 2])
    assert language.heads_to_show(torch.tensor([[2.0, 1.0]])) == (0, [1, 0])
    assert language.heads_to_show(torch.tensor([[2.0]])) == (0, [0])


@pytest.fixture(scope="module")
def run(_parts, tmp_path_factory):
    """A GPT of characters after seven steps."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "sums.txt").write_text(TEXT)
    with _parts["part3"].imported() as part3:
        part3.train.train(
            Namespace(
                model_type="gpt-nano", block_size=13, train_batch_size=5, max_steps=7, val_every_n_steps=3,
                generate_every_n_steps=7, generate_batch_size=1, seed=3, txt_file=str(folder / "sums.txt"),
                log_dir=str(folder),
            )
        )  # fmt: skip
    return folder / "lightning_logs" / "version_0"


def test_the_command_writes_into_the_run_directory(language, part3, run, capsys):
    argv = ["--checkpoint", str(run), "--prompt", "3 and 4", "--n_steps", "29", "--seed", "5"]
    assert language.main(argv) == 0
    assert capsys.readouterr().out == f"{run / 'language.json'}\n"
    result = json.loads((run / "language.json").read_text())
    model, vocabulary, checkpoint = part3.run_folder.load_gpt(run / "checkpoints" / "best.ckpt")
    assert (result["prompt"], result["seed"], result["step"]) == ("3 and 4", 5, checkpoint["global_step"])

    shown, prompt = result["attention"], torch.tensor([vocabulary.encode("3 and 4")])
    weights = language.attention_weights(model, prompt)
    assert shown["characters"] == list("3 and 4") and len(shown["heads"]) == 3
    for head in shown["heads"]:
        found = torch.tensor(head["weights"])
        torch.testing.assert_close(found, weights[shown["layer"], head["head"]], rtol=0, atol=1e-4)
    distances = [shown["mean_distance"][shown["layer"]][head["head"]] for head in shown["heads"]]
    assert distances == sorted(distances)

    texts = result["continuations"]
    greedy = vocabulary.decode(model.generate(prompt, 29)[0].tolist())
    assert texts["greedy"] == greedy and texts["n_steps"] == 29
    assert [sampled["temperature"] for sampled in texts["sampled"]] == [0.5, 0.8, 1.0, 1.5]
    for sampled in texts["sampled"]:
        tokens = model.generate(prompt, 29, sampled["temperature"], do_sample=True,
                                generator=torch.Generator().manual_seed(5))  # fmt: skip
        assert sampled["text"] == vocabulary.decode(tokens[0].tolist())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompt", "3 + 4"], "the model does not know the character '+'"),
        (["--prompt", "3"], "--prompt must have 2 to 13 characters, not 1"),
        (["--prompt", "3 and 4 are 7."], "--prompt must have 2 to 13 characters, not 14"),
        (["--prompt", "3 a", "--n_steps", "0"], "--n_steps must be a whole number of at least 1, not 0"),
        (["--prompt", "3 a", "--output_dir", "/proc/nowhere"], "cannot write into /proc/nowhere"),
        (["--checkpoint", "nowhere"], "nowhere is no run with a checkpoint"),
    ],
)
def test_what_cannot_be_used(language, run, capsys, argv, message):
    assert language.main(["--checkpoint", str(run), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("language.py: error: ") and message in error and error.count("\n") == 1
