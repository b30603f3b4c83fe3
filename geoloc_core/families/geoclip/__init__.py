"""GeoCLIP: photos and places embedded in one space; the answer is the most similar place of a gallery.

Vivanco Cepeda, Nayak and Shah 2023. An image head on frozen CLIP features meets a location encoder: the Equal Earth
projection, random Fourier features of three spreads, a network for each. What the released code leaves open is the
paper's: Adam at 3e-5 with a weight decay of 1e-6, a rate that falls by 0.87 every epoch, batches of 512, and noise of
150 m on the points of a batch and 1,000 m on those of the queue. The number of epochs is stated nowhere.

The queue begins with points of the training photos. The released one begins with points around (0°, 0°), which tell
nothing apart.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Batch, Data, Fitted, Metrics, Run
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import WEIGHTS, check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.contracts.truth import UNITS
from geoloc_core.errors import UserError
from geoloc_core.families.geoclip.gallery import FILE, NOWHERE, Gallery, Precision
from geoloc_core.geo import sphere
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.pins import Sha256, hold
from geoloc_core.plugins import Strict
from geoloc_core.training import dense
from geoloc_core.training.heads import check_rates
from geoloc_core.training.optimisers import Adam, Optimiser
from geoloc_core.training.schedules import Schedule, Step

if TYPE_CHECKING:
    import torch

    from geoloc_core.families.geoclip.network import Sizes
    from geoloc_core.training.features import Features

PARTS = ("head", "location", "logit_scale")
"""Parts of the network that may have a learning rate of their own."""
NEAR_KM = 750.0
"""An answer within it is right, where the best epoch is chosen: what promotion chooses by as a rule."""
ROWS = 4096
"""Validation rows looked at in one go."""
CALIBRATED = 10_000
"""Validation rows that the finished model is measured and calibrated on, at most, evenly spread."""
ROWS = 1024
"""Rows that are compared with the gallery at a time."""


class Recipe(Strict):
    """How the head and the location encoder are trained: as published, where it is."""

    batch: int = Field(512, gt=1)
    """Photos a step."""
    epochs: int = Field(10, gt=0)
    """How often all training photos are seen, at most."""
    optimiser: Optimiser = Adam(lr=3e-5, weight_decay=1e-6)
    """What changes the weights."""
    schedule: Schedule = Step(gamma=0.87)
    """How the learning rate changes."""
    stop_patience: int | None = Field(None, gt=0)
    """Epochs without more validation photos answered within 750 km before training ends; null trains them all."""


class Points(Strict):
    """A CSV of the places that photos may be from, such as the one in the package ``geoclip``."""

    path: Path
    """From the project's root."""
    sha256: Sha256 | None = None
    """Checksum of the file: with another one the model is stale; what is missing is said."""
    latitude: str = "LAT"
    """Name of the column, in degrees."""
    longitude: str = "LON"
    """Likewise."""


class Released(Strict):
    """The folder of weights in the package ``geoclip``, ``model/weights``."""

    path: Path
    """From the project's root."""
    sha256: Sha256 | None = None
    """Checksum of its files together."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["geoclip"]
    encoder: str
    """Of the photos: published with the projected embedding of CLIP ViT-L/14."""
    labels: str
    """The label space that it learns."""
    hidden: tuple[PositiveInt, ...] = (768,)
    """Widths of the image head's hidden layers."""
    dim: PositiveInt = 512
    """Of the space where photos and places meet."""
    sigmas: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (2.0**0, 2.0**4, 2.0**8)
    """Spread of the random frequencies of each capsule of the location encoder: the greater, the finer."""
    frequencies: PositiveInt = 256
    """Random frequencies of each capsule."""
    capsule: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1024, 1024, 1024)
    """Widths of each capsule's hidden layers."""
    queue: NonNegativeInt = 4096
    """Points of earlier photos that each photo is told apart from as well; far fewer than training photos, or else it
    is often told apart from its own place."""
    noise_m: tuple[NonNegativeFloat, NonNegativeFloat] = (150.0, 1000.0)
    """Standard deviations, metres: what is added to the points of the batch and of the queue, north and east."""
    gallery: Points | None = None
    """Left out, the places of the training photos."""
    precision: Precision = "float32"
    """Of the embeddings of the gallery: float16 takes half the space, and time."""
    validation_points: PositiveInt = 4096
    """Of the training photos: the gallery of each epoch's validation, always the same."""
    weights: Released | None = None
    """Published weights to answer with: nothing is trained then."""
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _names_parts(cls, recipe: Recipe) -> Recipe:
        check_rates(recipe, PARTS)
        return recipe

    @model_validator(mode="after")
    def _trains_or_not(self) -> Self:
        idle = {"recipe", "queue", "noise_m", "validation_points"} & self.model_fields_set
        if self.weights and idle:
            raise ValueError(f"{', '.join(sorted(idle))}: nothing is trained with weights; leave out one of them")
        return self

    def needs(self) -> Needs:
        """A vector per photo."""
        return Needs(inputs=(ImageFeatures(encoder=self.encoder),), labels=self.labels)


@dataclass(frozen=True)
class GeoCLIP:
    """A trained model with its gallery. It answers in NumPy, and never embeds a place again.

    A class is as similar to a photo as the most similar of its points; probabilities are the softmax of the classes'
    similarities, times the learned scale over a temperature. So the first class is that of the best point of all, as
    the papers take a country from it, and a candidate's place is the best point of its class.

    Attributes:
        encoder: Name of the encoder whose features it reads.
        labelspace: Its C classes.
        layers: The image head: (N, F) → (N, D).
        scale: That cosines are multiplied by.
        temperature: That they are then divided by.
        gallery: The M places.
    """

    encoder: str
    labelspace: LabelSpace
    layers: dense.Layers
    scale: float
    temperature: float
    gallery: Gallery

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Embeddings (N, D) float32 of unit length of image features (N, F)."""
        found = dense.logits_of(self.layers, np.asarray(features, np.float32))
        length = np.linalg.norm(found, axis=1, keepdims=True)
        unit: np.ndarray = found / np.maximum(length, np.float32(1e-12))
        return unit

    def logits(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (N, C) of the classes, before the temperature, and the best point (N, C) of each."""
        cosines, points = self.gallery.best(self.embed(features))
        return np.float32(self.scale) * cosines, points

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes, each at its best point; a class without points is at its own place."""
        features = batch.images[self.encoder]
        parts = []
        for rows in blocks(max(len(features), 1), ROWS):
            logits, points = self.logits(features[rows])
            probabilities = softmax(logits / np.float32(self.temperature))
            known = None if truth is None else truth[rows]
            found = Prediction.of_probabilities(probabilities, self.labelspace, k, known)
            best = np.take_along_axis(points, found.classes, axis=1)
            there = best != NOWHERE
            latitudes = np.where(there, self.gallery.latitudes[best], found.latitudes)
            longitudes = np.where(there, self.gallery.longitudes[best], found.longitudes)
            first = latitudes[:, 0], longitudes[:, 0]
            placed = replace(found, latitudes=latitudes, longitudes=longitudes, latitude=first[0], longitude=first[1])
            parts.append(placed)
        return Prediction.join(parts)

    def differentiable(self) -> Differentiable:
        """The same in PyTorch: each class by the point that is most similar to the photo."""
        import torch

        layers, scale = dense.in_torch(self.layers), self.scale / self.temperature

        def logits(x: torch.Tensor) -> torch.Tensor:
            unit = torch.nn.functional.normalize(layers(x), dim=1)
            cosines, points = self.gallery.best(unit.detach().numpy())
            own = torch.from_numpy(np.asarray(self.gallery.embeddings[points], np.float32))
            there = torch.from_numpy(points != NOWHERE)
            found = torch.einsum("nd,ncd->nc", unit, own)
            return scale * torch.where(there, found, torch.from_numpy(cosines))

        return Differentiable([self.encoder], None, logits)

    def save(self, folder: Path) -> None:
        """Write weights and gallery into an existing folder."""
        numbers = {"scale": np.array([self.scale], np.float32), "temperature": np.array([self.temperature], np.float32)}
        write_tensors(folder, {**numbers, "counts": self.gallery.counts, **dense.to_tensors(self.layers)})
        self.gallery.save(folder / FILE)


@dataclass(frozen=True)
class _Places:
    """N places with what is known of them.

    Attributes:
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        classes: (N,) int64; −1 where a place is in none of the model's.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    classes: np.ndarray


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one, or open the published weights, and embed the gallery.

    The epoch with the most validation photos within 750 km is kept, by a small gallery of training photos that stays
    the same. What the finished model comes to on validation photos is measured with its own gallery.

    Raises:
        UserError: No training or no validation photo has coordinates, a feature or the loss is not a finite number, or
            the gallery or the weights are missing, damaged or others than stated.
    """
    import torch

    from geoloc_core.families.geoclip import network as networks
    from geoloc_core.training import heads
    from geoloc_core.training.calibration import calibrate
    from geoloc_core.training.features import Features

    training, _ = data.located()
    features = Features((data.images[options.encoder],))
    features.check(np.concatenate([training, data.validation]))
    sizes = networks.Sizes(options.hidden, options.sigmas, options.frequencies, options.capsule, options.dim)
    history: list[Metrics] = []
    figures: dict[str, Any] = {}
    best = 0
    if options.weights is None:
        net, history, best, figures = _train(features, data, training, sizes, options, run)
    else:
        hold([run.root / options.weights.path], options.weights.sha256, "weights")
        net = networks.network(features.dim, sizes, torch.empty(0, 2))
        networks.fill_released(net, run.root / options.weights.path)
        net.to(networks.device()).eval()
        figures = heads.counts(net) | {"trainable_parameters": 0}
    places, adopted = _gallery(data, training, options.gallery, run.root)
    gallery = Gallery.build(
        lambda latitudes, longitudes: networks.embed(net, latitudes, longitudes),
        places.latitudes,
        places.longitudes,
        places.classes,
        len(data.space),
        options.precision,
    )
    scale = float(net.logit_scale.exp().item())
    model = GeoCLIP(options.encoder, data.space, heads.linear_layers(net.head), scale, 1.0, gallery)
    rows = data.validation[:: max(1, -(-len(data.validation) // CALIBRATED))]
    logits, told = _measured(model, data, rows)
    answered = torch.from_numpy(logits), torch.from_numpy(data.targets[rows]), data.groups_of(rows)
    calibration = calibrate([answered], len(rows), run.seed)
    figures |= {**vars(calibration), **told, "gallery": len(gallery), "gallery_in_no_class": adopted}
    figures["without_coordinates"] = len(data.training) - len(training)
    return Fitted(replace(model, temperature=calibration.temperature), history, best, figures)


def _train(
    features: "Features", data: Data, training: np.ndarray, sizes: "Sizes", options: Options, run: Run
) -> tuple[Any, list[Metrics], int, dict[str, Any]]:
    """The network of the best epoch, the metrics of all, its number, and figures."""
    import torch

    from geoloc_core.families.geoclip import network as networks
    from geoloc_core.training import heads
    from geoloc_core.training.fitting import averages, fit_network
    from geoloc_core.training.optimisers import optimiser_of
    from geoloc_core.training.schedules import schedule_of

    recipe, where = options.recipe, networks.device()
    seed = run.seed
    points = networks.points_of(data.latitudes, data.longitudes)
    counts = (options.queue, min(options.validation_points, len(training)))
    drawn = (training[networks.drawn(len(training), count, (seed, which))] for which, count in enumerate(counts))
    queue, fixed = (torch.from_numpy(rows).to(where) for rows in drawn)
    torch.manual_seed(seed)
    net = networks.network(features.dim, sizes, points[queue].cpu()).to(where)
    optimiser = optimiser_of(recipe.optimiser, net)
    wanted = torch.from_numpy(data.targets).to(where)
    held_out = features.on(data.validation, where)

    def loss(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return networks.loss_of(net, x, points[rows], options.noise_m)

    def validate() -> Metrics:
        among = net.points(points[fixed])

        def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
            return _validated(net, among, x, (points[rows], wanted[rows]), (points[fixed], wanted[fixed]))

        return averages(held_out.in_order(ROWS), measure)

    outcome = fit_network(
        net,
        loss,
        features.on(training, where),
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
        score=lambda metrics: metrics["validation_within_750km"],
    )
    return net, outcome.history, outcome.best, {**heads.counts(net), **vars(outcome.pace)}


def _validated(
    net: Any,
    among: "torch.Tensor",
    x: "torch.Tensor",
    truth: "tuple[torch.Tensor, torch.Tensor]",
    gallery: "tuple[torch.Tensor, torch.Tensor]",
) -> dict[str, tuple[float, int]]:
    """What became of validation photos, each figure a mean and over how many.

    Args:
        net: The network.
        among: (G, D) embeddings of a small gallery.
        x: (B, F) features.
        truth: Points (B, 2), NaN where unknown, and classes (B,), −1 where unknown.
        gallery: Points (G, 2) and classes (G,).
    """
    import torch
    from torch.nn.functional import cross_entropy

    (points, classes), (known, named) = truth, gallery
    images = net.images(x)
    cosines = images @ among.T
    best = cosines.argmax(dim=1)
    located = points.isfinite().all(dim=1)
    figures = {"validation_accuracy": (100 * (named[best] == classes).float().mean().item(), len(x))}
    if not located.any():
        return figures
    own = (images[located] * net.points(points[located])).sum(dim=1, keepdim=True)
    logits = net.logit_scale.exp() * torch.cat((own, cosines[located]), dim=1)
    loss = cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
    answers, right = known[best[located]].cpu().numpy(), points[located].cpu().numpy()
    near = 100 * float(np.mean(sphere.haversine_km(*answers.T, *right.T) <= NEAR_KM))
    return figures | {
        "validation_loss": (loss.item(), len(logits)),
        "validation_within_750km": (near, len(logits)),
    }


def _gallery(data: Data, training: np.ndarray, table: Points | None, root: Path) -> tuple[_Places, int]:
    """The places to choose from, each with a class, and how many are in none: these take that of the nearest photo.

    Args:
        data: The corpus.
        training: (n,) its training rows with coordinates.
        table: Where the places are listed; None for those of the training photos.
        root: The project's folder.
    """
    own = _Places(data.latitudes[training], data.longitudes[training], data.targets[training])
    if table is None:
        return own, 0
    hold([root / table.path], table.sha256, "gallery")
    latitudes, longitudes = _read(root / table.path, table)
    classes = data.space.index(_classes(data, latitudes, longitudes))
    lost = np.flatnonzero(classes < 0)
    if len(lost):
        from scipy.spatial import cKDTree

        near = cKDTree(sphere.unit_vectors(own.latitudes, own.longitudes))
        _, nearest = near.query(sphere.unit_vectors(latitudes[lost], longitudes[lost]))
        classes[lost] = own.classes[nearest]
    return _Places(latitudes, longitudes, classes), len(lost)


def _classes(data: Data, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Ids (N,) of the classes that hold points (N,), None where none does."""
    if data.cells is not None:
        at = data.cells.assign(latitudes, longitudes)
        return np.array([*data.cells.space.ids, None], dtype=object)[at]
    from geoloc_core.geo.locate import Locator

    assert data.boundaries is not None
    return Locator.open(data.boundaries).locate(latitudes, longitudes).gid([*UNITS].index(data.space.kind))


def _read(path: Path, table: Points) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (M,) of a CSV.

    Raises:
        UserError: It is missing or empty, lacks a column, or a coordinate is none; its row is named.
    """
    from geoloc_core import tables

    limits = {table.latitude: 90, table.longitude: 180}
    found = tables.read_csv(path, tuple(limits), megabytes=16)
    own = tables.columns_of(path, found.names, limits)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in limits}
    for part in found.parts:
        for name, limit in limits.items():
            cells = part.batch.column(own[name])
            values = tables.numbers(cells)
            wrong = ~(np.abs(values) <= limit)
            if wrong.any():
                at = int(wrong.argmax())
                raise UserError(
                    f"{path}: column {own[name]}, row {part.numbers[at]}: {cells[at].as_py()!r}; "
                    f"expected −{limit} … {limit} degrees"
                )
            columns[name].append(values)
    if not sum(map(len, columns[table.latitude])):
        raise UserError(f"{path}: no rows; expected the places of a gallery")
    latitudes, longitudes = (np.concatenate(parts) for parts in columns.values())
    return latitudes, longitudes


def _measured(model: GeoCLIP, data: Data, rows: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Scores (n, C) of validation rows, and what share of them the best point of all is right about, in percent."""
    features = data.images[model.encoder]
    parts = [model.logits(features[rows[some]]) for some in blocks(len(rows), ROWS)]
    logits, points = (np.concatenate(part) for part in zip(*parts, strict=True))
    first = logits.argmax(axis=1)
    best = points[np.arange(len(points)), first]
    km = sphere.haversine_km(
        model.gallery.latitudes[best], model.gallery.longitudes[best], data.latitudes[rows], data.longitudes[rows]
    )
    km = km[np.isfinite(km)]
    told = {"validation_accuracy": round(100 * float(np.mean(first == data.targets[rows])), 2)}
    if len(km):
        told |= {"validation_within_750km": round(100 * float(np.mean(km <= NEAR_KM)), 2)}
        told |= {"validation_median_km": round(float(np.median(km)), 1)}
    return logits, told


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> GeoCLIP:
    """Read what :meth:`GeoCLIP.save` wrote; the gallery stays on disk until it is used.

    Raises:
        UserError: Weights or gallery are missing, damaged, or do not fit each other or the classes.
    """
    tensors = read_tensors(folder, remedy)
    expected: dict[str, tuple[int, ...]] = {"scale": (1,), "temperature": (1,), "counts": (len(space),)}
    check_shapes(folder, remedy, tensors, expected)
    counts = tensors["counts"]
    if counts.dtype != np.int64 or (counts < 0).any():
        raise UserError(f"{folder / WEIGHTS}: counts: expected numbers of points; {remedy}")
    gallery = Gallery.load(folder / FILE, counts, remedy)
    inputs = width_of(tensors, "layers.0.weight")
    check_shapes(folder, remedy, tensors, dense.shapes(tensors, inputs, gallery.embeddings.shape[1]))
    scale, temperature = (float(tensors[name][0]) for name in ("scale", "temperature"))
    [encoder] = needs.encoders
    return GeoCLIP(encoder, space, dense.of_tensors(tensors), scale, temperature, gallery)
