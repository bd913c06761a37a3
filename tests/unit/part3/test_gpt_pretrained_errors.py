"""Weights in transformers' format that cannot be read: one sentence for each reason."""

import json
from pathlib import Path

import pytest
import torch

from gpt_models import change_config, change_weights, their_model

# -------------------------------------------------------------------------------------------------------------- errors


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of a tiny model, which may be damaged."""
    their_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def fails(part3):
    """Loads a model and returns the error's one line."""

    def load(place) -> str:
        with pytest.raises(part3.run.InputError) as caught:
            part3.gpt.GPT.from_pretrained(place)
        message = str(caught.value)
        assert "\n" not in message and ": " in message, message
        return message

    return load


@pytest.mark.parametrize(
    "name",
    ["transformer.h.1.mlp.c_fc.bias", "transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.bias"],
)
def test_a_missing_tensor_is_named(fails, folder, name):
    change_weights(folder, lambda tensors: tensors.pop(name))
    message = fails(folder)
    assert name in message and str(folder / "model.safetensors") in message and "do not belong together" in message


def test_a_missing_layer_is_not_a_page_of_names(fails, folder):
    change_config(folder, n_layer=5)
    message = fails(folder)
    assert "36 weights" in message and "transformer.h.2.attn.c_attn.bias" in message


def test_a_missing_head_of_an_untied_model_is_named(fails, folder):
    change_config(folder, tie_word_embeddings=False)
    assert "lm_head.weight" in fails(folder)


@pytest.mark.parametrize(
    "name",
    ["transformer.h.2.ln_1.weight", "score.weight", "transformer.h.0.attn.c_attn.lora", "h.1.attn.masked_bias_2"],
)
def test_an_unknown_tensor_is_named(fails, folder, name):
    change_weights(folder, lambda tensors: tensors.update({name: torch.zeros(3)}))
    assert name in fails(folder)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transformer.wpe.weight", (19, 21)),
        ("transformer.wte.weight", (41, 21)),
        ("transformer.h.1.attn.c_attn.weight", (63, 21)),  # in the order of nn.Linear
        ("transformer.h.0.ln_2.bias", (1, 21)),
    ],
)
def test_a_misshapen_tensor_is_named_with_both_shapes(fails, folder, name, shape):
    (expected,) = [list(p.shape) for n, p in their_model().named_parameters() if n == name]
    change_weights(folder, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    message = fails(folder)
    if name.endswith("c_attn.weight"):  # both are turned as in the model
        shape, expected = shape[::-1], expected[::-1]
    assert all(part in message for part in (name, str(list(shape)), str(expected)))


def test_a_head_that_differs_from_the_embedding_it_is_tied_to(fails, folder):
    change_weights(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(37, 21)}))
    message = fails(folder)
    assert "lm_head.weight differs" in message and "tie_word_embeddings" in message


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_truncated_weights_file(fails, folder, size):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert f"{file} is truncated or no safetensors file" in fails(folder)


@pytest.mark.parametrize(
    "content", [b"", b'{"model_type": "gpt2", "n_lay', b"[3, 5]", b'"gpt2"', b"{}", b"null", b"\xff\xfe\x00"]
)
def test_a_damaged_config(fails, folder, content):
    (folder / "config.json").write_bytes(content)
    assert f"{folder / 'config.json'} is damaged" in fails(folder)


@pytest.mark.parametrize("name", ["n_layer", "n_head", "n_embd", "vocab_size", "n_positions"])
def test_a_config_without_a_size(fails, folder, name):
    content = json.loads((folder / "config.json").read_text())
    del content[name]
    (folder / "config.json").write_text(json.dumps(content))
    assert f"{folder / 'config.json'}: {name} must be a whole number" in fails(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layer", 0), ("n_layer", "two"), ("n_head", None), ("n_embd", -21), ("vocab_size", 37.5),
        ("n_positions", True), ("attn_pdrop", "a tenth"), ("resid_pdrop", 1.5), ("layer_norm_epsilon", "1e-5"),
    ],
)  # fmt: skip
def test_a_config_with_a_value_that_makes_no_sense(fails, folder, name, value):
    change_config(folder, **{name: value})
    message = fails(folder)
    assert str(folder / "config.json") in message and name in message and repr(value) in message


def test_heads_that_do_not_divide_the_channels(fails, folder):
    change_config(folder, n_head=5)
    message = fails(folder)
    assert str(folder / "config.json") in message and "n_embd 21" in message and "n_head 5" in message


@pytest.mark.parametrize("model_type", ["llama", "gpt_neo", "bert"])
def test_another_type_of_model(fails, folder, model_type):
    change_config(folder, model_type=model_type)
    assert f"of a model of type {model_type}, not gpt2" in fails(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation_function", "relu"),
        ("activation_function", "gelu"),
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
        ("n_inner", 53),
    ],
)
def test_a_variant_that_this_model_cannot_be(fails, folder, name, value):
    change_config(folder, **{name: value})
    assert f"asks for {name} {value}" in fails(folder)


def test_no_such_place(fails, tmp_path):
    for place in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "gpt3"):
        message = fails(place)
        assert f"{place} is neither a folder" in message and "gpt2, gpt2-medium, gpt2-large, gpt2-xl" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file(fails, folder, name):
    (folder / name).rename(folder / "pytorch_model.bin")
    assert f"{folder} has no {name}" in fails(folder)


def test_a_folder_named_like_a_model_does_not_shadow_it(part3, tmp_path, monkeypatch):
    their_model().save_pretrained(tmp_path / "gpt2")
    published = their_model()
    published.save_pretrained(tmp_path / "hub")
    asked = []

    def from_the_hub(repository, filename):
        asked.append((repository, filename))
        return str(tmp_path / "hub" / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", from_the_hub)
    monkeypatch.chdir(tmp_path)

    def is_published(place):
        model = part3.gpt.GPT.from_pretrained(place)
        return torch.equal(model.transformer.wte.weight, published.transformer.wte.weight)

    assert not is_published("./gpt2")
    assert not is_published(Path("gpt2"))
    assert asked == []
    assert is_published("gpt2")
    assert asked == [("openai-community/gpt2", "config.json"), ("openai-community/gpt2", "model.safetensors")]
