import json
import sys

import dagster as dg
import pytest

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
