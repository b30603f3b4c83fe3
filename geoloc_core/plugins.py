"""A room full of modules, one per ``kind``: adding a corpus, tower or family is adding a module."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """A record of parameters: immutable; a key it does not know is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


@cache
def kinds(package: str) -> tuple[str, ...]:
    """The kinds a package offers: the names of its modules."""
    path = importlib.import_module(package).__path__
    return tuple(sorted(module.name for module in pkgutil.iter_modules(path)))


def module_of(package: str, kind: str) -> ModuleType:
    """The module of one kind.

    Raises:
        KeyError: The package has no such module.
    """
    if kind not in kinds(package):
        raise KeyError(kind)
    return importlib.import_module(f"{package}.{kind}")


def _validator(package: str) -> Callable[[Any], BaseModel]:
    def validate(value: Any) -> BaseModel:
        if isinstance(value, Strict):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise PydanticCustomError(
                "kind_missing",
                "expected a mapping with `kind`, one of {kinds}",
                {"kinds": ", ".join(kinds(package))},
            )
        try:
            options = module_of(package, value["kind"]).Options
        except KeyError:
            close = get_close_matches(value["kind"], kinds(package), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise PydanticCustomError(
                "kind_unknown",
                "unknown kind {kind}; expected one of {kinds}{meant}",
                {"kind": repr(value["kind"]), "kinds": ", ".join(kinds(package)), "meant": meant},
            ) from None
        return options.model_validate(value)

    return validate


@dataclass(frozen=True)
class Room:
    """What an annotation of :func:`options` remembers: the package whose modules are its kinds."""

    package: str


def options(package: str) -> Any:
    """The annotation of a parameter block whose ``kind`` names a module of ``package``.

    The module's ``Options`` class says which keys the block may have.
    """
    return Annotated[SerializeAsAny[Strict], PlainValidator(_validator(package)), Room(package)]


__all__ = ["Room", "Strict", "ValidationError", "kinds", "module_of", "options"]
