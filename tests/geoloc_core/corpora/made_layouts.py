"""Small simulated corpora, in any layout."""

from functools import cache
from pathlib import Path
from typing import Any

from geoloc_core.corpora.photo import Photo, Refusal
from geoloc_core.corpora.simulated import Plan, Shot, Simulation
from geoloc_core.corpora.world.render import render
from geoloc_core.corpora.world.shots import shot_of, views
from geoloc_core.corpora.world.words import clues
from geoloc_core.plugins import module_of


@cache
def shots(plan: Plan, count: int = 12) -> tuple[Shot, ...]:
    return tuple(
        shot_of(photo, spot, heading, render(photo, 32).jpeg(), None)
        for photo, spot, heading in views(11, "made", 0, count, plan)
    )


@cache
def _clues() -> tuple[dict[str, str], ...]:
    return tuple(clues())


def layout(folder: Path, count: int = 12, **options: Any) -> tuple[Any, Any, tuple[Shot, ...]]:
    """Write a corpus: its module, its options and what was rendered."""
    module = module_of("geoloc_core.corpora.sources", options["kind"])
    parsed = module.Options(**options)
    folder.mkdir(parents=True, exist_ok=True)
    made = shots(module.PLAN, count)
    module.write(Simulation(iter(made), _clues()), folder, parsed)
    return module, parsed, made


def split(source: Any) -> tuple[list[Photo], list[Refusal]]:
    items = list(source.items)
    return [i for i in items if isinstance(i, Photo)], [i for i in items if isinstance(i, Refusal)]
