"""Output streams that outlive their readers. The same file in all three parts."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterable


class LastingStream:
    """An output stream that outlives its reader: what can be written no more (`| head`, a closed terminal, a full disk)
    is dropped, and characters that its encoding lacks are escaped.

    Attributes:
        lost: nobody reads it any more.
    """

    def __init__(self, stream):
        self._stream, self.lost = stream or _nowhere(), stream is None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError):  # ValueError: closed
            self._lose()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        nowhere = _nowhere()
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere.fileno(), self._stream.fileno())  # what is still buffered is written when Python exits
        self._stream, self.lost = nowhere, True

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


class StdoutHandler(logging.Handler):
    """Prints messages to `sys.stdout` as it is at that moment; a notebook or a test replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def _nowhere() -> io.TextIOBase:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def guard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that outlive their readers."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), LastingStream):
            setattr(sys, name, LastingStream(getattr(sys, name)))


def occupy_closed_descriptors() -> None:
    """Open what the shell has closed (`>&-`), or the next file that is opened would take what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
