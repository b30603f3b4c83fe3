"""Each command with each of its inputs missing, of another kind or damaged: one clear line, and no traceback."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click import ClickException
from click.testing import CliRunner

from geoloc_core.cli import geoloc
from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries, geocells

pytestmark = pytest.mark.slow

COMMANDS = {
    "locate csv": "locate points.csv --boundaries boundaries --out new.csv",
    "locate parquet": "locate points.parquet --boundaries boundaries --out new.parquet",
    "locate in a file": "locate points.csv --boundaries units.gpkg --out new.csv",
    "locate with an index": "locate points.csv --boundaries units.gpkg --index kept --out new.csv",
    "build": "cells build points.csv --scheme admin --boundaries boundaries --out new",
    "assign": "cells assign points.parquet --cells made --out new.parquet",
    "assign elsewhere": "cells assign points.csv --cells made --boundaries boundaries --out new.csv",
    "map": "cells map made --out new.html",
    "export": "cells export made --out new.csv",
}
INPUTS = ("points.csv", "points.parquet", "units.gpkg", "boundaries", "made", "kept")
GIVEN = [(name, word) for name, line in COMMANDS.items() for word in line.split() if word in INPUTS]
OPTIONAL = ("kept",)
"""What is made where it is missing, and made anew where it is no use."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, kept_levels) -> Path:
    """A folder with all that the commands read."""
    root = tmp_path_factory.mktemp("whole")
    boundaries.write(kept_levels, root / "boundaries")
    for level, frame in kept_levels.items():
        frame.to_file(root / "units.gpkg", layer=f"ADM_{level}")
    table = pd.DataFrame({"latitude": [2.0, 2.5, 7], "longitude": [3.0, 13, 4], "name": ["a", "b", "c"]})
    table.to_csv(root / "points.csv", index=False)
    table.to_parquet(root / "points.parquet")
    options = geocells.check({"kind": "s2", "tau_min": 1, "tau_max": 2})
    geocells.build(options, table["latitude"], table["longitude"], root / "boundaries").save(root / "made")
    assert call(root, "locate with an index") is None
    (root / "new.csv").unlink()
    return root


@pytest.fixture
def place(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "place")
    return tmp_path / "place"


def call(folder: Path, name: str) -> str | None:
    """What a command says is wrong; None where it has done its work."""
    words = [
        str(folder / word) if word in INPUTS or word.startswith("new") else word for word in COMMANDS[name].split()
    ]
    result = CliRunner().invoke(geoloc, words, standalone_mode=False)
    if result.exception is None:
        return None
    if not isinstance(result.exception, UserError | ClickException):
        raise result.exception
    said = str(result.exception)
    assert "\n" not in said.strip()
    assert not re.search(r" at 0x|object at|Traceback", said)
    return said


def files_of(path: Path) -> list[Path]:
    return sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]


def other_kind(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("latitude,longitude\n1,2\n")
    else:
        path.unlink()
        path.mkdir()


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def hidden(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.chmod(0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_does_its_work_on_whole_inputs(place, name):
    assert call(place, name) is None


@pytest.mark.parametrize("spoil", [other_kind, removed, hidden])
@pytest.mark.parametrize(("name", "given"), GIVEN)
def test_an_input_that_is_missing_or_another_kind_is_named(place, name, given, spoil):
    spoil(place / given)
    said = call(place, name)
    if given in OPTIONAL and spoil is removed:
        assert said is None
        return
    assert said is not None
    assert str(place / given) in said
    assert [path.name for path in place.iterdir() if path.name.startswith("new")] == []


CONTENTS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "noise": lambda data: np.random.default_rng(1).bytes(len(data)),
    "other": lambda data: b"[1]",
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize(("name", "given"), GIVEN)
def test_each_file_of_an_input_may_be_damaged(place, name, given, kind):
    """What a command reads of an input is named; what it does not read is no matter."""
    said = []
    for file in files_of(place / given):
        data = file.read_bytes()
        file.write_bytes(CONTENTS[kind](data))
        said.append(call(place, name))
        file.write_bytes(data)
        assert said[-1] is None or given in said[-1]
    assert given in OPTIONAL or any(said)


@pytest.mark.parametrize(("name", "given"), GIVEN)
def test_spoilt_bytes_are_named_or_do_no_harm(place, name, given):
    random = np.random.default_rng(len(name))
    if given in ("boundaries", "kept"):
        pytest.skip("an index is mapped into memory, where nothing tells one number from another")
    for file in files_of(place / given):
        data = file.read_bytes()
        for _ in range(12):
            spoilt = bytearray(data)
            for at in random.integers(len(data), size=random.integers(1, 4)):
                spoilt[at] = random.integers(256)
            file.write_bytes(spoilt)
            call(place, name)
        file.write_bytes(data)
