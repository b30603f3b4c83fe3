"""Where work on many items is done, such as on shards of photos: an engine per module, ``engine`` of ``params.yaml``.

What is made is the same wherever it is made, byte by byte. So an engine is no parameter of any stage, and choosing
another one puts none out of date.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from geoloc_core.plugins import module_of

if TYPE_CHECKING:
    from geoloc_core.project import Project

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Iterator[Result]]
"""From items to results, none or more of each item and in the order of the items; no item depends on another."""


@dataclass(frozen=True)
class Job(Generic[Item, Result]):
    """Work on items of a project.

    Attributes:
        project: Whose ``engine`` says where it is done.
        work: Does it in this process.
        reopen: A function of a module, with arguments that other processes can be sent: it opens the same work there,
            of which the files of the project are all that it reads. They lie at the same place on every machine.
        ordered: Whether the results must come in the order of the items, rather than as they are ready.
    """

    project: "Project"
    work: "Work[Item, Result]"
    reopen: "Callable[[], Work[Item, Result]]"
    ordered: bool = True

    def results(self, items: Sequence[Item]) -> Iterator[Result]:
        """The results of some items, each as soon as it is there.

        Raises:
            UserError: The work ended with one, or the engine cannot be had.
        """
        options: Any = self.project.profile.engine
        found: Iterator[Result] = module_of(__name__, options.kind).results(options, self, items)
        return found
