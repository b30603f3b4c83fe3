"""A density over the sphere: a mixture of von Mises–Fisher distributions, one around each class (Izbicki et al. 2019).

A network on frozen features gives the weight of each component. Their centres are the places of the classes, and how
far each spreads is learned along; a small share is spread over the whole sphere, so that no place is impossible. What
is learned is the likelihood of the photos' own places.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Batch, Data, Fitted, Metrics, Run
from geoloc_core.contracts.density import region_of
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.geo import sphere
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict
from geoloc_core.training import dense, heads
from geoloc_core.training.optimisers import AdamW, Optimiser
from geoloc_core.training.schedules import Cosine, Schedule

if TYPE_CHECKING:
    import torch

NEARLY_NONE = 1e-6
"""The concentration of the component that is the whole sphere."""
WIDEST_KM = 3000.0
"""How far a component may spread."""
SHARE = 0.9
"""Of the probability, within the radius that is told of each answer."""
DRAWS = 512
"""Places that are drawn from a density, to measure its regions."""
MODES = 16
"""Centres of components at which the density is looked up for its highest point."""
BLOCK = 2**22
"""Numbers at a time."""


class Recipe(Strict):
    """How the network is trained."""

    batch: int = Field(512, gt=0)
    """Photos a step."""
    epochs: int = Field(30, gt=0)
    """How often all training photos are seen, at most."""
    optimiser: Optimiser = AdamW(lr=1e-3)
    """What changes the weights."""
    schedule: Schedule = Cosine()
    """How the learning rate changes."""
    stop_patience: int | None = Field(None, gt=0)
    """Epochs without a better validation likelihood before training ends; null trains them all."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["density"]
    encoder: str
    """Of the photos."""
    labels: str
    """Whose classes are the centres of the components."""
    hidden: tuple[PositiveInt, ...] = (512,)
    """Widths of the hidden layers."""
    least_km: PositiveFloat = 5.0
    """How far a component spreads at least; one around a single photo would be infinitely sharp."""
    background: float = Field(0.001, gt=0, lt=1)
    """The share that is spread over the whole sphere."""
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, ("layers", "log_kappa"))
        return recipe

    def needs(self) -> Needs:
        """A vector per photo."""
        return Needs(inputs=(ImageFeatures(encoder=self.encoder),), labels=self.labels)


def log_normaliser(kappa: np.ndarray) -> np.ndarray:
    """The logarithm of the density of a von Mises–Fisher distribution at its centre, per steradian."""
    found: np.ndarray = np.log(kappa) - np.log(2 * np.pi) - np.log(-np.expm1(-2 * kappa))
    return found


def concentrations(vectors: np.ndarray, classes: np.ndarray, count: int, least_km: float) -> np.ndarray:
    """The concentration (C,) that fits the places of each class best, nearly (Banerjee et al. 2005, p = 3).

    Args:
        vectors: (n, 3) of unit length.
        classes: (n,) of each.
        count: C.
        least_km: How far a component spreads at least; one of fewer than two places spreads ten times as far.
    """
    sums = np.stack([np.bincount(classes, vectors[:, axis], count) for axis in range(3)], axis=1)
    sizes = np.bincount(classes, minlength=count)
    length = np.minimum(np.linalg.norm(sums, axis=1) / np.maximum(sizes, 1), 1 - 1e-12)
    found = np.where(sizes > 1, length * (3 - length**2) / (1 - length**2), kappa_of(10 * least_km))
    return np.clip(found, kappa_of(WIDEST_KM), kappa_of(least_km))


def kappa_of(km: float) -> float:
    """The concentration whose standard deviation, north and east, is so many kilometres where that is little."""
    return (sphere.EARTH_KM / km) ** 2


@dataclass(frozen=True)
class Density:
    """A trained mixture. It answers in NumPy.

    Attributes:
        encoder: Whose features it reads.
        labelspace: Its C classes, each the centre of a component.
        mean: (D,) of the features.
        std: (D,) that they are divided by.
        layers: (N, D) → logits (N, C) of the components.
        kappa: (C,) float64 concentrations.
        background: The share of the whole sphere.
    """

    encoder: str
    labelspace: LabelSpace
    mean: np.ndarray
    std: np.ndarray
    layers: dense.Layers
    kappa: np.ndarray
    background: float

    @cached_property
    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres (C + 1, 3) and concentrations (C + 1,); the last is the whole sphere."""
        centres = sphere.unit_vectors(self.labelspace.latitudes, self.labelspace.longitudes)
        return np.concatenate([centres, [[0, 0, 1]]]), np.append(self.kappa, NEARLY_NONE)

    def weights(self, batch: Batch) -> np.ndarray:
        """Weights (N, C) of the components, which add up to one; the background comes on top."""
        x = (np.asarray(batch.images[self.encoder], np.float32) - self.mean) / self.std
        return softmax(dense.logits_of(self.layers, x).astype(np.float64))

    def log_density(self, batch: Batch, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """See :class:`~geoloc_core.contracts.density.HasDensity`."""
        return self.at(self.weights(batch), sphere.unit_vectors(latitudes, longitudes)[:, None])[:, 0]

    def at(self, weights: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Logarithms (N, P) of the densities with weights (N, C) at points (N, P, 3)."""
        centres, kappa = self.components
        n, count = points.shape[:2]
        mixed = np.log(np.maximum(self._all(weights), np.finfo(float).tiny)) + log_normaliser(kappa)
        found = np.empty((n, count))
        for part in blocks(n, BLOCK, count * len(kappa)):
            each = (points[part] @ centres.T - 1) * kappa + mixed[part, None]
            highest = each.max(axis=2, keepdims=True)
            found[part] = (highest + np.log(np.exp(each - highest).sum(axis=2, keepdims=True)))[..., 0]
        return found

    def _all(self, weights: np.ndarray) -> np.ndarray:
        """Weights (N, C + 1) with that of the whole sphere."""
        sphere_share = np.full((len(weights), 1), self.background)
        return np.concatenate([(1 - self.background) * weights, sphere_share], axis=1)

    def draw(self, weights: np.ndarray, count: int = DRAWS, seed: int = 0) -> np.ndarray:
        """Points (N, count, 3) from the densities with weights (N, C); of each unit the same, whatever the others."""
        rng = np.random.default_rng(seed)
        centres, kappa = self.components
        shares = (rng.permutation(count) + rng.random(count)) / count
        edges = self._all(weights).cumsum(axis=1)
        edges /= edges[:, -1:]
        rows = np.arange(len(weights))[:, None]
        which = np.searchsorted((edges + rows).ravel(), (shares + rows).ravel(), side="right").reshape(-1, count)
        which = np.minimum(which - rows * len(kappa), len(kappa) - 1)
        u, angle = rng.random(count), rng.uniform(0, 2 * np.pi, count)
        concentration = kappa[which]
        along = 1 + np.log(u + (1 - u) * np.exp(-2 * concentration)) / concentration
        along = np.clip(along, -1, 1)[..., None]
        east, north = sphere.tangents(*sphere.coordinates(centres))
        aside = np.cos(angle)[:, None] * east[which] + np.sin(angle)[:, None] * north[which]
        points: np.ndarray = along * centres[which] + np.sqrt(1 - along**2) * aside
        return points

    def region(self, batch: Batch, share: float = SHARE) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~geoloc_core.contracts.density.HasDensity`; on :data:`DRAWS` places drawn from each density."""
        weights = self.weights(batch)
        return region_of(self.at(weights, self.draw(weights)), share)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k components with the most weight; the answer is the centre at which the density is highest.

        The first candidate is then there too. The radius is that of the cap around the answer that holds
        :data:`SHARE` of the probability.
        """
        weights = self.weights(batch)
        found = Prediction.of_probabilities(weights.astype(np.float32), self.labelspace, k, truth)
        peaks = np.argsort(-(np.log(np.maximum(weights, 1e-300)) + log_normaliser(self.kappa)), kind="stable")
        peaks = peaks[:, :MODES]
        points = self.components[0][peaks]
        best = peaks[np.arange(len(peaks)), self.at(weights, points).argmax(axis=1)]
        latitude, longitude = self.labelspace.latitudes[best], self.labelspace.longitudes[best]
        apart = np.linalg.norm(self.draw(weights) - self.components[0][best][:, None], axis=2)
        return found.at(latitude, longitude, np.quantile(sphere.arc_km(apart), SHARE, axis=1))

    def differentiable(self) -> Differentiable:
        """The weights of the components in PyTorch."""
        import torch

        mean, std, layers = torch.from_numpy(self.mean), torch.from_numpy(self.std), dense.in_torch(self.layers)
        return Differentiable([self.encoder], None, lambda x: layers((x - mean) / std))

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        numbers = {"mean": self.mean, "std": self.std, "kappa": self.kappa, "background": np.array([self.background])}
        write_tensors(folder, numbers | dense.to_tensors(self.layers))


def network(inputs: int, hidden: tuple[int, ...], kappa: np.ndarray, least_km: float) -> Any:
    """What is trained: features (B, D) → logits (B, C); ``kappa()`` gives concentrations (C,)."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = heads.network(inputs, hidden, len(kappa))
            self.log_kappa = nn.Parameter(torch.from_numpy(np.log(kappa)).float())

        def kappa(self) -> torch.Tensor:
            return self.log_kappa.clamp(np.log(kappa_of(WIDEST_KM)), np.log(kappa_of(least_km))).exp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layers(x)
            return found

    return Net()


def loss_of(
    logits: "torch.Tensor", kappa: "torch.Tensor", squares: "torch.Tensor", background: float
) -> "torch.Tensor":
    """The mean negative log-likelihood () of B places, per steradian.

    Args:
        logits: (B, C) of the components.
        kappa: (C,) concentrations.
        squares: (B, C) squared chords from each place to the centres: cosines would round what is near away.
        background: The share of the whole sphere.
    """
    import torch

    weights = logits.log_softmax(dim=1) + np.log1p(-background)
    peak = kappa.log() - np.log(2 * np.pi) - (-torch.expm1(-2 * kappa)).log()
    each = weights + peak - kappa * squares / 2
    rest = torch.full_like(each[:, :1], float(np.log(background / (4 * np.pi))))
    return -torch.cat((each, rest), dim=1).logsumexp(dim=1).mean()


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one; the epoch with the best likelihood of validation places is kept.

    Raises:
        UserError: No training or no validation photo has coordinates, or a feature or the loss is not a finite number.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.training.features import Features
    from geoloc_core.training.fitting import averages, fit_network
    from geoloc_core.training.optimisers import optimiser_of
    from geoloc_core.training.schedules import schedule_of

    training, validation = data.located()
    where, recipe = device(), options.recipe
    seed = run.seed
    features = Features((data.images[options.encoder],))
    mean, std = features.statistics(training)
    features.check(validation)
    vectors = sphere.unit_vectors(data.latitudes, data.longitudes)
    kappa = concentrations(vectors[training], data.targets[training], len(data.space), options.least_km)
    torch.manual_seed(seed)
    net = network(features.dim, options.hidden, kappa, options.least_km).to(where)
    centres = torch.from_numpy(sphere.unit_vectors(data.space.latitudes, data.space.longitudes)).to(where)
    points, wanted = torch.from_numpy(vectors).to(where), torch.from_numpy(data.targets).to(where)
    held_out = features.on(validation, where, mean, std)

    def loss(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        squares = (2 - 2 * points[rows] @ centres.T).clamp(min=0).float()  # in float64 until here
        return loss_of(net(x), net.kappa(), squares, options.background)

    def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
        right = (net(x).argmax(dim=1) == wanted[rows]).float().mean().item()
        return {
            "validation_loss": (loss(net, x, rows).item(), len(rows)),
            "validation_accuracy": (100 * right, len(rows)),
        }

    def validate() -> Metrics:
        return averages(held_out.in_order(heads.ROWS), measure)

    optimiser = optimiser_of(recipe.optimiser, net)
    outcome = fit_network(
        net,
        loss,
        features.on(training, where, mean, std),
        validate,
        optimiser,
        schedule_of(recipe.schedule, optimiser, recipe.epochs),
        recipe.batch,
        recipe.epochs,
        recipe.stop_patience,
        seed,
        run.checkpoint,
        run.depends,
        run.log,
        score=lambda metrics: -metrics["validation_loss"],
    )
    learned = net.kappa().detach().cpu().double().numpy()
    layers = heads.linear_layers(net.layers)
    model = Density(options.encoder, data.space, mean, std, layers, learned, options.background)
    figures = {
        **heads.counts(net),
        **vars(outcome.pace),
        "validation_density_nll": round(outcome.history[outcome.best]["validation_loss"], 4),
        "median_spread_km": round(float(sphere.EARTH_KM / np.sqrt(np.median(learned))), 1),
        "without_coordinates": len(data.training) - len(training),
    }
    return Fitted(model, outcome.history, outcome.best, figures)


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Density:
    """Read what :meth:`Density.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the classes.
    """
    tensors = read_tensors(folder, remedy)
    width = width_of(tensors, "mean")
    expected: dict[str, tuple[int, ...]] = {"mean": (width,), "std": (width,)}
    expected |= {"kappa": (len(space),), "background": (1,), **dense.shapes(tensors, width, len(space))}
    check_shapes(folder, remedy, tensors, expected)
    mean, std, kappa = (tensors[name] for name in ("mean", "std", "kappa"))
    background = tensors["background"].item()
    return Density(needs.encoders[0], space, mean, std, dense.of_tensors(tensors), kappa, background)
