"""Which code each stage runs: ``code.yaml``, a digest for each stage, which the stages of ``dvc.yaml`` depend on.

A stage is out of date when the code that makes its output has changed. What that code is, is read from the sources:
from the stage's subcommand on, every function, class and constant that the last one names, and the whole module of the
plug-in that the stage uses. Comments, docstrings and layout do not count, and neither do functions nobody calls.

The values of the stage's parameters are part of its digest, so that a default that has changed counts as well, and so
are the versions of the libraries that it computes with.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import geoloc_core
from geoloc_core.contracts.geolocator import FAMILIES
from geoloc_core.encoders import published
from geoloc_core.files import replacing
from geoloc_core.params import Profile
from geoloc_core.plugins import module_of
from geoloc_core.project import Project

PACKAGE = geoloc_core.__name__
COMMANDS = f"{PACKAGE}.cli"
FILE = "code.yaml"

NOT_FOLLOWED = {
    "geoloc_core.cli:": "reads arguments",
    "geoloc_core.params": "its values are part of the digest",
    "geoloc_core.plugins": "finds the plug-in, which is part of the digest",
    "geoloc_core.escape:terminal": "is of the terminal alone",
    "geoloc_core.errors": "ends the stage, and so no output depends on it",
    "geoloc_core.progress": "writes to the terminal alone",
    "geoloc_core.lifeline": "ends processes",
    "geoloc_core.engines": "says where the same is done",
    "geoloc_core.warm": "runs the same command in another process",
    "geoloc_core.threads": "is a parameter of the stages that depend on it",
    "geoloc_core.training.processes:is_first": "tells the processes of one training apart",
    "geoloc_core.registry": "writes to MLflow alone",
    "geoloc_core.corpora.fetch:draw": "a contact sheet is no reason to fetch, and pay, again",
    "geoloc_core.corpora.ingest:ingest_alone": "is of no stage",
    "geoloc_core.encoders.alone": "is of no stage",
    "geoloc_core.evaluation.leaderboard:show": "writes to the terminal alone",
}
"""Modules, and ``module:name``, that no output depends on, with the reason."""

LIBRARIES = {
    "PIL": "pillow",
    "pillow_heif": "pillow-heif",
    "lightning_fabric": "lightning-fabric",
    "onnxruntime": "onnxruntime",
    "open_clip": "open_clip_torch",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
"""Libraries whose version changes results, by the name that is imported, with their distribution."""

TEMPLATE = re.compile(r"[\w/]+\.(html|md|css|js|json|yaml)")
"""What names a template, or data, by its path in the package."""
NAMED = re.compile(r"{%-?\s*(?:include|extends|import|from)\s+[\"']([^\"']+)")
"""A template that another one names."""

Name = tuple[str, str]
"""A module, and something that it defines: a function, class or constant; "" is all that importing it runs."""


@dataclass(frozen=True)
class Instance:
    """What the output of one stage depends on, beside its data.

    Attributes:
        command: Name of the function of :mod:`geoloc_core.cli` that it runs.
        plugins: Modules of which any function may be called.
        values: The parameters that it reads, with their defaults.
    """

    command: str
    plugins: tuple[str, ...]
    values: tuple[Any, ...]


def write(project: Project) -> bool:
    """The stage ``geoloc code``: write ``code.yaml`` if anything in it has changed.

    Returns:
        Whether it has.
    """
    import yaml

    head = "# Written by `geoloc code`: a digest of the code that each stage runs, and of its parameters' values.\n"
    text = head + yaml.safe_dump(digests(project.profile, Sources()))
    path = project.root / FILE
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return True


def digests(profile: Profile, sources: "Sources") -> dict[str, dict[str, str] | str]:
    """The digest of every stage: by name for the stages there are several of."""
    found: dict[str, dict[str, str] | str] = {}
    for kind, known in instances(profile).items():
        if isinstance(known, Instance):
            found[kind] = sources.digest(known)
        else:
            found[kind] = {name: sources.digest(instance) for name, instance in known.items()}
    return found


def instances(profile: Profile) -> dict[str, Instance | dict[str, Instance]]:
    """What each stage runs. Its ``kind`` of fetch, source, tower and so on is the module that it plugs in."""
    corpora, towers = profile.corpora, profile.pretrain | profile.pretrain_from
    variants, evaluation = profile.variants, profile.evaluation
    scored = evaluation.model_copy(update={"benchmarks": None, "candidates": None})  # which the answers have
    return {
        "fetch": {name: _fetch(corpus) for name, corpus in corpora.items()},
        "boundaries": Instance("boundaries", (f"geo.sources.{profile.boundaries.kind}",), (profile.boundaries,)),
        "ingest": {
            name: Instance("ingest", (f"corpora.sources.{c.source.kind}",), (c.model_copy(update={"fetch": None}),))
            for name, c in corpora.items()
        },
        "label": {name: Instance("label", (), (profile.labels, c.role)) for name, c in corpora.items()},
        "leaks": Instance("leaks", (), (profile.leaks,)),
        "pretrain": {
            name: Instance("pretrain", (f"training.pretrain.{tower.kind}", *_start(profile, tower)), (tower,))
            for name, tower in towers.items()
        },
        "download": {
            name: Instance("download", (), (block, *_downloaded(profile, name)))
            for name, block in profile.checkpoints.items()
        },
        "encode": {name: Instance("encode", _towers(tower), (tower,)) for name, tower in profile.encoders.items()},
        "texts": {name: Instance("texts", (), (block,)) for name, block in profile.texts.items()},
        "encode_text": {
            name: Instance("encode_text", (f"encoders.text.towers.{tower.kind}",), (tower,))
            for name, tower in profile.text_encoders.items()
        },
        "truth": Instance("truth", (), ()),
        "facts": Instance("facts", ("geo.facts",), (profile.facts,)),
        "cells": {
            name: Instance("fit_cells", (f"geo.geocells.schemes.{options.kind}",), (options,))
            for name, options in profile.cells.items()
        },
        "train": {  # what a variant is scored on is no reason to train it again
            name: Instance("train", _plugins(profile, name), _learned(profile, name)) for name in variants
        },
        "answer": {
            name: Instance(
                "answer",
                _plugins(profile, name),
                (evaluation.candidates, profile.labels.test_share_of(block.corpus)),
            )
            for name, block in variants.items()
        },
        "score": Instance("score", (), (scored,)),
        "leaderboard": Instance("leaderboard", (), (scored, profile.registry)),
        "report": Instance("report", (*_drawn(profile), *_explained(profile)), (profile.registry, profile.report)),
    }


def _fetch(corpus: Any) -> Instance:
    rendered = (f"corpora.sources.{corpus.source.kind}",) if corpus.fetch.kind == "world" else ()
    return Instance("fetch", (f"corpora.fetch.{corpus.fetch.kind}", *rendered), (corpus.fetch,))


def _plugins(profile: Profile, name: str) -> tuple[str, ...]:
    """The family of a variant, the scheme of its cells, the towers that it starts from, and those of its parts."""
    block = profile.variants[name]
    needs = block.needs()
    cells = profile.cells.get(needs.labels)
    found = [f"families.{block.kind}", *([f"geo.geocells.schemes.{cells.kind}"] if cells else [])]
    found += [plugin for tower in needs.towers for plugin in _towers(profile.encoders[tower])]
    found += [f"encoders.text.towers.{profile.text_encoders[tower].kind}" for tower in needs.text_towers]
    found += [plugin for part in needs.models for plugin in _plugins(profile, part)]
    return tuple(dict.fromkeys(found))


def _drawn(profile: Profile) -> tuple[str, ...]:
    """What knows the outlines of the cells that variants answer with, and the clusters that they hold."""
    cells = [profile.cells.get(block.needs().labels) for block in profile.variants.values()]
    found = [f"geo.geocells.schemes.{options.kind}" for options in cells if options]
    families = {block.kind for block in profile.variants.values()}
    found += [f"families.{kind}:clusters" for kind in families if hasattr(module_of(FAMILIES, kind), "clusters")]
    return tuple(sorted(set(found)))


def _learned(profile: Profile, name: str) -> tuple[Any, ...]:
    """What a training reads of the parameters: what a variant is scored on is no reason to train it again."""
    block = profile.variants[name]
    needs = block.needs()
    towers = [profile.encoders[tower] for tower in needs.towers]
    towers += [profile.text_encoders[tower] for tower in needs.text_towers]
    return (block.model_copy(update={"benchmarks": None}), *towers)


def _explained(profile: Profile) -> tuple[str, ...]:
    """What models are made of whose answers the report explains: every family, and every encoder that one reads."""
    if not profile.report.explained.each:
        return ()
    read = dict.fromkeys(name for block in profile.variants.values() for name in block.needs().encoded)
    found = [plugin for name in profile.variants for plugin in _plugins(profile, name)]
    found += [plugin for name in read for plugin in _towers(profile.encoders[name])]
    return tuple(dict.fromkeys(found))


def _towers(tower: Any) -> tuple[str, ...]:
    """The module of a tower, and of the tower that it is made of."""
    of = getattr(tower, "of", None)
    return (f"encoders.towers.{tower.kind}", *(_towers(of) if of is not None else ()))


def _downloaded(profile: Profile, name: str) -> tuple[Any, ...]:
    """The files that the towers of a name read."""
    image, text = profile.encoders.get(name), profile.text_encoders.get(name)
    kind = image.kind if image else ""
    return published.files(kind), published.parts(kind), published.text_files(text.kind if text else "")


def _start(profile: Profile, tower: Any) -> tuple[str, ...]:
    """The tower that reads the weights from which training goes on."""
    start = profile.encoders.get(str(getattr(tower, "start", None)))
    return (f"encoders.towers.{start.kind}",) if start else ()


@dataclass(frozen=True)
class Sources:
    """The package's sources, parsed as they are asked for.

    Attributes:
        root: The folder of the package.
    """

    root: Path = Path(geoloc_core.__file__).parent
    _modules: dict[str, "Module | None"] = field(default_factory=dict)
    _closures: dict[tuple[str, ...], str] = field(default_factory=dict)
    _links: dict[Name, frozenset[Name]] = field(default_factory=dict)

    def digest(self, instance: Instance) -> str:
        """The digest of a stage: of its code, its libraries and its parameters' values."""
        roots = self.roots(instance)
        if roots not in self._closures:
            self._closures[roots] = self._digest_of_code(roots)
        values = [value.model_dump(mode="json") if isinstance(value, BaseModel) else value for value in instance.values]
        return _sha256(self._closures[roots], json.dumps(values, sort_keys=True))

    def roots(self, instance: Instance) -> tuple[str, ...]:
        """Where the code of a stage begins: its subcommand, and the modules that it plugs in."""
        return (f"{COMMANDS}:{instance.command}", *(f"{PACKAGE}.{plugin}" for plugin in instance.plugins))

    def _digest_of_code(self, roots: Iterable[str]) -> str:
        reached = self.closure(roots)
        defined = self._defined(reached)
        libraries = sorted(library for library in LIBRARIES if (library, "") in reached)
        code = (f"{module}:{name} {self._of(module).digests[name]}" for module, name in defined)
        templates = (f"{name} {_sha256(self._text(name))}" for name in sorted(self._templates(defined)))
        return _sha256(*code, *templates, *(f"{library} {_version(LIBRARIES[library])}" for library in libraries))

    def _templates(self, defined: list[Name]) -> set[str]:
        """The templates that some definitions name, and those that these name themselves."""
        waiting = [text for module, name in defined for text in self._of(module).templates[name]]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in found and (self.root / name).is_file():
                found.add(name)
                waiting += NAMED.findall(self._text(name))
        return found

    def _text(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def _defined(self, reached: set[Name]) -> list[Name]:
        return sorted((module, name) for module, name in reached if self[module] and self._of(module).statements[name])

    def closure(self, roots: Iterable[str]) -> set[Name]:
        """All that some modules, or ``module:name``, lead to.

        Libraries that are used are in it too, by the name that is imported.
        """
        reached: set[Name] = set()
        waiting = [name for root in roots for name in self._start_of(root)]
        while waiting:
            at = waiting.pop()
            if at in reached or is_left_out(at):
                continue
            reached.add(at)
            if self[at[0]]:
                waiting += self._leads_to(at)
        return reached

    def _leads_to(self, at: Name) -> frozenset[Name]:
        if at not in self._links:
            module, name = at
            self._links[at] = frozenset([*((p, "") for p in _packages(module)), *self._references(module, name)])
        return self._links[at]

    def _start_of(self, root: str) -> list[Name]:
        module, _, name = root.partition(":")
        return [(module, name)] if name else self._whole(module)

    def _whole(self, module: str) -> list[Name]:
        """All that a module defines, or hands on."""
        here = self._of(module)
        handed_on = (at for target in here.imports.values() for at in self._resolved(target, []) if self[at[0]])
        return [*((module, name) for name in here.statements), *handed_on]

    def _references(self, module: str, name: str) -> Iterator[Name]:
        """What one definition leads to."""
        here = self._of(module)
        for inside, names in here.reads[name]:
            for dotted in names:
                first, *attributes = dotted
                if first in inside:
                    yield from self._resolved(inside[first], attributes)
                elif first in here.statements:
                    yield module, first
                elif first in here.imports:
                    yield from self._resolved(here.imports[first], attributes)
            for target in inside.values():  # an import runs a module, whether or not its name is used
                yield from self._resolved(target, ["__name__"])
        for target in here.imports.values() if name == "" else ():
            if target[0].partition(".")[0] == PACKAGE:
                yield from self._resolved((target[0], None), ["__name__"])

    def _resolved(self, target: tuple[str, str | None], attributes: list[str]) -> Iterator[Name]:
        """What an imported name, with attributes behind it, stands for."""
        module, name = target
        path = [*([name] if name else []), *attributes]
        if module.partition(".")[0] != PACKAGE:
            yield module.partition(".")[0], ""
            return
        while path and self[f"{module}.{path[0]}"]:
            module = f"{module}.{path.pop(0)}"
        here = self[module]
        if here is None:
            return
        if not path:
            yield from self._whole(module)
        elif path[0] in here.statements:
            yield module, path[0]
        elif path[0] in here.imports:
            yield from self._resolved(here.imports[path[0]], path[1:])
        else:
            yield module, ""

    def _of(self, module: str) -> "Module":
        found = self[module]
        if found is None:
            raise KeyError(module)
        return found

    def __getitem__(self, module: str) -> "Module | None":
        """A module of the package; None where there is none of that name."""
        if module not in self._modules:
            self._modules[module] = self._read(module)
        return self._modules[module]

    def _read(self, module: str) -> "Module | None":
        first, *parts = module.split(".")
        at = self.root.joinpath(*parts)
        files = [path for path in (at / "__init__.py", at.with_suffix(".py")) if first == PACKAGE and path.is_file()]
        return Module.parsed(module, files[0]) if files else None


@dataclass(frozen=True)
class Module:
    """What a module defines, and what it imports at its top.

    Attributes:
        statements: By name, the statements that define it; under "" those that importing it runs for their effect.
        imports: By name, the module and what is taken out of it.
    """

    statements: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str | None]]

    @classmethod
    def parsed(cls, name: str, path: Path) -> "Module":
        """Read a source file."""
        statements: dict[str, list[ast.stmt]] = {"": []}
        imports: dict[str, tuple[str, str | None]] = {}
        for statement in _without_docstrings(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                imports |= _imports(statement)
            elif not _is_for_types(statement):
                if name == COMMANDS and isinstance(statement, ast.FunctionDef):
                    statement.decorator_list = []  # help texts, and how arguments are spelt
                defined = list(_defined(statement))
                for known in defined or [""]:
                    statements.setdefault(known, []).append(statement)
                if not isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                    imports |= _imports(statement)
        return cls(statements, imports)

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """By name, the digest of its syntax tree: equal on every supported Python."""
        return {name: _sha256(repr([_plain(s) for s in given])) for name, given in self.statements.items()}

    @cached_property
    def templates(self) -> Mapping[str, list[str]]:
        """By name, the strings that may name a template."""
        return {
            name: [text for statement in given for text in _texts(statement) if TEMPLATE.fullmatch(text)]
            for name, given in self.statements.items()
        }

    @cached_property
    def reads(self) -> Mapping[str, list[tuple[Mapping[str, tuple[str, str | None]], set[tuple[str, ...]]]]]:
        """By name, for each statement what it imports inside, and the names that it reads."""
        return {name: [(_imports(s), _names(s)) for s in given] for name, given in self.statements.items()}


def is_left_out(at: Name) -> bool:
    """Whether no output depends on something, so that no digest does."""
    return ":".join(at) in NOT_FOLLOWED or any(package in NOT_FOLLOWED for package in _packages(at[0]))


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _is_for_types(statement: ast.AST) -> bool:
    return isinstance(statement, ast.If) and getattr(statement.test, "id", "") == "TYPE_CHECKING"


def _defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a module defines, wherever in it."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.If() | ast.Try() | ast.With() | ast.For():
            for inner in ast.iter_child_nodes(statement):
                for one in inner.body if isinstance(inner, ast.ExceptHandler) else [inner]:
                    if isinstance(one, ast.stmt):
                        yield from _defined(one)


def _imports(statement: ast.AST) -> dict[str, tuple[str, str | None]]:
    """What a statement and all in it import, by the name that it goes by."""
    found: dict[str, tuple[str, str | None]] = {}
    for node in _walk(statement):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                found[alias.asname or first] = (alias.name if alias.asname else first, None)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return found


def _names(statement: ast.AST) -> set[tuple[str, ...]]:
    """The names that a statement reads, each with the attributes behind it."""
    found: set[tuple[str, ...]] = set()
    inner: set[int] = set()
    for node in _walk(statement):
        if id(node) in inner or not isinstance(node, ast.Name | ast.Attribute):
            continue
        behind: list[str] = []
        at: ast.expr = node
        while isinstance(at, ast.Attribute):
            behind.insert(0, at.attr)
            at = at.value
            inner.add(id(at))
        if isinstance(at, ast.Name):
            found.add((at.id, *behind))
    return found


def _texts(statement: ast.AST) -> Iterator[str]:
    """The strings in a statement."""
    for node in _walk(statement):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, from the outside in, but for what only type checkers read."""
    waiting = [node]
    while waiting:
        at = waiting.pop()
        yield at
        waiting += [child for child in ast.iter_child_nodes(at) if not _is_for_types(child)]


def _without_docstrings(body: list[Any]) -> list[Any]:
    """Statements without the strings that stand alone: they document what stands before them."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
                                    and isinstance(s.value.value, str))]  # fmt: skip


def _plain(node: Any) -> Any:
    """A syntax tree as lists of what counts, the same on every supported Python."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return None if node is None else repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in ("ctx", "type_comment", "kind")}
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = _without_docstrings(node.body)
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty strings behind a nested format
        fields["values"] = [v for v in node.values if not (isinstance(v, ast.Constant) and v.value == "")]
    found = ((name, _plain(value)) for name, value in sorted(fields.items()))
    return [type(node).__name__, [pair for pair in found if pair[1] not in (None, [])]]


@cache
def _version(distribution: str) -> str:
    """A library's version, without what tells builds for different devices apart."""
    try:
        return metadata.version(distribution).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "none"


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
