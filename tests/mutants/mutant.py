"""A mistake as students make it: a small named change of a right solution."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mutant:
    """A mistake, and the criterion that must find it, alone.

    Args:
        name: what the student did, such as 'kl_without_half'.
        criterion: name of the criterion that must fail.
        edits: for each base, 'template' (solutions/template_2023), 'template_2024' or 'ours' (this repository), the
            changes: file in the part's folder, text to be replaced (it must occur exactly once), text in its place.
    """

    name: str
    criterion: str
    edits: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
