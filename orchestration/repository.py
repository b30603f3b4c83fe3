"""DVC's repository: waited for while others use it, and mended after a killed process."""

import json
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import yaml

from geoloc_core.errors import UserError
from geoloc_core.yamls import parse_yaml
from orchestration import lockfile
from orchestration.compat import (
    edited_rwlock,
    opened_repo,
    parameters_parsed_once,
    version_of_yaml_found_once,
    write_lock_files_with,
)

T = TypeVar("T")
_logger = logging.getLogger(__name__)


_MALFORMED = (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError)
"""What reading a file that was written in part raises, beside DVC's own errors."""


class Halted(Exception):  # noqa: N818 - nothing is wrong
    """A wait for other processes was called off."""


def with_dvc(
    root: Path,
    do: Callable[[Any], T],
    tell: Callable[[str], None] = _logger.warning,
    halt: threading.Event | None = None,
) -> T:
    """Call a function with DVC's repository, again if another process was in the way or had left damaged files.

    DVC fails at once where another process reads or writes the same path; this waits for as long as that process lives.
    DVC also writes ``.dvc/tmp/rwlock`` (who reads and writes what) and ``dvc.lock`` in place, and fails for ever if a
    killed process left half of one. Such an ``rwlock`` is deleted. Such a ``dvc.lock`` is moved to ``.state``; its
    stages come back from DVC's run cache. Locks of zombie processes are released: DVC takes these for alive.

    Args:
        root: The project.
        do: The function; it may be called more than once.
        tell: Receives each message once: which process it waits for, what was repaired.
        halt: Ends the wait when it is set.

    Raises:
        Halted: ``halt`` was set while it waited.
        UserError: The folder is no repository of DVC's, or not one of git's although DVC expects it.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.scm import SCMError

    write_lock_files_with(lockfile.modified)
    parameters_parsed_once()
    version_of_yaml_found_once()
    told: set[str] = set()

    def tell_once(what: str) -> None:
        if what not in told:
            told.add(what)
            tell(what)

    while True:
        try:
            with opened_repo(root) as repo:
                return do(repo)
        except NotDvcRepoError:
            raise UserError(
                f"{root}: DVC does not know this folder; work in a clone of the project, or run `dvc init` in it"
            ) from None
        except SCMError:
            raise UserError(
                f"{root}: not a git repository, as DVC expects; work in a clone of the project, or run `git init` in it"
            ) from None
        except (DvcException, *_MALFORMED) as error:
            try:
                mended = _mended(root, error, tell_once, halt or threading.Event())
            except (DvcException, OSError):  # the first error is the one that explains
                raise error from None
            if not mended:
                raise


def _is_of_a_reader(error: BaseException | None) -> bool:
    """Whether this is an error of reading a damaged file, and not the failure of a stage."""
    from dvc.rwlock import RWLockFileCorruptedError, RWLockFileFormatError
    from dvc.utils.serialize import ParseError
    from dvc.utils.strictyaml import YAMLValidationError

    readers = (RWLockFileCorruptedError, RWLockFileFormatError, ParseError, YAMLValidationError)
    return isinstance(error, readers + _MALFORMED)


def _mended(root: Path, error: Exception, tell: Callable[[str], None], halt: threading.Event) -> bool:
    from dvc.lock import LockError
    from dvc.repo import lock_repo

    busy = next((known for known in (error, error.__cause__) if isinstance(known, LockError)), None)
    if busy:
        _wait(root, str(busy), tell, halt)
        return True
    if not (_is_of_a_reader(error) or _is_of_a_reader(error.__cause__)):
        return False
    if _deleted_rwlock(root):
        tell(".dvc/tmp/rwlock: not readable; deleted, since it lists only the processes at work")
        return True
    lock = root / "dvc.lock"
    with opened_repo(root) as repo, lock_repo(repo):  # nobody is writing it now
        if not _is_torn(lock):
            return False
        aside = root / ".state" / "dvc.lock.torn"
        aside.parent.mkdir(exist_ok=True)
        lock.replace(aside)
    tell("dvc.lock: not readable; moved to .state/dvc.lock.torn; its stages are restored from DVC's run cache")
    return True


def _wait(root: Path, busy: str, tell: Callable[[str], None], halt: threading.Event) -> None:
    """Wait until one of the processes that DVC names releases a path."""
    from dvc.lock import LockError

    named = dict(re.findall(r"\(PID (\d+)\): (.*)", busy))
    before: set[tuple[str, int]] | None = None
    while True:
        try:
            with edited_rwlock(root) as lock:
                held = {(path, pid) for path, pid in _release_dead(lock) if str(pid) in named}
        except LockError:
            held = before or set()  # another process is changing the list
        if not held or before not in (None, held):
            return
        before = held
        tell("waiting for " + ", ".join(f"`{command}` (process {pid})" for pid, command in sorted(named.items())))
        if halt.wait(0.2):
            raise Halted


def _release_dead(lock: dict[str, Any]) -> set[tuple[str, int]]:
    """Take dead processes off DVC's list; returns each path that is still held, with its process."""
    readers = {path: [info for info in infos if _lives(info)] for path, infos in lock["read"].items()}
    writers = {path: info for path, info in lock["write"].items() if _lives(info)}
    lock["read"].clear()
    lock["read"].update({path: infos for path, infos in readers.items() if infos})
    lock["write"].clear()
    lock["write"].update(writers)
    held = {(path, info["pid"]) for path, infos in readers.items() for info in infos}
    return held | {(path, info["pid"]) for path, info in writers.items()}


def _lives(info: dict[str, Any]) -> bool:
    """Whether the process that holds a lock is alive, and no zombie."""
    try:
        return bool(psutil.Process(int(info["pid"])).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _deleted_rwlock(root: Path) -> bool:
    """Delete ``.dvc/tmp/rwlock`` if it is not readable; returns whether it was not."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
    from voluptuous import Invalid

    folder = root / ".dvc" / "tmp"
    file = folder / RWLOCK_FILE
    if not file.is_file():
        return False
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder), wait=True):
        try:
            SCHEMA(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, Invalid):
            file.unlink()
            return True
    return False


def _is_torn(lock: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    if not lock.exists():
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(lock.read_bytes()))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return True
    return False
