"""Features as training reads them: float16 on disk, never joined, and standardised batch by batch on the device."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.errors import UserError
from geoloc_core.progress import track
from geoloc_core.training.ahead import ahead

if TYPE_CHECKING:
    import torch

WINDOW = 2**30
"""Bytes of features that are shuffled among each other, and that are read at a time where not all can be held."""
RUN = 256
"""Rows next to each other on disk that come into the same window, where there are several."""
BLOCK = 8192
"""Rows whose statistics are taken at once."""
ROWS = 256
"""Rows copied or added up at a time: they stay in the processor's cache."""
CONSTANT = 1e-6
"""A standard deviation below this is none: such a feature is left in its scale."""


class Rows(Protocol):
    """N rows of numbers, (N, D) float16: an array, or what makes them when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some rows (n,): (n, D)."""


@dataclass(frozen=True)
class Features:
    """Features of N photos by one or more encoders, row-aligned, never joined in memory.

    Attributes:
        parts: (N, D_i) float16 of each encoder, memory-mapped or made when asked for.
    """

    parts: tuple[Rows, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def dims(self) -> tuple[int, ...]:
        """D_i of each encoder: what splits joined features again."""
        return tuple(part.shape[1] for part in self.parts)

    @property
    def dim(self) -> int:
        """D, the sum of all D_i."""
        return sum(self.dims)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Features of some rows, all encoders joined; whatever their order, files are read from front to back.

        Args:
            rows: (…) int64, in any order; a row may come twice.
            out: (…, D) float16, contiguous, to write into; a new array if not given.

        Returns:
            (…, D) float16.
        """
        found = np.empty((*rows.shape, self.dim), np.float16) if out is None else out
        flat, wanted = found.reshape(-1, self.dim), rows.reshape(-1)
        order = np.argsort(wanted, kind="stable")
        for some in blocks(len(order), ROWS):
            at = order[some]
            column = 0
            for part in self.parts:
                flat[at, column : column + part.shape[1]] = part[wanted[at]]
                column += part.shape[1]
        return found

    def statistics(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n - 1) of each feature, block by block (Chan et al. 1983).

        A block's mean is summed in float32, which is exact to a small part of a step of float16; its deviations, and
        what joins the blocks, are float64.

        Args:
            rows: (n,) of which; n > 0.

        Returns:
            (D,) float32 each. The second is 1 where a feature does not vary.

        Raises:
            UserError: A row holds what is not a number.
        """
        count, mean, squares = 0, np.zeros(self.dim), np.zeros(self.dim)
        parts = (rows[some] for some in blocks(len(rows), BLOCK))
        for block in track(parts, "mean and spread of features", len(rows), "rows", len):
            block_mean, block_squares = self._moments(block)
            delta, before, count = block_mean - mean, count, count + len(block)
            mean += delta * (len(block) / count)
            squares += block_squares + delta**2 * (before * len(block) / count)
        std = np.sqrt(squares / max(1, count - 1)).astype(np.float32)
        return mean.astype(np.float32), np.where(std < CONSTANT, np.float32(1), std)

    def check(self, rows: np.ndarray) -> None:
        """Refuse features that are not finite numbers.

        Args:
            rows: (n,) to look at.

        Raises:
            UserError: A row holds what is not a number.
        """
        import torch

        parts = (rows[some] for some in blocks(len(rows), BLOCK))
        for block in track(parts, "check of features", len(rows), "rows", len):
            x = torch.from_numpy(self.take(block)).float()
            _refuse_unless_finite(x, x.sum(dim=0), block)

    def _moments(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean, and sum of the squared deviations from it: (D,) float64 each."""
        import torch

        x = torch.from_numpy(self.take(rows)).float()
        mean = x.mean(dim=0)
        _refuse_unless_finite(x, mean, rows)
        rest, squares = torch.zeros(2, self.dim, dtype=torch.float64)
        for piece in x.split(ROWS):
            apart = piece.double().sub_(mean.double())
            rest += apart.sum(dim=0)
            squares += apart.square_().sum(dim=0)
        rest /= len(rows)  # what float32 has rounded away from the mean
        return (mean.double() + rest).numpy(), (squares - len(rows) * rest**2).clamp(min=0).numpy()

    def on(
        self,
        rows: np.ndarray,
        device: "torch.device",
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        budget: int | None = None,
    ) -> "Batches":
        """Some rows as batches on a device; see :class:`Batches`."""
        return Batches(self, rows, device, mean, std, budget)


class Batches:
    """Rows of features as standardised batches on a device.

    They are put there once, as float16, where they fit; otherwise a thread reads them from the disk, a window ahead.
    The batches are the same to the last bit either way.

    Args:
        features: Where they come from.
        rows: (n, …) int64: a row each, or several to a unit, such as the (n, T) views of n places.
        device: Where batches are wanted.
        mean: (D,) that is subtracted; nothing if not given.
        std: (D,) that is divided by; nothing if not given.
        budget: Bytes that may be held at a time: of the device's memory if all rows fit, of the host's where they
            are read again and again. If not given, a quarter of the host's memory, and on a GPU all that is free but
            for a fifth of the card.
    """

    def __init__(
        self,
        features: Features,
        rows: np.ndarray,
        device: "torch.device",
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        budget: int | None = None,
    ) -> None:
        import torch

        self.features, self.rows, self.device = features, rows, device
        self._mean, self._std = (None if a is None else torch.from_numpy(a).to(device) for a in (mean, std))
        self._unit = 2 * features.dim * math.prod(rows.shape[1:])
        self._budget = _room(device) if budget is None else budget
        fits = len(rows) * self._unit <= self._budget
        self._held = (self._hold(), torch.from_numpy(rows).to(device)) if fits else None

    def __len__(self) -> int:
        return len(self.rows)

    def shuffled(self, size: int, seed: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """All units once in a random order that depends on the seed and the sizes alone; see :meth:`at`.

        Up to :data:`WINDOW` bytes are one permutation. Of more, runs of neighbouring rows are shuffled, and then the
        rows of each window of them, so that a disk is read in runs.
        """
        return self.at(order(len(self), max(1, WINDOW // self._unit), seed), size)

    def in_order(self, size: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """All units once, in their order; see :meth:`at`."""
        return self.at(np.arange(len(self)), size)

    def at(self, positions: np.ndarray, size: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Batches of the units at some positions, in that order.

        Args:
            positions: (m,) int64 of 0 … n - 1.
            size: Units of a batch; the last may have fewer.

        Yields:
            (b, …, D) float32, standardised, and (b, …) int64 rows, on the device.
        """
        import torch

        if self._held is None:
            batches = self._read(positions, size)
        else:
            held, held_rows = self._held
            wanted = torch.from_numpy(positions).to(self.device).split(size)
            batches = ((held[batch], held_rows[batch]) for batch in wanted)
        for x, rows in batches:
            yield self._standardised(x), rows

    def _read(self, positions: np.ndarray, size: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        import torch

        # three windows at most: one in use, one being read, one just given up
        most = min(WINDOW, self._budget // 3) // self._unit
        wanted = self.rows[positions]
        step = max(1, most // size) * size
        windows = (wanted[start : start + step] for start in range(0, len(wanted), step))
        for host, rows in ahead((self._load(window), window) for window in windows):
            window = host.to(self.device, non_blocking=True)
            yield from zip(window.split(size), torch.from_numpy(rows).to(self.device).split(size), strict=True)

    def _standardised(self, x: "torch.Tensor") -> "torch.Tensor":
        x = x.float()
        if self._mean is not None:
            x = x.sub_(self._mean)
        return x if self._std is None else x.div_(self._std)

    def _hold(self) -> "torch.Tensor":
        """(n, …, D) float16 on the device, brought there piece by piece."""
        import torch

        if self.device.type == "cpu":
            return self._load(self.rows)
        held = torch.empty((*self.rows.shape, self.features.dim), dtype=torch.float16, device=self.device)
        for some in blocks(len(self), WINDOW // 16, self._unit):
            held[some].copy_(self._load(self.rows[some]), non_blocking=True)
        return held

    def _load(self, rows: np.ndarray) -> "torch.Tensor":
        """(…, D) float16 of some rows in the host's memory, pinned for a copy to a GPU."""
        import torch

        shape = (*rows.shape, self.features.dim)
        # torch keeps pinned memory and gives it out again once the copy from it is done
        found = torch.empty(shape, dtype=torch.float16, pin_memory=self.device.type == "cuda")
        self.features.take(rows, found.numpy())
        return found


def _refuse_unless_finite(x: "torch.Tensor", total: "torch.Tensor", rows: np.ndarray) -> None:
    """Refuse rows (n, D) by a sum over them (D,), which is finite where they all are: it is quicker to look at."""
    if not total.isfinite().all():
        wrong = rows[~x.isfinite().all(dim=1).numpy()]
        raise UserError(
            f"features of {len(wrong)} of rows {rows.min()} to {rows.max()} are not finite numbers, "
            f"the first those of row {wrong[0]}; encode these photos again"
        )


def order(count: int, window: int, seed: int) -> np.ndarray:
    """Positions 0 … count - 1 (count,) int64 in a random order.

    Args:
        count: Of positions.
        window: Of them, how many are shuffled among each other: all in one permutation where they are no more. Else
            runs of :data:`RUN` are put in a random order, and each window of the outcome is shuffled.
        seed: Of the order.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if count <= window:
        return torch.randperm(count, generator=generator).numpy()
    starts = torch.randperm(-(-count // RUN), generator=generator) * RUN
    runs = (starts[:, None] + torch.arange(RUN)).flatten()
    pieces = runs[runs < count].split(window)
    return torch.cat([piece[torch.randperm(len(piece), generator=generator)] for piece in pieces]).numpy()


def _room(device: "torch.device") -> int:
    """Bytes that features may take: a fifth of a GPU stays free, and three quarters of the memory elsewhere."""
    import torch

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, free - total // 5)
    return _memory() // 4


def _memory() -> int:
    """Bytes of memory of this machine, or of the container that this process runs in."""
    import psutil  # type: ignore[import-untyped]

    total: int = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    stated = limit.read_text().strip() if limit.exists() else ""
    return min(total, int(stated)) if stated.isdigit() else total
