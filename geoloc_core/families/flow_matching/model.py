"""A trained flow: it draws places, says how probable any place is, and answers with the most central draw."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Batch
from geoloc_core.contracts.density import region_of
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import Needs
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.evaluation.metrics import GEOGUESSR_KM
from geoloc_core.families.flow_matching import flow
from geoloc_core.families.flow_matching.network import network
from geoloc_core.families.flow_matching.options import Sampling
from geoloc_core.files import read_json, write_json
from geoloc_core.geo import sphere
from geoloc_core.geo.labelspace import LabelSpace

if TYPE_CHECKING:
    import torch

SHARE = 0.9
"""Of the probability, within the radius that is told of each answer."""
BLOCK = 2**22
"""Numbers of a layer at a time."""
FILE = "sampling.json"


@dataclass(frozen=True)
class Flow:
    """A trained flow. It answers in PyTorch, on the GPU where there is one.

    Attributes:
        encoder: Whose features it reads.
        labelspace: Its C classes.
        mean: (D,) of the features.
        std: (D,) that they are divided by.
        net: See :func:`~geoloc_core.families.flow_matching.network.network`.
        frequencies: (C,) float64 shares of the training photos: where nothing else is known.
        sampling: How places are drawn.
    """

    encoder: str
    labelspace: LabelSpace
    mean: np.ndarray
    std: np.ndarray
    net: Any
    frequencies: np.ndarray
    sampling: Sampling

    def log_density(self, batch: Batch, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """See :class:`~geoloc_core.contracts.density.HasDensity`; of the flow without guidance."""
        found = np.full(len(batch), np.nan)
        known = np.flatnonzero(np.isfinite(latitudes) & np.isfinite(longitudes))
        if len(known):
            points = sphere.unit_vectors(latitudes[known], longitudes[known])[:, None]
            found[known] = self.at(batch.rows(known), points)[:, 0]
        return found

    def at(self, batch: Batch, points: np.ndarray) -> np.ndarray:
        """Logarithms (N, P) of the densities of N units at points (N, P, 3)."""
        import torch

        found = []
        with torch.no_grad():
            for told, part in self._told(batch, points.shape[1]):
                begun = _tensor(points[part], told)
                _, spread = flow.follow(self._field(told), begun, 1.0, 0.0, self.sampling.steps, spread=True)
                found.append((flow.LOG_EVEN + spread).double().cpu().numpy())  # backwards: its sign is changed
        return self._over_background(np.concatenate(found)) if found else np.empty(points.shape[:2])

    def _over_background(self, log_densities: np.ndarray) -> np.ndarray:
        share = self.sampling.background
        return np.logaddexp(log_densities + np.log1p(-share), flow.LOG_EVEN + np.log(share))

    def draw(self, batch: Batch, count: int, guidance: float = 0.0) -> np.ndarray:
        """Points (N, count, 3) from the flow of each of N units; of each unit the same, whatever the others.

        The noise is spread evenly over the sphere, the same for all: what is drawn is spread as evenly over what is
        probable.
        """
        import torch

        noise = sphere.evenly(count)[None]
        found = []
        with torch.no_grad():
            for told, _ in self._told(batch, count):
                begun = _tensor(noise, told).expand(len(told), -1, -1)
                points, _ = flow.follow(self._field(told, guidance), begun, 0.0, 1.0, self.sampling.steps)
                found.append(points.double().cpu().numpy())
        return np.concatenate(found) if found else np.empty((0, count, 3))

    def region(self, batch: Batch, share: float = SHARE) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~geoloc_core.contracts.density.HasDensity`; measured on draws without guidance."""
        return region_of(self.at(batch, self.draw(batch, self.sampling.draws)), share)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k classes with the most draws; the answer is the draw that would score best against all others.

        That is the draw with the greatest mean of exp(−d / 1492.7 km) over the others, the game's score. The first
        candidate is then there too. A class has the draws that are nearer to its place than to any other's; the
        background is shared as the training photos are. The radius is that of the cap around the answer that holds
        :data:`SHARE` of the draws without guidance.
        """
        from scipy.spatial import cKDTree

        sampling, space = self.sampling, self.labelspace
        even = self.draw(batch, sampling.draws)
        draws = self.draw(batch, sampling.draws, sampling.guidance) if sampling.guidance else even
        nearest = cKDTree(sphere.unit_vectors(space.latitudes, space.longitudes)).query(draws.reshape(-1, 3))[1]
        flat = np.repeat(np.arange(len(batch)), sampling.draws) * len(space) + nearest
        shares = np.bincount(flat, minlength=len(batch) * len(space)).reshape(-1, len(space)) / sampling.draws
        probabilities = (1 - sampling.background) * shares + sampling.background * self.frequencies
        best = central(draws)
        latitude, longitude = sphere.coordinates(best)
        found = Prediction.of_probabilities(probabilities.astype(np.float32), space, k, truth)
        apart = sphere.arc_km(np.linalg.norm(even - best[:, None], axis=2))
        return found.at(latitude, longitude, np.quantile(apart, SHARE, axis=1))

    def _field(self, told: "torch.Tensor", guidance: float = 0.0) -> flow.Field:
        """The velocity per s of what is told (n, 1, width) of n photos."""

        def field(points: "torch.Tensor", s: "torch.Tensor") -> "torch.Tensor":
            times = s.reshape(1, 1)
            found = self.net(points, times, told)
            if guidance:
                found = found + guidance * (found - self.net(points, times, self.net.nothing))
            return flow.pace(s) * found

        return field

    def _told(self, batch: Batch, count: int) -> "Iterator[tuple[torch.Tensor, slice]]":
        """What the network makes of the photos (n, 1, width), part by part, each with ``count`` points."""
        import torch

        from geoloc_core.encoders.device import device

        net = self.net.to(device())
        weight = net.features.weight
        widest = max(layer.out_features for layer in net.modules() if isinstance(layer, torch.nn.Linear))
        for part in blocks(len(batch), BLOCK, count * widest):
            x = (np.asarray(batch.images[self.encoder][part], np.float32) - self.mean) / self.std
            yield net.told(_tensor(x, weight))[:, None], part

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.net.state_dict().items()}
        own = {"mean": self.mean, "std": self.std, "frequencies": self.frequencies}
        write_tensors(folder, own | {f"net.{name}": tensor for name, tensor in tensors.items()})
        write_json(folder / FILE, self.sampling)


def _tensor(values: np.ndarray, like: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.from_numpy(values).to(like)


def central(draws: np.ndarray) -> np.ndarray:
    """Of P draws (N, P, 3) the one (N, 3) that scores best against all of them."""
    count = draws.shape[1]
    best = np.empty(len(draws), np.int64)
    for rows in blocks(len(draws), BLOCK, count**2):
        part = draws[rows]
        cosines = np.clip(part @ part.transpose(0, 2, 1), -1, 1)
        km = sphere.EARTH_KM * np.arccos(cosines)
        best[rows] = np.exp(-km / GEOGUESSR_KM).mean(axis=2).argmax(axis=1)
    found: np.ndarray = draws[np.arange(len(draws)), best]
    return found


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Flow:
    """Read what :meth:`Flow.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit each other and the classes.
    """
    import torch

    tensors = read_tensors(folder, remedy)
    sampling: Sampling = read_json(folder / FILE, remedy, Sampling)
    inputs = width_of(tensors, "mean")
    width = width_of(tensors, "net.nothing")
    depth = len({name.split(".")[2] for name in tensors if name.startswith("net.blocks.")})
    expansion = width_of(tensors, "net.blocks.0.rise.bias") // width
    with torch.device("meta"):
        net = network(inputs, max(2, width // 2 * 2), max(1, depth), max(1, expansion))
    expected: dict[str, tuple[int, ...]] = {"mean": (inputs,), "std": (inputs,), "frequencies": (len(space),)}
    expected |= {f"net.{name}": tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    check_shapes(folder, remedy, tensors, expected)
    state = {name: torch.from_numpy(tensors[f"net.{name}"]) for name in net.state_dict()}
    net.load_state_dict(state, assign=True)
    mean, std, frequencies = (tensors[name] for name in ("mean", "std", "frequencies"))
    [encoder] = needs.encoders
    return Flow(encoder, space, mean, std, net.eval(), frequencies, sampling)
