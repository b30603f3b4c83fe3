"""The reference of params.yaml is what the code does: the page, the bounds, the command."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from geoloc_core.cli import geoloc
from geoloc_core.errors import UserError
from geoloc_core.params import reference
from geoloc_core.params.schema import Profile
from geoloc_core.plugins import Room, kinds, module_of
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def shelves():
    return reference.shelves()


@pytest.fixture(scope="module")
def rows(shelves):
    """What the keys of a block take, and their defaults."""
    blocks = {name: block for shelf in shelves for name, block in shelf.blocks.items()}
    return lambda name: {key.name: (key.takes, key.default) for key in blocks[name].keys}


def test_the_page_is_what_the_code_says():
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    if reference.markdown() != page:
        pytest.fail("docs/parameters.md is out of date: run `geoloc options --markdown > docs/parameters.md`")


def test_every_kind_of_every_room_is_told(shelves):
    found = {shelf.name: set(shelf.blocks) for shelf in shelves}
    for room, package in {
        "boundaries": "geo.sources",
        "fetch": "corpora.fetch",
        "source": "corpora.sources",
        "pretrain": "training.pretrain",
        "encoders": "encoders.towers",
        "text_encoders": "encoders.text.towers",
        "cells": "geo.geocells.schemes",
        "variants": "families",
        "engine": "engines",
    }.items():
        assert found.pop(room) == set(kinds(f"geoloc_core.{package}")), room
    assert found.pop("profile") >= {"profile", "labels", "corpora", "operations", "facts"}
    assert found == {
        "places": {"grid", "towns", "random", "panoramas"},
        "captions": {"pigeon", "pigeotto", "seen"},
        "optimiser": {"sgd", "adam", "adamw"},
        "schedule": {"plateau", "multi_step", "step", "cosine", "constant"},
        "weights": {"inverse_frequency", "effective_number"},
    }


def test_keys_are_told_in_words(rows):
    classifier = rows("classifier")
    assert classifier["encoders"] == ("list of text (1 or more)", "required")
    assert classifier["hidden"] == ("list of whole numbers > 0", "[]")
    assert classifier["normalise"] == ("one of standardise, batch_norm, none", "standardise")
    assert classifier["recipe"] == ("block", "{}")
    assert classifier["recipe.batch"] == ("whole number > 0", "128")
    assert classifier["recipe.stop_patience"] == ("null or whole number > 0", "10")
    assert classifier["recipe.optimiser"] == ("block, its kind one of sgd, adam, adamw", "{kind: sgd, lr: 0.05}")
    assert rows("flow_matching")["width"] == ("whole number ≥ 2, a multiple of 2", "512")
    assert rows("labels")["validation_share"] == ("number > 0, < 1", "0.2")
    assert rows("checkpoints")["sha256"] == ("null or 64 hexadecimal digits", "null")
    assert rows("registry")["guards.benchmarks.<name>.metric"] == ("null or number ≥ 0", "5")
    # what is left out depends on the template
    assert [rows(name)["town"][1] for name in ("pigeon", "pigeotto")] == ["0.4", "1.0"]


def test_a_kind_of_several_rooms_is_told_of_each():
    assert [shelf.name for shelf, _ in reference.named("clip")] == ["pretrain", "encoders", "text_encoders"]


def test_a_block_that_lies_in_itself_ends(rows):
    assert "parts" in rows("checkpoints")
    assert not any(name.startswith("parts.") for name in rows("checkpoints"))


def test_an_unknown_kind_names_those_it_may_be():
    with pytest.raises(UserError, match=r"'clasifier': not a kind .*; did you mean 'classifier'"):
        reference.named("clasifier")
    with pytest.raises(UserError, match=r"'9': not a kind .*; `geoloc options` lists them all"):
        reference.named("9")


@pytest.mark.parametrize("words", [[], ["guidebook_attention"], ["local"], ["clip"]], ids=" ".join)
def test_the_command_fits_into_80_columns(words):
    done = CliRunner().invoke(geoloc, ["options", *words], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert not words or any(line.startswith("variants: guidebook") for line in lines) or len(words[0]) < 6
    if words == ["guidebook_attention"]:  # no key is broken
        [(_, block)] = reference.named(*words)
        assert {key.name for key in block.keys} <= {line.split(" ")[0] for line in lines}


def test_the_command_writes_the_page():
    assert CliRunner().invoke(geoloc, ["options", "--markdown"]).output == reference.markdown()


def models() -> list[type[BaseModel]]:
    """Every record that params.yaml may hold."""
    found: dict[type[BaseModel], None] = {}

    def take(annotation: Any, said: tuple[Any, ...] = ()) -> None:
        for one in said:
            if isinstance(one, Room):
                for kind in kinds(one.package):
                    take(module_of(one.package, kind).Options)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
            found[annotation] = None
            for info in annotation.model_fields.values():
                take(info.annotation, tuple(info.metadata))
        inner = get_args(annotation)
        for one in inner:
            take(one, inner[1:] if get_origin(annotation) is Annotated else ())

    take(Profile)
    return list(found)


@dataclass(frozen=True)
class Number:
    """A number that a key takes, perhaps within a list or a mapping.

    Attributes:
        key: Module, record and key.
        type: Whole or not.
        bounds: By the names of :mod:`annotated_types`.
        model: What checks the key: a record of it alone, as ``key``.
        put: The value of the key that has a number there.
    """

    key: str
    type: type
    bounds: dict[str, float]
    model: Any
    put: Callable[[float], Any]

    def step(self, value: float, direction: int) -> float:
        if self.type is int:
            return value + direction * self.bounds.get("multiple_of", 1)
        return math.nextafter(value, direction * math.inf)

    def edges(self) -> Iterator[tuple[float, bool]]:
        """Numbers at each bound, and whether they are taken."""
        for name, bound in self.bounds.items():
            if name == "ge":
                yield from ((bound, True), (self.step(bound, -1), False))
            elif name == "gt":
                yield from ((self.step(bound, 1), True), (bound, False))
            elif name == "le":
                yield from ((bound, True), (self.step(bound, 1), False))
            elif name == "lt":
                yield from ((self.step(bound, -1), True), (bound, False))

    def takes(self, number: float) -> bool:
        try:
            self.model.model_validate({"key": self.put(number)})
        except ValidationError:
            return False
        return True


def numbers() -> Iterator[Number]:
    for model in models():
        for name, info in model.model_fields.items():
            checks = create_model(model.__name__, __config__=model.model_config, key=(info.annotation, info))
            for type_, bounds, put in leaves(info.annotation, tuple(info.metadata)):
                key = f"{model.__module__.removeprefix('geoloc_core.')}.{model.__name__}.{name}"
                yield Number(key, type_, bounds, checks, put)


def leaves(annotation: Any, said: tuple[Any, ...]) -> Iterator[tuple[type, dict[str, float], Callable[[float], Any]]]:
    """The numbers in an annotation: type, bounds, and what makes the whole value of one."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [part for one in inner[1:] for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
        yield from leaves(inner[0], (*said, *more))
    elif annotation in (int, float):
        names = ("ge", "gt", "le", "lt", "multiple_of")
        found = {name: getattr(one, name) for name in names for one in said if getattr(one, name, None) is not None}
        yield annotation, found, lambda number: number
    elif origin in (Union, UnionType):
        for member in inner:
            yield from leaves(member, said)
    elif origin is dict:
        for type_, bounds, put in leaves(inner[1], ()):
            yield type_, bounds, lambda number, put=put: {"a": put(number)}
    elif origin is tuple and inner[-1] is Ellipsis:
        least = max((getattr(one, "min_length", None) or 1 for one in said), default=1)
        for type_, bounds, put in leaves(inner[0], ()):
            yield type_, bounds, lambda number, put=put, least=least: [put(number)] * least
    elif origin is tuple:
        several = [list(leaves(one, ())) for one in inner]
        for at, found in enumerate(several):
            for type_, bounds, put in found:
                yield (
                    type_,
                    bounds,
                    lambda number, put=put, at=at: [
                        put(number) if here == at else inside(*several[here][0]) for here in range(len(several))
                    ],
                )


def inside(type_: type, bounds: dict[str, float], put: Callable[[float], Any]) -> Any:
    """A number that is taken beside the one that is asked about."""
    low = bounds.get("ge", bounds.get("gt", 0))
    return put(type_(low + (1 if "gt" in bounds and type_ is int else 1e-3 if "gt" in bounds else 0)))


NUMBERS = list(numbers())
FREE = {
    "geo.facts.Source.empty": "values of any raster",
    "geo.facts.Zones.empty": "values of any raster",
    "geo.facts.Source.otherwise": "a fact may be negative, as degrees Celsius are",
    "geo.facts.Zones.otherwise": "a fact may be negative, as degrees Celsius are",
    "encoders.towers.onnx.Options.mean": "what a network subtracts may have any sign",
}
"""Numbers without a bound, and why."""


def test_every_number_has_a_bound_or_a_reason_for_none():
    unbounded = {number.key for number in NUMBERS if not number.bounds.keys() - {"multiple_of"}}
    assert unbounded == FREE.keys()


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.key)
def test_a_number_is_taken_up_to_its_bounds_and_not_beyond(number):
    for value, taken in number.edges():
        assert number.takes(value) == taken, f"{number.key}: {value!r} {'refused' if taken else 'taken'}"


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.key)
def test_what_is_not_finite_is_what_a_raster_may_hold_at_most(number):
    for value in (math.nan, math.inf, -math.inf):
        assert number.takes(value) == number.key.endswith(".empty")
