"""The borders of units as segments on the sphere: how far is the nearest one, and which unit does it belong to?"""

from dataclasses import dataclass

import numpy as np

from geoloc_core.geo import kernels, sphere
from geoloc_core.geo.rings import Rings, fixed

LENGTH_KM = 2.0
"""Longest segment: so short that chord, arc and a straight line in degrees are the same to a metre."""
TIE_KM = 1e-6
"""Units nearer to each other than this are equally near."""
# A degree is nowhere longer than at the equator, so this spacing is never too wide.
SPACING = float(np.degrees(LENGTH_KM / sphere.EARTH_KM))


@dataclass(frozen=True)
class Borders:
    """S segments in a tree of boxes. Neighbours on the sphere lie together; ``kernels.nearest`` says how it is read.

    Attributes:
        xy: (V, 2) vertices, degrees.
        segments: (S, 3) unit, vertex, and number of edges or −1 − the first piece of a long one.
        boxes: (B, 6) float32, on the unit sphere: those of the segments, then of each ``kernels.FAN`` boxes, up to one.
        levels: (L + 1,) where in ``boxes`` each level begins.
    """

    xy: np.ndarray
    segments: np.ndarray
    boxes: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, rings: Rings) -> "Borders":
        """The borders of the units with these rings."""
        segments = np.empty((0, 3), dtype=np.int32)
        while (count := kernels.cut(rings.xy, rings.starts, rings.unit, SPACING, segments)) > len(segments):
            segments = np.empty((count, 3), dtype=np.int32)
        boxes = np.empty((count, 6), dtype=np.float32)
        kernels.enclose(rings.xy, segments, SPACING, boxes)
        order = np.argsort(_along_curve(boxes), kind="stable")
        levels = [boxes[order]]
        while len(levels[-1]) > 1:
            groups = np.arange(0, len(levels[-1]), kernels.FAN)
            low, high = np.minimum.reduceat(levels[-1], groups), np.maximum.reduceat(levels[-1], groups)
            levels.append(np.concatenate([low[:, :3], high[:, 3:]], axis=1))
        starts = np.concatenate([[0], np.cumsum([len(level) for level in levels])])
        return cls(rings.xy, fixed(segments[order]), fixed(np.concatenate(levels)), fixed(starts))

    def nearest(self, latitudes: np.ndarray, longitudes: np.ndarray, limit_km: float) -> tuple[np.ndarray, np.ndarray]:
        """The nearest unit of N points and the great-circle distance to it.

        Args:
            latitudes: (N,) degrees.
            longitudes: (N,) degrees.
            limit_km: How far to look.

        Returns:
            (N,) units, −1 where none is within the limit; of units equally near, the first.
            (N,) kilometres, NaN where there is no unit.
        """
        unit, chord = np.empty(len(latitudes), dtype=np.int32), np.empty(len(latitudes))
        reach, tie = float(sphere.chord(limit_km + TIE_KM)), TIE_KM / sphere.EARTH_KM
        where = (self.xy, self.segments, self.boxes, self.levels, SPACING, reach, tie)
        kernels.nearest(*where, latitudes, longitudes, unit, chord)
        distance = sphere.arc_km(chord)
        found = (unit >= 0) & (distance <= limit_km)
        return np.where(found, unit, -1), np.where(found, distance, np.nan)


def _along_curve(boxes: np.ndarray, bits: int = 16) -> np.ndarray:
    """Where on Morton's curve (N,) the middles of boxes (N, 6) lie: neighbours mostly lie together."""
    steps = ((boxes[:, :3] + boxes[:, 3:]) / 2 + 1) * (2 ** (bits - 1) - 1)
    cells = np.clip(steps, 0, 2**bits - 1).astype(np.uint64)
    key = np.zeros(len(boxes), dtype=np.uint64)
    for bit in range(bits):
        for axis in range(3):
            key |= (cells[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return key
