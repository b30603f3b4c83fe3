"""What a retraining depends on, seen at a glance: whether anything has changed since everything was last up to date.

DVC reads every file to find that out. Here the names, sizes and times of files stand for what they hold, which takes
microseconds a file and no memory, so that a sensor can look every minute.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from pathlib import Path

import geoloc_core
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from orchestration.dvc import Stage, crawls

_SUM = 1 << 64


@dataclass(frozen=True)
class Listing:
    """The files of a folder, or a single one.

    Attributes:
        files: How many there are.
        size: Their size in bytes, all together.
        digest: A sum of digests, one of each file's name, size and time of change, in hexadecimal.
    """

    files: int
    size: int
    digest: str


@dataclass(frozen=True)
class Seen:
    """What was seen of a project.

    Attributes:
        recipe: A digest of each part of the recipe, by its name for readers.
        data: The listing of each input that no stage makes, by its path.
    """

    recipe: Mapping[str, str]
    data: Mapping[str, Listing]


def listing(path: Path) -> Listing:
    """What is in a folder and its folders, or a single file. What is missing, or vanishes meanwhile, has no files.

    Links to folders are not followed. The order of the files does not count.
    """
    files = size = total = 0
    folders = [str(path)]
    skip = len(folders[0])
    if path.is_file():
        state = path.stat()
        return Listing(1, state.st_size, f"{_of_file('', state):016x}")
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                            continue
                        state = entry.stat()
                    except FileNotFoundError:  # deleted meanwhile, or a link to nowhere
                        continue
                    files, size = files + 1, size + state.st_size
                    total = (total + _of_file(entry.path[skip:], state)) % _SUM
        except (FileNotFoundError, NotADirectoryError):
            continue
    return Listing(files, size, f"{total:016x}")


def _of_file(name: str, state: os.stat_result) -> int:
    text = f"{name}\0{state.st_size}\0{state.st_mtime_ns}"
    return int.from_bytes(blake2b(os.fsencode(text), digest_size=8).digest(), "big")


def sources(stages: Iterable[Stage]) -> list[str]:
    """The inputs that no stage makes: photos, lists of addresses, rasters and the like."""
    return sorted({path for stage in stages for path in stage.sources})


def look(root: Path, paths: Iterable[str]) -> Seen:
    """See a project as it is now: its recipe, and what lies under paths from its folder."""
    return Seen(recipe(root), {path: listing(root / path) for path in paths})


def recipe(root: Path) -> dict[str, str]:
    """A digest of the parameters, of the graph and of the code."""
    names = ("params.yaml", "dvc.yaml")
    package = Path(geoloc_core.__file__).parent
    code = [f"{sys.version}\n{path.relative_to(package)}\n".encode() + path.read_bytes()
            for path in sorted(package.rglob("*.py"))]  # fmt: skip
    return {**{name: _digest([_bytes(root / name)]) for name in names}, "the code": _digest(code)}


def _digest(parts: Iterable[bytes]) -> str:
    found = sha256()
    for part in parts:
        found.update(sha256(part).digest())
    return found.hexdigest()[:16]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def note_settled(root: Path, seen: Seen) -> None:
    """Note that everything is up to date with what was seen before it was brought up to date."""
    write_json(_note(root), asdict(seen) | {"lock": _digest([_bytes(root / "dvc.lock")])})


def forget_settled(root: Path) -> None:
    """Note that not everything is up to date, as while a run is at work, and after it failed."""
    _note(root).unlink(missing_ok=True)


def settled(root: Path) -> tuple[Seen, str] | None:
    """What was seen when everything was last up to date, and the digest of ``dvc.lock`` after it; None if never."""
    try:
        note = read_json(_note(root), shape=dict)
        data = {path: Listing(**known) for path, known in note["data"].items()}
        return Seen(note["recipe"], data), note["lock"]
    except (UserError, KeyError, TypeError, AttributeError):  # none, or of another version
        return None


def _note(root: Path) -> Path:
    return root / ".state" / "settled.json"


def news(root: Path, stages: Sequence[Stage], seen: Seen) -> Sequence[str]:
    """What has changed since everything was last up to date, for readers; nothing if it still is."""
    last = settled(root)
    if last is None:
        return ["no run has brought everything up to date yet, or the last one failed"]
    before, lock = last
    found = [f"{name} has changed" for name, value in seen.recipe.items() if before.recipe.get(name) != value]
    found += [f"{path}: {_change(before.data.get(path), now)}" for path, now in seen.data.items()
              if before.data.get(path) != now]  # fmt: skip
    again = crawls(root)
    found += [f"{stage.subject}: {again[stage.name]:,} addresses that were gone are to be asked again"
              for stage in stages if stage.name in again]  # fmt: skip
    if _digest([_bytes(root / "dvc.lock")]) != lock:
        found.append("dvc.lock has changed")
    return found


def _change(before: Listing | None, now: Listing) -> str:
    if before is None:
        return f"{_files(now.files)} that no run has seen"
    more = now.files - before.files
    if more:
        return f"{_files(abs(more))} {'more' if more > 0 else 'fewer'}, {now.files:,} in all"
    return f"changed files among {now.files:,}"


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
