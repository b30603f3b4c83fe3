"""What may stand in ``params.yaml``, told by the records that check it: every key, what it takes and its default.

A *room* is a place where one of several blocks may stand, such as ``variants``; its blocks are told apart by a key,
``kind`` as a rule. What a key means is what the code says of it: the docstring under an attribute, or the line under
``Attributes`` of its class.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from geoloc_core.corpora.places import Country
from geoloc_core.errors import UserError
from geoloc_core.params.schema import CountryCode, EncoderName, Name, Profile
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Room, kinds, module_of
from geoloc_core.report import render
from geoloc_core.report.table import Cell, Column, Row, Table

PROFILE = "profile"
"""The room of what stands in every profile."""
REQUIRED = "required"
NAMED = "<name>"
"""What stands for a name of the user's own in a key."""

TEXTS = {
    Name: "name",
    EncoderName: "name",
    CountryCode: "country code of 3 letters",
    Country: "country code of 2 letters",
    Sha256: "64 hexadecimal digits",
}
"""Texts of a certain form, in words."""
PLAIN = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    type(None): "null",
}
NUMBERS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "a multiple of {}"}
SIZES = {"min_length": "{} or more", "max_length": "{} at most"}
"""Bounds of numbers and of lists, and how they are told."""


@dataclass(frozen=True)
class Key:
    """One key of a block.

    Attributes:
        name: With dots where it is nested.
        takes: Its type and bounds in words.
        default: In YAML, or :data:`REQUIRED`.
        meaning: What the code says of it; empty where its name says it all.
    """

    name: str
    takes: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Block:
    """What one kind of a room may be told.

    Attributes:
        name: Its kind.
        about: What it is, in a line.
        keys: Those that it may have, beside the one that chooses it.
    """

    name: str
    about: str
    keys: tuple[Key, ...]


@dataclass
class Shelf:
    """A room and what stands in it.

    Attributes:
        name: Its name: the key under which it was met first.
        by: The key that chooses among its blocks; empty where each has a place of its own.
        places: The keys under which one of its blocks stands.
        blocks: Its blocks, by name.
    """

    name: str
    by: str = ""
    places: dict[str, None] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """Where its blocks stand."""
        if not self.by:
            return "What every profile says, and those of its blocks that have no kind."
        return f"`{self.by}` chooses the block under {', '.join(f'`{place}`' for place in self.places)}."

    def title(self, block: Block) -> str:
        """The name of a block, and of its room where others may have one of the same name."""
        return f"{self.name}: {block.name}" if self.by else block.name


@dataclass(frozen=True)
class _Choice:
    """The blocks of which one may stand under a key.

    Attributes:
        room: What tells the room from others: its package, or the last part of the key.
        by: The key that chooses.
        models: The record of each block, and what it is, by what that key says.
    """

    room: str
    by: str
    models: Mapping[str, tuple[type[BaseModel], str]]


def shelves() -> list[Shelf]:
    """All that ``params.yaml`` may say, room by room: first the profile itself, then the rooms as they are met."""
    profile = Shelf(PROFILE)
    whole = tuple(_key(Profile, name, name, None) for name in Profile.model_fields)
    profile.blocks[PROFILE] = Block(PROFILE, _line(Profile.__doc__), whole)
    for name, info in Profile.model_fields.items():
        for part in _parts(name, info):
            if model := part.record:
                profile.blocks[name] = Block(name, _line(model.__doc__), tuple(_keys(model)))
    found: dict[str, Shelf] = {}
    waiting = list(_choices(Profile))
    for path, choice in waiting:  # which grows meanwhile
        shelf = found.setdefault(choice.room, Shelf(_last(path), choice.by))
        shelf.places[path] = None
        for name, (model, about) in choice.models.items():
            if name not in shelf.blocks:
                shelf.blocks[name] = Block(name, about, tuple(_keys(model, chosen={choice.by: name})))
                waiting += _choices(model)
    return [profile, *found.values()]


def named(name: str) -> list[tuple[Shelf, Block]]:
    """The blocks of a name, one for each room that has one.

    Raises:
        UserError: There is none.
    """
    every = [(shelf, block) for shelf in shelves() for block in shelf.blocks.values()]
    found = [(shelf, block) for shelf, block in every if block.name == name]
    if not found:
        close = get_close_matches(name, sorted({block.name for _, block in every}), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`geoloc options` lists them all"
        raise UserError(f"{name!r}: not a kind or a block of params.yaml; {hint}")
    return found


def contents() -> list[Table]:
    """For the terminal: the rooms, and what there is in each."""
    columns = Column("kind"), Column("what it is")
    return [
        Table(columns, tuple(Row.of(b.name, b.about) for b in shelf.blocks.values()), shelf.name, shelf.about)
        for shelf in shelves()
    ]


def keys(shelf: Shelf, block: Block) -> Table:
    """For the terminal: the keys of a block, the meaning of each beneath what it takes, so that 80 columns will do."""
    columns = Column("key"), Column("takes"), Column("default")
    rows = (Row.of(key.name, Cell(key.takes, interval=key.meaning), key.default) for key in block.keys)
    return Table(columns, tuple(rows), shelf.title(block), block.about)


def markdown() -> str:
    """The page of everything."""
    columns = Column("key"), Column("takes"), Column("default"), Column("meaning")
    rooms = [
        (
            shelf,
            [
                (
                    shelf.title(block),
                    block.about,
                    Table(columns, tuple(Row.of(k.name, k.takes, k.default, k.meaning) for k in block.keys)),
                )
                for block in shelf.blocks.values()
            ],
        )
        for shelf in shelves()
    ]
    return render.document("params/reference.md", rooms=rooms)


def _keys(
    model: type[BaseModel], prefix: str = "", chosen: dict[str, str] | None = None, above: tuple[type, ...] = ()
) -> Iterator[Key]:
    """The keys of a record and of those within it.

    Args:
        model: The record.
        prefix: What stands before its keys, with a dot at the end.
        chosen: The key that chooses it, which is left out, and what that says.
        above: The records that it lies in.
    """
    made = _made(model, chosen or {})
    for name, info in model.model_fields.items():
        if chosen and name in chosen:
            continue
        yield _key(model, name, prefix + name, made)
        for part in _parts(prefix + name, info):
            if part.record and part.record not in (*above, model):
                yield from _keys(part.record, f"{part.path}.", above=(*above, model))


def _key(model: type[BaseModel], name: str, path: str, made: BaseModel | None) -> Key:
    """One key of a record.

    Args:
        model: The record.
        name: The key.
        path: How it is called.
        made: The record where all that may be left out is left out, if that is one.
    """
    info = model.model_fields[name]
    meaning = _documented(model).get(name)
    if meaning is None:
        meaning = " ".join(_line(part.record.__doc__) for part in _parts(path, info) if part.record)
    if made is None and info.is_required():
        default = REQUIRED
    else:
        default = _yaml(info.get_default(call_default_factory=True) if made is None else getattr(made, name))
    return Key(path, _words(info.annotation, _said(info)), default, meaning)


def _made(model: type[BaseModel], given: dict[str, str]) -> BaseModel | None:
    try:
        return model.model_validate(given)
    except ValidationError:  # something is required
        return None


def _choices(model: type[BaseModel], prefix: str = "", above: tuple[type, ...] = ()) -> Iterator[tuple[str, _Choice]]:
    """The keys of a record, and of those within it, under which one of several blocks may stand."""
    for name, info in model.model_fields.items():
        for part in _parts(prefix + name, info):
            if part.choice:
                yield part.path, part.choice
            elif part.record and part.record not in (*above, model):
                yield from _choices(part.record, f"{part.path}.", (*above, model))


@dataclass(frozen=True)
class _Part:
    """A block that may stand under a key: one of a room, or a record of its own."""

    path: str
    choice: _Choice | None = None
    record: type[BaseModel] | None = None


def _parts(path: str, info: FieldInfo) -> list[_Part]:
    """The blocks that may stand under a key or, where it is a mapping or a list, within it."""
    return list(_within(path, info.annotation, _said(info)))


def _within(path: str, annotation: Any, said: tuple[Any, ...]) -> Iterator[_Part]:
    annotation, said = _bare(annotation, said)
    if choice := _choice(annotation, said, path):
        yield _Part(path, choice=choice)
    elif _is_record(annotation):
        yield _Part(path, record=annotation)
    elif get_origin(annotation) is dict:
        yield from _within(f"{path}.{NAMED}", get_args(annotation)[1], ())
    elif get_origin(annotation) in (Union, UnionType, tuple):
        for inner in get_args(annotation):
            yield from _within(path, inner, ())


def _said(info: FieldInfo) -> tuple[Any, ...]:
    return (info, *info.metadata)


def _bare(annotation: Any, said: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without what is said of it, and all of that."""
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for one in more:
            said += _said(one) if isinstance(one, FieldInfo) else (one,)
    return annotation, said


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _choice(annotation: Any, said: tuple[Any, ...], path: str) -> _Choice | None:
    """What is chosen from under a key, of a bare annotation and what is said of it."""
    for one in said:
        if isinstance(one, Room):
            modules = {kind: module_of(one.package, kind) for kind in kinds(one.package)}
            models = {kind: (module.Options, _line(module.__doc__)) for kind, module in modules.items()}
            return _Choice(one.package, "kind", models)
        if isinstance(one, FieldInfo) and isinstance(by := one.discriminator, str):
            models = {
                kind: (model, _line(model.__doc__))
                for model in get_args(annotation)
                if _is_record(model)
                for kind in get_args(model.model_fields[by].annotation)
            }
            return _Choice(_last(path), by, models)
    return None


def _last(path: str) -> str:
    return path.removesuffix(f".{NAMED}").rpartition(".")[2]


def _words(annotation: Any, said: tuple[Any, ...] = ()) -> str:
    """What an annotation takes, in plain words."""
    annotation, said = _bare(annotation, said)
    known = [name for form, name in TEXTS.items() if _pattern(said) == _pattern(_bare(form)[1])]
    origin, inner = get_origin(annotation), get_args(annotation)
    if choice := _choice(annotation, said, ""):
        words = f"block, its {choice.by} {_one_of(choice.models)}"
        return f"null or {words}" if type(None) in inner else words
    if _is_record(annotation):
        return "block"
    if annotation is str and _pattern(said):
        return known[0] if known else f"text that matches {_pattern(said)}"
    if annotation in PLAIN:
        return f"{PLAIN[annotation]} {', '.join(_bounds(said, NUMBERS))}".strip()
    if origin is Literal:
        return _one_of(inner)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_of([one.value for one in annotation])
    if origin in (Union, UnionType):
        members = sorted(inner, key=lambda one: one is not type(None))  # null first
        return " or ".join(_words(one, () if one is type(None) else _alike(said)) for one in members)
    if origin is dict:
        return f"mapping from {_words(inner[0])} to {_words(inner[1])}"
    if origin is tuple and inner[-1] is Ellipsis:
        sizes = ", ".join(_bounds(said, SIZES))
        return f"list of {_many(_words(inner[0]))}" + (f" ({sizes})" if sizes else "")
    if origin is tuple:
        items = [_words(one) for one in inner]
        return f"list of {len(items)} {_many(items[0])}" if len({*items}) == 1 else f"list: {' and '.join(items)}"
    raise TypeError(f"{annotation}: no words for it")


def _alike(said: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is said of an annotation and, if that is a union, of each of its members."""
    return tuple(one for one in said if not isinstance(one, FieldInfo))


def _one_of(values: Iterable[Any]) -> str:
    *others, last = (_yaml(value) for value in values)
    return f"one of {', '.join((*others, last))}" if others else last


def _many(words: str) -> str:
    return re.sub(r"^(whole number|number|path|block|name|list|country code)\b", r"\1s", words)


def _pattern(said: tuple[Any, ...]) -> str | None:
    """The pattern of a text."""
    return next((found for one in said if (found := getattr(one, "pattern", None))), None)


def _bounds(said: tuple[Any, ...], told: Mapping[str, str]) -> list[str]:
    found = ((text, getattr(one, name, None)) for name, text in told.items() for one in _alike(said))
    return [text.format(bound) for text, bound in found if bound is not None]


def _yaml(value: Any) -> str:
    """A value in one line of YAML, as a user would write it."""
    return (
        yaml.safe_dump(_simple(value), default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def _simple(value: Any) -> Any:
    match value:
        case BaseModel():
            fields = type(value).model_fields
            return {
                name: _simple(getattr(value, name))
                for name, info in fields.items()
                if (get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1)
                or info.is_required()
                or getattr(value, name) != info.get_default(call_default_factory=True)
            }
        case Enum():
            return value.value
        case Path():
            return str(value)
        case dict():
            return {key: _simple(one) for key, one in value.items()}
        case tuple() | list():
            return [_simple(one) for one in value]
        case _:
            return value


def _line(docstring: str | None) -> str:
    """The first line of a docstring."""
    return _prose((docstring or "").strip().partition("\n")[0])


def _prose(docstring: str) -> str:
    """A docstring in one line, without the marks of reStructuredText."""
    return re.sub(r"(?::\w+:)?`+([^`]+)`+", r"`\1`", " ".join(docstring.split()))


def _documented(model: type[BaseModel]) -> dict[str, str]:
    """What the code says of the keys of a record."""
    found = {}
    for parent in reversed(model.__mro__):
        if parent in (object, BaseModel):
            continue
        body = _classes(parent.__module__)[parent.__name__].body
        for statement, after in pairwise(body):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = _prose(text)
        section = inspect.cleandoc(parent.__doc__ or "").partition("\nAttributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found[name] = _prose(text)
    return found


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, by name."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
