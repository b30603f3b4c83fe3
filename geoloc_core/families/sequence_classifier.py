"""A recurrent network over the views of a place, one after the other in the order of their headings.

GeoguessrLSTM (Theethira and Ravindranath 2020, its code): features of a frozen ResNet-50, the maximum over positions,
of the views towards 0, 90 and 180 degrees; an LSTM of 64 units; layers of 1024, 512, 128 and 64 with half of the units
dropped out in between; a softmax over 243 squares of the contiguous US. It was trained by Adam, up to 20 epochs on ten
places before the next ten, and with the views as the file system lists them. Here all places are shuffled, and the
views come in order of heading, whatever the order of the files.

A place may have fewer views, down to one: its sequence is then shorter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run, Units
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training import dense, heads
from geoloc_core.training.optimisers import AdamW, Optimiser
from geoloc_core.training.schedules import Constant, Schedule
from geoloc_core.training.weights import ClassWeights

if TYPE_CHECKING:
    import torch

GATES = 4
"""Input, forget, cell and output, in the order in which torch stacks their weights."""
PARTS = ("lstm", "head")
"""What may have a learning rate of its own."""


class Recipe(heads.Recipe):
    """As GeoguessrLSTM is trained (its code): Adam as Keras has it, 20 epochs, batches of 32."""

    batch: int = Field(32, gt=0)
    """Places of a step."""
    epochs: int = Field(20, gt=0)
    optimiser: Optimiser = AdamW(lr=0.001, eps=1e-7, weight_decay=0.0)
    schedule: Schedule = Constant()
    weights: ClassWeights | None = None
    stop_patience: int | None = Field(None, gt=0)


class Options(Variant):
    """A variant of this family."""

    kind: Literal["sequence_classifier"]
    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their features of a view are joined in this order."""
    labels: str
    """The label space that it learns."""
    views: PositiveInt = 3
    """Of a place that are looked at, the first so many in order of heading."""
    lstm: PositiveInt = 64
    """Units of the LSTM."""
    hidden: tuple[PositiveInt, ...] = (1024, 512, 128, 64)
    """Widths of the layers between the LSTM's last state and the classes."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the units that drop out after each of these layers but the last."""
    normalise: Literal["standardise", "none"] = "standardise"
    """What is done to the features first; the original leaves them as they are."""
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, PARTS)
        return recipe

    def needs(self) -> Needs:
        """A vector per view of each encoder; the unit is a place."""
        inputs = tuple(ImageFeatures(encoder=name) for name in self.encoders)
        return Needs(inputs=inputs, labels=self.labels, unit="place")


@dataclass(frozen=True)
class SequenceClassifier:
    """A trained network. It answers in NumPy, so that scoring and serving start light.

    Attributes:
        encoders: Names of the encoders whose features it reads, in the order it joins them.
        labelspace: Its C classes.
        tensors: ``mean`` and ``std`` (D,) of the joined features; ``input`` (4 H, D), ``recurrent`` (4 H, H) and
            ``gate_bias`` (4 H,) of the LSTM; ``most`` (1,) int64, views that are looked at; ``temperature`` (1,).
        layers: From the LSTM's last state (N, H) to logits (N, C).
    """

    encoders: list[str]
    labelspace: LabelSpace
    tensors: dict[str, np.ndarray]
    layers: dense.Layers

    def logits(self, views: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Scores (N, C) float32, before the temperature.

        Args:
            views: (N, T, D) features of each place's views in their order.
            counts: (N,) how many of them there are; what follows is not looked at.
        """
        t = self.tensors
        x = (np.asarray(views, np.float32) - t["mean"]) / t["std"]
        state = last_state(x, counts, t["input"], t["recurrent"], t["gate_bias"])
        return dense.logits_of(self.layers, state)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes of each place; a photo that is of none is a place of one view."""
        features = [batch.images[name] for name in self.encoders]
        rows = np.arange(len(features[0]))
        units = Units.of_photos(rows) if batch.starts is None else Units(rows, batch.starts)
        at, counts = units.padded(self.tensors["most"].item())
        logits = self.logits(np.concatenate([part[at] for part in features], axis=2), counts)
        return Prediction.of_probabilities(softmax(logits / self.tensors["temperature"]), self.labelspace, k, truth)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        write_tensors(folder, self.tensors | dense.to_tensors(self.layers))


def last_state(
    x: np.ndarray, counts: np.ndarray, of_input: np.ndarray, of_state: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """The state (N, H) of an LSTM after each sequence (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    From h = c = 0, step by step: i, f, o = sigmoid(W x + U h + b) and g = tanh(W x + U h + b), each with its own W, U
    and b; c = f c + i g; h = o tanh(c).

    Args:
        x: (N, T, D).
        counts: (N,) steps of each sequence.
        of_input: W (4 H, D) of i, f, g and o, one above the other.
        of_state: U (4 H, H).
        bias: b (4 H,).
    """
    given = x @ of_input.T + bias
    state = memory = np.zeros((len(x), of_state.shape[1]), given.dtype)
    for step in range(x.shape[1]):
        i, f, g, o = np.split(given[:, step] + state @ of_state.T, GATES, axis=1)
        goes_on = (step < counts)[:, None]
        memory = np.where(goes_on, _sigmoid(f) * memory + _sigmoid(i) * np.tanh(g), memory)
        state = np.where(goes_on, _sigmoid(o) * np.tanh(memory), state)
    return state


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Without an overflow far from zero."""
    return (1 + np.tanh(x / 2)) / 2


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one on cross entropy; the epoch with the best validation accuracy is kept.

    Raises:
        UserError: A feature or the loss is not a number, or no class of a place for validation is learned.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.training import losses
    from geoloc_core.training.features import Features
    from geoloc_core.training.weights import class_weights

    features = Features(tuple(data.images[name] for name in options.encoders))
    training, validation = data.units(data.training), data.units(data.validation)
    counts = np.zeros(len(features), np.int64)
    rows = []
    for units in (training, validation):
        at, known = units.padded(options.views)
        rows.append(units.rows[at])
        counts[rows[-1][:, 0]] = known
    seen = data.targets[rows[0][:, 0]]
    weights = torch.from_numpy(class_weights(options.recipe.weights, seen, len(data.space))).to(device())
    views, wanted = torch.from_numpy(counts).to(device()), torch.from_numpy(data.targets).to(device())
    torch.manual_seed(run.seed)
    net = network(features.dim, options.lstm, options.hidden, len(data.space), options.dropout)

    def logits(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        found: torch.Tensor = net(x, views[rows[:, 0]])
        return found

    fitted = heads.fit_units(
        net,
        lambda net, x, rows: losses.of_class(logits(net, x, rows), wanted[rows[:, 0]], weights),
        logits,
        features,
        data.targets,
        rows[0],
        rows[1],
        options.recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
        standardise=options.normalise == "standardise",
        groups=data.groups,
    )
    model = exported(net, fitted, list(options.encoders), data.space, options.views)
    places = {"training_places": len(training), "validation_places": len(validation)}
    return Fitted(model, fitted.history, fitted.best, places | fitted.figures)


def network(inputs: int, units: int, hidden: tuple[int, ...], classes: int, dropout: float) -> Any:
    """The network of GeoguessrLSTM: views (N, T, inputs) and how many of them count (N,) → logits (N, classes).

    Args:
        inputs: Width of a view's features.
        units: Of the LSTM.
        hidden: Widths of the layers behind it.
        classes: C.
        dropout: Share of the units that drop out after each hidden layer but the last.
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(inputs, units, batch_first=True)
            layers: list[nn.Module] = []
            width = units
            for number, wider in enumerate(hidden, 1):
                layers += [nn.Linear(width, wider), nn.ReLU()]
                layers += [nn.Dropout(dropout)] if number < len(hidden) else []
                width = wider
            self.head = nn.Sequential(*layers, nn.Linear(width, classes))

        def forward(self, views: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            states, _ = self.lstm(views)  # what follows the last view changes no state before it
            last = states[torch.arange(len(views), device=views.device), counts - 1]
            logits: torch.Tensor = self.head(last)
            return logits

    return Network()


def exported(net: Any, fitted: heads.Fitted, encoders: list[str], space: LabelSpace, most: int) -> SequenceClassifier:
    """A trained network as a model that answers in NumPy."""
    lstm = {name: tensor.detach().cpu().numpy() for name, tensor in net.lstm.named_parameters()}
    tensors = {
        "mean": fitted.mean.numpy(),
        "std": fitted.std.numpy(),
        "input": lstm["weight_ih_l0"],
        "recurrent": lstm["weight_hh_l0"],
        "gate_bias": lstm["bias_ih_l0"] + lstm["bias_hh_l0"],
        "most": np.array([most], np.int64),
        "temperature": np.array([fitted.temperature], np.float32),
    }
    return SequenceClassifier(encoders, space, tensors, heads.linear_layers(net.head))


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> SequenceClassifier:
    """Read what :meth:`SequenceClassifier.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit each other and the classes.
    """
    tensors = read_tensors(folder, remedy)
    d = width_of(tensors, "mean")
    units = width_of(tensors, "gate_bias") // GATES
    expected: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,), "most": (1,), "temperature": (1,)}
    expected |= {"input": (GATES * units, d), "recurrent": (GATES * units, units), "gate_bias": (GATES * units,)}
    check_shapes(folder, remedy, tensors, expected | dense.shapes(tensors, units, len(space)))
    own = {name: tensors[name] for name in expected}
    return SequenceClassifier(needs.encoders, space, own, dense.of_tensors(tensors))
