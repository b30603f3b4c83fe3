"""Write down which functions of ``geoloc_core`` each stage calls: Python loads this where ``PYTHONPATH`` names it.

A stage's calls go to ``$GEOLOC_CALLED``, a file for each stage that DVC runs. Calls while a module is imported do not
count, and neither do those of functions that no digest follows.

Each function gets a line at its start that notes its call. A profiler would be asked about each call of every library.
"""

import ast
import atexit
import builtins
import inspect
import marshal
import os
import runpy
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path

calls: set[str] = set()


class Noting(ast.NodeTransformer):
    """Have each function of a module note its call, under the name of the definition at the top that it is in."""

    def __init__(self, module):
        self.module, self.top = module, None

    def visit_ClassDef(self, node):
        return self.inside(node)

    def visit_FunctionDef(self, node):
        if any(map(is_compiled, node.decorator_list)):
            return node
        noted = self.inside(node)
        noted.body.insert(ast.get_docstring(noted) is not None, ast.Expr(self.noting(node.name)))
        return noted

    def visit_AsyncFunctionDef(self, node):
        return self.visit_FunctionDef(node)

    def visit_Lambda(self, node):
        if self.top is not None:
            node.body = ast.BoolOp(ast.Or(), [self.noting(self.top), node.body])
        return self.generic_visit(node)

    def visit_Call(self, node):
        return node if is_compiled(node) else self.generic_visit(node)

    def inside(self, node):
        before, self.top = self.top, self.top or node.name
        try:
            return self.generic_visit(node)
        finally:
            self.top = before

    def noting(self, name):
        call = f"{self.module}:{self.top or name}"
        return ast.parse(f"{call!r} not in __calls__ and __note__({call!r})", mode="eval").body


def is_compiled(node):
    """Whether it is ``njit(...)``: what numba compiles calls no Python."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "njit"


def note(call):
    if not apart(sys._getframe(1)):
        calls.add(call)


def apart(frame):
    """Whether a call happens while a module is imported, or below a function that is not followed."""
    frames = []
    while frame:
        frames.append(frame)
        frame = frame.f_back
    if any(frame.f_code.co_filename.startswith("<frozen importlib") for frame in frames):
        return True
    for frame in frames:
        code = frame.f_code
        # a module's own frame is where the process began; templates have frames too, in files of their own names
        ours = code.co_filename.startswith(PACKAGE) and code.co_filename.endswith(".py")
        if ours and code.co_flags & inspect.CO_OPTIMIZED:
            at = frame.f_globals["__spec__"].name
            # what `progress` counts is made while it is asked for the next; its tables are of the terminal alone
            if (at != "geoloc_core.progress" or code.co_name == "table") and is_left_out()((at, code.co_name)):
                return True
    return False


@cache
def is_left_out():
    """``geoloc_core.code.is_left_out`` of a copy that is not noted."""
    return runpy.run_path(f"{PACKAGE}/code.py")["is_left_out"]


def noting(get_code):
    """Compile modules so that they note calls, once for all processes."""

    def get_noting(loader, name):
        if name.partition(".")[0] != "geoloc_core" or name == "geoloc_core.warm":  # which hands the command to a fork
            return get_code(loader, name)
        path = Path(loader.get_filename(name))
        kept = Path(os.environ["GEOLOC_CALLED"], ".code", name)
        if not kept.exists():
            tree = ast.fix_missing_locations(Noting(name).visit(ast.parse(path.read_bytes())))
            kept.parent.mkdir(exist_ok=True)
            own = kept.with_name(f"{name}.{os.getpid()}")
            own.write_bytes(marshal.dumps(compile(tree, path, "exec", dont_inherit=True)))
            own.replace(kept)
        return marshal.loads(kept.read_bytes())

    return get_noting


def write():
    Path(os.environ["GEOLOC_CALLED"], os.environ["DVC_STAGE"]).write_text("\n".join(sorted(calls)))


def begin():
    atexit.register(write)
    builtins.__note__ = note


# a stage's own process, or one that forks for stages; not those that they start
does, forks = Path(sys.orig_argv[1]).name == "geoloc", "geoloc_core.warm" in sys.orig_argv
if "GEOLOC_CALLED" in os.environ and ((does and "DVC_STAGE" in os.environ) or forks):
    PACKAGE = find_spec("geoloc_core").submodule_search_locations[0]
    SourceFileLoader.get_code = noting(SourceFileLoader.get_code)
    builtins.__calls__, builtins.__note__ = calls, lambda call: None
    if forks:
        is_left_out()
        os.register_at_fork(after_in_child=begin)
    else:
        begin()
