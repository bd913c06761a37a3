"""Data that is damaged, packed, or comes from a network that fails: one sentence, or the right data."""

import gzip
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from conftest import write_idx

SHAPES = {
    "train-images-idx3-ubyte": (6, 28, 28),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (4, 28, 28),
    "t10k-labels-idx1-ubyte": (4,),
}
NAMES = list(SHAPES)


class Server(ThreadingHTTPServer):
    """Answers each request with `answer(handler)`; counts them."""

    daemon_threads = True

    def __init__(self, answer):
        outer, self.asked = self, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                answer(self)

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


def send(handler, content: bytes, status: int = 200, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def files(tmp_path) -> dict[str, bytes]:
    """Small files in MNIST's format, by name."""
    rng, content = np.random.default_rng(0), {}
    for name, shape in SHAPES.items():
        write_idx(tmp_path / name, rng.integers(0, 10, size=shape, dtype=np.uint8))
        content[name] = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
    return content


@pytest.fixture(params=["part1", "part2"])
def part(request, files, monkeypatch):
    """A part for which MNIST is as small as `files`."""
    part = request.getfixturevalue(request.param)
    monkeypatch.setattr(part.mnist_files, "SHAPES", SHAPES)
    packed = {name: hashlib.md5(gzip.compress(content, mtime=0)).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(part.mnist_files, "MD5", packed)
    monkeypatch.setattr(part.mnist_files, "MIRRORS", ())
    monkeypatch.setenv("NO_PROXY", "*")
    return part


@pytest.fixture
def raw(tmp_path, files):
    """`MNIST/raw` in `tmp_path`, with the files."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


def read(part, root, download=False):
    return part.mnist_files.read_mnist(root, download, lambda *words: None)


def fails(part, root, download=False) -> str:
    with pytest.raises(part.inputs.InputError) as caught:
        read(part, root, download)
    message = str(caught.value)
    assert "\n" not in message and ": " in message
    return message


# -------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_data_file_is_named(part, raw, tmp_path, name):
    whole = (raw / name).read_bytes()
    other = {"train": "t10k", "t10k": "train"}[name.split("-")[0]] + name[name.index("-") :]
    kind = (
        name.replace("images-idx3", "labels-idx1") if "images" in name else name.replace("labels-idx1", "images-idx3")
    )
    damages = {
        "truncated by a byte": whole[:-1],
        "a byte too long": whole + b"\0",
        "empty": b"",
        "another set": (raw / other).read_bytes(),
        "labels for images, or images for labels": (raw / kind).read_bytes(),
        "zeros alone": bytes(len(whole)),
        "text": b"x" * len(whole),
    }
    for i in range(4 + 4 * len(SHAPES[name])):
        damages[f"byte {i} of the header flipped"] = whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :]
    for damage, content in damages.items():
        (raw / name).write_bytes(content)
        assert str(raw / name) in fails(part, tmp_path), damage


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_or_a_dangling_link_in_the_place_of_a_data_file(part, raw, tmp_path, name):
    (raw / name).unlink()
    (raw / name).symlink_to(tmp_path / "gone")
    assert f"cannot read {raw / name} (No such file" in fails(part, tmp_path)
    (raw / name).unlink()
    (raw / name).mkdir()
    assert f"cannot read {raw / name} (Is a directory)" in fails(part, tmp_path)


def test_a_data_file_that_the_disk_does_not_give(part, raw, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(part.mnist_files.Path, "read_bytes", refuse)
    assert f"cannot read {raw / NAMES[0]} (Permission denied)" in fails(part, tmp_path)


def test_labels_beyond_nine(part, raw, tmp_path):
    write_idx(raw / NAMES[1], np.array([0, 1, 2, 10, 4, 5], dtype=np.uint8))
    assert "it holds the label 10" in fails(part, tmp_path)


def test_links_to_the_data_are_followed(part, raw, tmp_path):
    expected = read(part, tmp_path)
    linked = tmp_path / "linked" / "MNIST"
    linked.mkdir(parents=True)
    (linked / "raw").symlink_to(raw)
    found = read(part, tmp_path / "linked")
    assert all(np.array_equal(found[name], expected[name]) for name in NAMES)


def test_packed_files_are_read_as_they_were_downloaded(part, raw, tmp_path):
    expected = read(part, tmp_path)
    for name in NAMES[:3]:  # also when one of them was unpacked
        (raw / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes()))
        (raw / name).unlink()
    before = sorted(raw.iterdir())
    found = read(part, tmp_path)
    assert all(np.array_equal(found[name], expected[name]) for name in NAMES)
    assert sorted(raw.iterdir()) == before, "nothing is written"
    packed = raw / f"{NAMES[0]}.gz"
    for content in (packed.read_bytes()[:-9], b"<html>", b"", packed.read_bytes()[:20] + bytes(40)):
        packed.write_bytes(content)
        assert str(packed) in fails(part, tmp_path)


# -------------------------------------------------------------------------------------------------------------- network


def test_mnist_is_downloaded_once_and_completed(part, files, tmp_path, monkeypatch):
    with Server(lambda handler: send(handler, gzip.compress(files[handler.path[1:-3]], mtime=0))) as server:
        monkeypatch.setattr(part.mnist_files, "MIRRORS", (server.url,))
        first = read(part, tmp_path, download=True)
        assert server.asked == [f"/{name}.gz" for name in NAMES]
        raw = tmp_path / "MNIST" / "raw"
        assert {path.name: path.read_bytes() for path in raw.iterdir()} == files
        (raw / NAMES[2]).unlink()
        again = read(part, tmp_path, download=True)
        assert server.asked[4:] == [f"/{NAMES[2]}.gz"], "what is there is not asked for again"
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)


def break_off(handler, packed):
    send(handler, packed[:70], length=len(packed))


FAILURES = {
    "half": (break_off, "broke off after 70 bytes"),
    "403": (lambda handler, packed: send(handler, b"no", 403), "answered with the HTTP error 403 Forbidden"),
    "500": (lambda handler, packed: send(handler, b"no", 500), "answered with the HTTP error 500"),
    "page": (lambda handler, packed: send(handler, b"\n<!DOCTYPE html><p>Log in"), "sent a web page instead"),
    "other": (lambda handler, packed: send(handler, packed[:-1] + b"\1"), "sent another file, its checksum is wrong"),
    "reset": (lambda handler, packed: handler.connection.close(), "127.0.0.1:"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_download_that_fails_is_one_sentence_and_leaves_nothing(part, files, tmp_path, monkeypatch, failure):
    answer, expected = FAILURES[failure]
    start = time.monotonic()
    with Server(lambda handler: answer(handler, gzip.compress(files[handler.path[1:-3]], mtime=0))) as server:
        monkeypatch.setattr(part.mnist_files, "MIRRORS", (server.url,))
        message = fails(part, tmp_path / "data", download=True)
    assert expected in message and "put train-images-idx3-ubyte" in message
    assert not (tmp_path / "data").exists()
    assert len(server.asked) == 1 and time.monotonic() - start < 5


def test_the_second_mirror_is_asked_where_the_first_fails(part, files, tmp_path, monkeypatch):
    with (
        Server(lambda handler: send(handler, b"<html>")) as bad,
        Server(lambda handler: send(handler, gzip.compress(files[handler.path[1:-3]], mtime=0))) as good,
    ):
        monkeypatch.setattr(part.mnist_files, "MIRRORS", (bad.url, good.url))
        assert set(read(part, tmp_path, download=True)) == set(NAMES)


def test_four_processes_that_start_with_an_empty_data_folder(part, files, repository, tmp_path):
    code = """if True:
        import hashlib, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        import mnist_files
        mnist_files.SHAPES, mnist_files.MD5, mnist_files.MIRRORS = eval(sys.argv[2]), eval(sys.argv[3]), (sys.argv[4],)
        sys.stdin.read()
        files = mnist_files.read_mnist(Path(sys.argv[5]), True, lambda *words: None)
        print(hashlib.md5(b"".join(files[name].tobytes() for name in files)).hexdigest())
    """

    def slowly(handler):
        packed = gzip.compress(files[handler.path[1:-3]], mtime=0)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        for start in range(0, len(packed), 500):
            handler.wfile.write(packed[start : start + 500])
            time.sleep(0.001)

    with Server(slowly) as server:
        arguments = [repository / part.folder.name, SHAPES, part.mnist_files.MD5, server.url, tmp_path / "data"]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
        outputs = [None] * 4
        threads = [
            threading.Thread(target=lambda i=i: outputs.__setitem__(i, processes[i].communicate("", timeout=60)))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    data = b"".join(files[name][4 + 4 * len(shape) :] for name, shape in SHAPES.items())
    assert [output[0].strip() for output in outputs] == [hashlib.md5(data).hexdigest()] * 4, outputs
    assert {path.name for path in (tmp_path / "data" / "MNIST" / "raw").iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", ["part1", "part3"])
def test_what_a_killed_download_leaves_is_removed(name, request, files, tmp_path):
    """By the next start, unless a living process is storing a file."""
    part = request.getfixturevalue(name)
    place = tmp_path / ("MNIST/raw" if name == "part1" else "text")
    child = os.fork()
    if child == 0:
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        part.download.store(place / "file", b"content")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = place.iterdir()
    assert (left / "file").read_bytes() == b"content"

    def start() -> None:
        with pytest.raises(part.inputs.InputError):  # there are no data
            if name == "part1":
                read(part, tmp_path)
            else:
                part.dataset.tiny_shakespeare(place / "tiny_shakespeare.txt", "http://127.0.0.1:9/")

    with part.download._lock(place, "LOCK_SH"):
        start()
        assert left.is_dir()
    start()
    assert not list(place.iterdir())


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_a_server_that_cannot_be_used_is_named_within_seconds(name, request, monkeypatch, tmp_path):
    """Nobody listens; nobody answers; there is no such name; the proxy refuses."""
    part = request.getfixturevalue(name)
    download = part.download
    monkeypatch.setenv("NO_PROXY", "*")

    def reason(url: str, **kwargs) -> str:
        start = time.monotonic()
        with pytest.raises(download.DownloadError) as caught:
            download.fetch(url, **kwargs)
        assert time.monotonic() - start < 5
        return str(caught.value)

    assert "Connection refused" in reason("http://127.0.0.1:9/")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "did not answer for 0.2 seconds" in reason(f"http://127.0.0.1:{port}/", timeout=0.2)
    assert "unknown url type" in reason("nonsense")

    def no_such_name(*args, **kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", no_such_name)
        assert reason("http://data.example/") == "data.example: Temporary failure in name resolution"
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    with Server(lambda handler: send(handler, b"", 407)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setattr(download.urllib.request, "_opener", None)  # which remembers the environment
        assert "HTTP error 407 Proxy Authentication Required" in reason("http://data.example/")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_wrong_certificate_is_named(part1, tmp_path, monkeypatch):
    import ssl

    monkeypatch.setenv("NO_PROXY", "*")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Server(lambda handler: send(handler, b"data")) as server:
        server.handle_error = lambda *args: None
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with pytest.raises(part1.download.DownloadError, match=r"the certificate of 127.0.0.1:.* is not valid, self"):
            part1.download.fetch(server.url.replace("http:", "https:"))


# ------------------------------------------------------------------------------------------------------ part 3's text


@pytest.fixture
def plays(part3, monkeypatch) -> bytes:
    """A short text in the place of the plays."""
    content = "First Citizen:\nSpeak, spéak.\n\nAll:\nResolved.".encode()
    monkeypatch.setattr(part3.dataset, "TINY_SHAKESPEARE_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("NO_PROXY", "*")
    return content


def test_line_ends_and_a_byte_order_mark_change_no_text(part3, plays, tmp_path):
    path = tmp_path / "text" / "tiny_shakespeare.txt"
    path.parent.mkdir()
    texts = set()
    for mark in (b"", b"\xef\xbb\xbf"):
        for content in (plays, plays + b"\n"):
            for line_end in (b"\n", b"\r\n"):
                path.write_bytes(mark + content.replace(b"\n", line_end))
                texts.add(part3.dataset.load_text("tiny_shakespeare", tmp_path))
    assert texts == {plays.decode() + "\n"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda handler, content: send(handler, content[:9], length=len(content)), "broke off after 9 bytes"),
        (lambda handler, content: send(handler, b"", 403), "HTTP error 403"),
        (lambda handler, content: send(handler, b"<html>"), "sent a web page"),
        (lambda handler, content: send(handler, content[:-1]), "checksum is wrong"),
    ],
)
def test_a_text_that_does_not_come(part3, plays, tmp_path, answer, expected):
    path = tmp_path / "text" / "tiny_shakespeare.txt"
    server = Server(lambda handler: answer(handler, plays))
    with server, pytest.raises(part3.inputs.InputError, match=expected):
        part3.dataset.tiny_shakespeare(path, server.url)
    assert not path.exists() and len(server.asked) == 1


def test_a_truncated_text_or_a_directory_in_its_place(part3, plays, tmp_path):
    path = tmp_path / "text" / "tiny_shakespeare.txt"
    path.parent.mkdir()
    for content in (plays[:-1], b"", b"<html>"):
        path.write_bytes(content)
        with pytest.raises(part3.inputs.InputError, match="is not tiny_shakespeare"):
            part3.dataset.tiny_shakespeare(path)
