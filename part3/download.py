"""Downloads a file, and says in plain words why that failed. The same file in all three parts."""

import http.client
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

TIMEOUT_S = 5.0  # for the connection, and for each wait for further bytes


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
