"""YAML as DVC reads it, so that a file of parameters means one thing: the only reader of YAML.

DVC reads YAML 1.2, PyYAML reads 1.1, where ``NO`` is false, ``12:30:45`` is 45045 and ``010`` is 8. Here the first is
Norway, the second text, the third ten. Dates are text too.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from geoloc_core.errors import UserError

MAX_NODES = 1_000_000
"""Values that a file may have once its aliases are expanded: aliases of aliases multiply."""
MAX_DEPTH = 100
"""Levels of a file: each of them takes a frame of Python's stack."""

SHALLOW = 5_000
"""Brackets and columns below which no text can nest so deeply that libyaml, which recurses, ends the process."""

TAG = "tag:yaml.org,2002:"
PLAIN = {
    "bool": ("tTfF", r"true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)"),
    "float": (
        "-+0123456789.",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*([eE][-+][0-9]+)?"
        r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
    ),
    "merge": ("<", r"<<"),
    "null": (["~", "n", "N", ""], r"~|null|Null|NULL|"),
}
"""What unquoted text can be but text, by its first character."""


def read_yaml(path: Path) -> Any:
    """What a file in YAML says.

    Raises:
        UserError: It is missing or cannot be read, or it is not valid or not unambiguous YAML.
    """
    try:
        return parse_yaml(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the project's root or give --params") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file of parameters") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {said(error)}") from None


def parse_yaml(text: str | bytes) -> Any:
    """What a text in YAML says, read by libyaml if it is installed: ten times as fast, and as safe.

    Args:
        text: As text, or in UTF-8.

    Raises:
        yaml.YAMLError: It is not YAML, repeats a key, or its aliases expand to too many values.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            wide = text[:2] in (b"\xff\xfe", b"\xfe\xff")
            what = "UTF-16" if wide else f"byte {error.start + 1} is not valid UTF-8"
            raise yaml.YAMLError(f"{what}; save it as UTF-8") from None
    if text.count("[") + text.count("{") + max(map(len, text.splitlines()), default=0) > SHALLOW:
        _check_depth(text)
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(loader, node, {}, 0)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def said(error: yaml.YAMLError) -> str:
    """An error in one line, with that of the file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    problem = str(getattr(error, "problem", None) or getattr(error, "context", None))
    hint = "; expected spaces in place of a tab, or quotes around what starts with % @ or `"
    odd = "tab character" in problem or "cannot start any token" in problem
    return f"line {mark.line + 1}: {problem}{hint if odd else ''}"


@cache
def _loader() -> Any:
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

        def whole(self, node: yaml.ScalarNode) -> int:
            digits = node.value.replace("_", "").lstrip("+-")
            base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 10)
            try:
                return int(digits, base) * (-1 if node.value.startswith("-") else 1)
            except ValueError as error:
                raise _wrong(node, str(error)) from None

    for kind, (first, pattern) in PLAIN.items():
        Loader.add_implicit_resolver(f"{TAG}{kind}", re.compile(f"^(?:{pattern})$"), list(first))
    Loader.add_constructor(f"{TAG}int", Loader.whole)
    return Loader


def _wrong(node: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _loader()):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _wrong(event, f"more than {MAX_DEPTH} levels")


def _check(loader: Any, node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """How many values a node contains once its aliases are expanded; refuses what is ambiguous.

    Args:
        loader: What read it.
        node: The node.
        sizes: Of the nodes that were seen, by their id; 0 for those that are being looked at.
        depth: Levels above it.

    Raises:
        yaml.YAMLError: It does not, or they are too many.
    """
    if isinstance(node, yaml.ScalarNode):
        if node.tag != f"{TAG}str" and loader.resolve(yaml.ScalarNode, node.value, (True, False)) != node.tag:
            raise _wrong(node, f"{node.value!r} is not of the type {node.tag.removeprefix(TAG)}; remove the tag")
        return 1
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _wrong(node, "an alias that contains itself")
        return sizes[id(node)]
    if depth > MAX_DEPTH:
        raise _wrong(node, f"more than {MAX_DEPTH} levels")
    if node.tag not in (f"{TAG}map", f"{TAG}seq"):
        raise _wrong(node, f"tag {node.tag!r}; expected plain mappings and lists")
    sizes[id(node)] = 0
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        parts = [part for pair in node.value for part in pair]
    total = 1 + sum(_check(loader, part, sizes, depth + 1) for part in parts)
    if total > MAX_NODES:
        raise _wrong(node, f"its aliases expand to more than {MAX_NODES:,} values")
    sizes[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _wrong(key, "a key that is not text")
        line = key.start_mark.line + 1
        name = (key.tag, key.value)
        if name in lines:
            raise _wrong(key, f"duplicate key `{key.value}` (first on line {lines[name]}); keep one")
        lines[name] = line
