"""How the flow is learned: at a random time between noise and a photo's place, the network has to say the way on."""

from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.contracts.batch import Data, Fitted, Metrics, Run
from geoloc_core.families.flow_matching import flow
from geoloc_core.families.flow_matching.model import Flow
from geoloc_core.families.flow_matching.network import network
from geoloc_core.families.flow_matching.options import Options
from geoloc_core.geo import sphere
from geoloc_core.training import heads

if TYPE_CHECKING:
    import torch

MEASURED = 4096
"""Validation photos, evenly spaced, of which the likelihood is told."""


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one; the epoch with the lowest loss of validation photos is kept.

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
    features = Features((data.images[options.encoder],))
    mean, std = features.statistics(training)
    features.check(validation)
    torch.manual_seed(run.seed)
    net = network(features.dim, options.width, options.depth, options.expansion).to(where)
    places = torch.from_numpy(sphere.unit_vectors(data.latitudes, data.longitudes)).float().to(where)
    held_out = features.on(validation, where, mean, std)

    def loss(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return loss_of(net, x, places[rows], recipe.noises, options.dropped)

    def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
        return {"validation_loss": (loss_of(net, x, places[rows], recipe.noises, 0).item(), len(rows))}

    def validate() -> Metrics:
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            torch.manual_seed(run.seed)  # the same noise after each epoch
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
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
        score=lambda metrics: -metrics["validation_loss"],
    )
    seen = data.targets[training]
    counts = np.bincount(seen[seen >= 0], minlength=len(data.space)) + 1.0
    model = Flow(options.encoder, data.space, mean, std, net, counts / counts.sum(), options.sampling)
    some = np.unique(np.linspace(0, len(validation) - 1, MEASURED).astype(np.int64))
    rows = validation[some]
    batch = data.batch(data.units(rows))
    surprise = -model.log_density(batch, data.latitudes[rows], data.longitudes[rows]).mean()
    figures = {
        **heads.counts(net),
        **vars(outcome.pace),
        "validation_density_nll": round(float(surprise), 4),
        "without_coordinates": len(data.training) - len(training),
    }
    return Fitted(model, outcome.history, outcome.best, figures)


def loss_of(net: Any, x: "torch.Tensor", places: "torch.Tensor", noises: int, dropped: float) -> "torch.Tensor":
    """The mean squared error () of velocities on the ways to B places (Chen and Lipman 2024, conditional matching).

    Velocities are those along the way, dx/dκ, which have the same length at all times.

    Args:
        net: The network.
        x: (B, D) standardised features.
        places: (B, 3).
        noises: Noise points and times per place.
        dropped: Share of the photos of which the network sees nothing.
    """
    import torch

    count = len(x)
    noise = torch.randn((count, noises, 3), device=x.device)
    noise = noise / noise.norm(dim=-1, keepdim=True)
    times = torch.rand((count, noises), device=x.device)
    blind = torch.rand((count, 1), device=x.device) < dropped
    told = torch.where(blind, net.nothing, net.told(x))[:, None]
    points, wanted = flow.geodesic(noise, places[:, None].expand_as(noise), flow.way(times))
    return (net(points, times, told) - wanted).square().sum(dim=-1).mean()
