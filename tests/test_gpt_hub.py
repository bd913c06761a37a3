"""Downloading a published GPT-2, from a small server that speaks the hub's protocol, and all that can go wrong."""

import contextlib
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from gpt_models import byte_pairs, small_gpt

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
PREFIX = "/openai-community/gpt2/resolve/main/"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 548105171\n" % 7


class Hub(ThreadingHTTPServer):
    """Serves `files` as the repository openai-community/gpt2.

    Attributes:
        requests: method, file and range of each request for a file.
        status: answer with this error instead, by the name of the file; with its X-Error-Code.
        breaks_at: a download of this file breaks off after so many of its bytes.
        breaks: how many downloads do so.
        breaks_by: "end", as when a server is stopped, or "reset", as when a network fails.
        redirects: files that lie on another host, as large ones do.
        plain: answer as a server that is no hub.
        silent: never answer.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = dict(files), []
        self.status: dict[str, tuple[int, str | None]] = {}
        self.breaks_at: dict[str, int] = {}
        self.breaks, self.breaks_by = 1_000, "end"
        self.redirects: set[str] = set()
        self.plain = self.silent = False
        self.stopped = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that went away


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub, name = self.server, self.path.removeprefix("/cdn").removeprefix(PREFIX)
        if not name.startswith("/"):  # huggingface_hub may ask about other things on its own account
            hub.requests.append((self.command, name, self.headers.get("Range")))
        if hub.silent:
            hub.stopped.wait(20)
            self.close_connection = True
            return
        if name in hub.status or name not in hub.files:
            status, code = hub.status.get(name, (404, "EntryNotFound"))
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, sha = hub.files[name], hashlib.sha256(hub.files[name]).hexdigest()
        if name in hub.redirects and not self.path.startswith("/cdn"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{hub.server_port}/cdn{PREFIX}{name}")
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-ETag", f'"{sha}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if not hub.plain:
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{sha}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            self.send_body(name, content, start)

    def send_body(self, name: str, content: bytes, start: int) -> None:
        hub = self.server
        if name not in hub.breaks_at or hub.breaks == 0:
            self.wfile.write(content[start:])
            return
        hub.breaks -= 1
        self.wfile.write(content[start : hub.breaks_at[name]])
        self.wfile.flush()
        self.close_connection = True
        if hub.breaks_by == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


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


def unused_address() -> str:
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


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


def test_a_broken_download_is_resumed(part3, hub, use, published, tmp_path, monkeypatch):
    """What has come before it broke off is not asked for again."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1_000)
    use(hub.address)
    hub.breaks, hub.breaks_at = 1, {"model.safetensors": 20_000}
    assert_published(part3.gpt.GPT.from_pretrained("gpt2"), published, tmp_path)
    ranges = [asked for method, name, asked in hub.requests if (method, name) == ("GET", "model.safetensors")]
    assert ranges == [None, "bytes=20000-"]


def test_other_sizes_come_from_their_own_repositories(part3):
    sizes = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    assert {size: f"openai-community/{size}" for size in sizes} == part3.pretrained.REPOSITORIES


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.fixture
def fails(part3, capsys):
    """Runs `generate.py` for gpt2 and returns its one sentence."""

    def run() -> str:
        assert part3.generate.main(["--model_type", "gpt2", "--prompt", "the cat"]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        lines = output.err.splitlines()  # before it, huggingface_hub may have said what it waits for
        assert [line for line in lines if line.startswith("generate.py: error: ")] == lines[-1:], lines
        assert "Traceback" not in output.err
        return lines[-1]

    return run


def not_reachable(hub, use, monkeypatch):
    use(unused_address())


def never_answers(hub, use, monkeypatch):
    hub.silent = True


def offline(hub, use, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def no_repository(hub, use, monkeypatch):
    hub.status = dict.fromkeys(hub.files, (401, "RepoNotFound"))


def no_file(hub, use, monkeypatch):
    del hub.files["model.safetensors"]


def no_file_and_no_code(hub, use, monkeypatch):
    hub.status = {"tokenizer.json": (404, None)}


def no_revision(hub, use, monkeypatch):
    hub.status = {"tokenizer.json": (404, "RevisionNotFound")}


def internal_error(hub, use, monkeypatch):
    hub.status = {"config.json": (500, None)}


def overloaded(hub, use, monkeypatch):
    hub.status = {"model.safetensors": (503, None)}


def forbidden(hub, use, monkeypatch):
    hub.status = {"config.json": (403, None)}


def no_hub(hub, use, monkeypatch):
    hub.plain = True


def no_address(hub, use, monkeypatch):
    use("the-mirror")


def ends_in_the_middle(hub, use, monkeypatch):
    hub.breaks_at = {"model.safetensors": 10_000}


def resets_in_the_middle(hub, use, monkeypatch):
    hub.breaks_at, hub.breaks_by = {"model.safetensors": 10_000}, "reset"


def pointer(hub, use, monkeypatch):
    hub.files["model.safetensors"] = POINTER


def truncated(hub, use, monkeypatch):
    hub.files["model.safetensors"] = hub.files["model.safetensors"][:-1]


def another_model(hub, use, monkeypatch):
    hub.files["config.json"] = json.dumps({"model_type": "llama", "hidden_size": 21}).encode()


def a_page(hub, use, monkeypatch):
    hub.files["config.json"] = b"<html>Please log in to this network</html>"


def no_tokenizer(hub, use, monkeypatch):
    hub.files["tokenizer.json"] = b'{"version": "1.0"'


FAILURES = {
    not_reachable: "tokenizer.json of openai-community/gpt2 is not in the cache, and http://127.0.0.1:",
    never_answers: "cannot be reached: connect to the network, set HF_ENDPOINT to a mirror",
    offline: "tokenizer.json of openai-community/gpt2 is not in the cache, and HF_HUB_OFFLINE forbids to download it",
    no_repository: "has no tokenizer.json of openai-community/gpt2: check HF_ENDPOINT",
    no_file: "has no model.safetensors of openai-community/gpt2: check HF_ENDPOINT",
    no_file_and_no_code: "has no tokenizer.json of openai-community/gpt2: check HF_ENDPOINT",
    no_revision: "has no tokenizer.json of openai-community/gpt2: check HF_ENDPOINT",
    internal_error: "answered with the HTTP error 500 when asked for config.json of openai-community/gpt2: try again",
    overloaded: "answered with the HTTP error 503 when asked for model.safetensors",
    forbidden: "answered with the HTTP error 403 when asked for config.json",
    no_hub: "does not answer as a Hugging Face hub",
    no_address: "downloading tokenizer.json of openai-community/gpt2 from the-mirror failed",
    ends_in_the_middle: "downloading model.safetensors of openai-community/gpt2 from http://127.0.0.1:",
    resets_in_the_middle: "downloading model.safetensors of openai-community/gpt2 from http://127.0.0.1:",
    pointer: "model.safetensors is a Git LFS pointer and not the file itself: remove it, and set HF_ENDPOINT",
    truncated: "model.safetensors is truncated or no safetensors file",
    another_model: "config.json is of a model of type llama, not gpt2",
    a_page: "config.json is damaged or no config of a model",
    no_tokenizer: "tokenizer.json is damaged or no tokenizer",
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_a_failure_is_one_sentence_of_its_own(part3, hub, use, fails, monkeypatch, failure):
    use(hub.address)
    failure(hub, use, monkeypatch)
    message = fails()
    assert FAILURES[failure] in message
    others = {sentence for sentence in FAILURES.values() if sentence not in message}
    same = {not_reachable: 2, never_answers: 2}.get(failure, 1)  # for both of these, the server cannot be reached
    assert len(set(FAILURES.values()) - others) == same, "and no other failure's"


@pytest.mark.parametrize("failure", [internal_error, ends_in_the_middle, resets_in_the_middle])
def test_after_a_failure_a_second_attempt_succeeds(part3, hub, use, published, tmp_path, monkeypatch, failure):
    use(hub.address)
    failure(hub, use, monkeypatch)
    with pytest.raises(part3.inputs.InputError):
        part3.gpt.GPT.from_pretrained("gpt2")
    hub.status, hub.breaks = {}, 0
    assert_published(part3.gpt.GPT.from_pretrained("gpt2"), published, tmp_path)


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def generate_py(part3, tmp_path):
    """Runs `generate.py` as a process of its own, in a folder that has a folder named gpt2."""
    (tmp_path / "gpt2").mkdir()

    def run(address: str, **environment: str):
        command = [
            sys.executable,
            str(part3.folder / "generate.py"),
            "--prompt",
            "the cat",
            "--n_steps",
            "5",
            "--greedy",
        ]
        ours = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*", "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
        theirs = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return subprocess.run(
            command, cwd=tmp_path, env={**theirs, **ours, **environment}, capture_output=True, text=True
        )

    return run


def test_the_environment_is_heeded(generate_py, published, tmp_path):
    """HF_HUB_OFFLINE, and then HF_ENDPOINT and HF_HOME for the download."""
    with serving(Hub(published)) as hub:
        first = generate_py(hub.address, HF_HUB_OFFLINE="1")
        assert hub.requests == []
        assert first.returncode == 2 and first.stdout == ""
        assert first.stderr.startswith("generate.py: error: ") and first.stderr.count("\n") == 1
        assert "HF_HUB_OFFLINE" in first.stderr

        second = generate_py(hub.address)
        assert second.returncode == 0, second.stderr
        assert second.stdout.startswith("the cat")
        assert (tmp_path / "home" / "hub" / "models--openai-community--gpt2").is_dir()
