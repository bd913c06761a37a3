"""Downloading a published GPT-2, from a small server that speaks the hub's protocol, and all that can go wrong."""

import contextlib
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from fake_hub import Hub
from gpt_models import byte_pairs, small_gpt


@pytest.fixture(scope="module")
def published(_parts, tmp_path_factory) -> dict[str, bytes]:
    """Files of a tiny model in the place of GPT-2's."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    with _parts["part3"].imported() as part3:
        small_gpt(part3, vocab_size=283).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(byte_pairs(), encoding="utf-8")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def serving(hub: Hub):
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        hub.shutdown()
        hub.server_close()
        thread.join()


@pytest.fixture
def hub(published):
    with serving(Hub(published)) as hub:
        yield hub


@pytest.fixture
def use(tmp_path, monkeypatch):
    """`use(address)` makes huggingface_hub, which read its environment when it was imported, ask this server. Its cache
    is the test's own, and its pauses between two attempts pass at once."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.05, raising=False)

    def set_address(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )

    huggingface_hub.close_session()
    yield set_address
    huggingface_hub.close_session()


def assert_published(model, published: dict[str, bytes], tmp_path: Path) -> None:
    """Saved again, the model's weights are those of the file."""
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == published["model.safetensors"]


# ------------------------------------------------------------------------------------------------------------- success


@pytest.mark.parametrize("redirects", [set(), {"model.safetensors", "tokenizer.json"}])
def test_a_model_is_downloaded_once(part3, hub, use, published, tmp_path, redirects):
    use(hub.address)
    hub.redirects = redirects
    assert_published(part3.gpt.GPT.from_pretrained("gpt2"), published, tmp_path)
    vocabulary = part3.pretrained.load_vocabulary("gpt2")
    assert vocabulary.vocab_size == 283
    downloads = sorted(name for method, name, _ in hub.requests if method == "GET")
    assert downloads == ["config.json", "model.safetensors", "tokenizer.json"]

    part3.gpt.GPT.from_pretrained("gpt2")
    assert len([method for method, _, _ in hub.requests if method == "GET"]) == 3, "the second time from the cache"


@pytest.mark.parametrize("offline", [False, True])
def test_what_is_in_the_cache_needs_no_server(part3, published, use, tmp_path, monkeypatch, offline):
    with serving(Hub(published)) as hub:
        use(hub.address)
        part3.gpt.GPT.from_pretrained("gpt2")
        part3.pretrained.load_vocabulary("gpt2")
        num_requests = len(hub.requests)
        if offline:
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert_published(part3.gpt.GPT.from_pretrained("gpt2"), published, tmp_path)
            assert len(hub.requests) == num_requests, "offline means that nobody is asked"
    assert_published(part3.gpt.GPT.from_pretrained("gpt2"), published, tmp_path)
    assert part3.pretrained.load_vocabulary("gpt2").vocab_size == 283


# ------------------------------------------------------------------------------------------------------------ failures


def offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def no_file(hub, monkeypatch):
    del hub.files["model.safetensors"]


def forbidden(hub, monkeypatch):
    hub.status = {"config.json": (403, None)}


def truncated(hub, monkeypatch):
    hub.files["model.safetensors"] = hub.files["model.safetensors"][:-1]


def a_page(hub, monkeypatch):
    hub.files["config.json"] = b"<html>Please log in to this network</html>"


def breaks_off(hub, monkeypatch):
    hub.breaks_at, hub.breaks_by = {"model.safetensors": 10_000}, "reset"


def not_reachable(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}")  # fmt: skip


FAILURES = {
    offline: "config.json of openai-community/gpt2 is not in",
    no_file: "model.safetensors of openai-community/gpt2 is not in",
    forbidden: "403",
    truncated: "model.safetensors is truncated or no safetensors file",
    a_page: "config.json is damaged or no config of a model",
    breaks_off: "model.safetensors of openai-community/gpt2 is not in",
    not_reachable: "Connection refused",
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_a_failure_is_one_sentence(part3, hub, use, monkeypatch, failure):
    use(hub.address)
    failure(hub, monkeypatch)
    with pytest.raises(part3.run.InputError) as caught:
        part3.gpt.GPT.from_pretrained("gpt2")
    message = str(caught.value)
    assert FAILURES[failure] in message and "\n" not in message
    assert "is not in" not in message or "give the folder of a model" in message
