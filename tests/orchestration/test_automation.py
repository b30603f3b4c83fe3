import dagster as dg
import pytest

from tests.orchestration.small_project import definitions, materialize, replace


def test_nothing_runs_by_itself_until_it_is_switched_on(project):
    repository = definitions(project).get_repository_def()
    assert [s.default_status for s in repository.schedule_defs] == [dg.DefaultScheduleStatus.STOPPED]
    assert [s.default_status for s in repository.sensor_defs] == [dg.DefaultSensorStatus.STOPPED]


def test_retraining_leaves_the_raw_files_alone(project):
    job = definitions(project).resolve_job_def("retrain")
    groups = {key.path[0] for key in job.asset_layer.selected_asset_keys}
    assert groups == {"ingest", "encode", "train_head"}


@pytest.mark.slow
@pytest.mark.usefixtures("checks_pass")
def test_the_sensor_asks_for_what_a_change_puts_out_of_date(project, instance):
    found = definitions(project)
    sensor = found.get_repository_def().get_sensor_def("changed_project")

    def look(cursor):
        return sensor(dg.build_sensor_context(instance=instance, cursor=cursor, definitions=found))

    assert materialize(project, instance).success
    first = look(None)
    assert first.run_requests == []
    assert isinstance(look(first.cursor), dg.SkipReason)
    replace(project / "params.yaml", "lr: 0.2", "lr: 0.3")
    (request,) = look(first.cursor).run_requests
    assert [key.path for key in request.asset_selection] == [["train_head", "mlp"]]
