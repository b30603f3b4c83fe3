"""The loop that trains whole networks on photos, on one device or, started under ``torchrun``, on several.

Lightning Fabric brings the devices, the precision and the exchange of gradients. Every process works on its share of
each batch; the first alone writes the checkpoint, logs and speaks. The outcome is that of one process, but for the
order in which numbers are added up, and for batch normalisation on CPUs, whose statistics are of a share each.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.encoders.compute import chosen
from geoloc_core.encoders.device import device
from geoloc_core.encoders.memory import free, ran_out
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.progress import say, track
from geoloc_core.training import checkpoints, loop, photos
from geoloc_core.training.fitting import Keeper, Loss, Measure, averaged
from geoloc_core.training.optimisers import rates_now
from geoloc_core.training.photos import Photos, Share
from geoloc_core.training.recipe import NetworkRecipe
from geoloc_core.training.stopping import Score, best_epoch, is_over

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

    Scheduler = torch.optim.lr_scheduler.LRScheduler

Optimise = Callable[["torch.nn.Module", int], "tuple[torch.optim.Optimizer, Scheduler | None]"]
"""The optimiser of a network, and its schedule, stepped after each step; also given the number of steps of an epoch."""
STATES = 3
"""Copies of what is trained that an optimiser and the exchange of gradients hold, at most."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to; its network holds the weights of the best epoch and is in inference mode.

    Attributes:
        history: Metrics of every epoch.
        best: Number of the epoch kept.
        figures: ``parameters``, ``trainable_parameters``, ``seconds_per_epoch`` (validation included) and
            ``photos_per_second`` (of training alone).
    """

    history: list[loop.Metrics]
    best: int
    figures: dict[str, float] = field(compare=False)


def fit_network_on_photos(
    net: "torch.nn.Module",
    pictures: Photos,
    loss: Loss,
    training: np.ndarray,
    measure: Measure,
    validation: np.ndarray,
    optimise: Optimise,
    recipe: NetworkRecipe,
    seed: int,
    checkpoint: Path,
    fingerprint: Any,
    log: loop.Log,
    score: Score = lambda metrics: metrics["validation_accuracy"],
) -> Outcome:
    """Train epoch by epoch, stop early, and leave the network with the weights of the best epoch.

    An epoch is every training row once, but for what no whole batch is left of. A run after a kill ends with the same
    weights, to the last bit. Where memory runs out, the micro-batch is halved and the step done again: the batch, of
    which gradients are added up, stays what it is.

    Args:
        net: The network; it is brought to the device.
        pictures: N of them, with the preparation of the network.
        loss: Of the network, which is to be called and not looked into, augmented photos (b, 3, size, size) and their
            positions (b,) int64 among the pictures, on the device: the mean () over the b photos. What it reads of a
            row, it looks up by the position. A weighted loss has to divide by b as well.
        training: (n,) positions of what is learned from.
        measure: Of photos that are not augmented and their positions, figures by name, each a mean and over how many;
            the network is then in inference mode.
        validation: (m,) positions.
        optimise: See :data:`Optimise`; such as :func:`geoloc_core.training.recipe.optimise`.
        recipe: Batch, epochs, precision, augmentation and the like; what is frozen was frozen before.
        seed: Of the order of photos, of augmentation, and of what is random within the network.
        checkpoint: The file that survives a kill.
        fingerprint: All that the training depends on.
        log: Called with the metrics of every epoch.
        score: What decides which epoch is best.

    Raises:
        UserError: The loss is no longer a number, a photo cannot be read, or not even one photo fits into memory.
    """
    trainer = _Trainer.of(net, pictures, loss, measure, training, validation, optimise, recipe, seed)
    first = trainer.fabric.is_global_zero
    keeper, clock = Keeper(net), _Clock()
    parts = {"net": net, "optimiser": trainer.optimiser, "best": keeper, "clock": clock}
    if trainer.schedule is not None:
        parts["schedule"] = trainer.schedule

    def steps_of(epoch: int, begin: int) -> Iterator[loop.Metrics]:
        clock.start()
        for metrics in trainer.steps_of(epoch, begin):
            clock.trained(trainer.batch)
            yield metrics

    def finish(epoch: int) -> loop.Metrics:
        validated = trainer.validated()
        keeper.see(score(validated))
        clock.finished()
        return validated

    depends = [fingerprint, pictures.shuffled, _of_rows(training)]  # the order of photos depends on the two
    if trainer.fabric.world_size > 1:  # one of another training goes before the others look
        if first:
            checkpoints.load(checkpoint, depends)
        trainer.fabric.barrier()
    history = loop.run_steps(
        parts,
        range(recipe.epochs),
        steps_of,
        checkpoint,
        depends,
        log if first else lambda metrics, epoch: None,
        lambda history: is_over(history, score, recipe.stop_patience),
        finish=finish,
        saves=first,
    )
    net.load_state_dict(keeper.weights)
    net.eval()
    sizes = [(p.numel(), p.requires_grad) for p in net.parameters()]
    counts = {"parameters": sum(n for n, _ in sizes), "trainable_parameters": sum(n for n, moved in sizes if moved)}
    return Outcome(history, best_epoch(history, score), {**counts, **clock.figures()})


def _of_rows(training: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(training.astype("<i8").tobytes()).hexdigest()[:16]


class _Part(NamedTuple):
    """What a process works on of a batch: rows (b,) int64, pixels (b, size, size, 3) uint8, and which share it is."""

    rows: np.ndarray
    pixels: np.ndarray
    share: Share


@dataclass
class _Trainer:
    """A network in training on the device of this process.

    Attributes:
        fabric: Devices, precision, and the exchange with other processes.
        net: The network as it was given.
        wrapped: The network as it is called in training.
        optimiser: As it was made.
        stepper: The optimiser as Fabric steps it.
        schedule: As it was made.
        batch: Photos of a step, of all processes together.
        micro: Photos in memory at once.
    """

    fabric: "Fabric"
    net: "torch.nn.Module"
    wrapped: Any
    optimiser: "torch.optim.Optimizer"
    stepper: Any
    schedule: "Scheduler | None"
    pictures: Photos
    loss: Loss
    measure: Measure
    training: np.ndarray
    validation: np.ndarray
    recipe: NetworkRecipe
    seed: int
    batch: int
    micro: int

    @classmethod
    def of(
        cls,
        net: "torch.nn.Module",
        pictures: Photos,
        loss: Loss,
        measure: Measure,
        training: np.ndarray,
        validation: np.ndarray,
        optimise: Optimise,
        recipe: NetworkRecipe,
        seed: int,
    ) -> "_Trainer":
        import torch

        fabric = _fabric(chosen(net, recipe.precision))
        batch = min(recipe.batch, len(training))
        if batch < fabric.world_size:
            raise UserError(
                f"batch: {batch} photos for {fabric.world_size} processes; expected at least one for each; "
                "start fewer, or train on more photos"
            )
        share = -(-batch // fabric.world_size)
        micro = min(recipe.micro_batch or share, share)
        on_gpu = fabric.device.type == "cuda"
        net.to(fabric.device)
        if on_gpu:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser, schedule = optimise(net, len(training) // batch)
        trainer = cls(
            fabric, net, net, optimiser, optimiser, schedule, pictures, loss, measure, training, validation, recipe,
            seed, batch, micro,
        )  # fmt: skip
        if fabric.world_size > 1:
            trainer._find_micro()
            if on_gpu:  # not before: a process that runs out of memory would leave the others waiting for statistics
                net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        called: Any = torch.compile(net) if recipe.compile and on_gpu else net
        trainer.wrapped, trainer.stepper = fabric.setup(called, optimiser)
        return trainer

    def steps_of(self, epoch: int, first: int) -> Iterator[loop.Metrics]:
        """Train the steps of an epoch from ``first`` on; yields the metrics of each."""
        order = self.pictures.order(self.training, self.seed, epoch)
        batches = list(photos.batches(order, self.batch, first))
        cuts = np.arange(self.fabric.world_size + 1) * self.batch // self.fabric.world_size
        begin, end = cuts[self.fabric.global_rank : self.fabric.global_rank + 2]
        mine = [rows[begin:end] for rows in batches]
        share = Share(int(begin), self.batch)
        read = self.pictures.read(mine)
        if self.fabric.is_global_zero:
            read = track(read, f"epoch {epoch + 1}", len(batches) * self.batch, "photos", self.batch)
        _train_mode(self.net)
        last: torch.Tensor | None = None
        for step, (rows, pixels) in enumerate(zip(mine, read, strict=True), first):
            rates = rates_now(self.optimiser)
            value = self._step(epoch, step, _Part(rows, pixels, share))
            if last is not None:  # the device has it by now, so that nothing waits
                self._check(last, epoch, step)
            last = value
            yield {"loss": value, **rates}  # type: ignore[dict-item]
        if last is not None:
            self._check(last, epoch, first + len(batches))

    def validated(self) -> loop.Metrics:
        """Figures of the network as it is."""
        import torch

        self._share_buffers()
        self.net.eval()
        world, rank = self.fabric.world_size, self.fabric.global_rank
        batches = [self.validation[some] for some in blocks(len(self.validation), self.micro)]
        mine = batches[rank::world]
        found = []
        with torch.inference_mode(), self.fabric.autocast():
            for rows, pixels in zip(mine, self.pictures.read(mine), strict=True):
                part = _Part(rows, pixels, Share(0, len(rows)))
                found.append(self.measure(self._inputs(part, None), self._to_device(rows)))
        if world == 1:
            return averaged(found)
        of_all: list[list[dict[str, tuple[float, int]]]] = [[] for _ in range(world)]
        torch.distributed.all_gather_object(of_all, found)
        return averaged(of_all[number % world][number // world] for number in range(len(batches)))

    def _step(self, epoch: int, step: int, part: _Part) -> "torch.Tensor":
        """Move the weights by one batch; returns its loss () float64, on the device."""
        import torch

        random = np.random.SeedSequence([self.seed, epoch, step])
        seeds = [int(number) for number in random.generate_state(1 + self.fabric.world_size)]
        while (total := self._tried(part, seeds[0], seeds[1 + self.fabric.global_rank])) is None:
            free()
            self._halve()
        if self.recipe.clip_norm:
            self.fabric.clip_gradients(
                self.wrapped, self.stepper, max_norm=self.recipe.clip_norm, error_if_nonfinite=False
            )
        self.stepper.step()
        self.stepper.zero_grad()
        if self.schedule is not None:
            self.schedule.step()
        if self.fabric.world_size > 1:
            torch.distributed.all_reduce(total)
        return total

    def _tried(self, part: _Part, augmentation: int, own: int) -> "torch.Tensor | None":
        """Add up the gradients of a part; None, and nothing changed, where memory ran out."""
        import torch

        torch.manual_seed(own)  # what drops out must not depend on the steps before
        before = [buffer.clone() for buffer in self.net.buffers()]
        try:
            return self._accumulate(part, augmentation)
        except torch._dynamo.exc.TorchDynamoException as error:
            if not ran_out(error):
                raise UserError(f"compile: torch.compile failed: {in_a_line(error)}; set compile: false") from None
        except Exception as error:  # any: every allocator has its own class; what is no lack of memory is raised again
            if not ran_out(error):
                raise
            if self.fabric.world_size > 1:  # the others wait for gradients
                raise UserError(
                    f"process {self.fabric.global_rank}: out of memory with {self.micro} photos at once; "
                    f"set micro_batch: {max(1, self.micro // 2)}"
                ) from None
        self._restore(before)
        return None

    def _accumulate(self, part: _Part, augmentation: int) -> "torch.Tensor":
        import torch

        total = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        world, of = self.fabric.world_size, part.share.of
        for some in blocks(len(part.rows), self.micro):
            share = Share(part.share.first + some.start, of)
            piece = _Part(part.rows[some], part.pixels[some], share)
            is_last = some.stop == len(part.rows)
            with self.fabric.no_backward_sync(self.wrapped, enabled=not is_last):
                value = self.loss(self.wrapped, self._inputs(piece, augmentation), self._to_device(piece.rows))
                self.fabric.backward(value * (len(piece.rows) * world / of))  # gradients of processes are averaged
            total += value.detach().double() * (len(piece.rows) / of)
        return total

    def _find_micro(self) -> None:
        """Halve the micro-batch of all processes until it fits each, before any waits for another.

        Raises:
            UserError: Not even one photo fits.
        """
        import torch

        while True:
            failed = torch.tensor(float(not self._fits()), device=self.fabric.device)
            torch.distributed.all_reduce(failed)
            if not failed.item():
                return
            free()
            self._halve()

    def _fits(self) -> bool:
        size = self.pictures.preprocess.size
        rows = self.training[: self.micro]
        part = _Part(rows, np.zeros((len(rows), size, size, 3), np.uint8), Share(0, len(rows)))
        before = [buffer.clone() for buffer in self.net.buffers()]
        _train_mode(self.net)
        try:
            self._take(part)
        except Exception as error:  # any: as above
            if not ran_out(error):
                raise
            return False
        finally:
            self._restore(before)
        return True

    def _take(self, part: _Part) -> None:
        """Use the memory that a step with some photos would use."""
        import torch

        trained = sum(p.numel() for p in self.net.parameters() if p.requires_grad)
        held = torch.empty(STATES * trained, device=self.fabric.device)
        with self.fabric.autocast():
            self.loss(self.net, self._inputs(part, None), self._to_device(part.rows)).backward()
        del held

    def _halve(self) -> None:
        if self.micro == 1:
            raise UserError("out of memory with one photo; choose a smaller network, or freeze more of it")
        before, self.micro = self.micro, self.micro // 2
        if self.fabric.is_global_zero:
            say(
                f"out of memory with {before} photos at once; continuing with {self.micro}, "
                f"whose gradients add up to the same batch of {self.batch}"
            )

    def _restore(self, buffers: "list[torch.Tensor]") -> None:
        for buffer, old in zip(self.net.buffers(), buffers, strict=True):
            buffer.copy_(old)
        self.net.zero_grad()

    def _inputs(self, part: _Part, augmentation: int | None) -> "torch.Tensor":
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(part.pixels)).to(self.fabric.device, non_blocking=True)
        how, flip = ("none", False) if augmentation is None else (self.recipe.augment, self.recipe.flip)
        generator = torch.Generator().manual_seed(augmentation or 0)
        x = photos.augmented(pixels, self.pictures.preprocess, generator, how, flip, part.share)  # type: ignore[arg-type]
        return x.contiguous(memory_format=torch.channels_last) if x.is_cuda else x.contiguous()

    def _to_device(self, rows: np.ndarray) -> "torch.Tensor":
        import torch

        return torch.from_numpy(rows.astype(np.int64)).to(self.fabric.device)

    def _check(self, value: "torch.Tensor", epoch: int, steps: int) -> None:
        if not np.isfinite(found := value.item()):
            raise UserError(
                f"epoch {epoch + 1}, step {steps}: the training loss is {found}, expected a number; "
                "choose a lower learning rate"
            )

    def _share_buffers(self) -> None:
        """Give all processes the statistics of the first."""
        import torch

        if self.fabric.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)


def _fabric(precision: str) -> "Fabric":
    """The device of this process, joined with the others where ``torchrun`` started several."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    here: dict[str, Any] = {"accelerator": device().type, "precision": "bf16-mixed" if precision == "bf16" else None}
    if TorchElasticEnvironment.detect():
        world, local = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        joined = DDPStrategy(find_unused_parameters=True, cluster_environment=TorchElasticEnvironment())
        fabric = Fabric(devices=local, num_nodes=world // local, strategy=joined, **here)
    else:  # a cluster's variables are no wish for several
        fabric = Fabric(devices=1, plugins=[LightningEnvironment()], **here)
    fabric.launch()
    return fabric


def _train_mode(net: "torch.nn.Module") -> None:
    """Training mode, but for batch normalisation that is frozen: its statistics stay as they are too."""
    from torch.nn.modules.batchnorm import _BatchNorm

    net.train()
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()


@dataclass
class _Clock:
    """How long a training took, through a kill too."""

    training: float = 0.0
    whole: float = 0.0
    photos: int = 0
    epochs: int = 0
    mark: float = 0.0

    def start(self) -> None:
        self.mark = time.perf_counter()

    def _lap(self) -> float:
        before, self.mark = self.mark, time.perf_counter()
        return self.mark - before

    def trained(self, photos: int) -> None:
        lap = self._lap()
        self.training += lap
        self.whole += lap
        self.photos += photos

    def finished(self) -> None:
        self.whole += self._lap()
        self.epochs += 1

    def figures(self) -> dict[str, float]:
        return {
            "seconds_per_epoch": round(self.whole / max(1, self.epochs), 3),
            "photos_per_second": round(self.photos / max(self.training, 1e-9), 1),
        }

    def state_dict(self) -> dict[str, float]:
        return {"training": self.training, "whole": self.whole, "photos": self.photos, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.training, self.whole, self.photos = state["training"], state["whole"], state["photos"]
        self.epochs = state["epochs"]
