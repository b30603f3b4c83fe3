"""How many threads a stage computes with."""

import os

import pytest

from geoloc_core import threads


@pytest.mark.parametrize("stated", ["", "0", "many"])
def test_where_no_number_is_stated_each_core_has_a_worker(monkeypatch, stated):
    monkeypatch.setenv(threads.VARIABLE, stated)
    assert threads.workers() == os.cpu_count()


def test_there_are_as_many_workers_as_are_stated(monkeypatch):
    monkeypatch.setenv(threads.VARIABLE, "3")
    assert threads.workers() == 3
