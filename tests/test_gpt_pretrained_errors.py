"""Weights in transformers' format that cannot be read: one sentence for each reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

OURS = {"vocab_size": 37, "block_size": 17, "n_embd": 21, "n_layer": 2, "n_head": 3}
THEIRS = {"vocab_size": 37, "n_positions": 17, "n_embd": 21, "n_layer": 2, "n_head": 3}


def their_model(**changes) -> GPT2LMHeadModel:
    """A tiny GPT-2 of transformers. Each parameter is moved far away from where it begins, so that each counts."""
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


def as_published(tensors: dict) -> None:
    """The names in the files on the hub: without a prefix, and with the masks of all layers."""
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)
    size = THEIRS["n_positions"]
    for layer in range(THEIRS["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(size, size).tril().view(1, 1, size, size)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


def with_masks(tensors: dict) -> None:
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 17, 17).tril()
    tensors["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e9)


def with_the_shared_head(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()


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
        with pytest.raises(part3.inputs.InputError) as caught:
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
    assert name in message and str(folder / "model.safetensors") in message


def test_a_missing_layer_is_not_a_page_of_names(fails, folder):
    change_config(folder, n_layer=5)
    message = fails(folder)
    assert "transformer.h.2.attn.c_attn.bias" in message
    assert "and 33 more" in message, "three layers of 12 tensors are missing, of which three are named"


def test_a_missing_head_of_an_untied_model_is_named(fails, folder):
    change_config(folder, tie_word_embeddings=False)
    assert "lacks lm_head.weight" in fails(folder)


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


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs(fails, folder, name):
    sha = "7c2c1b7f2a4f6e8d9c0b1a2f3e4d5c6b7a8f9e0d1c2b3a4f5e6d7c8b9a0f1e2d"
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize 548105171\n")
    message = fails(folder)
    assert f"{folder / name} is a Git LFS pointer" in message and "git lfs pull" in message


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
    assert f"{folder / 'config.json'} lacks {name}" in fails(folder)


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
    monkeypatch.setattr(part3.hub, "_check_answers", lambda *file: None)
    monkeypatch.chdir(tmp_path)

    def is_published(place):
        model = part3.gpt.GPT.from_pretrained(place)
        return torch.equal(model.transformer.wte.weight, published.transformer.wte.weight)

    assert not is_published("./gpt2")
    assert not is_published(Path("gpt2"))
    assert asked == []
    assert is_published("gpt2")
    assert asked == [("openai-community/gpt2", "config.json"), ("openai-community/gpt2", "model.safetensors")]
