"""Weights that others wrote, prompts in broken encodings, and extreme sampling: as transformers, or one sentence."""

import json
import logging
import sys
import time

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt_models import byte_pairs, small_gpt
from test_faults_data import Server, send

SIZES = {"vocab_size": 37, "n_positions": 17, "n_embd": 21, "n_layer": 2, "n_head": 3}
SURROGATE = b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.fixture
def folder(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=None, eos_token_id=None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(tmp_path)
    return tmp_path


def fails(part3, folder) -> str:
    with pytest.raises(part3.inputs.InputError) as caught:
        part3.gpt.GPT.from_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", [("wte",), ("lm_head",), ("wte", "lm_head")])
def test_a_tied_model_is_taken_under_either_name_as_by_transformers(part3, folder, names):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    shared = tensors.pop("transformer.wte.weight")
    for name in names:
        tensors[{"wte": "transformer.wte.weight", "lm_head": "lm_head.weight"}[name]] = shared.clone()
    save_file(tensors, file, metadata={"format": "pt"})
    theirs, ours = GPT2LMHeadModel.from_pretrained(folder).eval(), part3.gpt.GPT.from_pretrained(folder)
    assert torch.equal(ours.lm_head.weight, shared) and ours.lm_head.weight is ours.transformer.wte.weight
    idx = torch.randint(37, (2, 17))
    with torch.no_grad():
        assert torch.allclose(ours(idx), theirs(idx).logits, atol=1e-4)


def test_weights_truncated_at_twenty_places(part3, folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for i in range(20):
        file.write_bytes(whole[: len(whole) * i // 20])
        assert "is truncated or no safetensors file" in fails(part3, folder)


def test_weights_whose_header_is_damaged_make_one_sentence_or_a_model(part3, folder):
    """Flipped bits of the header name other tensors, types, shapes or places."""
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    generator, refused = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        place, bit = (int(torch.randint(n, (), generator=generator)) for n in (end, 8))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            part3.gpt.GPT.from_pretrained(folder)
        except part3.inputs.InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50


def test_weights_that_are_whole_numbers(part3, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].int()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "transformer.ln_f.bias holds torch.int32" in fails(part3, folder)


@pytest.mark.parametrize("size", ["n_layer", "n_embd", "n_positions", "vocab_size"])
def test_a_config_of_a_size_that_no_machine_holds(part3, folder, size):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, size: config["n_head"] * 10**30}))
    start = time.monotonic()
    fails(part3, folder)
    assert time.monotonic() - start < 5


def test_weights_in_several_files(part3, folder):
    GPT2LMHeadModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="10KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert "in several files" in fails(part3, folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "has no model.safetensors" in fails(part3, folder)


@pytest.mark.parametrize("reason", ["nobody listens", "HTTP error 503"])
def test_a_hub_that_cannot_be_used_is_named_at_once_and_silently(part3, tmp_path, monkeypatch, capfd, caplog, reason):
    """Without a patched clock: no retries, and none of huggingface_hub's own lines."""

    class Heads(Server):
        def __init__(self):
            super().__init__(None)
            self.RequestHandlerClass.do_HEAD = lambda handler: send(handler, b"", 503)

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with Heads() as server:
        address = "http://127.0.0.1:9" if reason == "nobody listens" else server.url.rstrip("/")
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        start = time.monotonic()
        with caplog.at_level(logging.DEBUG, "huggingface_hub"):
            assert part3.generate.main(["--prompt", "a"]) == 2
        assert time.monotonic() - start < 15  # retries would take 23 s; the first import takes some
    huggingface_hub.close_session()
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and ("Connection refused" if reason == "nobody listens" else reason) in error
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---------------------------------------------------------------------------------------------------- prompts, sampling


def test_a_prompt_that_is_not_utf_8(part3, capfd, tmp_path):
    bytes_, characters = byte_pairs(), part3.vocabulary.Characters.of("cafe\n")
    vocabularies = [part3.vocabulary.from_state({"tokenizer_json": bytes_}), characters]
    for vocabulary in vocabularies:
        with pytest.raises(part3.inputs.InputError, match="bytes that are not UTF-8, after 3 characters: give"):
            vocabulary.encode(SURROGATE)
    small_gpt(part3, vocab_size=283).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(bytes_, encoding="utf-8")
    assert part3.generate.main(["--checkpoint", str(tmp_path), "--prompt", SURROGATE]) == 2
    output = capfd.readouterr()
    assert output.out == "" and output.err.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [{"top_p": 1e-300}, {"top_p": sys.float_info.min}, {"temperature": 1e-300}, {"temperature": 5e-324}, {"top_k": 1},
     {"top_p": 1e-300, "temperature": 1e300}, {"temperature": 1e-45, "top_k": 10**9, "top_p": 1.0}],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_extreme_settings_take_the_most_probable_token(part3, settings, dtype):
    logits = torch.randn(7, 50).mul(3).to(dtype)
    logits[torch.arange(7), torch.arange(7)] = 20
    assert part3.sampling.sample_logits(logits, **settings).tolist() == list(range(7))


@pytest.mark.parametrize("temperature", [1e30, 1e300, 1.7e308])
def test_an_extreme_temperature_makes_all_possible_tokens_equal(part3, temperature):
    """Two of three logits are equal afterwards; that of minus infinity stays impossible."""
    logits = torch.tensor([10.0, -10.0, -torch.inf]).repeat(4000, 1)
    counts = part3.sampling.sample_logits(logits, temperature).bincount(minlength=3)
    assert counts[2] == 0 and abs(counts[0].item() - 2000) < 160  # five standard deviations


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("settings", [{}, {"do_sample": False}, {"temperature": 0}, {"top_k": 3, "top_p": 0.5}])
def test_logits_that_are_not_finite_stop(part3, bad, settings):
    logits = torch.randn(3, 11)
    logits[1, 4] = bad
    with pytest.raises(part3.inputs.NotFiniteError, match="logits are not finite: "):
        part3.sampling.sample_logits(logits, **settings)
    with pytest.raises(part3.inputs.NotFiniteError):
        part3.sampling.sample_logits(torch.full((2, 5), -torch.inf), **settings)


def test_a_model_whose_weights_are_nan_is_one_sentence(part3, tmp_path, capfd):
    model = small_gpt(part3, vocab_size=283)
    torch.nn.init.constant_(model.transformer.ln_f.weight, torch.nan)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(byte_pairs(), encoding="utf-8")
    for more in ([], ["--greedy"]):
        assert part3.generate.main(["--checkpoint", str(tmp_path), "--prompt", "the", *more]) == 2
        assert capfd.readouterr().err.count("\n") == 1
