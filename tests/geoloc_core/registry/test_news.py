"""The hook hears of every champion once, whoever made it."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from geoloc_core.project import Project
from geoloc_core.registry.decision import Contender, Decision
from geoloc_core.registry.news import keep, tell

KEEP = [sys.executable, "-c", "import sys; open('told.jsonl', 'a').write(sys.stdin.read())"]


WHEN_UP = ["sh", "-c", "test -e up && cat >> told.jsonl"]
SLOW = ["sh", "-c", "touch heard; until test -e go; do sleep 0.05; done; cat >> told.jsonl"]


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


def after(project, decision):
    """What a promotion does with its decision."""
    keep(project, decision)
    return tell(project)


@pytest.fixture
def project(tiny_project):
    tiny_project.state.mkdir(exist_ok=True)
    return with_hook(tiny_project, tuple(KEEP))


def causes(project):
    path = project.root / "told.jsonl"
    return [json.loads(line)["cause"] for line in path.read_text().splitlines()] if path.exists() else []


def test_each_champion_is_told_once_and_no_other_decision_is(project, monkeypatch):
    for version, promoted in ((1, True), (1, False), (1, False), (2, True), (2, False)):
        assert after(project, decided(version, promoted)) is None
    now = "linear (version {}) is the champion now: it is better"
    assert causes(project) == [now.format(1), now.format(2)]
    assert after(project, decided(1, True, "rolled back")) is None
    assert causes(project)[2:] == ["it is better; linear (version 1) is the champion again"]
    monkeypatch.setenv("GEOLOC_IN_RUN", "abc")
    assert after(project, decided(3, True)) is None
    lines = [json.loads(line) for line in (project.root / "told.jsonl").read_text().splitlines()]
    assert [line["link"].partition("3000")[2] for line in lines[2:]] == ["/mlflow/models/m/versions/1", "/runs/abc"]
    assert {line["event"] for line in lines} == {"promotion"}
    assert {line["project"] for line in lines} == {f"{project.root.name}/m"}


def test_a_promotion_that_was_killed_before_it_was_noted_is_told_by_the_next(project):
    after(project, decided(1, True))
    after(project, decided(2, False))
    assert len(causes(project)) == 2


def test_a_hook_that_is_new_hears_of_no_old_champion(project):
    after(with_hook(project, None), decided(1, True))
    after(project, decided(1, False))
    assert causes(project) == []
    (project.state / "told.json").unlink()
    after(project, decided(1, False))
    assert causes(project) == [], "as where an earlier version kept no note"


def test_what_goes_wrong_with_the_hook_is_one_line(project):
    broken = with_hook(project, ("/no/such/program",))
    assert after(broken, decided(1, True)) == "operations.hook: /no/such/program: No such file or directory"
    (project.state / "told.json").write_text("{")
    assert after(project, decided(1, True)) is None
    assert len(causes(project)) == 1


@pytest.mark.slow
def test_what_the_hook_could_not_be_told_is_told_by_the_next_in_the_same_words(project):
    often_down = with_hook(project, tuple(WHEN_UP))
    for version in (1, 2):
        assert after(often_down, decided(version, True)) == "operations.hook: sh: exit code 1"
    assert causes(project) == []
    (project.root / "up").touch()
    for _ in range(2):
        assert after(often_down, decided(2, False)) is None
    now = "linear (version {}) is the champion now: it is better"
    assert causes(project) == [now.format(1), now.format(2)], "each once, in their order"


@pytest.mark.slow
def test_two_promotions_at_once_are_told_in_the_order_of_their_decisions(project):
    slow = with_hook(project, tuple(SLOW))
    keep(slow, decided(1, True))
    with ThreadPoolExecutor(1) as other:
        first = other.submit(tell, slow)
        try:
            while not (project.root / "heard").exists():
                time.sleep(0.01)
            assert after(slow, decided(2, True)) is None, "it does not wait: a hook may promote itself"
            assert causes(project) == []
        finally:
            (project.root / "go").touch()
        assert first.result() is None
    assert [cause.partition(" is")[0] for cause in causes(project)] == ["linear (version 1)", "linear (version 2)"]


def test_without_a_hook_nothing_is_kept_for_one(project):
    after(with_hook(project, ("false",)), decided(1, True))
    keep(with_hook(project, None), decided(2, True))
    assert tell(project) is None
    assert causes(project) == []
