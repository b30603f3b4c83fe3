"""Unfinished training, kept so that a kill loses little and changes nothing."""

import json
from pathlib import Path
from typing import Any

from geoloc_core.files import remove, replacing


def save(path: Path, fingerprint: Any, state: dict[str, Any]) -> None:
    """Write the state of a training in one piece.

    Args:
        path: The checkpoint.
        fingerprint: All that the training depends on, as plain values: another one never resumes from it.
        state: Tensors and plain values.
    """
    import torch

    with replacing(path) as aside:
        torch.save({"fingerprint": json.dumps(fingerprint, sort_keys=True, default=str), "state": state}, aside)


def load(path: Path, fingerprint: Any) -> dict[str, Any] | None:
    """The state that :func:`save` wrote for this very training, or None."""
    import torch

    if not path.is_file():
        return None
    found = torch.load(path, weights_only=True, map_location="cpu")
    if found["fingerprint"] != json.dumps(fingerprint, sort_keys=True, default=str):
        remove(path)
        return None
    return found["state"]
