"""Classes of rows: what the labels name, or the cell that a place lies in; of a row without either, none."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from geoloc_core.contracts.truth import class_ids

KNOWN = pd.DataFrame({
    "gid_0": ["FRA", None, np.nan, "KEN"],
    "gid_1": ["FRA.1", None, "X.1", None],
    "latitude": [10.0, np.nan, -20.0, 50.0],
    "longitude": [1.0, 2.0, 3.0, np.nan],
})  # fmt: skip
HALVES = SimpleNamespace(
    assign=lambda latitudes, longitudes: np.where(latitudes > 0, 1, np.where(latitudes > -10, 0, -1)),
    space=SimpleNamespace(ids=["south", "north"]),
)


@pytest.mark.parametrize("dtype", ["str", object])
@pytest.mark.parametrize(
    ("labels", "expected"), [("country", ["FRA", None, None, "KEN"]), ("subdivision", ["FRA.1", None, "X.1", None])]
)
def test_units_are_those_of_the_labels(labels, expected, dtype):
    known = KNOWN.astype({"gid_0": dtype, "gid_1": dtype})
    assert class_ids(known, labels).tolist() == expected


def test_an_attribute_is_a_class_by_itself():
    known = KNOWN.assign(attribute=["7", None, np.nan, "London"])
    assert class_ids(known, "square").tolist() == ["7", None, None, "London"]


def test_a_row_without_coordinates_is_in_no_cell_and_a_place_outside_all_neither():
    assert class_ids(KNOWN, "semantic", HALVES).tolist() == ["north", None, None, None]


def test_the_first_cell_is_one_like_the_others():
    known = KNOWN.assign(latitude=[10.0, -5.0, -20.0, 50.0])
    assert class_ids(known, "semantic", HALVES).tolist() == ["north", "south", None, None]


def test_no_rows_have_no_classes():
    assert class_ids(KNOWN.iloc[:0], "country").tolist() == []
    assert class_ids(KNOWN.iloc[:0], "semantic", HALVES).tolist() == []
