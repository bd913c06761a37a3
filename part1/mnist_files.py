"""MNIST's four files: found, checked, unpacked, or downloaded. The same file in parts 1 and 2."""

import contextlib
import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from download import DownloadError, describe_wrong_content, fetch, remove_leftovers, store
from inputs import InputError, NoDataError

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
MD5 = {  # of the packed files
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}


def read_mnist(root: Path, download: bool, say) -> dict[str, np.ndarray]:
    """Content of the four files in `root/MNIST/raw`, each unpacked or as `.gz`.

    Args:
        root: directory that holds, or will hold, `MNIST/raw`.
        download: download the files that are missing.
        say: called with a sentence and its arguments before a download, as a logger's `info`.

    Returns:
        By file name, uint8 arrays of the SHAPES: images with values 0 .. 255, labels 0 .. 9.

    Raises:
        NoDataError: a file is missing and cannot be downloaded.
        InputError: a file is not MNIST's, or cannot be read.
    """
    raw = root / "MNIST" / "raw"
    remove_leftovers(raw)
    missing = [name for name in SHAPES if _find(raw, name) is None]
    if missing and not download:
        raise NoDataError(_where_to_put(raw, "downloading was not asked for"))
    if missing:
        say("downloading MNIST to %s", raw)
        _download(raw, missing)
    return {name: _read(_find(raw, name) or raw / name, name) for name in SHAPES}


def _find(raw: Path, name: str) -> Path | None:
    """The unpacked file, or else the packed one; None if there is neither."""
    return next((path for path in (raw / name, raw / f"{name}.gz") if os.path.lexists(path)), None)


def _read(path: Path, name: str) -> np.ndarray:
    way_out = "delete the file to download it again, or put the right one there"
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is truncated or no gzip file: {way_out}") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): make it a file that can be read") from error
    shape = SHAPES[name]
    start = 4 + 4 * len(shape)  # two zeros, the type 8, the number of dimensions, and their sizes
    if len(content) != (size := start + int(np.prod(shape))):
        raise InputError(f"{path} has {len(content):,} bytes where MNIST's has {size:,}: {way_out}")
    if content[:4] != bytes([0, 0, 8, len(shape)]):
        raise InputError(f"{path} is not MNIST's, by its first bytes: {way_out}")
    found = tuple(int(number) for number in np.frombuffer(content[4:start], dtype=">u4"))
    if found != shape:
        raise InputError(f"{path} holds data of shape {found} where MNIST has {shape}: {way_out}")
    data = np.frombuffer(bytearray(content[start:]), dtype=np.uint8).reshape(shape)
    if len(shape) == 1 and data.max() > 9:
        raise InputError(f"{path} is not MNIST's, it holds the label {data.max()}: {way_out}")
    return data


def _download(raw: Path, names: list[str]) -> None:
    """Each file is downloaded, checked, unpacked and stored; several processes may do this at once."""
    new_dirs = [path for path in (raw, *raw.parents) if not os.path.exists(path)]  # from the inside out
    try:
        for name in names:
            store(raw / name, _fetch(name))
    except DownloadError as error:
        raise NoDataError(_where_to_put(raw, f"the download failed: {error}")) from error
    except OSError as error:
        raise NoDataError(_where_to_put(raw, f"writing there failed: {error.strerror or error}")) from error
    finally:
        with contextlib.suppress(OSError):  # a directory that is not empty stays
            for path in new_dirs:
                path.rmdir()


def _fetch(name: str) -> bytes:
    """An unpacked file from the first mirror that has it.

    Raises:
        DownloadError: none has it; the message has the reason of each.
    """
    reasons = []
    for mirror in MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            packed = fetch(url)
        except DownloadError as error:
            reasons.append(str(error))
            continue
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() == MD5[name]:
            return gzip.decompress(packed)
        reasons.append(describe_wrong_content(packed, url))
    raise DownloadError("; ".join(dict.fromkeys(reasons)))


def _where_to_put(raw: Path, reason: str) -> str:
    return (
        f"MNIST is not in {raw} ({reason}): put {', '.join(SHAPES)} there, unpacked or as .gz, or give the directory "
        "that holds MNIST/raw with --data_dir"
    )
