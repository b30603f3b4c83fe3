"""Unfinished training, kept so that a kill loses little and changes nothing."""

import json
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

from geoloc_core.errors import UserError
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
    """The state that :func:`save` wrote for this very training, or None.

    Raises:
        UserError: It is damaged.
    """
    import torch

    if not path.is_file():
        return None
    try:
        with ZipFile(path) as archive:  # torch itself does not look at the checksums that it writes
            if archive.testzip() is not None:
                raise BadZipFile
        saved = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(saved, dict) or saved.keys() != {"fingerprint", "state"}:
            raise BadZipFile
    except (BadZipFile, UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, zlib.error):
        raise UserError(f"{path}: damaged; remove it, and the training starts anew") from None
    if saved["fingerprint"] != json.dumps(fingerprint, sort_keys=True, default=str):
        remove(path)
        return None
    return saved["state"]
