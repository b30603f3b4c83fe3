import pytest

from geoloc_core import progress


@pytest.mark.parametrize(
    ("done", "total", "seconds", "says"),
    [
        (20, 100, 10, "20 of 100 photos, 2/s, 0:00:40 left"),
        (30_000, 4_000_000, 20, "30,000 of 4,000,000 photos, 1,500/s, 0:44:07 left"),
        (0, 100, 11, "0 of 100 photos"),
        (7, None, 70, "7 photos, 0.1/s"),
        (5, 4, 1, "5 of 4 photos, 5/s, 0:00:00 left"),
    ],
)
def test_a_line_says_how_far_how_fast_and_how_long(done, total, seconds, says):
    assert progress._state(done, total, "photos", seconds) == says


def test_items_pass_unchanged_whatever_they_weigh():
    assert list(progress.track(iter([3, 1, 2]), "count", 6, "photos", int)) == [3, 1, 2]
    assert list(progress.track("abc", "letters")) == ["a", "b", "c"]


def test_a_terminal_shows_speed_and_the_time_left(monkeypatch):
    from rich.console import Console

    console = Console(force_terminal=True, record=True, width=120)
    monkeypatch.setattr(progress, "console", console)
    assert list(progress.track([250, 250], "encode", 500, "photos", int)) == [250, 250]
