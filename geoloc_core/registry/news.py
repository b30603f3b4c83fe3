"""The news of a champion, told to the hook by whoever promotes: a run of the graph, or a person."""

import os
from typing import Any

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.hook import IN_RUN, call, message
from geoloc_core.project import Project
from geoloc_core.registry.decision import Decision


def tell(project: Project, decision: Decision) -> str | None:
    """Tell the hook of a champion that it has not been told of, as also after a promotion that was killed.

    Args:
        project: The project.
        decision: The last one; it names the champion.

    Returns:
        One line on what went wrong with the hook, which does not undo a promotion; None if nothing did.
    """
    if decision.champion is None:
        return None
    note, version = project.state / "told.json", decision.champion.version
    known, now = _known(note), {"model": decision.model, "version": version}
    if known == now:
        return None
    hook, wrong = project.profile.operations.hook, None
    if hook and (known or decision.promoted):
        run = os.environ.get(IN_RUN)
        page = f"runs/{run}" if run else f"mlflow/models/{decision.model}/versions/{version}"
        told = message(project.root.resolve().name, "promotion", "promote", decision.verdict, page)
        wrong = call(hook, told, project.root)
    write_json(note, now)
    return wrong


def _known(note: Any) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_json(note, shape=dict[str, Any])
    except UserError:  # none yet, or half of one
        return None
    return found
