"""What a person sees while a stage runs, and of what it made.

Untrusted text goes through :func:`say`, :func:`plain`, :func:`show` or :func:`table`; the consoles take no word for
markup.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO, TypeVar

from rich.console import Console
from rich.text import Text

from geoloc_core import escape

if TYPE_CHECKING:
    from geoloc_core.report.table import Table

T = TypeVar("T")


def output(stream: TextIO | None = None, width: int | None = None) -> Console:
    """A console for results.

    Args:
        stream: Where to; the output stream if not given.
        width: Characters of a line; as many as the terminal has if not given.
    """
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


console = Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(message: str) -> None:
    """Print one line about the work to the terminal's error stream; the output stream is for results."""
    console.print(escape.terminal(message), soft_wrap=True)


def plain(text: str, style: str = "") -> Text:
    """Untrusted text for a cell, a title or a line."""
    return Text(escape.terminal(text), style)


def show(found: "Table") -> None:
    """Print a table to the terminal's error stream."""
    from geoloc_core.report import render

    console.print(render.terminal(found))


def table(header: Iterable[str], rows: Iterable[Iterable[str]], title: str = "") -> None:
    """Print a table of text to the terminal's error stream."""
    from geoloc_core.report.table import Column, Row, Table

    show(Table(tuple(map(Column, header)), tuple(Row.of(*cells) for cells in rows), title))


def track(
    items: Iterable[T], what: str, total: int | None = None, unit: str = "", weight: int | Callable[[T], int] = 1
) -> Iterator[T]:
    """Pass items on and show how far the work is: a live bar on a terminal, a line every 10 s elsewhere.

    Args:
        items: What is worked through.
        what: What the bar says, such as ``encode clip/mp16``.
        total: How many units there will be.
        unit: What is counted, such as ``photos``.
        weight: How many units one item stands for, or a function that says so of an item.
    """
    if console.is_terminal:
        yield from _bar(items, what, total, unit, weight)
        return
    started = shown = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += weight if isinstance(weight, int) else weight(item)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            say(f"{what}: {_state(done, total, unit, shown - started)}")


def _state(done: int, total: int | None, unit: str, seconds: float) -> str:
    """How far the work is, how fast it goes and how long it will take, such as ``20 of 100 photos, 2/s, 40 s left``."""
    rate = done / seconds
    parts = [f"{done:,}" + (f" of {total:,}" if total else "") + (f" {unit}" if unit else "")]
    if done:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
    if done and total:
        parts.append(f"{timedelta(seconds=round(max(0, total - done) / rate))} left")
    return ", ".join(parts)


def _bar(items: Iterable[T], what: str, total: int | None, unit: str, weight: int | Callable[[T], int]) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn

    class Speed(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        Speed(""),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape.terminal(what), total=total, unit=escape.terminal(unit))
        for item in items:
            yield item
            progress.advance(task, weight if isinstance(weight, int) else weight(item))
