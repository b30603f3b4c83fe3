"""A corpus of Street View panoramas: a plan of places, and the official API.

What arrives suits ``source: {kind: streetview}``: the pictures as ``images/<pano_id>/<heading>.jpg`` and the table
``panoramas.csv``; a picture that the API lacks is a row without a file, which ingest refuses as missing.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from geoloc_core.corpora.downloads import Limits
from geoloc_core.corpora.places import Plan, places
from geoloc_core.corpora.streetview import Credentials, View, crawl, estimate
from geoloc_core.errors import UserError
from geoloc_core.files import files_under, keep_only_own, link_or_copy, read_json, remove
from geoloc_core.plugins import Strict
from geoloc_core.progress import say


class Options(Strict):
    """Where to ask, how to look, and for how much."""

    kind: Literal["streetview"]
    path: Path
    """What the plan reads: a folder of boundaries (random) or a list of ids (panoramas); others read nothing of it."""
    places: Plan
    """Which places are asked for."""
    view: View
    limits: Limits = Limits()


def fetch(options: Options, *, name: str, source: Any, seed: int, out: Path, partial: Path) -> dict[str, Any]:
    """Download the panoramas of a plan; a run that was stopped continues where it stopped.

    Args:
        options: Where to ask, how to look, and for how much.
        name: The corpus.
        source: Not needed.
        seed: Of random places.
        out: The folder to make.
        partial: What an interrupted run had brought and spent.

    Returns:
        Places, panoramas, pictures, what is missing by reason, and the cost.

    Raises:
        UserError: The plan has no places, the key is missing or refused, the quota is used up, or the budget does not
            suffice.
    """
    wanted = places(options.places, options.path, seed)
    say(f"{name}: {estimate(len(wanted), options.view)}")
    credentials = Credentials.of()
    # What a picture shows; other places, headings or budgets go on with the pictures that are paid for.
    look = options.view.model_dump(mode="json", include={"width", "height", "fov", "pitch", "base"})
    _keep_paid(partial, look, f"run.corpora.{name}.fetch.view")
    made, assembled = partial / "made", partial / "assembled"
    summary = crawl(wanted, options.view, credentials, options.limits, made, partial)
    # Links where the disk has them: what is paid for stays here too, until the stage has ended well.
    remove(assembled)
    shutil.copytree(made, assembled, copy_function=link_or_copy)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(assembled, out)
    return summary


def _keep_paid(partial: Path, look: dict[str, Any], key: str) -> None:
    """Go on with unfinished work of the same look; what was paid for another one is the user's to drop.

    Raises:
        UserError: There are pictures, and they show another view, or nothing tells which.
    """
    paid, note = len(files_under(partial / "made")), partial / "request.json"
    try:
        brought = read_json(note)
    except UserError:
        brought = None
    if paid and brought != look:
        taken = f"{paid:,} paid pictures in {partial / 'made'} were taken with"
        if isinstance(brought, dict):
            said = f"another view; set {key} back to {json.dumps(brought)}"
        else:
            said = f"an unknown view ({note} is missing or damaged); write {json.dumps(look)} to it if that was it"
        raise UserError(f"{taken} {said}, or remove {partial} and pay for all of them again")
    keep_only_own(partial, look)
