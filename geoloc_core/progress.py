"""What a person sees while a stage runs."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")

console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """Print one line about the work to the terminal's error stream; the output stream is for results."""
    console.print(message, markup=False, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "", weight: int = 1) -> Iterator[T]:
    """Pass items on and show how far the work is: a live bar on a terminal, a line every 10 s elsewhere.

    Args:
        items: What is worked through.
        what: What the bar says, such as ``encode clip/mp16``.
        total: How many units there will be.
        unit: What is counted, such as ``photos``.
        weight: How many units one item stands for.
    """
    if console.is_terminal:
        yield from _bar(items, what, total, unit, weight)
        return
    shown, done = time.monotonic(), 0
    for item in items:
        yield item
        done += weight
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            say(f"{what}: {done:,}" + (f" of {total:,}" if total else "") + (f" {unit}" if unit else ""))


def _bar(items: Iterable[T], what: str, total: int | None, unit: str, weight: int) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task, weight)
