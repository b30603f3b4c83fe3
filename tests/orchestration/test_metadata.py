import base64
import json

import dagster as dg

from orchestration.metadata import document, figures, mlflow_run, pages, picture, table


def test_a_summary_becomes_figures_and_tables():
    found = figures({"kept": 7, "loss": 0.5, "by_country": {"FRA": 3}, "benchmarks": {"im2gps": {"km": 1.23456789}}})
    assert found["dagster/row_count"] == 7
    assert found["loss"] == 0.5
    assert found["by_country"].records == [dg.TableRecord({"by_country": "FRA", "value": 3})]
    assert found["benchmarks"].records == [dg.TableRecord({"benchmarks": "im2gps", "km": 1.2346})]
    dg.MaterializeResult(metadata=found)


def test_rows_of_a_table_may_lack_columns_and_hold_lists():
    made = table([{"a": 1}, {"a": 2.5, "b": [1, 2]}])
    assert [record.data for record in made.records] == [{"a": 1, "b": None}, {"a": 2.5, "b": "[1, 2]"}]
    assert [column.type for column in made.schema.columns] == ["float", "string"]


def test_odd_values_do_not_break_a_summary():
    found = figures({"none": None, "empty": {}, "list": [1, 2], "mixed": {"a": 1, "b": {"c": 2}}, "rows": "many"})
    assert set(found) == {"list", "mixed", "rows"}


def test_a_picture_is_inside_the_metadata(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    assert base64.b64encode(b"png").decode() in picture(tmp_path / "a.png")["plot"].value
    assert picture(tmp_path / "none.png") == {}


def test_a_large_picture_is_only_named(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(1_000_001))
    assert isinstance(picture(tmp_path / "a.png")["plot"], dg.PathMetadataValue)


def test_a_run_is_linked_if_there_is_one(tmp_path):
    note = tmp_path / "x.json"
    assert mlflow_run(note) == {}
    note.write_text(json.dumps({"run_id": "r", "experiment_id": "1"}))
    assert mlflow_run(note)["mlflow_run"].value == "/mlflow/experiments/1/runs/r"


def test_the_pages_of_an_output_are_named(tmp_path):
    for name in ("report.html", "report.md"):
        (tmp_path / name).touch()
    assert pages(tmp_path) == {"report.html": dg.MetadataValue.path(str(tmp_path / "report.html"))}
    assert pages(tmp_path / "report.html") == pages(tmp_path / "none") == {}


def test_a_document_holds_its_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    (tmp_path / "large.png").write_bytes(bytes(1_000_001))
    (tmp_path / "a.md").write_text("# A\n\n![where](a.png)\n![gone](none.png) ![](large.png) [a](a.png)\n")
    held = base64.b64encode(b"png").decode()
    assert document(tmp_path / "a.md").value == (
        f"# A\n\n![where](data:image/png;base64,{held})\n![gone](none.png) ![](large.png) [a](a.png)\n"
    )
