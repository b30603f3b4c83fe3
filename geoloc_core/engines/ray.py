"""On the machines of a Ray cluster, by Ray Data: each item is a task, and each worker opens the work once.

The cluster's machines share the project's folder, at the same path, and have the same installation. A item whose
worker or machine died is done again by another; a mistake of the user's comes back as it is, and ends the job.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal

from pydantic import Field

from geoloc_core import telemetry
from geoloc_core.engines import Item, Job, Result, Work
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.plugins import Strict
from geoloc_core.threads import limit

RETRIES = 3
"""How often an item is done again whose worker died: one that kills each worker must not go on for ever."""


class Options(Strict):
    """Which cluster, and what each worker takes of it.

    Attributes:
        address: Of the cluster's head, ``host:port``; ``auto`` is the one that this machine is of. Left out, it is that
            of the variable ``RAY_ADDRESS``, or of this machine; where there is none, one is started for the stage.
        cpus: Of each worker.
        gpus: Of each worker; left out, one where the cluster has any.
    """

    kind: Literal["ray"]
    address: str | None = Field(None, min_length=1)
    cpus: float = Field(1, gt=0, allow_inf_nan=False)
    gpus: float | None = Field(None, ge=0, allow_inf_nan=False)


def results(options: Options, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
    """See :meth:`geoloc_core.engines.Job.results`; a single item is not worth sending, and is done here."""
    if len(items) < 2:
        yield from job.work(items)
        return
    with _cluster(options) as ray:
        for done in _done(ray, options, job, items):
            if done.error is not None:
                raise done.error
            yield from done.results


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What came of an item.

    Attributes:
        results: Of it.
        error: A mistake of the user's, or an error of the machine's, instead of them.
    """

    results: list[Result]
    error: Exception | None = None


class Worker(Generic[Item, Result]):
    """A process that does items, in a cluster; the first one opens the work."""

    def __init__(self, threads: int | None, reopen: Callable[[], Work[Item, Result]], items: Sequence[Item]) -> None:
        for name, value in telemetry.OFF.items():
            os.environ.setdefault(name, value)
        limit(threads)
        self._reopen, self._items = reopen, items

    def __call__(self, row: dict[str, Any]) -> dict[str, Done[Result]]:
        """Do the item that a row of Ray's gives the number of."""
        try:
            return {"done": Done(list(self._work([self._items[row["item"]]])))}
        except (UserError, OSError, MemoryError) as error:  # told once, by whoever asked; anything else is a fault
            return {"done": Done([], error)}

    @cached_property
    def _work(self) -> Work[Item, Result]:
        return self._reopen()


def _done(ray: Any, options: Options, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Done[Result]]:
    """What came of each item, in their order."""
    needs = _needs(ray, options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    rows = ray.data.from_items([{"item": number} for number in range(len(items))], override_num_blocks=len(items))
    workers = ray.data.ActorPoolStrategy(
        size=min(len(items), _room(ray, needs)),
        max_tasks_in_flight_per_actor=1,  # an item that waits for a worker may go to any
    )
    found = rows.map(
        Worker,
        fn_constructor_args=(job.project.profile.threads, job.reopen, items),
        compute=workers,
        num_cpus=needs["CPU"],
        num_gpus=needs["GPU"],
        max_task_retries=RETRIES,
    )
    try:
        for row in found.iter_rows():
            yield row["done"]
    except ray.exceptions.RayTaskError:  # a fault of the program's
        raise
    except ray.exceptions.RayError as error:
        raise UserError(
            f"engine: workers died {RETRIES + 1} times over the same item ({in_a_line(error)}); look into Ray's log "
            "for the reason, as too little memory, and run the same command again: what is done is kept"
        ) from None


def _needs(ray: Any, options: Options) -> dict[str, float]:
    """What each worker takes."""
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    return {"CPU": options.cpus, "GPU": float(has_gpus) if options.gpus is None else options.gpus}


def _room(ray: Any, needs: dict[str, float]) -> int:
    """For how many workers the cluster has room.

    Raises:
        UserError: For none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {kind: amount for kind, amount in needs.items() if amount}
    room = sum(int(min(node.get(kind, 0) // amount for kind, amount in wanted.items())) for node in nodes)
    if not room:
        asked = " and ".join(f"{amount:g} {kind}s" for kind, amount in wanted.items())
        raise UserError(f"engine: no machine of the Ray cluster has {asked}; lower `cpus` or `gpus`, or add one")
    return room


@contextmanager
def _cluster(options: Options) -> Iterator[Any]:
    """The module ``ray``, connected to the cluster for the block.

    Raises:
        UserError: Ray is not installed, or no cluster of this version is at the address.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UserError(
            f"engine: ray: {error.name} is not installed; run `make ray`, or set `engine: {{kind: local}}`"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised
    try:
        ray.init(options.address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        at = options.address or os.environ.get("RAY_ADDRESS", "this machine")
        raise UserError(f"engine: no Ray cluster can be used at {at}: {in_a_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()
