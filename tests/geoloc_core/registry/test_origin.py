"""Where versions come from: what is kept of that, and what cannot be made again."""

import subprocess

import pytest

from geoloc_core.errors import UserError
from geoloc_core.files import digest, write_json
from geoloc_core.registry import origin, promotion

from .made_champion import make_project


@pytest.fixture
def project(tmp_path, database):
    """A project with a trained variant, and what DVC and the plan would have written beside it."""
    made = make_project(tmp_path / "project", database)
    for name in ("plan.yaml", "code.yaml", "dvc.lock"):
        (made.root / name).write_text(f"# {name}\n")
    return made


def commit(project):
    """Put the code, such as it is, into a git repository."""
    (project.root / "geoloc_core").mkdir(exist_ok=True)
    (project.root / "geoloc_core" / "code.py").write_text("x = 1\n")
    (project.root / ".gitignore").write_text("data\n.state\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=project.root, check=True)
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project.root, capture_output=True, text=True, check=True)
    return said.stdout.strip()


@pytest.mark.slow
def test_a_version_keeps_its_revision_its_lock_file_and_its_scores(project):
    revision, lock = commit(project), project.root / "dvc.lock"
    promotion.promote(project)
    lock.write_text("# of later\n")
    promotion.promote(project)
    with origin.of_version(project, 1) as (found, folder):
        assert (found.variant, found.commit, found.changed) == ("linear", revision, False)
        assert found.model_sha256 == digest(project.model("linear"))
        assert (folder / "dvc.lock").read_text() == "# dvc.lock\n"
        assert origin.differences(folder / origin.SCORES, project.scores("linear") / "scores.json") == []
        assert origin.count(folder / origin.SCORES) > 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda project: None, "of no known revision"),
        (
            lambda project: (commit(project), (project.root / "geoloc_core/code.py").write_text("x = 2\n")),
            "differs from",
        ),
        (lambda project: (commit(project), (project.root / "dvc.lock").unlink()), "without the dvc.lock of its time"),
    ],
    ids=["no repository", "changed code", "no lock file"],
)
def test_what_cannot_be_made_again_is_one_clear_line(project, prepare, says):
    prepare(project)
    promotion.promote(project)
    with pytest.raises(UserError, match=says) as said, origin.of_version(project, 1):
        pass
    assert "\n" not in str(said.value)
    assert "model 'geolocator' version 1: " in str(said.value)
    with pytest.raises(UserError, match="no version 2; expected one of: 1"), origin.of_version(project, 2):
        pass


def test_figures_that_differ_are_named(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    write_json(one, {"benchmarks": {"im2gps": {"n": 2, "nll": None, "mean_km": 1.5}}})
    write_json(other, {"benchmarks": {"im2gps": {"n": 2, "nll": None, "mean_km": 1.25, "ece": 3.0}}})
    assert origin.differences(one, one) == []
    assert origin.differences(one, other) == [
        "im2gps/ece: None then, 3.0 now",
        "im2gps/mean_km: 1.5 then, 1.25 now",
    ]
