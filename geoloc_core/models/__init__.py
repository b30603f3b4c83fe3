"""The published model families, a module each.

A family's module has ``Options`` (its block in ``params.yaml``, with ``inputs``) and ``load``.
"""

from typing import Any

FAMILIES = "geoloc_core.models"


def options_of(family: str) -> Any:
    """The ``Options`` of a family, or None where there is no such family."""
    from geoloc_core.plugins import module_of

    try:
        return getattr(module_of(FAMILIES, family), "Options", None)
    except KeyError:
        return None
