"""Checkpoints of unfinished training: a killed run loses little, and its result does not change."""

import json
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

from geoloc_core.errors import UserError
from geoloc_core.files import remove, replacing


def save(path: Path, fingerprint: Any, state: dict[str, Any]) -> None:
    """Write the state of a training run atomically.

    Args:
        path: The checkpoint.
        fingerprint: Everything the training depends on, as plain values; a run with another never resumes from it.
        state: Tensors and plain values.
    """
    import torch

    with replacing(path) as aside:
        torch.save({"fingerprint": json.dumps(fingerprint, sort_keys=True, default=str), "state": state}, aside)


def load(path: Path, fingerprint: Any) -> dict[str, Any] | None:
    """The state that :func:`save` wrote for this training, or None.

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
        raise UserError(f"{path}: damaged; delete it to start the training afresh") from None
    if saved["fingerprint"] != json.dumps(fingerprint, sort_keys=True, default=str):
        remove(path)
        return None
    return saved["state"]
