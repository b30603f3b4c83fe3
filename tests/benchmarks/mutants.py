"""Mutants of a Python file: the same code with one small fault in it, as a programmer's slip would leave it."""

import ast
import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
MASKS: dict[type[ast.operator], type[ast.operator]] = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
_PAIRS = (("min", "max"), ("argmin", "argmax"), ("minimum", "maximum"), ("floor", "ceil"), ("any", "all"))
NAMES = {a: b for one, other in _PAIRS for a, b in ((one, other), (other, one))}
SAID = {"say", "warn", "UserError", "TypeError", "ValueError"}
"""Calls whose arguments are for people to read."""
DRAWN = {"_plot", "_bars", "_dress", "_tell"}
"""Functions that draw or print for people."""
SIZES = {"BLOCK", "ROWS", "WINDOW"}
"""Constants that say how much is worked on at a time: speed and memory depend on them, no result."""
COSMETIC = {"discriminator", "description", "encoding", "exist_ok", "non_blocking", "strict"}
"""Keyword arguments that change no result of valid input, such as that two lists have to be equally long; files are of
UTF-8 without being told so, but on Windows."""
if not Path("/dev/nvidiactl").exists():
    COSMETIC |= {"device"}  # all is on the CPU


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        path: The file.
        number: Of the fault in that file, in the order of the code.
        line: Where the changed code begins.
        lines: First and last line of the statement that holds it, without the statements inside; where it is part of a
            function's head, those of the whole function.
        function: Whether it lies in a function. What does not runs at import, before any test.
    """

    path: str
    number: int
    line: int
    lines: tuple[int, int]
    function: bool


def mutants_of(root: Path, path: str) -> list[Mutant]:
    """All mutants of a file, in the order of the code."""
    faults = _faults(ast.parse((root / path).read_text(), path))
    return [Mutant(path, n, node.lineno, where.lines, where.function) for n, (node, where, _) in enumerate(faults)]


def applied(root: Path, mutant: Mutant) -> tuple[ast.Module, str] | None:
    """The code with the fault in it, and the change in words; None where the bytecode stays the same."""
    tree = ast.parse((root / mutant.path).read_text(), mutant.path)
    original = compile(tree, mutant.path, "exec")
    node, _, make = next(itertools.islice(_faults(tree), mutant.number, None))
    old, new = make(node)
    ast.fix_missing_locations(tree)
    return None if compile(tree, mutant.path, "exec") == original else (tree, f"{_short(old)} → {_short(new)}")


def rewritten(root: Path, path: str, old: str, new: str) -> tuple[Mutant, ast.Module]:
    """A fault of one's own: text that stands once in a line of a function, and what it becomes."""
    source = (root / path).read_text()
    if source.count(old) != 1:
        raise ValueError(f"{path}: {old!r} stands there {source.count(old)} times; expected once")
    line = source[: source.index(old)].count("\n") + 1
    return Mutant(path, -1, line, (line, line), True), ast.parse(source.replace(old, new), path)


def marked(root: Path, path: str) -> CodeType:
    """The code of a file whose functions add the path and line of each statement to ``__reached__``, a builtin set."""
    tree = _Marker(path).visit(ast.parse((root / path).read_text(), path))
    return compile(ast.fix_missing_locations(tree), str(root / path), "exec")


class _Marker(ast.NodeTransformer):
    def __init__(self, path: str) -> None:
        self._path, self._depth = path, 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        function = isinstance(node, ast.FunctionDef)
        self._depth += function
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            if self._depth and isinstance(statements := getattr(node, name, None), list):
                setattr(node, name, [made for one in statements for made in (*self._mark(one), one)])
        self._depth -= function
        return node

    def _mark(self, statement: ast.stmt) -> list[ast.stmt]:
        documents = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        return [] if documents else ast.parse(f"__reached__.add({(self._path, statement.lineno)})").body


def _faults(tree: ast.Module) -> "Iterator[tuple[Node, _Where, Change]]":
    return ((node, where, change) for node, where in _walk(tree, _Where()) for change in _changes(node, where))


def _short(code: str) -> str:
    one = " ".join(code.split())
    return one if len(one) <= 70 else one[:67] + "..."


@dataclass(frozen=True)
class _Where:
    lines: tuple[int, int] = (0, 0)
    function: bool = False
    index: bool = False
    """Whether the node stands in the brackets of a subscript."""


Node = ast.expr | ast.stmt | ast.keyword
Change = Callable[[ast.AST], tuple[str, str]]
"""Changes a node in place; returns its old and its new code."""


def _walk(node: ast.AST, where: _Where) -> Iterator[tuple[Node, _Where]]:
    """Every node that may be changed, with the place where it stands."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _skipped(node, name, child):
                continue
            inner = _Where(where.lines, where.function, where.index and isinstance(node, ast.Tuple))
            if isinstance(child, ast.stmt):
                inner = _Where(_extent(child), where.function or isinstance(node, ast.FunctionDef))
            elif isinstance(node, ast.FunctionDef) and name == "args":
                inner = _Where((node.lineno, node.end_lineno or node.lineno), True)
            elif isinstance(node, ast.Subscript):
                inner = _Where(where.lines, where.function, name == "slice")
            if hasattr(child, "lineno"):
                yield child, inner  # type: ignore[misc]
            yield from _walk(child, inner)


def _extent(node: ast.stmt) -> tuple[int, int]:
    """The lines of a statement; of one with a body those of its head."""
    body = getattr(node, "body", None)
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.lineno, node.end_lineno or node.lineno
    last = body[0].lineno - 1 if body else node.end_lineno
    return node.lineno, max(node.lineno, last or 0)


def _skipped(parent: ast.AST, name: str, child: ast.AST) -> bool:
    """What changes no result: types, documentation, messages, imports."""
    return (
        name in {"annotation", "returns", "decorator_list", "bases", "ctx"}
        or isinstance(child, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.Global)
        or (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant))
        or (isinstance(child, ast.FunctionDef) and child.name in DRAWN)
        or (isinstance(child, ast.Assign) and _name(child.targets[0]) in SIZES)
        or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
        or (isinstance(child, ast.Subscript) and _name(child.value) in {"Annotated", "Literal"})
        or (isinstance(child, ast.Call) and _name(child.func) in SAID | DRAWN | {"cast", "TypeVar"})
        or (isinstance(child, ast.keyword) and child.arg in COSMETIC)
        or (isinstance(parent, ast.UnaryOp) and isinstance(child, ast.Constant))  # −1 is changed as a whole
        or (isinstance(parent, ast.Call) and _name(parent.func) == "isinstance")
    )


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _changes(node: ast.AST, where: _Where) -> Iterator[Change]:
    """The faults that a node can have."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield _changed(lambda twin, i=i, op=op: twin.ops.__setitem__(i, COMPARE[type(op)]()))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in ARITHMETIC and not (_text(left) or _text(right)):
            yield _changed(lambda twin: setattr(twin, "op", ARITHMETIC[type(op)]()))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in MASKS and (_mask(left) or _mask(right)):
            yield _changed(lambda twin: setattr(twin, "op", MASKS[type(op)]()))
        case ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield _changed(lambda twin: setattr(twin, "op", ARITHMETIC[type(op)]()))
            yield _dropped
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield _changed(lambda twin: setattr(twin, "op", other))
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            if where.index and isinstance(operand, ast.Constant) and operand.value == 1:
                yield _replaced(ast.Constant(0))
            else:
                yield _replaced(operand)
        case ast.Constant(value=bool() as value):
            yield _replaced(ast.Constant(not value))
        case ast.Constant(value=int() as value):
            yield _replaced(ast.Constant({0: 1, 1: 0}.get(value, value + 1)))
            if value == 0 and where.index:
                yield _replaced(ast.UnaryOp(ast.USub(), ast.Constant(1)))
        case ast.Constant(value=float() as value) if value == value:
            yield _replaced(ast.Constant(value * 2 if value else 1.0))
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield _changed(lambda twin: setattr(twin, "value", ast.Constant(None)))
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield _dropped
        case ast.Expr(value=ast.Call(func=func)) if _name(func) not in SAID | DRAWN:
            yield _dropped
        case ast.Call(func=func, keywords=keywords):
            for i, keyword in enumerate(keywords):
                if keyword.arg and keyword.arg not in COSMETIC:
                    yield _changed(lambda twin, i=i: twin.keywords.pop(i))
            if _name(func) in NAMES:
                yield _changed(lambda twin: _rename(twin.func))


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _mask(node: ast.AST) -> bool:
    """Whether it is surely no type and no dictionary."""
    return isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert))


def _rename(func: ast.AST) -> None:
    setattr(func, "id" if isinstance(func, ast.Name) else "attr", NAMES[_name(func)])


def _changed(change: Callable) -> Change:
    def make(twin: ast.AST) -> tuple[str, str]:
        old = ast.unparse(twin)
        change(twin)
        return old, ast.unparse(twin)

    return make


def _replaced(new: ast.expr) -> Change:
    """Turns the node into another one, in place."""

    def make(twin: ast.AST) -> tuple[str, str]:
        old, made = ast.unparse(twin), copy.deepcopy(new)
        place = {key: getattr(twin, key) for key in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
        twin.__class__ = made.__class__
        twin.__dict__.clear()
        twin.__dict__.update(vars(made) | place)
        return old, ast.unparse(twin)

    return make


def _dropped(twin: ast.AST) -> tuple[str, str]:
    old = ast.unparse(twin)
    _replaced(ast.Pass())(twin)
    return old, "(dropped)"
