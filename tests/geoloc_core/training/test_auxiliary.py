"""What auxiliary tasks learn of a place, value by value."""

import numpy as np
import pytest

from geoloc_core.training.auxiliary import Scale, Tasks, classes_of, read

PLAIN = Scale([], np.zeros(0), np.ones(0))


@pytest.mark.parametrize(
    ("name", "lowest", "other"),
    [
        ("elevation", -407.0, 8_000.0),  # 408 m are added, since Street View's lowest place lies 408 m below the sea
        ("population", 0.0, 20_000.0),
        ("temperature_range", 0.0, 30.0),
        ("precipitation_mean", 0.0, 12.0),
        ("precipitation_range", 0.0, 12.0),
    ],
)
def test_a_quantity_is_learned_as_the_logarithm_above_its_lowest_value(name, lowest, other):
    scale = Scale([name], np.zeros(1), np.ones(1))
    values = np.array([[lowest], [other]])
    found = scale.apply(values)
    assert found[:, 0] == pytest.approx([0, np.log(other - lowest + 1)], abs=1e-12)
    assert scale.undo(found) == pytest.approx(values)


def test_the_mean_temperature_is_learned_as_it_is():
    scale = Scale(["temperature_mean"], np.array([10.0]), np.array([2.0]))
    assert scale.apply(np.array([[-6.0], [np.nan]])) == pytest.approx(np.array([[-8.0], [np.nan]]), nan_ok=True)


def test_months_count_from_one_and_climates_from_nought():
    assert classes_of("month", np.array([1.0, 12.0, np.nan])).tolist() == [0, 11, -1]
    assert classes_of("climate", np.array([0.0, 29.0, np.nan])).tolist() == [0, 29, -1]
    tasks = Tasks(facts=("climate", "month"))
    outputs = np.zeros((2, tasks.width))
    outputs[0, [0, 30 + 11]], outputs[1, [29, 30]] = 1, 1
    told = read(tasks, PLAIN, outputs)
    assert tasks.width == 42
    assert (told["climate"].tolist(), told["month"].tolist()) == ([0, 29], [12, 1])
