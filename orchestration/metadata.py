"""The figures and plots of a stage as Dagster metadata."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_core.errors import UserError
from geoloc_core.files import read_json
from orchestration.dvc import Stage
from orchestration.reproduce import Outcome

Metadata = dict[str, Any]

_PICTURE = re.compile(r"!\[(?P<text>[^\]\n]*)\]\((?P<file>[^()/\n]+\.png)\)")

_ROW_COUNTS = ("rows", "kept")
_LARGEST_PICTURE = 1_000_000
"""In bytes. Plots are stored with every event, so of a larger one only the path is shown."""


def shown(root: Path, stage: Stage, outcome: Outcome) -> Metadata:
    """The metadata of a stage that was just brought up to date."""
    found: Metadata = {"dvc": "ran" if outcome.changed else "unchanged"}
    for path in stage.summaries:
        found |= figures(json.loads((root / path).read_text(encoding="utf-8")))
    for path in stage.plots:
        found |= picture(root / path)
    for path in stage.documents:
        found["document"] = document(root / path)
    if stage.look.mlflow:
        found |= mlflow_run(root / ".state" / "mlflow" / "runs" / f"{stage.look.mlflow}.json")
    for path in outcome.outputs:
        found |= pages(root / path)
    rows = [{"output": path, "md5": md5} for path, md5 in outcome.outputs.items()]
    return found | {"outputs": table(rows)}


def figures(summary: Mapping[str, Any]) -> Metadata:
    """The values of a summary one by one; nested ones as tables."""
    found: Metadata = {}
    for name, value in summary.items():
        if isinstance(value, Mapping) and value:
            found[name] = table(_rows(name, value))
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            found[name] = table(value)
        elif isinstance(value, bool | int | float | str):
            found[name] = value
        elif value not in (None, {}, []):
            found[name] = json.dumps(value, ensure_ascii=False)
    counted = next((summary[name] for name in _ROW_COUNTS if isinstance(summary.get(name), int)), None)
    return found if counted is None else {"dagster/row_count": counted, **found}


def _rows(name: str, value: Mapping[str, Any]) -> list[dict[str, Any]]:
    if all(isinstance(item, Mapping) for item in value.values()):
        return [{name: key, **item} for key, item in value.items()]
    return [{name: key, "value": item} for key, item in value.items()]


def table(rows: list[Any]) -> dg.TableMetadataValue:
    """Rows as a table; columns that a row lacks stay empty."""
    columns = list(dict.fromkeys(str(column) for row in rows for column in row))
    records = [dg.TableRecord({column: _cell(row.get(column)) for column in columns}) for row in rows]
    kinds = {column: _kind([record.data[column] for record in records]) for column in columns}
    schema = dg.TableSchema(columns=[dg.TableColumn(column, kinds[column]) for column in columns])
    return dg.TableMetadataValue(records=records, schema=schema)


def _cell(value: Any) -> str | int | float | bool | None:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if value is None or isinstance(value, str | int | bool):
        return value
    return json.dumps(value, ensure_ascii=False)


def _kind(values: list[Any]) -> str:
    known = {type(value) for value in values if value is not None}
    if known == {int}:
        return "int"
    return "float" if known and known <= {int, float} else "string"


def picture(path: Path) -> Metadata:
    """A PNG embedded in the metadata, which needs no file server to be shown."""
    if not path.exists():
        return {}
    inside = _inside(path)
    return {"plot": dg.MetadataValue.md(f"![{path.stem}]({inside})") if inside else dg.MetadataValue.path(str(path))}


def pages(folder: Path) -> Metadata:
    """The HTML pages at the top of an output, to be opened in a browser."""
    return {path.name: dg.MetadataValue.path(str(path)) for path in sorted(folder.glob("*.html"))}


def document(path: Path) -> dg.MarkdownMetadataValue:
    """A Markdown document, with its PNGs embedded."""

    def shown(found: re.Match[str]) -> str:
        inside = _inside(path.parent / found["file"])
        return f"![{found['text']}]({inside})" if inside else found[0]

    return dg.MetadataValue.md(_PICTURE.sub(shown, path.read_text(encoding="utf-8")))


def _inside(path: Path) -> str | None:
    """A PNG as a data URL; None if it is missing or too large."""
    if not path.is_file() or path.stat().st_size > _LARGEST_PICTURE:
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def mlflow_run(path: Path) -> Metadata:
    """A link to the MLflow run that a file names; empty if the file is missing or unreadable."""
    try:
        run = read_json(path, shape=dict[str, str])
        if not {"experiment_id", "run_id"} <= run.keys():
            return {}
    except UserError:
        return {}
    return {"mlflow_run": mlflow_page(f"experiments/{run['experiment_id']}/runs/{run['run_id']}")}


def mlflow_page(path: str) -> dg.UrlMetadataValue:
    """A link to a page of MLflow; it is redirected to wherever MLflow is served at that time."""
    return dg.MetadataValue.url(f"/mlflow/{path}")
