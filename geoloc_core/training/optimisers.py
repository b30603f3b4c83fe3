"""Optimisers, as parameters state them.

The weight decay of SGD and Adam is on every parameter, as in the papers' code; AdamW's on matrices alone, as in
open_clip.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import torch

Rates = dict[str, PositiveFloat]
"""Learning rates of parts of the network that have one of their own, by the part's name."""


class SGD(Strict):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(gt=0)
    """The learning rate, before the schedule."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """The share of the last step that the next one keeps."""
    weight_decay: float = Field(0.0, ge=0)
    """How strongly all weights are pulled towards 0, as a part of the gradient."""
    rates: Rates = Field(default_factory=dict)
    """Learning rates of parts of the network that have one of their own, by the part's name."""


class Adam(Strict):
    """Adam (Kingma and Ba 2015), its weight decay a part of the gradient."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(gt=0)
    """The learning rate, before the schedule."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Shares that the means of the gradient and of its square keep at each step."""
    eps: float = Field(1e-8, gt=0)
    """What is added to the root of the latter, by which steps are divided."""
    weight_decay: float = Field(0.0, ge=0)
    """How strongly all weights are pulled towards 0, as a part of the gradient."""
    rates: Rates = Field(default_factory=dict)
    """Learning rates of parts of the network that have one of their own, by the part's name."""


class AdamW(Strict):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(gt=0)
    """The learning rate, before the schedule."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Shares that the means of the gradient and of its square keep at each step."""
    eps: float = Field(1e-8, gt=0)
    """What is added to the root of the latter, by which steps are divided."""
    weight_decay: float = Field(0.01, ge=0)
    """How strongly matrices are pulled towards 0 at each step, times the rate."""
    rates: Rates = Field(default_factory=dict)
    """Learning rates of parts of the network that have one of their own, by the part's name."""


Optimiser = Annotated[SGD | Adam | AdamW, Field(discriminator="kind")]


def optimiser_of(options: Optimiser, net: "torch.nn.Module") -> "torch.optim.Optimizer":
    """The optimiser of all parameters of a network that are to be learned."""
    import torch

    groups = _groups(net, options)
    match options:
        case SGD():
            return torch.optim.SGD(groups, options.lr, options.momentum)
        case Adam():
            return torch.optim.Adam(groups, options.lr, options.betas, options.eps)
        case AdamW():
            return torch.optim.AdamW(groups, options.lr, options.betas, options.eps)


def _groups(net: "torch.nn.Module", options: Optimiser) -> list[dict[str, Any]]:
    """What is to be learned, by its part with a rate of its own and by whether it decays."""
    found: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            part = name.split(".")[0]
            decays = isinstance(options, SGD | Adam) or parameter.ndim >= 2
            found.setdefault((part if part in options.rates else "", decays), []).append(parameter)
    return [
        {"params": parameters, "part": part, "lr": options.rates.get(part, options.lr)}
        | {"weight_decay": options.weight_decay if decays else 0.0}
        for (part, decays), parameters in found.items()
    ]


def rates_now(optimiser: "torch.optim.Optimizer") -> dict[str, float]:
    """The learning rates as metrics: ``lr``, and ``lr_<part>`` of each part with its own."""
    groups = optimiser.param_groups
    return {f"lr_{part}" if (part := group.get("part")) else "lr": group["lr"] for group in groups}
