"""Would the tests notice a fault? ``python tests/benchmarks/mutation.py [--mutants 300] [--jobs 2]``

Makes small faults in the code that decides what a model learns, answers and scores (``mutants.py``), draws some of
them, stratified by file, and runs the tests that reach the changed line against each. A mutant is killed when a
test fails, or when the tests take ten times as long and ten seconds more, by the processor's clock. The rest survives:
the code behaves the same, or no test asks.

The tree is never written to. This process loads the heavy libraries once, then forks; a fork imports the changed file
from its code in memory, runs the tests, fastest first, and ends at the first failure. One run of the tests without a
fault comes before: it tells which test reaches which line, and how long each takes.

With ``--state FOLDER`` a later run goes on from an earlier one: it traces the test files that have changed, all where
the code has, and tries the mutants again that had survived.
"""

import argparse
import ast
import builtins
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import itertools
import json
import math
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from mutants import Mutant, applied, marked, mutants_of, rewritten
from report import machine, row

ROOT = Path(__file__).parents[2]
SCIENCE = (
    "geoloc_core/contracts/*.py",
    "geoloc_core/corpora/guard.py",
    "geoloc_core/corpora/leaks.py",
    "geoloc_core/corpora/splits*.py",
    "geoloc_core/corpora/truth.py",
    "geoloc_core/evaluation/*.py",
    "geoloc_core/families/**/*.py",
    "geoloc_core/training/*.py",
)
LONGEST_S = 30
"""A test that takes longer is asked about no mutant: 300 of them are to be tried in an hour."""
PLUMBING = {"ahead", "captions", "checkpoints", "photos", "processes"}
"""Modules of the training that move data and files: nothing is learned there."""
COMPILED = {"kernels"}
"""What numba compiles: it can neither note its lines nor be read from memory."""
TESTS = (
    *("contracts", "evaluation", "families", "params", "serving", "training", "variants"),
    *("corpora/test_label.py", "corpora/test_leaks.py", "corpora/test_splits.py", "corpora/test_truth.py"),
)
DECLARATIONS = "tests/geoloc_core/params/test_reference.py"
"""Tests of what may be declared: they read the classes, of which no line runs then."""
HEAVY = (
    *("torch", "torch._dynamo", "torchvision", "numpy", "pandas", "pyarrow.parquet", "scipy.optimize", "scipy.spatial"),
    *("scipy.stats", "sklearn.cluster", "pydantic", "safetensors.torch", "PIL.Image", "hypothesis", "timm", "jinja2"),
    *("numba", "matplotlib.pyplot", "shapely", "lightning_fabric", "yaml", "rich", "typer", "httpx", "psutil"),
)
"""Imported once, before the forks; none of them imports geoloc."""
_KEPT = "net.load_state_dict(keeper.weights)"
CLASSIC = (
    ("losses", "cross_entropy(logits, truth, weights)", "cross_entropy(logits, truth)"),
    ("photo_classifier", "cross_entropy(logits, truth, weights, reduction", "cross_entropy(logits, truth, reduction"),
    ("fitting", _KEPT, "pass"),
    ("networks", _KEPT, "pass"),
    ("features", "x = x.sub_(self._mean)", "pass"),
    ("features", "x if self._std is None else x.div_(self._std)", "x"),
)
"""Faults that a training hides well, tried each time beside the sample: class weights left out of the loss, the last
epoch kept instead of the best, features not standardised."""
FACTOR, GRACE_S = 10, 10
WAITING = 30
"""So many times its limit by the processor's clock may a fork take by the wall's: it may wait for others."""
MEMORY = 2**35


# ---------------------------------------------------------------------------------------------- which test reaches what


@dataclass
class Coverage:
    """What a run without a fault showed.

    Attributes:
        seconds: Of the processor, of each test, with the fixtures it shares with others.
        reached: (path, line) → tests; lines inside functions alone.
        files: Digest of each test file.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    files: dict[str, str] = field(default_factory=dict)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that reach a mutant, fastest first.

        Of code that runs at import, all in the files with a test that reaches its file, or, where none does, a file
        that imports it; and those of declarations. The tests of a file stay together: they share fixtures.
        """
        first, last = mutant.lines if mutant.function else (0, 10**9)
        found = self._within({mutant.path}, first, last)
        if not mutant.function:
            found = found or self._within(importers(mutant.path), 0, 10**9)
            files = {test.split("::")[0] for test in found} | {DECLARATIONS}
            found = {test for test in self.seconds if test.split("::")[0] in files}
        fastest: dict[str, float] = defaultdict(lambda: math.inf)
        for test in found:
            file = test.split("::")[0]
            fastest[file] = min(fastest[file], self.seconds[test])

        def order(test: str) -> tuple[float, str, float, str]:
            file = test.split("::")[0]
            return fastest[file], file, self.seconds[test], test

        return sorted(found, key=order)

    def _within(self, paths: set[str], first: int, last: int) -> set[str]:
        """The tests that reach some lines of some files."""
        near = (tests for (path, line), tests in self.reached.items() if path in paths and first <= line <= last)
        return set().union(*near)

    def forget(self, files: set[str]) -> None:
        """Drop what the tests of some files showed."""
        gone = {test for test in self.seconds if test.split("::")[0] in files}
        for tests in self.reached.values():
            tests -= gone
        for test in gone:
            del self.seconds[test]

    def add(self, other: "Coverage") -> None:
        """Take in what other tests showed."""
        self.seconds |= other.seconds
        for line, tests in other.reached.items():
            self.reached[line] |= tests

    def save(self, path: Path) -> None:
        reached = [[name, line, sorted(tests)] for (name, line), tests in self.reached.items()]
        path.write_text(json.dumps({"seconds": self.seconds, "reached": reached, "files": self.files}))

    @classmethod
    def load(cls, path: Path) -> "Coverage":
        found = cls()
        if path.exists() and (text := path.read_text()):
            state = json.loads(text)
            found.seconds, found.files = state["seconds"], state["files"]
            for name, line, tests in state["reached"]:
                found.reached[name, line] = set(tests)
        return found


def importers(path: str) -> set[str]:
    """The files that import a module by its full name."""
    name = module_name(path)
    line = re.compile(rf"^\s*(from {re.escape(name)} import|import {re.escape(name)}\b)", re.MULTILINE)
    sources = (ROOT / "geoloc_core").rglob("*.py")
    return {str(file.relative_to(ROOT)) for file in sources if line.search(file.read_text())}


def module_name(path: str) -> str:
    """The module in a file."""
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


class Tracer:
    """A plugin of pytest that notes what each test reaches of files whose code is :func:`marked`.

    A test that fails counts for nothing: some need more than a fork is given, such as a browser. Neither does one that
    takes longer than :data:`LONGEST_S`.

    What a fixture of a module or session reaches counts for every test that uses it, and what tests keep in a cache is
    worked out anew for each: otherwise it would count for the first of them alone.
    """

    def __init__(self) -> None:
        self.coverage = Coverage()
        self._lines: set[tuple[str, int]] = set()
        self._shared: dict[str, tuple[set[tuple[str, int]], float]] = {}
        self.failed: set[str] = set()
        self._note(set())

    def _note(self, lines: set[tuple[str, int]]) -> None:
        self._lines = builtins.__reached__ = lines  # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        _forget()
        self._note(set())
        began = time.process_time()
        try:
            return (yield)
        finally:
            seconds, lines = time.process_time() - began, self._lines
            for name in getattr(item, "fixturenames", ()):
                if name in self._shared:
                    lines = lines | self._shared[name][0]
                    seconds += self._shared[name][1]
            if item.nodeid not in self.failed and seconds < LONGEST_S:
                self.coverage.seconds[item.nodeid] = seconds
                for line in lines:
                    self.coverage.reached[line].add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        if fixturedef.scope == "function":
            return (yield)
        outer, began = self._lines, time.process_time()
        self._note(set())
        try:
            return (yield)
        finally:
            # the same name in another module replaces it: modules run one after the other
            self._shared[fixturedef.argname] = (self._lines, time.process_time() - began)
            self._note(outer | self._lines)


def _forget() -> None:
    """Empties what tests and geoloc keep from call to call."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("tests.", "geoloc_core.")):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


class Chosen:
    """A plugin of pytest that runs some tests alone, in a given order, and notes the first that fails."""

    def __init__(self, tests: list[str]) -> None:
        self._place = {test: i for i, test in enumerate(tests)}
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._place), key=lambda i: self._place[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


# ------------------------------------------------------------------------------------------------------ forks of pytest


class Overlay(importlib.abc.MetaPathFinder):
    """Imports some files from changed code in memory."""

    def __init__(self, codes: dict[str, CodeType]) -> None:
        self._codes = {module_name(path): (path, code) for path, code in codes.items()}

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in self._codes:
            return None
        place, code = self._codes[name]
        loader = SourceFileLoader(name, str(ROOT / place))
        loader.get_code = lambda name: code  # type: ignore[method-assign, assignment]
        return importlib.util.spec_from_file_location(name, ROOT / place, loader=loader)


@dataclass(frozen=True)
class Outcome:
    """How the tests ended: ``killed``, ``timeout`` or ``survived``; the test that failed; seconds."""

    how: str
    by: str
    seconds: float


def forked(work: Callable[[Path], int], limit_s: int = 10**6) -> tuple[int | None, str, float]:
    """Does some work in a fork: its exit code (None: it took too long), what it left in ``said``, seconds."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        began = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                sink = os.open(Path(folder) / "out", os.O_CREAT | os.O_WRONLY)
                for stream in (1, 2):
                    os.dup2(sink, stream)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.environ["TMPDIR"] = tempfile.tempdir = folder
                code = work(Path(folder))
            finally:
                os._exit(code)
        status = None
        while status is None and time.perf_counter() - began < WAITING * limit_s:
            done, found = os.waitpid(pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(found) if done else None
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # also what the tests may have started
        if status is None:
            os.waitpid(pid, 0)
        said = Path(folder) / "said"
        text = said.read_text() if said.exists() else (Path(folder) / "out").read_text()[-2000:]
        return None if status == -signal.SIGXCPU else status, text, time.perf_counter() - began


def run_tests(files: list[str], plugin: object, folder: Path) -> int:
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder / 'tmp'}"]
    return int(pytest.main([*options, *files], plugins=[plugin]))


def covered(paths: list[str], kept: Path) -> Coverage:
    """What the tests reach; they are run, without a fault, where their files or the sources are new or have changed."""
    known = Coverage.load(kept)
    sources = hashlib.sha256("".join(digest(ROOT / path) for path in paths).encode()).hexdigest()[:16]
    for room in TESTS:
        found = ROOT / "tests" / "geoloc_core" / room
        tests = [found] if found.is_file() else found.glob("test_*.py")
        files = {str(p.relative_to(ROOT)): f"{digest(p)} {sources}" for p in tests}
        if stale := sorted(path for path, mark in files.items() if known.files.get(path) != mark):
            known.forget(set(stale))
            known.add(_traced(stale, paths))
            known.files |= files
            known.save(kept)
    return known


def _traced(files: list[str], paths: list[str]) -> Coverage:
    with tempfile.NamedTemporaryFile() as kept:

        def work(folder: Path) -> int:
            sys.meta_path.insert(0, Overlay({path: marked(ROOT, path) for path in paths}))
            tracer = Tracer()
            code = run_tests(files, tracer, folder)
            tracer.coverage.save(Path(kept.name))
            (folder / "said").write_text(
                "".join(f"left out, fails without a fault: {t}\n" for t in sorted(tracer.failed))
            )
            return code

        code, said, _ = forked(work)
        if code not in (0, 1):
            raise SystemExit(f"the tests did not run:\n{said}")
        print(said, end="", flush=True)
        return Coverage.load(Path(kept.name))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def outcome(mutant: Mutant, code: CodeType, coverage: Coverage) -> Outcome:
    """What becomes of a mutant."""
    tests = coverage.tests_of(mutant)
    if not tests:
        return Outcome("survived", "no test reaches it", 0.0)

    def work(folder: Path) -> int:
        sys.meta_path.insert(0, Overlay({mutant.path: code}))
        for file in dict.fromkeys(test.split("::")[0] for test in tests):  # most end in the first of them
            chosen = Chosen(tests)
            result = run_tests(["-x", file], chosen, folder)
            if result != 0:
                break
        (folder / "said").write_text(chosen.failed)
        return result

    status, said, seconds = forked(work, math.ceil(FACTOR * sum(coverage.seconds[test] for test in tests) + GRACE_S))
    if status in (5, 70):
        raise SystemExit(f"{mutant}: the tests did not run: {said}")
    if status is None:
        return Outcome("timeout", "", seconds)
    if status == 0:
        return Outcome("survived", "", seconds)
    return Outcome("killed", said if status == 1 else "import", seconds)


# ----------------------------------------------------------------------------------------------------------- the sample


def drawn(mutants: dict[str, list[Mutant]], count: int, seed: int) -> list[Mutant]:
    """So many mutants in a random order: of each file its share by largest remainder, one at least."""
    total = sum(map(len, mutants.values()))
    count = min(count, total)
    quotas = {path: count * len(found) / total for path, found in mutants.items() if found}
    shares = {path: max(1, math.floor(quota)) for path, quota in quotas.items()}
    by_rest = sorted(quotas, key=lambda path: shares[path] - quotas[path])
    for path in by_rest[: max(0, count - sum(shares.values()))]:
        shares[path] += 1
    made = random.Random(seed)
    found = [mutant for path, share in shares.items() for mutant in made.sample(mutants[path], share)]
    made.shuffle(found)
    return found


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return middle - half, middle + half


def main(mutants: int, seed: int, only: str, jobs: int, state: Path | None) -> None:
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    paths = sorted({str(p.relative_to(ROOT)) for pattern in SCIENCE for p in ROOT.glob(pattern)})
    paths = [path for path in paths if Path(path).stem not in PLUMBING | COMPILED]
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        sys.pycache_prefix = f"{folder}/compiled"
        state = state or Path(folder)
        state.mkdir(exist_ok=True)
        known = covered(paths, state / "coverage.json")
        made = {path: mutants_of(ROOT, path) for path in paths if only in path}
        print(f"{machine()}; {sum(map(len, made.values())):,} mutants of {len(made)} files, seed {seed}\n", flush=True)
        row("mutant", "change", "outcome", "by")
        row("---", "---", "---", "---")
        sample = ((mutant, applied(ROOT, mutant)) for mutant in drawn(made, mutants, seed))
        faults = itertools.chain(classic(only), ((mutant, *change) for mutant, change in sample if change is not None))
        met = tried(faults, known, jobs, state / "outcomes.json")
        summary([(mutant, found) for mutant, found in met if mutant.number >= 0])


def classic(only: str) -> Iterator[tuple[Mutant, ast.Module, str]]:
    """The faults of :data:`CLASSIC`, in the files whose path contains something."""
    for name, old, new in CLASSIC:
        if only in (path := f"geoloc_core/training/{name}.py"):
            yield *rewritten(ROOT, path, old, new), f"{old} → {new}"


def tried(
    faults: Iterable[tuple[Mutant, ast.Module, str]], known: Coverage, jobs: int, kept: Path
) -> Iterator[tuple[Mutant, Outcome]]:
    """What becomes of mutants, each with its code and in words; what an earlier run killed stays dead."""
    before: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}

    def met(fault: tuple[Mutant, ast.Module, str]) -> tuple[Mutant, str, Outcome]:
        mutant, tree, words = fault
        found = Outcome(*before.get(_title(mutant, words), ("", "", 0.0)))
        if found.how not in ("killed", "timeout"):
            found = outcome(mutant, compile(tree, str(ROOT / mutant.path), "exec"), known)
        return mutant, words, found

    with ThreadPoolExecutor(jobs) as pool:  # a fork leaves only the thread that made it, which becomes the main one
        for mutant, words, found in pool.map(met, faults):
            before[_title(mutant, words)] = (found.how, found.by, found.seconds)
            kept.write_text(json.dumps(before))
            row(f"{mutant.path}:{mutant.line}", f"`{words}`", found.how, f"{found.by} {found.seconds:.1f} s")
            yield mutant, found


def _title(mutant: Mutant, words: str) -> str:
    return f"{mutant.path}:{mutant.line} {mutant.number} {words}"


def summary(met: list[tuple[Mutant, Outcome]]) -> None:
    """Tables of the files and of all."""
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, found in met:
        for name in (mutant.path, "all"):
            tally[name][found.how] += 1
    print()
    row("file", "mutants", "killed", "of them by the clock", "survived")
    row("---", "---:", "---:", "---:", "---:")
    for path in [*sorted(tally.keys() - {"all"}), "all"]:
        counts = tally[path]
        row(path, counts.total(), counts["killed"] + counts["timeout"], counts["timeout"], counts["survived"])
    n, dead = counts.total(), counts["killed"] + counts["timeout"]
    low, high = wilson(dead, n)
    print(f"\n{dead / n:.1%} killed (95 % interval {low:.1%} to {high:.1%})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose path contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument("--state", type=Path, help="keeps what a run found, for a later one to go on from")
    main(**vars(parser.parse_args()))
