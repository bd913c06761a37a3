"""Finds the parts in a folder that somebody handed in, by their files, and recognises the template's edition."""

import contextlib
import os
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("part1", "part2", "part3")
EDITIONS = ("2021", "2022", "2023", "2024")
LEVELS = 3  # folders below the one that is named: its parts, and those one or two levels deeper
SKIPPED = {"__MACOSX", "__pycache__", "node_modules", "venv", "lightning_logs", "data", "site-packages"}
LARGEST_FILE = 8 * 2**20  # bytes; larger ones are checkpoints and data, which no criterion needs


@dataclass
class Submission:
    """A solution: its name, edition, the folders of the parts that were found, and what is to be said about them."""

    name: str
    folder: Path
    edition: str = "2023"
    parts: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def unpacked(place: Path, scratch: Path) -> Path:
    """The folder of a solution: `place` itself, or, of a zip file, or of a folder with nothing but one, a folder in
    `scratch`, which bears its name."""
    archives = [place] if place.is_file() else []
    if not archives:
        with contextlib.suppress(OSError):
            names = [path for path in place.iterdir() if not _is_skipped(path)]
            archives = names if [path.suffix for path in names] == [".zip"] else []
    if not archives:
        return place
    target = scratch / place.stem
    target.mkdir(parents=True)
    with contextlib.suppress(zipfile.BadZipFile, OSError, RuntimeError), zipfile.ZipFile(archives[0]) as archive:
        for member in archive.infolist():
            if member.file_size <= LARGEST_FILE:
                archive.extract(member, target)
    return target


def with_own_names(submissions: list[Submission], places: list[Path]) -> list[Submission]:
    """The same solutions; names that several have get as many folders above them as make them differ."""
    for depth in range(2, max(len(place.absolute().parts) for place in places) + 1):
        names = [submission.name for submission in submissions]
        for submission, place in zip(submissions, places, strict=True):
            if names.count(submission.name) > 1:
                submission.name = "/".join(place.resolve().parts[-depth:])
    return submissions


def find(folder: Path, edition: str | None = None, **given: Path | None) -> Submission:
    """The solution in a folder.

    Args:
        edition: the year, where it is known.
        given: folders of parts that are not to be looked for, such as part1=Path(...).
    """
    submission = Submission(folder.resolve().name, folder.resolve())
    candidates, unreadable = _folders(submission.folder)
    submission.notes += [f"the folder {path.relative_to(submission.folder)} cannot be read" for path in unreadable]
    for part in PARTS:
        if given.get(part) is not None:
            submission.parts[part] = given[part].resolve()
            continue
        found = [path for path in candidates if looks_like(part, path)]
        if not found:
            continue
        depth = {path: len(path.relative_to(submission.folder).parts) for path in found}
        found.sort(key=lambda path: (depth[path], path.name.lower() != part, str(path)))
        submission.parts[part] = found[0]
        others = [path for path in found[1:] if depth[path] == depth[found[0]]]
        if others and found[0].name.lower() != part:
            names = ", ".join(str(path.relative_to(submission.folder)) for path in found[: len(others) + 1])
            submission.notes.append(f"several folders look like {part} ({names}); the first was taken")
    if not submission.parts:
        submission.notes.append(_nothing_found(candidates))
    submission.edition = edition or recognised_edition(submission.parts)
    return submission


def _nothing_found(folders: list[Path]) -> str:
    """One sentence about a solution without parts."""
    files = [file for folder in folders for file in folder.glob("*") if file.is_file()]
    if any(file.suffix == ".ipynb" for file in files) and not any(file.suffix == ".py" for file in files):
        return "holds notebooks, but no Python files: ask for the files of the template"
    found = ", ".join(sorted(file.name for file in files)[:5]) or "no files"
    return f"holds no part, neither cnn_encoder_decoder.py, models.py nor gpt.py; found: {found}"


def looks_like(part: str, folder: Path) -> bool:
    """Whether the folder holds the files of this part."""
    names = {path.name for path in folder.glob("*.py")}
    if part == "part1":
        return bool(names & {"cnn_encoder_decoder.py", "train_pl.py"}) or _named(part, folder, names)
    if part == "part2":
        own = "gpt.py" not in names or "AdversarialAE" in _text(folder, "models.py")  # all parts may lie in one folder
        return ({"models.py", "train.py"} <= names and own) or _named(part, folder, names)
    return "gpt.py" in names or _named(part, folder, names)


def _named(part: str, folder: Path, names: set[str]) -> bool:
    return folder.name.lower() == part and bool(names)


def recognised_edition(parts: dict[str, Path]) -> str:
    """The year of the template, from what it hands out: '2023' where nothing tells."""
    gpt = _text(parts.get("part3"), "gpt.py")
    if parts.get("part3") is not None:
        is_2024 = any(name in gpt for name in ("abs_emb", "use_flash_attn")) or (parts["part3"] / "cfg.py").is_file()
        return "2024" if is_2024 else "2023"
    vae = _text(parts.get("part1"), "train_pl.py")
    if "x_mean" in vae or "progress_bar_refresh_rate" in vae or "bmnist" in vae:
        return "2021"
    if "gpus=" in vae:  # which Lightning 2, of 2023, no longer takes
        return "2022"
    return "2023"


def copied(folder: Path, target: Path) -> Path:
    """Copy a part's files, without data, checkpoints and links that lead out of it, and give the copy."""
    for directory, subdirectories, files in os.walk(folder):
        subdirectories[:] = [name for name in subdirectories if not _is_skipped(Path(directory, name))]
        place = target / Path(directory).relative_to(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            file = Path(directory, name)
            with contextlib.suppress(OSError):  # an import of what cannot be read says so
                if file.is_file() and file.stat().st_size <= LARGEST_FILE:
                    shutil.copyfile(file, place / name)
    return target


def _folders(root: Path) -> tuple[list[Path], list[Path]]:
    """The folder and those below it, and those among them that cannot be read."""
    found, level, unreadable = [], [root], []
    for _ in range(LEVELS + 1):
        below = []
        for path in level:
            try:
                below += [child for child in sorted(path.iterdir()) if child.is_dir() and not _is_skipped(child)]
                found.append(path)
            except OSError:
                unreadable.append(path)
        level = below
    return found, unreadable


def _is_skipped(path: Path) -> bool:
    return path.name.startswith(".") or path.name in SKIPPED or path.is_symlink() or (path / "pyvenv.cfg").is_file()


def _text(folder: Path | None, name: str) -> str:
    try:
        return (folder / name).read_text(errors="replace") if folder else ""
    except OSError:
        return ""
