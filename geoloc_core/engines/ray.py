"""On the machines of a Ray cluster, by Ray Data: each item is a task, and each worker opens the work once.

The cluster's machines share the project's folder, at the same path, and have the same installation. An item whose
worker or machine died is done again by another; a mistake of the user's comes back as it is, and ends the job.
"""

import io
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal

from pydantic import Field

from geoloc_core import telemetry
from geoloc_core.engines import Item, Job, Result, Work
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.plugins import Strict
from geoloc_core.progress import say
from geoloc_core.threads import limit

WAIT_S = 10
"""For the head of a cluster to answer."""
TRIES = 4
"""How often an item is begun whose worker dies each time, before it is given up."""
PREFIX = re.compile(r"\x1b\[\d+m|\(raylet\) ?")
"""Of what Ray prints."""


class Options(Strict):
    """Which cluster, and what each worker takes of it.

    Attributes:
        address: Of the cluster's head, ``host:port``; ``auto`` is that of the variable ``RAY_ADDRESS`` or, without it,
            of the cluster that this machine is of.
        cpus: Of each worker.
        gpus: Of each worker; left out, one where the cluster has any.
    """

    kind: Literal["ray"]
    address: str = Field("auto", min_length=1)
    cpus: float = Field(1, gt=0)
    gpus: float | None = Field(None, ge=0)


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
    """A process of a cluster that does items; it opens the work for the first one."""

    def __init__(self, threads: int | None, reopen: Callable[[], Work[Item, Result]], items: Sequence[Item]) -> None:
        for name, value in telemetry.OFF.items():
            os.environ.setdefault(name, value)
        limit(threads)
        self._reopen, self._items = reopen, items

    def __call__(self, row: dict[str, Any]) -> dict[str, Done[Result]]:
        """Do the item that a row of Ray's gives the number of."""
        try:
            with _tried(row["item"], len(self._items)):
                return {"done": Done(list(self._work([self._items[row["item"]]])))}
        except (UserError, OSError, MemoryError) as error:  # told once, by whoever asked; anything else is a fault
            return {"done": Done([], error)}

    @cached_property
    def _work(self) -> Work[Item, Result]:
        return self._reopen()


@contextmanager
def _tried(item: int, items: int) -> Iterator[None]:
    """Count how often an item of a job is begun and not ended, in the cluster's own store.

    Ray counts a task's retries too, but also those that never reach a worker while the death of a machine is noticed.
    The store has no public functions; an actor that counts could die with the machine. The extra names one version.

    Raises:
        UserError: Too often.
    """
    import ray
    from ray.experimental import internal_kv

    key = f"geoloc-{ray.get_runtime_context().get_job_id()}-{item}".encode()
    tries = int(internal_kv._internal_kv_get(key) or 0)
    if tries == TRIES:
        raise UserError(
            f"engine: workers died {TRIES} times over the same part of the work, {item + 1:,} of {items:,}; see Ray's "
            "log for the reason, such as too little memory; then run the same command again"
        )
    internal_kv._internal_kv_put(key, b"%d" % (tries + 1))
    try:
        yield
    finally:
        internal_kv._internal_kv_del(key)


def _done(ray: Any, options: Options, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Done[Result]]:
    """What came of each item."""
    needs = _needs(ray, options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = job.ordered
    context.execution_no_progress_timeout_s = -1  # who knows how long a shard takes
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
    )
    for row in found.iter_rows():
        yield row["done"]


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
        UserError: Ray is not installed, or no cluster of its version is at the address.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS", "auto") if options.address == "auto" else options.address
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UserError(
            f"engine: {error.name} is not installed; run `make ray`, or set `engine: {{kind: local}}`"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised
    if address != "auto":
        _check_reached(address)
    try:
        with _hushed():
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"engine: the Ray cluster at {address} cannot be used: {in_a_line(error)}") from None
    with redirect_stdout(_Said()):
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Ray's core says of itself from the terminal while it is loaded: it asks no logger of Python's."""
    sys.stderr.flush()
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class _Said(io.TextIOBase):
    """The output stream of Ray, which tells there that a worker has died: a line of the work's, cut short."""

    def write(self, text: str) -> int:
        """Print a message."""
        if said := in_a_line(PREFIX.sub("", text), 200) if text.strip() else "":
            say(f"ray: {said}")
        return len(text)


def _check_reached(address: str) -> None:
    """Find out in seconds whether anything listens at an address; Ray itself tries for minutes.

    Raises:
        UserError: It is not ``host:port``, or nothing does.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        raise UserError(f"engine: address {address!r}: expected host:port of the cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), WAIT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"engine: no Ray cluster answers at {address} ({in_a_line(error)}); start one with `ray start --head`"
        ) from None
