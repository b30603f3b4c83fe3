import json
import sys

import dagster as dg
import pytest
from PIL import Image

from orchestration.promotion import promotion, version
from tests.orchestration.small_project import replace

RESULT = {
    "promoted": True,
    "model": "x",
    "champion": {"variant": "mlp", "score": 0.5, "version": 3},
    "metric": "within_750km",
}


def promote(root, script):
    (root / ".state").mkdir(exist_ok=True)
    asset = promotion(root, ["leaderboard"], [sys.executable, "-c", script])
    return dg.materialize([asset], raise_on_error=False)


def test_the_champion_is_shown(project):
    script = f"open('.state/promotion.json', 'w').write({json.dumps(RESULT)!r}); print('mlp is champion')"
    result = promote(project, script)
    (made,) = result.asset_materializations_for_node("promote")
    assert made.metadata["promoted"].value is True
    assert made.metadata["champion"].records[1].data == {"champion": "score", "value": 0.5}
    assert made.metadata["registry"].value == "/mlflow/models/x/versions/3"


SHIFT = {"kind": "features", "what": "features of a by b", "size": 0.2, "chance": 0.002, "limit": 0.05, "told": "x"}


def test_what_has_moved_is_a_check_that_warns_and_fails_nothing(project):
    script = f"open('.state/promotion.json', 'w').write({json.dumps(RESULT)!r})"

    def checks():
        done = promote(project, script)
        assert done.success
        return {found.check_name: found for found in done.get_asset_check_evaluations()}

    assert all(found.passed for found in checks().values()), "nothing to compare with"
    note = project / ".state" / "shift.json"
    note.write_text(json.dumps([SHIFT | {"warns": True}, SHIFT | {"kind": "answers", "warns": False}]))
    Image.new("RGB", (2, 2)).save(project / ".state" / "shift.png")
    found = checks()
    assert (found["features"].passed, found["answers"].passed) == (False, True)
    assert found["features"].severity == dg.AssetCheckSeverity.WARN
    assert found["features"].metadata["moved"].records[0].data["size"] == 0.2
    assert "data:image/png" in found["features"].metadata["plot"].md_str


def test_a_failure_is_the_command_s_own_words(project):
    result = promote(project, "import sys; print('geoloc: error: no leaderboard', file=sys.stderr); sys.exit(2)")
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert event.step_failure_data.user_failure_data.description == "promote: no leaderboard"


@pytest.mark.parametrize(("old", "changes"), [("registry: {metric: a}", True), ("seed: 1", False)])
def test_its_recipe_is_the_registry_s_parameters(project, old, changes):
    replace(project / "params.yaml", "  seed: 1", "  seed: 1\n  registry: {metric: a}")
    before = version(project)
    replace(project / "params.yaml", old, old.replace("a}", "b}").replace("1", "2"))
    assert (version(project) != before) == changes
