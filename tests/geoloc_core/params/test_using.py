"""`geoloc use`: one line of params.yaml changes, and what follows from it is written."""

import shutil

import pytest
import yaml
from click.testing import CliRunner

from geoloc_core.cli import geoloc
from geoloc_core.contracts.needs import MOST
from geoloc_core.errors import UserError
from geoloc_core.params import load
from geoloc_core.params.using import use, used
from tests.conftest import ROOT


@pytest.fixture
def params(tmp_path):
    return shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["catalogue", "papers", "full", "demo"])
def test_one_line_changes_and_no_other(params, profile):
    before = params.read_bytes().splitlines(keepends=True)
    use(params, profile)
    after = params.read_bytes().splitlines(keepends=True)
    assert after[:-1] == before[:-1]
    assert after[-1] == f"run: *{profile}\n".encode()
    assert used(params) == profile
    use(params, "demo")
    assert params.read_bytes().splitlines(keepends=True) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"profiles:\r\n  a: &a {}\r\n  b: &b {n: 1}\r\nrun: *a\r\n",
         b"profiles:\r\n  a: &a {}\r\n  b: &b {n: 1}\r\nrun: *b\r\n"),
        (b"profiles:\n  a: &a {}\n  b: &other-one {n: 1}\nrun: *a  # mine\n",
         b"profiles:\n  a: &a {}\n  b: &other-one {n: 1}\nrun: *other-one  # mine\n"),
        (b"profiles:\n  a-a: &a-a {b: &x 3}\n  b: &b {n: 1}\nrun: *a-a",
         b"profiles:\n  a-a: &a-a {b: &x 3}\n  b: &b {n: 1}\nrun: *b"),
        (b"run: &r 1\n", None),
        (b"profiles:\n  b: &b 1\nrun: *b\n", b"profiles:\n  b: &b 1\nrun: *b\n"),
    ],
    ids=["line ends", "a comment", "dashes", "no profiles", "the same"],
)  # fmt: skip
def test_what_else_is_in_the_file_stays(tmp_path, text, expected):
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    if expected is None:
        with pytest.raises(UserError, match=r"profile 'b': not in .*; expected one of: none"):
            use(path, "b")
    else:
        use(path, "b")
    assert path.read_bytes() == (expected or text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profiles: [a, 1]\nrun: 1\n", "profile 'b': not in .*; expected one of: none"),
        ("[1]\n", "profile 'b': not in .*; expected one of: none"),
        ("profiles: {a: 1, c: 2}\nrun: 1\n", "profile 'b': not in .*; expected one of: a, c"),
        ("profiles:\n  a: &a 1\n  b: 2\nrun: *a\n", "profile 'b' has no anchor; expected `b: &b`"),
        ("profiles:\n  a: &a 1\n  b: &b 2\nrun: 1\n", "no line `run: ..profile.`; expected one"),
        ("profiles:\n  a: 1\n  b: &b 2\nrun: {c: *b}\n", "no line `run: ..profile.`; expected one"),
    ],
)
def test_what_cannot_be_changed_is_refused_in_one_line_and_stays(tmp_path, text, says):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as told:
        use(path, "b")
    assert "\n" not in str(told.value)
    assert path.read_text() == text


def test_a_profile_that_stands_under_run_in_full_has_no_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("run: {seed: 1}\n")
    assert used(path) == "run"


@pytest.mark.slow
def test_the_command_writes_what_follows_from_the_profile(params):
    done = CliRunner().invoke(geoloc, ["--params", str(params), "use", "papers"])
    assert done.exit_code == 0, done.output
    assert "the profile in use is papers" in done.output
    plan = yaml.safe_load((params.parent / "plan.yaml").read_text())["plan"]
    assert {name for count in range(1, MOST + 1) for name in plan[f"train_{count}"]} == {*load(params).variants}
    assert "linear_clip_country" in (params.parent / "code.yaml").read_text()


def test_the_command_refuses_what_is_not_there(params):
    before = params.read_bytes()
    done = CliRunner().invoke(geoloc, ["--params", str(params), "use", "paper"])
    assert isinstance(done.exception, UserError)
    assert "profile 'paper': not in " in str(done.exception)
    assert "expected one of: catalogue, demo, papers, full" in str(done.exception)
    assert params.read_bytes() == before
    assert not (params.parent / "plan.yaml").exists()
