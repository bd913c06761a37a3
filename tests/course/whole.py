"""What criteria of a part as a whole share: they fail alone."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from course.criterion import REGISTRY, Failure, Remark, Unjudged, place


def single_functions(part: str) -> list[str]:
    """Names of a part's criteria, but those of the whole, of what `main` makes, and of forbidden packages."""
    ends = ("as_a_whole", "_optimizer", "without_distributions")
    return [name for name, one in REGISTRY.items() if one.part == part and not name.endswith(ends)]


@contextlib.contextmanager
def blamed(part: Any, others: Iterable[str], what: str) -> Iterator[None]:
    """What goes wrong here is a mistake of the parts' interplay, unless one of the `others`, the criteria of the single
    functions, fails, which then tells enough. Raises Failure, which names the line."""
    try:
        yield
        return
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        first = error
    for name in others:
        os.chdir(part.folder)
        torch.manual_seed(0)
        try:
            REGISTRY[name].function(part)
        except (Remark, Unjudged):
            continue
        except BaseException:
            return
    if isinstance(first, Failure):
        raise first
    text = " ".join(str(first).replace(f"{part.folder.parent}/", "").split())[:300]
    where = f" ({place(first, part.folder)})" if place(first, part.folder) else ""
    raise Failure(f"{what} breaks off{where}, though each function works alone with the right networks: do they fit "
                  "together?", got=f"{type(first).__name__}: {text}") from first  # fmt: skip
