"""A server on this machine that answers as the Hugging Face hub does, and fails as asked."""

import hashlib
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
PREFIX = "/openai-community/gpt2/resolve/main/"


class Hub(ThreadingHTTPServer):
    """Serves `files` as the repository openai-community/gpt2.

    Attributes:
        requests: method, file and range of each request for a file.
        status: answer with this error instead, by the name of the file; with its X-Error-Code.
        breaks_at: a download of this file breaks off after so many of its bytes.
        breaks: how many downloads do so.
        breaks_by: "end", as when a server is stopped, or "reset", as when a network fails.
        redirects: files that lie on another host, as large ones do.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = dict(files), []
        self.status: dict[str, tuple[int, str | None]] = {}
        self.breaks_at: dict[str, int] = {}
        self.breaks, self.breaks_by = 1_000, "end"
        self.redirects: set[str] = set()
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
