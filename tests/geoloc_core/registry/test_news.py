"""The hook hears of every champion once, whoever made it."""

import json
import sys

import pytest

from geoloc_core.project import Project
from geoloc_core.registry.decision import Contender, Decision
from geoloc_core.registry.news import tell

KEEP = [sys.executable, "-c", "import sys; open('told.jsonl', 'a').write(sys.stdin.read())"]


def decided(version, promoted, rule="evidence"):
    contender = Contender(version=version, variant="linear", run_id="", score=None)
    return Decision(
        rule=rule, promoted=promoted, why="it is better", model="m", metric="a/b", champion=contender,
        candidate=contender,
    )  # fmt: skip


def with_hook(project, hook):
    """The project with another hook."""
    operations = project.profile.operations.model_copy(update={"hook": hook})
    profile = project.profile.model_copy(update={"operations": operations})
    return Project(project.root, profile)


@pytest.fixture
def project(tiny_project):
    tiny_project.state.mkdir(exist_ok=True)
    return with_hook(tiny_project, tuple(KEEP))


def causes(project):
    path = project.root / "told.jsonl"
    return [json.loads(line)["cause"] for line in path.read_text().splitlines()] if path.exists() else []


def test_each_champion_is_told_once_and_no_other_decision_is(project, monkeypatch):
    for version, promoted in ((1, True), (1, False), (1, False), (2, True), (2, False)):
        assert tell(project, decided(version, promoted)) is None
    now = "linear (version {}) is the champion now: it is better"
    assert causes(project) == [now.format(1), now.format(2)]
    assert tell(project, decided(1, True, "rolled back")) is None
    assert causes(project)[2:] == ["it is better; linear (version 1) is the champion again"]
    monkeypatch.setenv("GEOLOC_IN_RUN", "abc")
    assert tell(project, decided(3, True)) is None
    lines = [json.loads(line) for line in (project.root / "told.jsonl").read_text().splitlines()]
    assert [line["link"].partition("3000")[2] for line in lines[2:]] == ["/mlflow/models/m/versions/1", "/runs/abc"]
    assert {line["event"] for line in lines} == {"promotion"}


def test_a_promotion_that_was_killed_before_it_was_told_is_told_by_the_next(project):
    tell(project, decided(1, True))
    tell(project, decided(2, False))
    assert len(causes(project)) == 2


def test_a_hook_that_is_new_hears_of_no_old_champion(project):
    tell(with_hook(project, None), decided(1, True))
    tell(project, decided(1, False))
    assert causes(project) == []
    (project.state / "told.json").unlink()
    tell(project, decided(1, False))
    assert causes(project) == [], "as where an earlier version kept no note"


def test_what_goes_wrong_with_the_hook_is_one_line(project):
    broken = with_hook(project, ("/no/such/program",))
    assert tell(broken, decided(1, True)) == "operations.hook: /no/such/program: No such file or directory"
    (project.state / "told.json").write_text("{")
    assert tell(project, decided(1, True)) is None
    assert len(causes(project)) == 1
