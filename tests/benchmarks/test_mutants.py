"""A mutant has one fault, in what is computed and never in what is said; and each statement is known to be reached."""

import builtins

import pytest
from mutants import applied, marked, mutants_of
from mutation import Coverage, drawn, wilson

CODE = '''
"""A module."""
from typing import Literal
LIMIT = 3
Kind = Literal["a", "b"]

def area(xs: list[int], scale: float = 2.0, *, last=False) -> float:
    """Of xs."""
    if not xs or xs[0] < 0:
        raise ValueError(f"{len(xs) + 1}")
    total = max(xs, key=abs) * scale
    total += xs[-1]
    say(1 + 1)
    xs.append(0)
    return total
'''
CHANGES = [
    "3 → 4",
    "False → True",
    "2.0 → 4.0",
    "not xs or xs[0] < 0 → not xs and xs[0] < 0",
    "not xs → xs",
    "xs[0] < 0 → xs[0] <= 0",
    "0 → 1",
    "0 → -1",
    "0 → 1",
    "max(xs, key=abs) * scale → max(xs, key=abs) / scale",
    "max(xs, key=abs) → max(xs)",
    "max(xs, key=abs) → min(xs, key=abs)",
    "total += xs[-1] → total -= xs[-1]",
    "total += xs[-1] → (dropped)",
    "-1 → 0",
    "xs.append(0) → (dropped)",
    "0 → 1",
    "return total → return None",
]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "some.py").write_text(CODE)
    return tmp_path


def test_the_faults_of_a_file(root):
    made = mutants_of(root, "some.py")
    assert [applied(root, mutant)[1] for mutant in made] == CHANGES
    where = {change: (mutant.lines, mutant.function) for change, mutant in zip(CHANGES, made, strict=True)}
    assert where["3 → 4"] == ((4, 4), False)
    assert where["2.0 → 4.0"] == ((7, 15), True), "a head is reached where its function is"
    assert where["not xs → xs"] == ((9, 9), True), "a condition, without what hangs on it"


def test_a_mutant_behaves_as_it_says_and_the_file_stays(root):
    found = {}
    for mutant in mutants_of(root, "some.py"):
        tree, words = applied(root, mutant)
        names = {"say": lambda value: None}
        exec(compile(tree, "some.py", "exec"), names)
        try:
            found[words] = names["area"]([3, 1])
        except ValueError as error:
            found[words] = str(error)
    assert found["not xs → xs"] == "3"
    assert found["2.0 → 4.0"] == 13
    assert found["max(xs, key=abs) → min(xs, key=abs)"] == 3
    assert found["total += xs[-1] → (dropped)"] == 6
    assert found["-1 → 0"] == 9
    assert found["return total → return None"] is None
    assert (root / "some.py").read_text() == CODE


def test_what_changes_nothing_is_no_mutant(root):
    (root / "some.py").write_text("import math\nx = 1e400\n")
    assert [applied(root, mutant) for mutant in mutants_of(root, "some.py")] == [None]


def test_marked_code_tells_which_lines_it_reached(root, monkeypatch):
    monkeypatch.setattr(builtins, "__reached__", set(), raising=False)
    names = {"say": lambda value: None}
    exec(marked(root, "some.py"), names)
    assert builtins.__reached__ == set(), "what runs at import is no test's"
    assert names["area"]([3, 1]) == 7
    assert names["area"].__doc__ == "Of xs."
    assert builtins.__reached__ == {("some.py", line) for line in (9, 11, 12, 13, 14, 15)}


def test_tests_run_fastest_first_and_those_of_a_file_together(root):
    coverage = Coverage({"a::1": 3.0, "a::2": 1.0, "b::1": 2.0, "b::2": 9.0, "c::1": 0.5})
    for test, line in (("a::1", 11), ("a::2", 11), ("b::1", 12), ("b::2", 11), ("c::1", 15)):
        coverage.reached["some.py", line].add(test)
    made = dict(zip(CHANGES, mutants_of(root, "some.py"), strict=True))
    assert coverage.tests_of(made["max(xs, key=abs) → max(xs)"]) == ["a::2", "a::1", "b::2"]
    assert coverage.tests_of(made["3 → 4"]) == ["c::1", "a::2", "a::1", "b::1", "b::2"], "of all that reach the file"
    coverage.save(root / "kept.json")
    again = Coverage.load(root / "kept.json")
    assert (again.seconds, again.reached) == (coverage.seconds, coverage.reached)
    again.forget({"a"})
    assert again.tests_of(made["max(xs, key=abs) → max(xs)"]) == ["b::2"]


def test_every_file_gives_its_share_of_the_sample(root):
    for name, lines in (("large.py", 60), ("small.py", 38), ("tiny.py", 2)):
        (root / name).write_text("x = 2\n" * lines)
    made = {name: mutants_of(root, name) for name in ("large.py", "small.py", "tiny.py")}
    found = drawn(made, 10, 0)
    assert sorted(mutant.path for mutant in found) == ["large.py"] * 6 + ["small.py"] * 3 + ["tiny.py"]
    assert len(set(found)) == len(found)
    assert found == drawn(made, 10, 0) != drawn(made, 10, 1)
    assert len(drawn(made, 999, 0)) == 100


def test_the_interval_of_wilson():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
