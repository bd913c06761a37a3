"""Downloads a file, says in plain words why that failed, and stores it. The same file in all three parts."""

import contextlib
import http.client
import os
import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TIMEOUT_S = 5.0  # for the connection, and for each wait for further bytes


LEFTOVERS = ".download-"


class DownloadError(Exception):
    """A download failed. The message is the reason, without a full stop."""


def fetch(url: str, timeout: float = TIMEOUT_S) -> bytes:
    """Content of a URL, asked for once.

    Args:
        url: of http, https or file.
        timeout: seconds without an answer after which the server counts as not reachable.

    Raises:
        DownloadError: there was no answer, an error, or a part of the content only.
    """
    host = urlsplit(url).netloc or url
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{host} answered with the HTTP error {error.code} {error.reason}") from error
    except http.client.IncompleteRead as error:
        raise DownloadError(f"{host} broke off after {len(error.partial):,} bytes") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)  # URLError wraps what happened
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"the certificate of {host} is not valid, {cause.verify_message}"
        elif isinstance(cause, TimeoutError):
            reason = f"{host} did not answer for {timeout:g} seconds"
        else:
            reason = f"{host}: {getattr(cause, 'strerror', None) or str(cause).strip() or type(cause).__name__}"
        raise DownloadError(" ".join(reason.split())) from error


def describe_wrong_content(content: bytes, url: str) -> str:
    """What a server sent in the place of the file that was asked for."""
    host = urlsplit(url).netloc or url
    if content.lstrip()[:1] == b"<":
        return f"{host} sent a web page instead of the file, perhaps that of a proxy or of a login"
    return f"{host} sent another file, its checksum is wrong"


def store(path: Path, content: bytes) -> None:
    """Write a file in one step, so that several processes may do so at once. A process that is killed meanwhile leaves
    a directory, which `remove_leftovers` deletes.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.parent, "LOCK_SH"), tempfile.TemporaryDirectory(dir=path.parent, prefix=LEFTOVERS) as directory:
        part = Path(directory, path.name)
        part.write_bytes(content)
        os.replace(part, path)


def remove_leftovers(directory: Path) -> None:
    """Delete what killed processes left of `store`, unless a process is storing a file right now."""
    leftovers = []
    with contextlib.suppress(OSError):  # there is no such directory
        leftovers = [directory / name for name in os.listdir(directory) if name.startswith(LEFTOVERS)]
    if leftovers:
        with _lock(directory, "LOCK_EX", "LOCK_NB") as alone:
            for path in leftovers if alone else ():
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _lock(directory: Path, *flags: str) -> Iterator[bool]:
    """Context of a lock, which the system frees when the process ends. Returns whether there is one: another process
    can have it, and Windows and some file systems have none."""
    with contextlib.ExitStack() as stack:
        locked = False
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: no fcntl
            descriptor = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, sum(getattr(fcntl, flag) for flag in flags))
            locked = True
        yield locked
