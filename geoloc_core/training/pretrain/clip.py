"""A small CLIP trained on a corpus' photos and captions (Radford et al. 2021, symmetric contrastive loss).

It is saved in the folder format of published CLIP checkpoints, and read by the same code as they are.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.plugins import Strict
from geoloc_core.project import Project
from geoloc_core.training import loop, photos


class Options(Strict):
    """Architecture and recipe."""

    kind: Literal["clip"]
    corpus: str
    image_size: int = Field(64, ge=32)
    image_tower: str = "test_byobnet"
    """A convolutional architecture of timm: convolutions learn from few photos."""
    embed_dim: int = Field(64, gt=0)
    text_width: int = Field(64, gt=0, multiple_of=2)
    context: int = Field(24, gt=4)
    """Tokens of a caption."""
    epochs: int = Field(gt=0)
    batch: int = Field(gt=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.1, ge=0)


def model_config(options: Options) -> dict[str, Any]:
    """The architecture in open_clip's own terms."""
    return {
        "embed_dim": options.embed_dim,
        "vision_cfg": {
            "image_size": options.image_size,
            "timm_model_name": options.image_tower,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
        "text_cfg": {
            "context_length": options.context,
            "vocab_size": 49408,
            "width": options.text_width,
            "heads": 2,
            "layers": 2,
        },
    }


def pretrain(
    project: Project, options: Options, out: Path, partial: Path, log: loop.Log
) -> tuple[list[loop.Metrics], dict[str, Any]]:
    """Train and save a CLIP.

    Args:
        project: The project.
        options: Architecture and recipe.
        out: The folder to write the checkpoint to.
        partial: Where unfinished work survives a kill.
        log: Called with the metrics of every epoch.

    Returns:
        The metrics of every epoch, and figures for the summary.
    """
    import torch
    from open_clip import ClipLoss
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer

    from geoloc_core.encoders.checkpoints import save_clip

    config = model_config(options)
    preprocess = Preprocess(options.image_size, "crop", "bicubic", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    rows = photos.training_rows(project, options.corpus)
    steps = photos.batches_per_epoch(rows, options.batch, options.corpus)
    made_of = photos.fingerprint(project, options.corpus)
    images = photos.scaled(project.corpus(options.corpus), preprocess, partial / f"{made_of[:16]}.npy")
    captions = np.asarray(
        SimpleTokenizer(context_length=options.context)(
            [text or "" for text in photos.attribute(project, options.corpus, "caption")]
        )
    )
    torch.manual_seed(project.profile.seed)
    model = CLIP(**config).to(device())
    optimiser = torch.optim.AdamW(
        model.parameters(), options.lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=options.weight_decay
    )
    loss_of = ClipLoss()

    def one_epoch(epoch: int) -> loop.Metrics:
        model.train()
        generator = torch.Generator().manual_seed(project.profile.seed * 1000 + epoch)
        total, hits = 0.0, 0
        for step, batch in enumerate(photos.batches(rows, options.batch, project.profile.seed, epoch)):
            loop.set_cosine_rate(optimiser, options.lr, epoch * steps + step, options.epochs * steps, steps)
            pixels = photos.augmented(images[batch], preprocess, generator).to(device())
            vision, text, scale = model(pixels, torch.from_numpy(captions[batch]).to(device()))
            loss = loss_of(vision, text, scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))  # as in CLIP: larger scales diverge
                hits += int(((vision @ text.T).argmax(1).cpu() == torch.arange(len(batch))).sum())
            total += loss.item()
        return {"loss": total / steps, "caption_accuracy": hits / (steps * options.batch)}

    history = loop.run_epochs(
        {"model": model, "optimiser": optimiser},
        range(options.epochs),
        one_epoch,
        partial / "checkpoint.pt",
        [options.model_dump(), project.profile.seed, made_of],
        log,
    )
    chosen = {"mean": list(preprocess.mean), "std": list(preprocess.std), "interpolation": "bicubic"}
    save_clip(model, config, {"size": options.image_size, "resize_mode": "shortest", **chosen}, out)
    return history, {"photos": len(rows), "parameters": sum(p.numel() for p in model.visual.parameters())}
