"""CLIP trained on a corpus' photos and captions (Radford et al. 2021), small from scratch or from published weights.

With captions made of geography this is how StreetCLIP (Haas, Alberti and Skreta 2023) and the CLIP of PIGEON and
PIGEOTTO (Haas et al. 2024) were pre-trained. Read and saved in the folder format of published open_clip checkpoints.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from geoloc_core.corpora import manifest
from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.store import WEIGHTS_REMEDY
from geoloc_core.encoders.zero_shot import Places, text_embedder
from geoloc_core.errors import UserError
from geoloc_core.files import verified_digest
from geoloc_core.params import CountryCode
from geoloc_core.pins import hold
from geoloc_core.plugins import Strict
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.sets import Split
from geoloc_core.training import contrastive, geography, held_out, loop, photos, recipe
from geoloc_core.training.captions import LISTED, OPENING, Captions, Seen, draw, draw_seen, split_phrases

if TYPE_CHECKING:
    import torch
    from pandas import DataFrame

OWN_TITLES = "A photo"
"""How a zero-shot prompt begins where captions are the corpus' own."""


class Transformer(Strict):
    """The shape of a vision transformer (Dosovitskiy et al. 2021)."""

    width: int = Field(96, gt=0, multiple_of=32)
    """Of a token."""
    layers: int = Field(3, ge=2)
    """Blocks."""
    patch_size: int = Field(16, gt=0)
    """Of a token, in pixels."""


class Options(Strict):
    """Network, captions and recipe. ``image_size`` to ``context`` describe a network that starts from scratch."""

    kind: Literal["clip"]
    corpus: str
    """The corpus that it is trained on."""
    start: str | None = None
    """The encoder whose weights it goes on from; left out, random weights."""
    image_size: int = Field(64, ge=32)
    """Width and height of a photo, in pixels."""
    image_tower: str = "test_byobnet"
    """A convolutional architecture of timm: convolutions learn from few photos."""
    transformer: Transformer | None = None
    """A vision transformer in place of ``image_tower``: its tokens and its last block can be trained on alone."""
    embed_dim: int = Field(64, gt=0)
    """Of the space of photos and captions."""
    text_width: int = Field(64, gt=0, multiple_of=2)
    """Width of the text transformer."""
    context: int = Field(24, gt=4)
    """Tokens of a caption."""

    caption: str = "caption"
    """Column of what the corpus publishes that holds its own captions."""
    captions: Annotated[Captions | Seen, Field(discriminator="template")] | None = None
    """Captions made of geography, or of what is seen, in place of the corpus' own."""
    facts: geography.Sources = geography.Sources()
    """Where those have their facts from."""
    hold_out: tuple[CountryCode, ...] = ()
    """Countries kept out of the training, to be scored as unseen."""
    zero_shot: held_out.ZeroShot = held_out.ZeroShot()
    augment: photos.Augmentation = "shift"
    """What is done to a training photo each time: shifted, or cut out and resized."""

    epochs: int = Field(gt=0)
    """How often all training photos are seen."""
    batch: int = Field(gt=1)
    """Photos and captions a step."""
    micro_batch: int | None = Field(None, gt=0)
    """Photos in memory at once; left out, the whole batch."""
    compare: Literal["batch", "micro_batch"] = "batch"
    """What a photo's caption is told apart from: all of the batch (gradient caching) or its micro-batch alone."""
    lr: float = Field(gt=0)
    """The greatest learning rate."""
    schedule: recipe.Schedule = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.98)
    """Of AdamW: shares that the means of the gradient and of its square keep at each step."""
    eps: float = Field(1e-6, gt=0)
    """Of AdamW: what is added to the root of the latter."""
    weight_decay: float = Field(0.1, ge=0)
    """How strongly matrices are pulled towards 0 at each step, times the rate."""
    clip_norm: float | None = Field(None, gt=0)
    """Norm of all gradients together, above which they are scaled down."""
    freeze_text: bool = False
    """Whether the text tower stays as it is."""
    freeze_blocks: Annotated[int, Field(ge=0)] | Literal["all_but_last"] = 0
    """Blocks of the image transformer that stay as they are, from the first on."""
    amp: bool = False
    """bfloat16 arithmetic, where the device has it."""
    checkpoint_activations: bool = False
    """Compute activations again for the gradients: less memory, a third more time."""
    cache_gb: float = Field(20.0, ge=0)
    """Decoded photos up to this size are kept on disk; more are read from the shards in every epoch."""
    save_steps: int | None = Field(None, gt=0)
    """Steps after which unfinished work is saved; left out, every 10 s or so."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start:
            shape = {"image_size", "image_tower", "transformer", "embed_dim", "text_width", "context"}
            if drawn := shape & self.model_fields_set:
                raise ValueError(
                    f"{', '.join(sorted(drawn))}: already set by the checkpoint in start; leave them out, or start"
                )
        if self.micro_batch and self.micro_batch > self.batch:
            raise ValueError(f"micro_batch {self.micro_batch} is larger than batch {self.batch}")
        if "facts" in self.model_fields_set and not isinstance(self.captions, Captions):
            raise ValueError("facts: only captions of geography use them; add captions, or leave facts out")
        if self.compare == "micro_batch" and not self.micro_batch:
            raise ValueError("compare: micro_batch needs the size of a micro-batch; set micro_batch")
        return self


@dataclass(frozen=True)
class Network:
    """A CLIP and what belongs to it.

    Attributes:
        model: Of open_clip.
        config: The content of its ``open_clip_config.json``.
        preprocess: The preparation of photos.
        tokenise: Texts → (N, context) tokens.
    """

    model: Any
    config: dict[str, Any]
    preprocess: Preprocess
    tokenise: Callable[[list[str]], "torch.Tensor"]


def model_config(options: Options) -> dict[str, Any]:
    """The architecture in open_clip's own terms."""
    return {
        "embed_dim": options.embed_dim,
        "vision_cfg": {"image_size": options.image_size, **_image_tower(options)},
        "text_cfg": {
            "context_length": options.context,
            "vocab_size": 49408,
            "width": options.text_width,
            "heads": 2,
            "layers": 2,
        },
    }


def _image_tower(options: Options) -> dict[str, Any]:
    if options.transformer is not None:
        return {**options.transformer.model_dump(), "head_width": 32}
    return {
        "timm_model_name": options.image_tower,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    }


def from_scratch(options: Options, seed: int) -> Network:
    """A CLIP with random weights."""
    import torch
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer

    config = model_config(options)
    preprocess = Preprocess(options.image_size, "crop", "bicubic", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    chosen = {"mean": list(preprocess.mean), "std": list(preprocess.std), "interpolation": "bicubic"}
    prepared = {"size": options.image_size, "resize_mode": "shortest", **chosen}
    torch.manual_seed(seed)
    whole = {"model_cfg": config, "preprocess_cfg": prepared}
    return Network(CLIP(**config), whole, preprocess, SimpleTokenizer(context_length=options.context))


def from_checkpoint(weights: Path) -> Network:
    """The CLIP of a checkpoint folder of open_clip.

    Raises:
        UserError: It is none, or has a tokenizer of its own, which a folder of weights does not hold.
    """
    import open_clip

    from geoloc_core.encoders.openclip import CONFIG, config_of, open_model
    from geoloc_core.encoders.towers.open_clip import preprocess_of

    config = config_of(weights)
    if config["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name"):
        raise UserError(f"{weights}: its texts need a tokenizer other than CLIP's; expected a CLIP model")
    tokenise = open_clip.get_tokenizer(f"local-dir:{weights}")
    return Network(open_model(weights), config, preprocess_of(config, weights / CONFIG), tokenise)


def pretrain(
    project: Project, options: Options, out: Path, partial: Path, log: loop.Log
) -> tuple[list[loop.Metrics], dict[str, Any]]:
    """Train and save a CLIP.

    Args:
        project: The project.
        options: Network, captions and recipe.
        out: The folder to write the checkpoint to.
        partial: Where unfinished work survives a kill.
        log: Called with the metrics of every epoch.

    Returns:
        The metrics of every epoch, and figures for the summary.
    """
    import torch

    from geoloc_core.encoders.openclip import save_clip

    where = f"params.yaml: {'pretrain_from' if options.start else 'pretrain'}.{partial.name}"
    seed = project.profile.seed
    start = project.weights(options.start) if options.start else None
    start_is = start and verified_digest(start, WEIGHTS_REMEDY)
    network = from_checkpoint(start) if start else from_scratch(options, seed)
    _prepare(network.model, options, where)
    corpus = _Corpus.read(project, options, network, partial, where)
    trainer = _Trainer.of(network, options, corpus, seed)
    recipe_of = options.model_dump(exclude={"save_steps", "cache_gb"})
    depends = [recipe_of, seed, project.profile.threads, corpus.made_of, corpus.photos.shuffled, start_is]
    history = loop.run_steps(
        {"model": network.model, "optimiser": trainer.optimiser},
        range(options.epochs),
        trainer.steps_of,
        partial / "checkpoint.pt",
        depends,
        log,
        save_steps=options.save_steps,
    )
    network.model.visual.to(memory_format=torch.contiguous_format)  # as checkpoints are
    save_clip(network.model, network.config["model_cfg"], network.config["preprocess_cfg"], out)
    scores: dict[str, dict[str, dict[str, float]]] = {"zero_shot": corpus.score(network, options)}
    if start:
        scores["zero_shot_before"] = corpus.score(from_checkpoint(start), options)
    flat = {(kind, name, key): v for kind, sets in scores.items() for name, s in sets.items() for key, v in s.items()}
    told = [
        f"{s['accuracy']} % of {s['photos']:,} photos of {name} countries" for name, s in scores["zero_shot"].items()
    ]
    say(f"zero-shot: right about the country of {' and of '.join(told)}")
    log({".".join(key): value for key, value in flat.items()}, len(history) - 1)
    parameters = sum(p.numel() for p in network.model.visual.parameters())
    return history, {"photos": len(corpus.rows), "parameters": parameters, **scores}


def _prepare(model: Any, options: Options, where: str) -> None:
    """Bring the model to its device, and freeze what stays as it is."""
    import torch

    model.to(device())
    model.visual.to(memory_format=torch.channels_last)  # convolutions are faster so
    if options.micro_batch and options.micro_batch < options.batch:
        contrastive.check_micro_batches(model, f"{where}.micro_batch")
    if options.freeze_text:
        recipe.freeze_text(model)
    recipe.freeze_blocks(model, options.freeze_blocks, f"{where}.freeze_blocks")
    if options.checkpoint_activations:
        model.set_grad_checkpointing(True)


@dataclass(frozen=True)
class _Corpus:
    """What is trained on and scored.

    Attributes:
        rows: (n,) rows to train on.
        split: (N,) of all rows.
        codes: (N,) countries, None where unknown.
        points: (N, 2) latitudes and longitudes, NaN where unknown.
        photos: All of them.
        tokens_of: Rows (b,) and the number of an epoch → (b, context) tokens of their captions.
        countries: The boundaries' units of level 0.
        made_of: All that the photos and captions depend on, beside the parameters.
    """

    rows: np.ndarray
    split: np.ndarray
    codes: np.ndarray
    points: np.ndarray
    photos: photos.Photos
    tokens_of: "Callable[[np.ndarray, int], torch.Tensor]"
    countries: "DataFrame"
    made_of: str

    @classmethod
    def read(cls, project: Project, options: Options, network: Network, partial: Path, where: str) -> "_Corpus":
        """Gather all, and say which photos are left out.

        Raises:
            UserError: The corpus is not ready, has too few photos, or lacks a country or column that is asked for.
        """
        hold(options.facts.files(project.root), options.facts.sha256, f"{where}.facts")
        countries = geography.read_countries(project)
        held_out.check_countries(options.hold_out, countries.index, f"{where}.hold_out")
        labels = geography.read_labels(project, options.corpus, ["gid_0", "split"])
        split, codes = labels["split"], labels["gid_0"]
        need_country = isinstance(options.captions, Captions) or bool(options.hold_out)
        rows = held_out.training_rows(split, codes, options.hold_out, need_country)
        photos.batches_per_epoch(rows, options.batch, options.corpus)
        left_out = int((split == Split.TRAIN).sum()) - len(rows)
        if left_out:
            say(f"{options.corpus}: {left_out:,} training photos left out: their country is held out or unknown")
        images, made_of = photos.scaled(project, options.corpus, network.preprocess, partial, options.cache_gb)
        table = manifest.read_manifest(project.corpus(options.corpus), ["latitude", "longitude"])
        return cls(
            rows=rows,
            split=split,
            codes=codes,
            points=np.stack([table[name].to_numpy() for name in ("latitude", "longitude")], axis=1),
            tokens_of=_tokens_of(project, options, network),
            photos=images,
            countries=countries,
            made_of=made_of,
        )

    def score(self, network: Network, options: Options) -> dict[str, dict[str, float]]:
        """Zero-shot scores on seen and unseen countries."""
        how = options.captions
        opening, listed = (
            (OPENING[how.template], LISTED[how.template]) if isinstance(how, Captions) else (OWN_TITLES, ())
        )
        return held_out.score(
            network.model.to(device()),
            text_embedder(network.model, network.tokenise, device()),
            self.photos,
            held_out.scored_rows(
                self.split, self.codes, options.hold_out, self.photos.groups, options.zero_shot.photos
            ),
            (self.codes, self.points),
            Places.of(self.countries, listed, options.zero_shot.towns),
            options.zero_shot.prompts(opening),
            device(),
        )


def _tokens_of(project: Project, options: Options, network: Network) -> "Callable[[np.ndarray, int], torch.Tensor]":
    """How captions come to be: drawn anew in every epoch, or the corpus' own."""
    how, seed = options.captions, project.profile.seed
    if isinstance(how, Seen):
        seen = split_phrases(photos.attribute(project, options.corpus, how.column))
        return lambda rows, epoch: network.tokenise(draw_seen(seen, how, rows, seed, epoch))
    if how:
        facts = geography.gather(project, options.corpus, options.facts)
        return lambda rows, epoch: network.tokenise(draw(facts, how, rows, seed, epoch))
    own = network.tokenise([text or "" for text in photos.attribute(project, options.corpus, options.caption)]).int()
    return lambda rows, epoch: own[rows]


@dataclass(frozen=True)
class _Trainer:
    """One network in training."""

    network: Network
    options: Options
    corpus: _Corpus
    seed: int
    optimiser: "torch.optim.AdamW"
    autocast: contrastive.Autocast

    @classmethod
    def of(cls, network: Network, options: Options, corpus: _Corpus, seed: int) -> "_Trainer":
        """The trainer of a network that is on its device."""
        optimiser = recipe.adamw(network.model, options.lr, options.betas, options.eps, options.weight_decay)
        return cls(network, options, corpus, seed, optimiser, recipe.autocast(options.amp))

    def steps_of(self, epoch: int, first: int) -> Iterator[loop.Metrics]:
        """Train the steps of an epoch from ``first`` on; yields the metrics of each."""
        options, per_epoch = self.options, len(self.corpus.rows) // self.options.batch
        order = self.corpus.photos.order(self.corpus.rows, self.seed, epoch)
        batches = list(photos.batches(order, options.batch, first))
        self.network.model.train()
        for step, (rows, pixels) in enumerate(zip(batches, self.corpus.photos.read(batches), strict=True), first):
            done, steps = epoch * per_epoch + step, options.epochs * per_epoch
            peak = recipe.rate(options.schedule, options.lr, done, steps, round(options.warmup * steps))
            recipe.set_rate(self.optimiser, peak)
            yield self._step(rows, pixels, epoch, step)

    def _step(self, rows: np.ndarray, pixels: np.ndarray, epoch: int, step: int) -> loop.Metrics:
        import torch

        model, options = self.network.model, self.options
        drawn = int(np.random.SeedSequence([self.seed, epoch, step]).generate_state(1)[0])
        torch.manual_seed(drawn)  # what drops out must not depend on the steps before
        images = photos.augmented(
            torch.from_numpy(pixels).to(device()),
            self.network.preprocess,
            torch.Generator().manual_seed(drawn),
            options.augment,
        )
        tokens = self.corpus.tokens_of(rows, epoch).to(device())
        self.optimiser.zero_grad()
        micro = options.micro_batch or options.batch
        images = images.contiguous(memory_format=torch.channels_last)
        outcome = contrastive.backward(model, images, tokens, micro, options.compare == "batch", self.autocast)
        if not np.isfinite(outcome.loss):
            raise UserError(
                f"epoch {epoch + 1}, step {step + 1}: the loss is {outcome.loss}; expected a finite number; lower lr"
            )
        if options.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        self.optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))  # as in CLIP: larger scales diverge
        return {"loss": outcome.loss, "caption_accuracy": outcome.hits / len(rows)}
