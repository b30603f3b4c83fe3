"""In this process, one item after the other: on one machine nothing is faster."""

from collections.abc import Iterator, Sequence
from typing import Literal

from geoloc_core.engines import Item, Job, Result
from geoloc_core.plugins import Strict


class Options(Strict):
    """There is nothing to choose."""

    kind: Literal["local"] = "local"


def results(options: Options, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
    """See :meth:`geoloc_core.engines.Job.results`."""
    return job.work(items)
