"""Optimisers and schedules move weights by the numbers that are stated."""

import math

import numpy as np
import pytest
import torch

from geoloc_core.training import stopping
from geoloc_core.training.optimisers import SGD, Adam, AdamW, optimiser_of, rates_now
from geoloc_core.training.schedules import Constant, Cosine, MultiStep, Plateau, Step, schedule_of


class Parts(torch.nn.Module):
    """A number each of two parts and of a frozen one; the loss is the sum of their squares, halved."""

    def __init__(self):
        super().__init__()
        for name in ("attention", "classifier", "frozen"):
            self.add_module(name, torch.nn.Linear(1, 1, bias=False, dtype=torch.float64))
            torch.nn.init.constant_(getattr(self, name).weight, 2.0)
        self.frozen.weight.requires_grad_(False)

    def forward(self):
        return sum(part.weight.square().sum() / 2 for part in self.children())

    @property
    def values(self):
        return [part.weight.item() for part in self.children()]


def trained(options, steps=4):
    net = Parts()
    optimiser = optimiser_of(options, net)
    seen = []
    for _ in range(steps):
        optimiser.zero_grad()
        net().backward()
        optimiser.step()
        seen.append(net.values)
    return np.array(seen)


def by_sgd(lr, momentum, decay, steps=4):
    """``v ← μ v + g + λ w``, ``w ← w − lr · v``, of the gradient g = w."""
    w, v, seen = 2.0, 0.0, []
    for _ in range(steps):
        v = momentum * v + w + decay * w
        w -= lr * v
        seen.append(w)
    return seen


def by_adamw(lr, decay, betas, eps, steps=4):
    w, m, v, seen = 2.0, 0.0, 0.0, []
    for t in range(1, steps + 1):
        g = w
        w -= lr * decay * w
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        w -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
        seen.append(w)
    return seen


def by_adam(lr, decay, betas, eps, steps=4):
    """Kingma and Ba 2015, algorithm 1; the decay is a part of the gradient."""
    w, m, v, seen = 2.0, 0.0, 0.0, []
    for t in range(1, steps + 1):
        g = w + decay * w
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        w -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
        seen.append(w)
    return seen


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("decay", [0, 0.3])
@pytest.mark.parametrize("rates", [{}, {"attention": 0.01}])
def test_sgd(momentum, decay, rates):
    seen = trained(SGD(lr=0.1, momentum=momentum, weight_decay=decay, rates=rates))
    np.testing.assert_allclose(seen[:, 0], by_sgd(rates.get("attention", 0.1), momentum, decay), rtol=1e-12)
    np.testing.assert_allclose(seen[:, 1], by_sgd(0.1, momentum, decay), rtol=1e-12)
    assert (seen[:, 2] == 2).all(), "what is frozen stays"


def test_adamw():
    seen = trained(AdamW(lr=0.1, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.2, rates={"attention": 0.01}))
    np.testing.assert_allclose(seen[:, 0], by_adamw(0.01, 0.2, (0.8, 0.95), 1e-4), rtol=1e-9)
    np.testing.assert_allclose(seen[:, 1], by_adamw(0.1, 0.2, (0.8, 0.95), 1e-4), rtol=1e-9)


def test_adam():
    seen = trained(Adam(lr=0.1, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.2, rates={"attention": 0.01}))
    np.testing.assert_allclose(seen[:, 0], by_adam(0.01, 0.2, (0.8, 0.95), 1e-4), rtol=1e-9)
    np.testing.assert_allclose(seen[:, 1], by_adam(0.1, 0.2, (0.8, 0.95), 1e-4), rtol=1e-9)


STEPS = MultiStep(milestones=(4, 8, 12, 13, 14, 15), gamma=0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (STEPS, [1] * 4 + [1 / 2] * 4 + [1 / 4] * 4 + [1 / 8, 1 / 16, 1 / 32]),
        (Cosine(), [(1 + math.cos(math.pi * epoch / 15)) / 2 for epoch in range(15)]),
        (Cosine(floor=0.2), [0.2 + 0.4 * (1 + math.cos(math.pi * epoch / 15)) for epoch in range(15)]),
        (Constant(), [1] * 15),
        (Step(gamma=0.87), [0.87**epoch for epoch in range(15)]),
        (Step(every=4, gamma=0.5), [1] * 4 + [1 / 2] * 4 + [1 / 4] * 4 + [1 / 8] * 3),
        # the first epoch is the best; two without a better one are borne, the third halves
        (Plateau(factor=0.5, patience=2), [1] * 4 + [1 / 2] * 3 + [1 / 4] * 3 + [1 / 8] * 3 + [1 / 16] * 2),
    ],
)
def test_rates_of_every_epoch(options, expected):
    optimiser = optimiser_of(SGD(lr=0.01, rates={"attention": 0.001}), Parts())
    schedule = schedule_of(options, optimiser, 15)
    seen = []
    for _ in range(15):
        seen.append(rates_now(optimiser))
        optimiser.step()
        schedule.step(*[1.0][: isinstance(options, Plateau)])
    assert [rates["lr"] for rates in seen] == pytest.approx([0.01 * share for share in expected])
    assert [rates["lr_attention"] for rates in seen] == pytest.approx([0.001 * share for share in expected])


def test_a_plateau_ends_with_a_better_loss():
    optimiser = optimiser_of(SGD(lr=1), Parts())
    schedule = schedule_of(Plateau(factor=0.1, patience=1), optimiser, 9)
    rates = []
    for loss in (3, 3, 2, 2, 2, 1):
        schedule.step(loss)
        rates.append(rates_now(optimiser)["lr"])
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_the_best_epoch_and_the_end():
    history = [{"a": score} for score in (1, 3, 2, 3, 0)]
    assert stopping.best_epoch(history, lambda m: m["a"]) == 1, "of equal ones the first"
    assert stopping.best_epoch(history, lambda m: -m["a"]) == 4
    assert [stopping.is_over(history, lambda m: m["a"], patience) for patience in (2, 3, 4, None)] == [
        True, True, False, False,
    ]  # fmt: skip
