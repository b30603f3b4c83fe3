"""Encoded pictures in the shards of a folder, whole photos and pieces of them alike, in any order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Stored:
    """N pictures.

    Attributes:
        folder: That has the shards.
        shards: (N,) number of the shard of each picture.
        rows: (N,) row of each picture within its shard.
    """

    folder: Path
    shards: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def photos(cls, folder: Path) -> "Stored":
        """The photos of a corpus folder, row-aligned with its manifest.

        Raises:
            UserError: The corpus has not been ingested.
        """
        from geoloc_core.corpora import manifest

        table = manifest.read_manifest(folder, ["shard", "row"])
        return cls(folder, table["shard"].to_numpy(), table["row"].to_numpy())

    @classmethod
    def all_of(cls, folder: Path) -> "Stored":
        """All pictures in the shards of a folder, in their order."""
        from geoloc_core.corpora import manifest

        counts = [manifest.count(shard) for shard in manifest.shards(folder)]
        rows = [np.arange(count) for count in counts]
        return cls(folder, np.repeat(np.arange(len(counts)), counts), np.concatenate([np.empty(0, np.int64), *rows]))

    def take(self, which: np.ndarray) -> "Stored":
        """Some of the pictures, in the order given."""
        return Stored(self.folder, self.shards[which], self.rows[which])

    def read(self) -> list[bytes]:
        """The encoded pictures; each row group that holds any is read once.

        Raises:
            UserError: A shard is missing or damaged.
        """
        from geoloc_core import parquet
        from geoloc_core.corpora import manifest

        found: list[bytes] = [b""] * len(self)
        groups = self.rows // manifest.ROW_GROUP
        for shard in np.unique(self.shards):
            path = manifest.shard_path(self.folder, int(shard))
            with parquet.opened(path, manifest.again(path), memory_map=True) as file:
                for group in np.unique(groups[self.shards == shard]):
                    images = file.read_row_group(int(group), columns=["image"])["image"]
                    pictures = images.combine_chunks().field("bytes")
                    for at in np.flatnonzero((self.shards == shard) & (groups == group)):
                        found[at] = pictures[int(self.rows[at]) % manifest.ROW_GROUP].as_py()
        return found
