"""What the published sizes of the trained families take on a GPU: memory, photos per second, and a finite loss.

python -m tests.gpu.check_families [--json PATH] [--tiny]

Weights are random and photos are noise: nothing is downloaded. ``--tiny`` runs the same code with small networks, on a
CPU too.
"""

import argparse
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 8
"""Of each measurement, after as many that warm up."""
LIMIT_GB = 6.0
"""Memory that is left to the step which is to run out of it."""


@dataclass(frozen=True)
class Sizes:
    """How large the networks are, in the published form or small."""

    pixels: int
    batch: int
    vit: dict[str, int]
    resnet: str
    clip: int
    text: int
    clues_of_isn: int
    clues: int
    classes: int
    features: int
    hidden: tuple[int, ...]
    feature_batch: int
    too_large: int


PUBLISHED = Sizes(
    pixels=224, batch=128, vit={"patch_size": 16}, resnet="resnet50", clip=768, text=768, clues_of_isn=3900,
    clues=6041, classes=249, features=1536, hidden=(1024, 512, 256), feature_batch=4096, too_large=512,
)  # fmt: skip
TINY = Sizes(
    pixels=32, batch=4,
    vit={
        "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    },
    resnet="resnet18", clip=8, text=8, clues_of_isn=12, clues=20, classes=5, features=8, hidden=(8, 4),
    feature_batch=32, too_large=8,
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What one measurement came to; a reason where it could not be taken."""

    name: str
    batch: int
    parameters: int = 0
    memory_gb: float = 0.0
    photos_per_second: float = 0.0
    loss: float = math.nan
    note: str = ""

    @property
    def right(self) -> bool:
        return math.isfinite(self.loss)


def vit(sizes: Sizes) -> Any:
    """ViT-B/16 with a layer of classes, as the feature experts fine-tune it."""
    from torch import nn
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=sizes.pixels, **sizes.vit)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = ViTModel(config, add_pooling_layer=False)
            self.head = nn.Linear(config.hidden_size, sizes.classes)

        def forward(self, x: Any) -> Any:
            return self.head(self.trunk(pixel_values=x).last_hidden_state[:, 0])

    return Net()


def guidebook(sizes: Sizes, trunk: Any, image: int, clues: int) -> Any:
    """G3: attention over clues by the features of CLIP, and a layer of classes on all that is known of the photo."""
    import torch
    from torch import nn

    class Net(nn.Module):
        clues: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            self.attention = nn.Sequential(nn.BatchNorm1d(sizes.clip), nn.Linear(sizes.clip, clues))
            self.register_buffer("clues", torch.randn(clues, sizes.text))
            joined = image + sizes.text + sizes.clip
            self.classifier = nn.Sequential(nn.BatchNorm1d(joined), nn.Linear(joined, sizes.classes))

        def forward(self, x: Any, clip: Any) -> tuple[Any, Any]:
            scores = self.attention(clip)
            of_image = [] if self.trunk is None else [self.trunk(x)]
            return self.classifier(torch.cat([*of_image, scores.sigmoid() @ self.clues, clip], dim=1)), scores

    return Net()


def guided(logits: Any, scores: Any, classes: Any) -> Any:
    """G3's loss: three quarters of it teach attention."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    relevant = (torch.arange(scores.shape[1], device=scores.device) % 7 == (classes % 7)[:, None]).float()
    weight = torch.tensor(50.0, device=scores.device)
    guide = binary_cross_entropy_with_logits(scores, relevant, pos_weight=weight)
    return 0.25 * cross_entropy(logits, classes) + 0.75 * guide


def on_photos(name: str, sizes: Sizes, net: Any, loss: Callable[..., Any], batch: int, limit_gb: float = 0.0) -> Found:
    """Train some epochs of a few steps by the loop of the families, and take the figures of the last."""
    import torch

    from geoloc_core.encoders.preprocess import Preprocess
    from geoloc_core.training.networks import fit_network_on_photos
    from geoloc_core.training.photos import Photos
    from geoloc_core.training.recipe import NetworkRecipe, optimise

    at = np.arange(2 * batch)
    noise = np.random.default_rng(0).integers(0, 256, (len(at), sizes.pixels, sizes.pixels, 3), np.uint8)
    half = (0.5, 0.5, 0.5)
    pictures = Photos(Path(), Preprocess(sizes.pixels, "crop", "bilinear", half, half), at * 0, at, noise)
    recipe = NetworkRecipe(batch=batch, epochs=STEPS, precision="bf16", augment="wide_crop")
    speeds: list[float] = []
    began = [time.perf_counter()]

    def log(metrics: dict[str, float], epoch: int) -> None:
        speeds.append(len(at) / (time.perf_counter() - began[0]))
        began[0] = time.perf_counter()

    _limit(limit_gb)
    with tempfile.TemporaryDirectory() as folder:
        outcome = fit_network_on_photos(
            net,
            pictures,
            loss,
            at,
            lambda x, rows: {"validation_accuracy": (0.0, len(rows))},
            at[:2],
            lambda net, per_epoch: optimise(recipe, net, per_epoch),
            recipe,
            0,
            Path(folder) / "checkpoint.pt",
            name,
            log,
        )
    _limit(0.0)
    speed = float(np.median(speeds[len(speeds) // 2 :]))
    parameters = int(outcome.figures["parameters"])
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return Found(name, batch, parameters, round(memory, 2), round(speed, 1), outcome.history[-1]["loss"])


def _limit(gb: float) -> None:
    """Let this process have so much of the GPU's memory, or all of it, and count anew."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gb * 1e9 / whole) if gb else 1.0)


def on_features(name: str, sizes: Sizes, net: Any, loss: Callable[..., Any], dim: int, batch: int) -> Found:
    """Steps on features that lie on the device."""
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.training.recipe import autocast

    _limit(0.0)
    where, context = device(), autocast(True)
    net.to(where).train()
    x, classes = torch.randn(batch, dim, device=where), torch.arange(batch, device=where) % sizes.classes
    optimiser = torch.optim.SGD(net.parameters(), 1e-2, 0.9, weight_decay=1e-4)

    def step() -> Any:
        optimiser.zero_grad()
        with context():
            value = loss(net, x, classes)
        value.backward()
        optimiser.step()
        return value.detach()

    for _ in range(STEPS):
        found = step().item()
    began = time.perf_counter()
    for _ in range(STEPS):
        found = step().item()
    speed = STEPS * batch / (time.perf_counter() - began)
    parameters = sum(p.numel() for p in net.parameters())
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return Found(name, batch, parameters, round(memory, 2), round(speed, 1), found)


def of_vit(sizes: Sizes) -> Found:
    from torch.nn.functional import cross_entropy

    def loss(net: Any, x: Any, rows: Any) -> Any:
        return cross_entropy(net(x), rows % sizes.classes)

    return on_photos("ViT-B/16, fine-tuned", sizes, vit(sizes), loss, sizes.batch)


def of_isn(sizes: Sizes) -> Found:
    import torch
    import torchvision

    whole = torchvision.models.get_model(sizes.resnet, weights=None)
    image = whole.fc.in_features
    whole.fc = torch.nn.Identity()
    clip = torch.randn(2 * sizes.batch, sizes.clip)

    def loss(net: Any, x: Any, rows: Any) -> Any:
        return guided(*net(x, clip[rows.cpu()].to(x.device)), rows % sizes.classes)

    net = guidebook(sizes, whole, image, sizes.clues_of_isn)
    return on_photos(f"ISN (ResNet-50), CLIP, {sizes.clues_of_isn:,} clues", sizes, net, loss, sizes.batch)


def of_head(sizes: Sizes) -> Found:
    from torch import nn
    from torch.nn.functional import cross_entropy

    widths = (sizes.features, *sizes.hidden)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(widths[-1], sizes.classes))

    def loss(net: Any, x: Any, classes: Any) -> Any:
        return cross_entropy(net(x), classes)

    name = f"head {'-'.join(map(str, sizes.hidden))} on {sizes.features} features"
    return on_features(name, sizes, net, loss, sizes.features, sizes.feature_batch)


def of_clues(sizes: Sizes) -> Found:
    net = guidebook(sizes, None, 0, sizes.clues)

    def loss(net: Any, x: Any, classes: Any) -> Any:
        return guided(*net(None, x), classes)

    return on_features(f"attention over {sizes.clues:,} clues", sizes, net, loss, sizes.clip, sizes.feature_batch)


def out_of_memory(sizes: Sizes) -> Found:
    """A batch that does not fit into what is left of the memory: it is halved, and training says so."""
    import torch
    from torch.nn.functional import cross_entropy

    name = f"ViT-B/16 in {LIMIT_GB:.0f} GB"
    if not torch.cuda.is_available():
        return Found(name, sizes.too_large, loss=0.0, note="not run: it takes a GPU")

    def loss(net: Any, x: Any, rows: Any) -> Any:
        return cross_entropy(net(x), rows % sizes.classes)

    with redirect_stderr(io.StringIO()) as told:
        found = on_photos(name, sizes, vit(sizes), loss, sizes.too_large, LIMIT_GB)
    said = [line for line in told.getvalue().splitlines() if line.startswith("out of memory")]
    return Found(**{**asdict(found), "loss": found.loss if said else math.nan, "note": "; ".join(said) or "not halved"})


CHECKS = (of_vit, of_isn, of_head, of_clues, out_of_memory)


def main(arguments: list[str]) -> int:
    """Print a row per network; 1 where one of them is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    if reason := lacking(given.tiny):
        print(f"not run: {reason}")
        return 0
    import torch

    sizes = TINY if given.tiny else PUBLISHED
    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    print(f"{card}, torch {torch.__version__}, bf16, {sizes.pixels} px\n")
    print(
        "| network | batch | parameters | memory, GB | photos/s | loss | |\n|---|--:|--:|--:|--:|--:|---|", flush=True
    )
    rows = []
    for check in CHECKS:
        try:
            found = check(sizes)
        except Exception as error:  # any: one network that fails must not hide the others
            found = Found(check.__name__, 0, note=f"{type(error).__name__}: {error}".splitlines()[0])
        rows.append(found)
        cells = (found.name, found.batch, f"{found.parameters:,}", found.memory_gb, f"{found.photos_per_second:,}")
        print("| " + " | ".join(map(str, cells)) + f" | {found.loss:.3f} | {found.note} |", flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"card": card, "rows": [asdict(row) for row in rows]}, indent=1))
    return int(not all(row.right for row in rows))


def lacking(tiny: bool) -> str | None:
    """Why nothing can be measured here; None where it can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if tiny or torch.cuda.is_available() else "there is no GPU here"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
