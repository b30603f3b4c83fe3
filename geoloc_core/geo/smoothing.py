"""Label smoothing by distance: every cell near a photo is a little right (PIGEON, Haas et al. 2024, equation 2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from numpy.typing import ArrayLike

from geoloc_core.blocks import blocks

if TYPE_CHECKING:
    from torch import Tensor, device

EQUATORIAL_KM = 6378.137
"""The radius that PIGEON measures with; the rest of the field has ``sphere.EARTH_KM``."""
NEGLIGIBLE = 16.0
"""How many τ beyond the reference a target is 1e-7, less than float32 tells from nothing: it is 0."""
AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Pairs worked on at once: few enough for a processor's cache, enough to keep a GPU busy."""


@dataclass(frozen=True)
class Smoothing:
    """Targets exp(−(d − d₀)/τ) of points over cells, d the great-circle distance to each cell's centroid.

    Attributes:
        cells: (3, C) float64 unit vectors of the cells' centroids, on the device where targets are wanted.
        tau_km: How fast targets fall with distance: 75 in PIGEON, 65 in PIGEOTTO.
        radius_km: Of the sphere.
        reference: Where d₀ is measured: to the ``nearest`` cell, as the published code does, or to the ``true`` one,
            as the paper says. With the latter, a cell nearer than the true one has a target above 1.
        normalise: Whether the targets of a point add up to 1; published ones do not.
    """

    cells: "Tensor"
    tau_km: float = 75.0
    radius_km: float = EQUATORIAL_KM
    reference: Literal["nearest", "true"] = "nearest"
    normalise: bool = False

    def targets(self, latitudes: ArrayLike, longitudes: ArrayLike, true: ArrayLike | None = None) -> "Tensor":
        """Targets of B points, made on the device of the cells.

        Distances are exact to centimetres (float64 inside); only pairs within :data:`NEGLIGIBLE` τ of d₀ are worked
        out, the rest is 0.

        Args:
            latitudes: (B,) degrees.
            longitudes: (B,) degrees.
            true: (B,) the class of each point; needed where the true cell is the reference.

        Returns:
            (B, C) float32.

        Raises:
            ValueError: A coordinate is not a number, or a point has no true cell where it is the reference.
        """
        import torch

        points = vectors(latitudes, longitudes, self.cells.device)
        if not points.isfinite().all():
            raise ValueError("a coordinate is not a number; expected degrees: leave rows without a place out")
        own = self._true(true, len(points))
        targets = torch.zeros(len(points), self.cells.shape[1], device=points.device)
        for part in blocks(len(points), AT_ONCE.get(points.device.type, 1 << 21), self.cells.shape[1]):
            self._fill(targets[part], points[part], None if own is None else own[part])
        return targets

    def _fill(self, targets: "Tensor", points: "Tensor", own: "Tensor | None") -> None:
        """Write the targets (b, C) of points (b, 3) into zeros."""
        import torch

        # Half the squared half-chord is (1 − a·b)/2: in float64 good to centimetres, unlike the arccosine of a·b.
        half = torch.full((), 0.5, dtype=points.dtype, device=points.device)
        haversine = torch.addmm(half, points, self.cells, alpha=-0.5)
        at_reference = haversine.amin(1) if own is None else haversine.gather(1, own[:, None])[:, 0]
        reference = _angle(at_reference)
        reach = NEGLIGIBLE * self.tau_km / self.radius_km
        farthest = ((reference + reach).clamp(max=torch.pi) / 2).sin().square()
        near = (haversine <= farthest[:, None]).view(-1).nonzero()[:, 0]
        beyond = _angle(haversine.view(-1)[near]).sub_(reference[near // haversine.shape[1]])
        targets.view(-1)[near] = beyond.mul_(-self.radius_km / self.tau_km).exp_().to(targets.dtype)
        if self.normalise:
            targets.div_(targets.sum(1, keepdim=True))

    def _true(self, true: ArrayLike | None, count: int) -> "Tensor | None":
        import torch

        if self.reference == "nearest":
            return None
        own = torch.as_tensor(true if true is not None else [], device=self.cells.device)
        if own.shape != (count,) or not ((own >= 0) & (own < self.cells.shape[1])).all():
            raise ValueError(f"true cells: expected {count} classes of 0 … {self.cells.shape[1] - 1}, one per point")
        return own.long()


def smoothing(
    latitudes: ArrayLike,
    longitudes: ArrayLike,
    device: "str | device" = "cpu",
    tau_km: float = 75.0,
    radius_km: float = EQUATORIAL_KM,
    reference: Literal["nearest", "true"] = "nearest",
    normalise: bool = False,
) -> Smoothing:
    """The smoothing over cells with centroids at latitudes and longitudes (C,), degrees: see :class:`Smoothing`."""
    cells = vectors(latitudes, longitudes, device).T.contiguous()
    return Smoothing(cells, tau_km, radius_km, reference, normalise)


def vectors(latitudes: ArrayLike, longitudes: ArrayLike, device: "str | device") -> "Tensor":
    """Points (N,) in degrees as float64 unit vectors (N, 3) on a device."""
    import torch

    lat, lon = (torch.deg2rad(torch.as_tensor(v, dtype=torch.float64, device=device)) for v in (latitudes, longitudes))
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=1)


def _angle(haversine: "Tensor") -> "Tensor":
    """Radians from haversines, sin²(angle/2), which rounding may have put beyond 0 … 1."""
    return haversine.clamp(0, 1).sqrt_().asin_().mul_(2)
