"""A small network trained on small photos; as a program, so that it can be killed or started several times.

python -m tests.geoloc_core.training.trained_networks CORPUS OUT [STOP_AFTER | tight]
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from geoloc_core.corpora import manifest
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.training import loop, photos
from geoloc_core.training.networks import Outcome, fit_network_on_photos
from geoloc_core.training.processes import is_first
from geoloc_core.training.recipe import NetworkRecipe, optimise

from .corpus import encoded

PREPARED = Preprocess(32, "crop", "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
COUNT = 66
TRAINING, VALIDATION = np.arange(COUNT)[np.arange(COUNT) % 4 > 0], np.arange(0, COUNT, 4)
PLAIN = {
    "batch": 8,
    "epochs": 3,
    "optimiser": {"kind": "adamw", "lr": 0.003, "weight_decay": 0.0},
    "schedule": {"kind": "constant"},
    "precision": "fp32",
}


class Net(nn.Module):
    """Without batch normalisation, whose statistics depend on the share, a step is the same in any number of parts."""

    def __init__(self, norm: bool = False, dropout: float = 0.0):
        super().__init__()
        normalised = nn.BatchNorm2d(8) if norm else nn.GroupNorm(2, 8)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 4, 4), normalised, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(32, 3))

    def forward(self, x):
        return self.head(self.trunk(x))


def corpus(folder: Path) -> None:
    """Photos of three colours in two shards, as a corpus or a segmenter leaves them."""
    writer = manifest.ShardWriter(folder, limit=COUNT * 800)
    for number in range(COUNT):
        writer.add(f"{number:03d}", encoded(COLOURS[number % 3], number), f"{number}.jpg")
    writer.close()


def pictures(folder: Path, limit_gb: float = 1.0) -> photos.Photos:
    at = [(shard, row) for shard, path in enumerate(manifest.shards(folder)) for row in range(manifest.count(path))]
    shards, rows = np.array(at).T
    return photos.Photos.of(folder, shards, rows, PREPARED, folder.parent / "cache.npy", limit_gb)


def train(
    folder: Path, checkpoint: Path, net: nn.Module | None = None, wrap=lambda loss: loss, log=lambda m, n: None, **given
) -> tuple[nn.Module, Outcome]:
    torch.manual_seed(5)
    net = net or Net()
    also = {name: given.pop(name) for name in ("training", "measure") if name in given}
    recipe = NetworkRecipe(**{**PLAIN, **given})
    truth = torch.arange(COUNT) % 3

    def loss(net, x, rows):
        return nn.functional.cross_entropy(net(x), truth[rows])

    def measure(x, rows):
        assert not net.training
        hits = net(x).argmax(1) == truth[rows]
        return {"validation_accuracy": (hits.float().mean().item(), len(rows))}

    outcome = fit_network_on_photos(
        net,
        pictures(folder, recipe.cache_gb),
        wrap(loss),
        also.pop("training", TRAINING),
        also.pop("measure", measure),
        VALIDATION,
        lambda net, per_epoch: optimise(recipe, net, per_epoch),
        recipe,
        3,
        checkpoint,
        ["colours", recipe.model_dump()],
        log,
        **also,
    )
    return net, outcome


def killed_after(steps: int):
    """A loss after so many calls of which the process is gone."""
    left = [steps]

    def wrap(loss):
        def counted(net, x, rows):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return loss(net, x, rows)

        return counted

    return wrap


def no_room_for(photos: int, sizes: list[int]):
    """A loss for which memory runs out with so many photos, after its network has run."""

    def wrap(loss):
        def limited(net, x, rows):
            sizes.append(len(x))
            value = loss(net, x, rows)
            if len(x) >= photos:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return value

        return limited

    return wrap


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    loop.SAVE_EVERY_S, loop.SAVING_SHARE = 0.0, float("inf")
    rank, how = os.environ.get("RANK", "0"), sys.argv[3:]
    wrap = lambda loss: loss  # noqa: E731
    if how == ["tight"]:
        wrap = no_room_for(3 if rank == "1" else 99, [])
    elif how:
        wrap = killed_after(int(how[0]))
    logged = []
    # between the steps of an accumulation processes do not exchange: 4 photos each in parts of 3 and 1
    net, outcome = train(
        folder, out / "checkpoint.pt", wrap=wrap, log=lambda metrics, number: logged.append(number), clip_norm=0.5,
        micro_batch=3,
    )  # fmt: skip
    torch.save({"net": net.state_dict(), "history": outcome.history, "logged": logged}, out / f"rank{rank}.pt")
    assert is_first() == (rank == "0")


if __name__ == "__main__":
    main()
