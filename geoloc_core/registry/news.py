"""The news of a champion, told to the hook by whoever promotes: a run of the graph, or a person.

What is to be told is kept (:func:`keep`) with the decision, under its lock, and told (:func:`tell`) after that: a hook
takes its time, and may promote itself. So it hears of champions in the order in which they were decided on, and each
piece of news waits until it was told.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.hook import IN_RUN, call, called, message
from geoloc_core.plugins import Strict
from geoloc_core.project import Project
from geoloc_core.registry import tracking
from geoloc_core.registry.decision import Decision

NOTE = "told.json"


class Noted(Strict):
    """What this machine has noted of champions, in :data:`NOTE`.

    Attributes:
        model: Name of the registered model.
        version: The last champion's.
        untold: What the hook has yet to be told, the oldest first.
    """

    model: str
    version: int
    untold: tuple[Mapping[str, Any], ...] = ()


def keep(project: Project, decision: Decision) -> None:
    """Note a champion that is new, for the hook; also one of a promotion that was killed before it was noted.

    Args:
        project: The project.
        decision: The last one; it names the champion.
    """
    if decision.champion is None:
        return
    hook, version = project.profile.operations.hook, decision.champion.version
    with _noted(project) as known:
        if known is not None and (known.model, known.version) == (decision.model, version):
            return
        untold = known.untold if known and hook else ()
        if hook and (known or decision.promoted):
            run = os.environ.get(IN_RUN)
            page = f"runs/{run}" if run else f"mlflow/models/{decision.model}/versions/{version}"
            untold += (message(called(project.root, decision.model), "promotion", "promote", decision.verdict, page),)
        _write(project, Noted(model=decision.model, version=version, untold=untold))


def tell(project: Project) -> str | None:
    """Tell the hook what it has not been told. If another process is at that, it tells this too.

    Returns:
        One line on what went wrong with the hook, which does not undo a promotion: it is told the same after the next
        decision. None if nothing did.
    """
    hook = project.profile.operations.hook
    if not hook:
        return None
    with (project.state / "telling.lock").open("w") as telling:
        try:
            fcntl.flock(telling, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        while True:
            with _noted(project) as known:
                if not known or not known.untold:
                    telling.close()  # while nobody can add to it: who adds to it after this tells it
                    return None
            if wrong := call(hook, known.untold[0], project.root):
                return wrong
            with _noted(project) as now:
                if now:
                    _write(project, now.model_copy(update={"untold": now.untold[1:]}))


@contextmanager
def _noted(project: Project) -> Iterator[Noted | None]:
    """What is noted, which nobody else changes while the block runs; None if nothing is, or only half of it."""
    with tracking.one_at_a_time(project.state / "told.lock"):
        try:
            known: Noted | None = read_json(project.state / NOTE, shape=Noted)
        except UserError:
            known = None
        yield known


def _write(project: Project, noted: Noted) -> None:
    write_json(project.state / NOTE, noted)
