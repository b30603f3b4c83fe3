"""What encoders there are, in every profile, and which of them can be used at once."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geoloc_core import escape
from geoloc_core.encoders.checkpoints import remedy
from geoloc_core.errors import UserError
from geoloc_core.params import Checkpoint, NamedEncoder
from geoloc_core.progress import output, plain
from geoloc_core.project import Project
from geoloc_core.report import render
from geoloc_core.report import table as tables
from geoloc_core.report.table import Column

COLUMNS = (
    Column("name"),
    Column("profile"),
    Column("kind", rank=1),
    Column("what"),
    Column.of_numbers("dim", "d"),
    Column.of_numbers("size, M", "g"),
    Column("licence", rank=4),
    Column("used by", rank=3),
    Column("at hand"),
    Column("checkpoint", rank=2),
)


@dataclass(frozen=True)
class Row:
    """One encoder of one profile.

    Attributes:
        name: What variants call it.
        profile: Which profile has it.
        kind: The module that opens it.
        what: ``image``, ``text``, ``image + text`` or ``instances``.
        dimension: Of a feature; measured where the checkpoint is at hand, else as published.
        parameters: Millions, of the image tower where there is one; as the dimension.
        licence: As published.
        paper: As published.
        used_by: Which methods look through it.
        checkpoint: Where the weights are, or where they come from.
        at_hand: Whether they can be used at once.
        remedy: What to do so that they can; None where nothing is needed.
        remark: What is wrong with them, or other than published.
    """

    name: str
    profile: str
    kind: str
    what: str
    dimension: int | None
    parameters: float | None
    licence: str | None
    paper: str | None
    used_by: str | None
    checkpoint: str
    at_hand: bool
    remedy: str | None
    remark: str | None


def rows(project: Project, known: list[tuple[str, NamedEncoder]]) -> list[Row]:
    """Every encoder, with what is published about it and, where its checkpoint is at hand, what is measured.

    Args:
        project: Whose weights count.
        known: The encoders of all profiles, those of the profile in use first.
    """
    first: dict[str, str] = {}
    for name, encoder in known:
        first.setdefault(name, encoder.profile)
    return [_row(project, name, encoder, mine=first[name] == encoder.profile) for name, encoder in known]


def _row(project: Project, name: str, encoder: NamedEncoder, mine: bool) -> Row:
    about = encoder.about
    folder = project.weights(name)
    # a folder belongs to the first profile that has the name: another may mean other weights by it
    there = mine and folder.is_dir()
    dimension, parameters, remark = _measured(encoder, folder) if there else (None, None, None)
    at_hand = there and remark is None
    differs = [
        f"{what} {measured:g}, published as {published:g}"
        for what, measured, published in (
            ("dimension", dimension, about.dim),
            ("million parameters", parameters, about.parameters),
        )
        if measured is not None and published is not None and abs(measured - published) > 0.01 * published
    ]
    return Row(
        name,
        encoder.profile,
        (encoder.image or encoder.text).kind,
        _what(encoder),
        dimension or about.dim,
        parameters or about.parameters,
        about.licence,
        about.paper,
        about.used_by,
        str(folder.relative_to(project.root)) if there else _source(encoder.checkpoint),
        at_hand,
        None if at_hand else _remedy(project, name, encoder, mine),
        remark or "; ".join(differs) or None,
    )


def _what(encoder: NamedEncoder) -> str:
    if encoder.image is None:
        return "text"
    image = "instances" if encoder.image.pictures else "image"
    return f"{image} + text" if encoder.text else image


def _remedy(project: Project, name: str, encoder: NamedEncoder, mine: bool) -> str:
    if not mine:
        return f"name profile {encoder.profile} under `run` of params.yaml first: till then it is another encoder"
    return remedy(project, name, encoder)


def _source(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None or checkpoint.trained:
        return "trained here"
    if checkpoint.parts:
        several = len(checkpoint.parts) > 2
        return ", ".join(checkpoint.parts) if several else " + ".join(map(_source, checkpoint.parts.values()))
    if checkpoint.hub:
        return f"{checkpoint.hub} @ {str(checkpoint.revision)[:7]}"
    if checkpoint.url:
        return checkpoint.url.split("//")[-1].partition("/")[0]
    return str(checkpoint.file or f"open_clip {checkpoint.model} {checkpoint.tag}")


def _measured(encoder: NamedEncoder, folder: Path) -> tuple[int | None, float | None, str | None]:
    """Dimension and million parameters of a checkpoint, or why it cannot be opened."""
    from geoloc_core.encoders import encoder as images
    from geoloc_core.encoders.text import encoder as texts

    tower: Any
    try:
        tower = images.load(encoder.image, folder) if encoder.image else texts.load(encoder.text, folder)
    except UserError as error:
        return None, None, str(error)
    shape = getattr(tower, "shape", None) or (getattr(tower, "dim", None),)
    count = getattr(tower, "parameters", None)
    return shape[-1], round(count / 1e6, 2) if count else None, None


def as_json(found: list[Row]) -> str:
    """All that is known, for programs."""
    import json

    return escape.json(json.dumps([asdict(row) for row in found], indent=2, ensure_ascii=False))


def show(found: list[Row]) -> None:
    """Print a table, the encoders at hand marked, and beneath it what is to be remarked."""
    terminal = output()
    # a line each: a terminal gets the columns that fit, a file or a pipe gets all
    table = render.terminal(
        tables.Table(COLUMNS, tuple(map(_cells, found))), terminal.width if terminal.is_terminal else None
    )
    console = output(width=max(terminal.width, output(width=1000).measure(table).maximum))
    console.print(table)
    others: dict[str, list[str]] = {}
    for row in found:
        if row.remedy:
            others.setdefault(row.remedy.replace(f" {row.name}`", " NAME`"), []).append(row.name)
    lines = ["✓ at hand; what brings the others here:"]
    lines += [f"  {', '.join(names)}: {what}" for what, names in others.items()]
    elsewhere = "`geoloc encode CORPUS --encoder NAME --checkpoint PATH`"
    lines.append(f"with weights that lie elsewhere, photos alone: {elsewhere}")
    lines.append("licences, uses and sources of all: a wider terminal, or `geoloc encoders --json`")
    lines += [f"{row.name} ({row.profile}): {row.remark}" for row in found if row.remark]
    console.print()
    for line in lines:
        console.print(plain(line), soft_wrap=True)


def _cells(row: Row) -> tables.Row:
    at_hand = "✓" if row.at_hand else ""
    about = row.dimension, row.parameters, row.licence, row.used_by
    return tables.Row.of(row.name, row.profile, row.kind, row.what, *about, at_hand, row.checkpoint)
