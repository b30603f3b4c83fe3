"""Whether a network is what a rewrite of it was written for, judged by its library's version and source code.

What is not recognised is left as its library has it: slower, and right. A line of the log says so (``logging``, level
DEBUG).
"""

import ast
import hashlib
import inspect
import logging
import textwrap
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

LOG = logging.getLogger(__name__)
VERSIONS = {
    "open_clip": ("open_clip_torch", "3.3.0"),
    "transformers": ("transformers", "5.23.0"),
    "timm": ("timm", "1.0.31"),
}
"""By package, its distribution and the version whose networks the rewrites were held against."""
SOURCES = {
    "ResidualAttentionBlock": (("attention", "forward"), "feacaf61eb46c1aa"),
    "Transformer": (("forward",), "a83a75a5b7f7318a"),
    "VisionTransformer": (("_embeds", "_pool", "_global_pool", "forward"), "ba051dac6c8601c1"),
}
"""By class of open_clip, the methods that a rewrite stands in for, and the digest of their source."""
UNREAD = ("__init__", "init_parameters", "reset_parameters", "get_weight_dtype")
"""Methods that inference does not call."""


def is_known(network: "nn.Module") -> bool:
    """Whether each library that a network's modules come from has the version in :data:`VERSIONS`."""
    packages = {type(module).__module__.partition(".")[0] for module in network.modules()}
    for package in sorted(packages & VERSIONS.keys()):
        name, known = VERSIONS[package]
        if (installed := _installed(name)) != known:
            LOG.debug("%s %s: its networks run as they are; they are rewritten for %s alone", name, installed, known)
            return False
    return True


def is_as_written(module: "nn.Module") -> bool:
    """Whether the methods of :data:`SOURCES` are what a rewrite of this module stands in for."""
    kind: type = type(module)
    methods, known = SOURCES[kind.__name__]
    if digest(kind, methods) == known:
        return True
    LOG.debug("%s: not the source that it is rewritten for; it runs as it is", kind.__qualname__)
    return False


@cache
def digest(kind: type, methods: tuple[str, ...]) -> str:
    """A digest of the source of some methods of a class, whatever their comments and their formatting."""
    code = [ast.unparse(_without_docstring(_source(getattr(kind, name, None)))) for name in methods]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


@cache
def chain(kind: type) -> tuple[str, ...]:
    """The children that a module of a class calls one after the other, if that is all it does; else nothing.

    ``forward`` has to be lines such as ``x = self.fc1(x)``, and to return the last of these.
    """
    body = _without_docstring(_source(getattr(kind, "forward", None))).body
    names = []
    carried = None
    for line in body[:-1]:
        match line:
            case ast.Assign(
                targets=[ast.Name(id=given)],
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id="self"), attr=name), args=[ast.Name(id=taken)], keywords=[]
                ),
            ) if carried in (None, taken) and given == taken:
                names.append(name)
                carried = given
            case _:
                return ()
    match body[-1:]:
        case [ast.Return(value=ast.Name(id=returned))] if returned == carried:
            return tuple(names)
    return ()


@cache
def read(kind: type) -> frozenset[str]:
    """The children of a module of a class whose weights its own code reads, so that they must stay what they are.

    To ask a weight for its ``dtype``, ``device`` or ``shape`` is no reading.
    """
    children: set[str | None] = set()
    for name, method in _methods(kind).items():
        if name in UNREAD:
            continue
        code = _source(method)
        harmless = {
            id(node.value)
            for node in ast.walk(code)
            if isinstance(node, ast.Attribute) and node.attr in ("dtype", "device", "shape")
        }
        for node in ast.walk(code):
            if isinstance(node, ast.Attribute) and node.attr in ("weight", "bias") and id(node) not in harmless:
                children.add(_child(node.value))
    return frozenset(name for name in children if name)


def _child(node: ast.expr) -> str | None:
    """The child of ``self`` that an expression such as ``self.blocks[0].mlp`` begins with."""
    name = None
    while isinstance(node, ast.Attribute | ast.Subscript):
        name = node.attr if isinstance(node, ast.Attribute) else name
        node = node.value
    return name if isinstance(node, ast.Name) and node.id == "self" else None


def _methods(kind: type) -> dict[str, object]:
    """The functions of a class and of those it derives from, but for torch's root."""
    classes = [base for base in reversed(kind.__mro__) if base.__module__ != "torch.nn.modules.module"]
    return {name: value for base in classes for name, value in vars(base).items() if inspect.isfunction(value)}


def _source(method: object) -> ast.FunctionDef:
    """The parsed source of a method; one that does nothing where there is none to read."""
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):  # compiled, made at run time, or no function
        parsed = ast.parse("def unknown(): ...")
    function = next((node for node in ast.walk(parsed) if isinstance(node, ast.FunctionDef)), None)
    return function or ast.parse("def unknown(): ...").body[0]  # type: ignore[return-value]


def _without_docstring(function: ast.FunctionDef) -> ast.FunctionDef:
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(function.body) > 1:
        function.body = function.body[1:]
    return function


@cache
def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of no known version"
