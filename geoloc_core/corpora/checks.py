"""What must be true of every manifest and every labels table, checked with Great Expectations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoloc_core import progress
from geoloc_core.corpora import drift, manifest
from geoloc_core.errors import UserError
from geoloc_core.params import Expect, entry
from geoloc_core.report import render
from geoloc_core.report import table as tables
from geoloc_core.sets import splits_of

if TYPE_CHECKING:
    import pandas as pd

    from geoloc_core.project import Project

EXAMPLES = 3
LOCATED_SHARE = 0.9
"""Share of photos that must be in a country; the others are at sea or have wrong coordinates."""
NEVER_NULL = ("image_id", "group_id")
UNCHECKED = ("author", "licence", "source_url", "phash")
"""Columns that may hold anything, and are not read."""


@dataclass(frozen=True)
class Row:
    """One expectation and how it came out.

    Attributes:
        expectation: What was expected, in words.
        column: Of which columns; empty for the table as a whole.
        unexpected: How many values break it.
        examples: The first of them, each with its image_id.
        passed: Whether it holds.
    """

    expectation: str
    column: str
    unexpected: int
    examples: tuple[str, ...]
    passed: bool


@dataclass(frozen=True)
class Report:
    """All expectations of one table.

    Attributes:
        title: What was checked.
        rows: One per expectation, the failed ones first.
    """

    title: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether all expectations hold."""
        return all(row.passed for row in self.rows)

    @property
    def verdict(self) -> str:
        """What does not hold, in a line: the first expectation, and how many more."""
        failed = [row for row in self.rows if not row.passed]
        if not failed:
            return f"{self.title}: all {len(self.rows)} expectations hold"
        first, more = failed[0], len(failed) - 1
        said = " ".join(filter(None, (first.column, first.expectation)))
        said += f" ({'; '.join(first.examples)})" if first.examples else ""
        return f"{self.title}: expected {said}" + (f"; {more} more expectations failed" if more else "")

    def table(self) -> tables.Table:
        """The report as a table."""
        rows = (
            tables.Row.of(
                row.expectation,
                row.column,
                row.unexpected,
                "; ".join(row.examples),
                "✓" if row.passed else "✗",
                tone="" if row.passed else "bad",
            )
            for row in self.rows
        )
        return tables.Table(
            (
                tables.Column("expectation"),
                tables.Column("column"),
                tables.Column.of_numbers("unexpected"),
                tables.Column("examples"),
                tables.Column("ok"),
            ),
            tuple(rows),
            self.title,
        )

    def markdown(self) -> str:
        """The report as a Markdown table."""
        return render.markdown(self.table())


def check(project: "Project", name: str, accept: bool = False) -> None:
    """Print the reports of a corpus' manifest and labels.

    Args:
        project: The project.
        name: The corpus.
        accept: Accept a version that differs too much from the last one; its labels too, once there are any.

    Raises:
        UserError: A table is missing, or an expectation failed.
    """
    reports = [check_manifest(project, name, accept)]
    progress.show(reports[0].table())
    # A manifest that does not pass keeps its labels from being made.
    if project.labels(name).exists() and (not accept or not reports[0].passed or _labelled(project, name)):
        reports.append(check_labels(project, name, accept))
        progress.show(reports[1].table())
    elif accept and reports[0].passed:
        drift.accept_next(project.versions("labels", name))
        progress.say(f"{name}: it has no labels yet; they will be accepted when they are made")
    failed = [(report.title, row) for report in reports for row in report.rows if not row.passed]
    if failed:
        title, row = failed[0]
        said = f"{title}: {row.column} {row.expectation}" + (f" ({'; '.join(row.examples)})" if row.examples else "")
        raise UserError(f"{said}; {len(failed)} expectations failed: see the tables above")


def check_manifest(project: "Project", name: str, accept: bool = False) -> Report:
    """Check a corpus' manifest. A good version becomes the last one.

    Raises:
        UserError: There is no such corpus, or it has not been ingested.
    """
    import pandas as pd

    entry(project.profile.corpora, name, "corpus")
    expect = project.profile.expect.get(name, Expect())
    folder = project.corpus(name)
    columns = [field for field in manifest.MANIFEST.names if field not in UNCHECKED]
    frame = manifest.read_manifest(folder, columns).to_pandas()
    reasons = manifest.read_table(folder / "rejects.parquet", manifest.REJECTS, ["reason"])["reason"].to_pandas()
    figures = drift.manifest_figures(frame, reasons)
    ids = pd.Series(manifest.read_ids(folder / "attributes.parquet"), dtype=object)
    frame["attributes_image_id"] = _aligned(ids, len(frame))
    frame["without_place"] = without_place(frame, manifest.read_published(folder))
    frame["straddling_place"] = straddling(frame["place_id"], frame["group_id"])
    photos = sum(manifest.count(shard) for shard in manifest.shards(folder))
    title = f"manifest of {name}"
    role = project.profile.corpora[name].role
    rows = [*_validate(title, frame, manifest_expectations(name, photos, role)), *_refused(reasons, len(frame), expect)]
    return _against_last(project, "manifest", name, figures, rows, accept)


def check_labels(project: "Project", name: str, accept: bool = False) -> Report:
    """Check a corpus' labels. A good version becomes the last one.

    Raises:
        UserError: There is no such corpus, or it has not been labelled.
    """
    corpus = entry(project.profile.corpora, name, "corpus")
    expect = project.profile.expect.get(name, Expect())
    photos = manifest.read_manifest(project.corpus(name), ["image_id", "group_id"]).to_pandas()
    frame = manifest.read_table(project.labels(name), manifest.LABELS).to_pandas()
    figures = drift.label_figures(frame)
    frame["manifest_image_id"] = _aligned(photos["image_id"], len(frame))
    frame["straddling_group"] = straddling(_aligned(photos["group_id"], len(frame)), frame["split"])
    splits = splits_of(corpus.role, project.profile.labels.test_share_of(name))
    expectations = [*label_expectations(len(photos), splits), *country_expectations(expect)]
    rows = _validate(f"labels of {name}", frame, expectations)
    return _against_last(project, "labels", name, figures, rows, accept)


def _labelled(project: "Project", name: str) -> bool:
    """Whether there are labels, and of this manifest."""
    path = project.labels(name)
    ids = manifest.read_manifest(project.corpus(name), ["image_id"])["image_id"]
    return path.is_file() and manifest.read_table(path, manifest.LABELS, ["image_id"])["image_id"].equals(ids)


def _refused(reasons: "pd.Series", kept: int, expect: Expect) -> list[Row]:
    """The share that was refused, where a corpus promises one."""
    most, refused = expect.max_refused_share, len(reasons)
    if most is None:
        return []
    counts = [f"{reason} {count:,}" for reason, count in reasons.value_counts().head(EXAMPLES).items()]
    passed = refused <= most * (kept + refused)
    examples = (f"{refused / max(1, kept + refused):.1%}: {', '.join(counts)}",) if refused else ()
    return [Row(f"at most {most:.1%} refused", "", 0 if passed else refused, examples, passed)]


def _against_last(
    project: "Project", table: str, name: str, figures: drift.Figures, rows: list[Row], accept: bool
) -> Report:
    """The report with how far the version moved; a good one becomes the last."""
    history = project.versions(table, name)
    found = drift.compare(history, figures)
    limits = project.profile.expect.get(name, Expect()).drift
    moved = [_moved(found, move, getattr(limits, move.what), name, accept) for move in found.moves]
    if found.since is None:
        moved = [Row("drift", "", 0, ("the first version: nothing to compare with",), True)]
    if all(row.passed for row in (*rows, *moved)):
        drift.keep(history, figures)
    rows = sorted((*rows, *moved), key=lambda row: (row.passed, row.column, row.expectation))
    return Report(f"{table} of {name}", tuple(rows))


def _moved(found: drift.Comparison, move: drift.Move, limit: float, name: str, accept: bool) -> Row:
    within = move.moved <= limit
    said = [move.told, f"{move.moved:.1%} since the version of {found.since}"]
    if not within and found.accepted:
        said.append(f"accepted {found.accepted}")
    elif not within and accept:
        said.append("accepted now")
    elif not within:
        said.append(f"if this is intended, run: geoloc check {name} --accept")
    passed = within or accept or found.accepted is not None
    return Row(f"drift of {move.what} at most {limit:.0%}", "", int(not passed), tuple(said), passed)


def manifest_expectations(name: str, photos: int, role: str) -> list[Any]:
    """The suite of manifests.

    Args:
        name: The corpus.
        photos: Photos in its shards.
        role: ``benchmark`` may hold the same bytes twice, as each of its published rows is scored; ``train`` may not.
    """
    import great_expectations.expectations as gx

    unique = ("image_id",) if role == "benchmark" else ("image_id", "sha256")
    return [
        gx.ExpectTableRowCountToEqual(value=photos),
        *(gx.ExpectColumnValuesToNotBeNull(column=column) for column in NEVER_NULL),
        *(gx.ExpectColumnValuesToBeUnique(column=column) for column in unique),
        gx.ExpectCompoundColumnsToBeUnique(column_list=["shard", "row"]),
        gx.ExpectColumnPairValuesToBeEqual(column_A="image_id", column_B="attributes_image_id"),
        gx.ExpectColumnValuesToBeInSet(column="corpus", value_set=[name]),
        gx.ExpectColumnValuesToBeNull(column="without_place"),
        gx.ExpectColumnValuesToBeNull(column="straddling_place"),
        gx.ExpectColumnValuesToBeBetween(column="latitude", min_value=-90, max_value=90),
        gx.ExpectColumnValuesToBeBetween(column="longitude", min_value=-180, max_value=180),
        gx.ExpectColumnValuesToBeBetween(column="heading", min_value=0, max_value=360, strict_max=True),
        *(gx.ExpectColumnValuesToBeBetween(column=side, min_value=1) for side in ("width", "height")),
        gx.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$"),
    ]


def label_expectations(photos: int, splits: tuple[str, ...]) -> list[Any]:
    """The suite of labels.

    Args:
        photos: Rows of the manifest.
        splits: The splits that the corpus' role allows, each of which must occur.
    """
    import great_expectations.expectations as gx

    return [
        gx.ExpectTableRowCountToEqual(value=photos),
        gx.ExpectColumnPairValuesToBeEqual(column_A="image_id", column_B="manifest_image_id"),
        gx.ExpectColumnValuesToBeUnique(column="image_id"),
        gx.ExpectColumnValuesToNotBeNull(column="split"),
        gx.ExpectColumnDistinctValuesToEqualSet(column="split", value_set=list(splits)),
        gx.ExpectColumnValuesToBeNull(column="straddling_group"),
        gx.ExpectColumnValuesToNotBeNull(column="gid_0", mostly=LOCATED_SHARE),
        gx.ExpectColumnValuesToMatchRegex(column="gid_0", regex="^[A-Z0-9]{3}$"),
        gx.ExpectColumnValuesToBeBetween(column="distance_km", min_value=0),
    ]


def country_expectations(expect: Expect) -> list[Any]:
    """What a corpus promises of the countries of its photos."""
    import great_expectations.expectations as gx

    found: list[Any] = []
    if expect.countries:
        within, mostly = list(expect.countries), 1 - expect.elsewhere_share
        found.append(gx.ExpectColumnValuesToBeInSet(column="gid_0", value_set=within, mostly=mostly))
    if expect.min_countries:
        found.append(gx.ExpectColumnUniqueValueCountToBeBetween(column="gid_0", min_value=expect.min_countries))
    return found


def without_place(photos: "pd.DataFrame", countries: "pd.Series | None") -> "pd.Series":
    """The id of each row with neither coordinates nor a published country; null elsewhere."""
    known = photos["latitude"].notna() & photos["longitude"].notna()
    if countries is not None:
        known |= _aligned(countries, len(photos)).notna() & photos["latitude"].isna() & photos["longitude"].isna()
    return photos["image_id"].where(~known)


def straddling(inner: "pd.Series", outer: "pd.Series") -> "pd.Series":
    """Of each row, what lies in more than one of what must hold it whole: a group in a split; null elsewhere."""
    return inner.where(outer.groupby(inner).transform("nunique").gt(1))


def _aligned(values: "pd.Series", rows: int) -> "pd.Series":
    """As many values as there are rows: tables of unequal length are to fail in the report, not to raise."""
    return values.reindex(range(rows))


def _validate(title: str, frame: "pd.DataFrame", expectations: list[Any]) -> list[Row]:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    shown = {
        "result_format": "SUMMARY",
        "partial_unexpected_count": EXAMPLES,
        "unexpected_index_column_names": ["image_id"],
    }
    suite = gx.ExpectationSuite(title, expectations=expectations)
    results = batch.validate(suite, result_format=shown).results
    return list(map(_row, results))


def _row(result: Any) -> Row:
    config, found = result.expectation_config, result.result
    raised = _raised(result.exception_info)
    examples = (raised,) if raised else tuple(_examples(found, config.kwargs))
    return Row(_words(config), _column(config.kwargs), _unexpected(result), examples, bool(result.success))


def _unexpected(result: Any) -> int:
    found = int(result.result.get("unexpected_count") or 0)
    return found if result.success else max(found, 1)


def _raised(info: dict[str, Any]) -> str:
    """What went wrong in an expectation that could not be asked; empty where all went well."""
    blocks: Iterable[Any] = [info] if "raised_exception" in info else info.values()
    return next((str(block["exception_message"]) for block in blocks if block["raised_exception"]), "")


PLAIN = {
    "expect_column_values_to_be_null": "none",
    "expect_column_values_to_be_unique": "unique",
    "expect_compound_columns_to_be_unique": "unique together",
    "expect_column_pair_values_to_be_equal": "equal",
}


def _words(config: Any) -> str:
    kwargs = config.kwargs
    match config.type:
        case "expect_table_row_count_to_equal":
            return f"{kwargs['value']:,} rows"
        case "expect_column_values_to_not_be_null":
            mostly = kwargs.get("mostly", 1)
            return "not null" if mostly == 1 else f"not null in {mostly:.0%}"
        case "expect_column_values_to_be_between":
            low, high = kwargs["min_value"], kwargs.get("max_value")
            return f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        case "expect_column_values_to_match_regex":
            return f"like {kwargs['regex']}"
        case "expect_column_unique_value_count_to_be_between":
            return f"at least {kwargs['min_value']:,} different"
        case "expect_column_values_to_be_in_set" | "expect_column_distinct_values_to_equal_set":
            mostly = kwargs.get("mostly", 1)
            share = "" if mostly == 1 else f" in {mostly:.1%}"
            return f"exactly {', '.join(map(str, kwargs['value_set']))}{share}"
        case kind:
            return PLAIN[kind]


def _column(kwargs: dict[str, Any]) -> str:
    names = kwargs.get("column_list") or [kwargs.get(key) for key in ("column", "column_A", "column_B")]
    return ", ".join(filter(None, names))


def _examples(found: dict[str, Any], kwargs: dict[str, Any]) -> list[str]:
    if "unexpected_count" not in found and found.get("observed_value") != kwargs.get("value"):
        return [f"got {found.get('observed_value'):,}"]
    values = found.get("partial_unexpected_list") or []
    rows = found.get("partial_unexpected_index_list") or [{}] * len(values)
    absent = [f"no {value}" for value in found.get("partial_missing_list") or []]
    return [*map(_example, values[:EXAMPLES], rows), *absent]


def _example(value: Any, row: dict[str, Any]) -> str:
    image_id = row.get("image_id")
    if isinstance(value, tuple):
        return " ≠ ".join(map(str, value))
    if isinstance(value, dict):
        value = ", ".join(f"{key} {value[key]}" for key in value if key != "image_id")
    shown = "null" if value is None or value != value else str(value)
    return shown if image_id is None or str(image_id) == shown else f"{image_id}: {shown}"
