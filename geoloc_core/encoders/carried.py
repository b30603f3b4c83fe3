"""A tower that a model carries in its own folder: trained with it, and no one else's."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.encoders import encoder as encoders
from geoloc_core.errors import UserError
from geoloc_core.files import CHECKSUMS, remove, write_checksums


@dataclass(frozen=True)
class Carried:
    """A tower and where its weights are.

    Attributes:
        options: Its block, with which it is opened.
        folder: Its weights, in its library's published format.
        encoder: The same, opened.
    """

    options: Any
    folder: Path
    encoder: encoders.Encoder

    @classmethod
    def of_trained(cls, options: Any, save: Any, folder: Path) -> "Carried":
        """Save a network that was trained, and open it as a tower.

        Args:
            options: The block of the encoder that it started as.
            save: Writes its weights into an existing folder.
            folder: Where they may lie until the model is saved.
        """
        remove(folder)
        folder.mkdir(parents=True)
        save(folder)
        return cls(options, folder, encoders.load(options, folder))

    @classmethod
    def load(cls, options: Any, folder: Path, remedy: str) -> "Carried":
        """Open what :meth:`save` wrote.

        Raises:
            UserError: A file is missing or differs from what was written.
        """
        if not (listed := folder / CHECKSUMS).is_file():
            raise UserError(f"{listed}: no such file; {remedy}")
        return cls(options, folder, encoders.load(options, folder, remedy))

    def features(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Features (N, D) float32 of N encoded pictures."""
        with ThreadPoolExecutor() as pool:
            return self.encoder(pictures, pool)

    def save(self, folder: Path) -> None:
        """Write it into a folder that does not exist yet."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(CHECKSUMS))
        write_checksums(folder, "weights")
