"""The report: every cell of the papers' tables with ours, everything about every variant, in one page of its own."""

import io
import json
import re
import shutil
import statistics
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import shapely
from markupsafe import escape
from PIL import Image

from geoloc_core.contracts.metrics import DISTANCES
from geoloc_core.corpora import manifest
from geoloc_core.errors import UserError
from geoloc_core.evaluation import answered, leaderboard, published, tables
from geoloc_core.evaluation.answered import Answered
from geoloc_core.evaluation.details import Bin, Figure, Region
from geoloc_core.evaluation.metrics import CONVENTIONS, alike
from geoloc_core.evaluation.published import Tables
from geoloc_core.evaluation.report import (
    around,
    charts,
    command,
    confused,
    explained,
    gathered,
    papers,
    variants,
    world,
)
from geoloc_core.evaluation.score import score
from geoloc_core.files import CHECKSUMS, sha256_of, write_checksums, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.params.schema import Explained, Report
from geoloc_core.project import Project
from geoloc_core.registry import tracking
from geoloc_core.report import render
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from tests.geoloc_core.explain.test_explain import everything
from tests.geoloc_core.families import made_models
from tests.geoloc_core.hostile import HOSTILE, Page, is_quiet
from tests.geoloc_core.made_answers import PAPERS, make_project, profile, save_models

OF_COUNTRIES = {
    "id": "someone-2", "paper": "Someone 2024", "name": "Recall", "caption": "By country", "data": "some",
    "kind": "countries", "on": "im2gps", "variants": ["by_country"],
    "columns": [{"head": "recall", "metric": "accuracy", "fraction": True}],
    "rows": [{"name": "France", "key": "FRA", "cells": "0.5"}, {"name": "Atlantis", "key": "XXX", "cells": "0.25"}],
}  # fmt: skip
OF_GROUPS = OF_COUNTRIES | {
    "id": "someone-3", "kind": "regions", "columns": [{"head": "top-5", "metric": "top_5"}],
    "rows": [{"name": "Americas", "key": "South & North America", "cells": "60"}],
}  # fmt: skip
OF_PAIRS = OF_COUNTRIES | {
    "id": "someone-4", "kind": "pairs", "columns": [{"head": "photos", "metric": "photos"}],
    "rows": [
        {"name": "Kenya and France", "key": "KEN FRA", "cells": "3"},
        {"name": "Kenya and Chad", "key": "KEN TCD", "cells": "2"},
    ],
}  # fmt: skip
OF_UNITS = {
    "id": "someone-5", "paper": "Someone 2024", "name": "Table 1", "caption": "Photos", "data": "all", "kind": "units",
    "level": "country", "corpus": "mp16", "columns": [{"head": "photos", "metric": "photos"}],
    "rows": [
        {"name": "France", "key": "FRA", "cells": "10633534"},
        {"name": "Nowhere", "key": "XXX", "cells": "1"},
        {"name": "Mean", "key": "mean", "cells": "17605"},
        {"name": "Median", "key": "median", "cells": "847"},
    ],
}  # fmt: skip
OF_COSTS = {
    "id": "someone-6", "paper": "Someone 2024", "name": "Cost", "caption": "Cost", "data": "all",
    "columns": [{"head": "millions", "metric": "parameters"}, {"head": "s", "metric": "seconds_per_epoch"}],
    "rows": [{"name": "Head", "variants": ["by_country"], "cells": "5.3 1071"}],
}  # fmt: skip
ALL = Tables.model_validate({"tables": [PAPERS.tables[0], OF_COUNTRIES, OF_GROUPS, OF_PAIRS, OF_UNITS, OF_COSTS]})
BY_ID = {table.id: table for table in ALL.tables}


@pytest.fixture(autouse=True)
def printed(monkeypatch):
    monkeypatch.setattr(published, "tables", lambda: ALL)
    monkeypatch.setattr(tracking, "log_scores", lambda *given: None)


def whole():
    """A profile that has what the report reads of one."""
    return profile(boundaries=SimpleNamespace(kind="gadm"), cells={})


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Two variants up to the leaderboard, with photos: made once, read by all."""
    made = make_project(tmp_path_factory.mktemp("ranked"))
    save_models(made)
    with manifest.ShardWriter(made.corpus("im2gps")) as shards:
        for row in range(40):
            kept = io.BytesIO()
            Image.new("RGB", (8, 8), (row, 0, 0)).save(kept, "PNG")
            shards.add(f"im2gps-{row}", kept.getvalue(), f"{row}.png")
    for variant in ("by_country", "by_region"):
        answer(made, variant)
        score(made, variant)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "log_scores", lambda *given: None)
        patch.setattr(published, "tables", lambda: ALL)
        leaderboard.leaderboard(made)
    return made.root


@pytest.fixture
def project(ranked, tmp_path):
    """The same, free to be written to."""
    shutil.copytree(ranked, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, whole())


@pytest.fixture
def known(project):
    return gathered.gather(project)


@pytest.fixture(scope="module")
def written(ranked):
    """The report in HTML and in Markdown: made once, read by all."""
    made = Project(ranked, whole())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "tables", lambda: ALL)
        command.report(made)
    return made


def cells(table, name):
    """The cells of a row by the headings of their columns."""
    [row] = [row for row in table.rows if row.cells[0].value == name]
    return {column.alone: cell for column, cell in zip(table.columns, row.cells, strict=True)}, row


def test_a_table_of_scores_has_each_cell_as_printed_and_ours_with_its_interval(known):
    table = papers.table(known, PAPERS.tables[0])
    found, row = cells(table, "Head")
    told = known.reports["by_country"]
    assert [found[f"{head}: paper"].shown for head in ("accuracy", "mean", "200 km")] == ["8.2", "5,107", "4.40"]
    for head, on, metric in (("accuracy", "validation", "accuracy"), ("mean", "validation", "mean_km"),
                             ("200 km", "im2gps", "within_200km")):  # fmt: skip
        ours = found[f"{head}: ours"]
        assert ours.value == told.benchmarks[on][metric]
        ends = told.intervals[on][metric]
        assert (ends is None) == (ours.interval == "")
    assert re.fullmatch(r"\d+\.\d–\d+\.\d", found["200 km: ours"].interval)
    assert found["here"].address == "#variant-by_country"
    assert found["its data"].value == (
        f"learned from 29 photos of mp16, 3 classes; scored on {told.benchmarks['validation']['n']} of validation, "
        f"{told.benchmarks['im2gps']['n']} of im2gps"
    )
    assert row.tone == ""


def test_trainings_with_other_seeds_are_one_variant_with_a_spread(project):
    chosen = whole()
    chosen._repeats = {"by_country": ("by_region",)}  # as its validation fills it
    again = Project(project.root, chosen)
    leaderboard.leaderboard(again)
    known = gathered.gather(again)
    assert list(known.reports) == ["by_country"]
    found, _ = cells(papers.table(known, PAPERS.tables[0]), "Head")
    spread = known.row("by_country", "im2gps").spreads["within_200km"]
    assert found["200 km: ours"].interval.endswith(f"; {spread.mean:.1f} ± {spread.sd:.1f}")


def test_what_is_not_here_is_said(known):
    table = papers.table(known, PAPERS.tables[0])
    found, row = cells(table, "Other head")
    assert (found["here"].value, found["here"].note, row.tone) == (papers.ABSENT, "elsewhere", "quiet")
    assert [found[f"{head}: paper"].value for head in ("accuracy", "mean", "200 km")] == ["N/A", "–", 5.5]
    assert [found[f"{head}: ours"].value for head in ("accuracy", "mean", "200 km")] == [None] * 3
    found, _ = cells(table, "Theirs")
    assert (found["here"].value, found["here"].note) == (papers.ONLY, "")
    assert found["200 km: paper"].shown == "6.6"


def test_regions_countries_and_pairs_are_looked_up_in_the_details(known):
    details = known.details["by_country"]["im2gps"]
    [france] = [one for one in details.countries if one.name == "FRA"]
    found, _ = cells(papers.table(known, BY_ID["someone-2"]), "France")
    assert (found["recall: ours"].value, found["recall: paper"].shown) == (france.top[1].value, "50")
    found, _ = cells(papers.table(known, BY_ID["someone-2"]), "Atlantis")
    assert (found["recall: ours"].value, found["recall: ours"].note) == (None, "no photo of it")
    [both] = [one for one in details.four_groups if one.name == "South & North America"]
    found, _ = cells(papers.table(known, BY_ID["someone-3"]), "Americas")
    assert found["top-5: ours"].value == both.top[5].value
    one, *_ = details.confusions
    either = sum(other.n for other in details.confusions if {other.true, other.answered} == {one.true, one.answered})
    row = {"name": "Both", "key": f"{one.answered} {one.true}", "cells": "3"}
    table = papers.table(known, published.Table.model_validate(OF_PAIRS | {"rows": [*OF_PAIRS["rows"], row]}))
    assert cells(table, "Both")[0]["photos: ours"].value == either
    assert cells(table, "Kenya and Chad")[0]["photos: ours"].note == papers.FEW


def test_photos_of_units_are_counted_in_the_labels(known, project):
    table = papers.table(known, BY_ID["someone-5"])
    counts = pd.read_parquet(project.labels("mp16"))["gid_0"].value_counts().to_dict()
    ours = {name: cells(table, name)[0]["photos: ours"].value for name in ("France", "Nowhere", "Mean", "Median")}
    assert ours == {
        "France": counts["FRA"], "Nowhere": 0, "Mean": round(statistics.mean(counts.values())),
        "Median": round(statistics.median(counts.values())),
    }  # fmt: skip
    assert cells(table, "France")[0]["photos: paper"].shown == "10,633,534"
    assert cells(table, "France")[0]["its data"].value == f"{sum(counts.values())} photos"


def test_subdivisions_of_other_boundaries_are_other_units(known):
    subdivisions = BY_ID["someone-5"].model_copy(update={"level": "subdivision"})
    row = published.Row(name="Nord", key="FRA.1", cells="3")
    ours = papers.of_units(known, subdivisions, row)
    assert ours.value == known.units("mp16", "subdivision")["FRA.1"]
    rendered = Project(known.project.root, profile(boundaries=SimpleNamespace(kind="geonames")))
    there = papers.of_units(replace(known, project=rendered, _kept={}), subdivisions, row)
    assert (there.value, there.note) == (None, "other units")


def test_labels_that_are_not_there_count_nothing(known):
    elsewhere = BY_ID["someone-5"].model_copy(update={"corpus": "nowhere"})
    table = papers.table(known, elsewhere)
    assert {row.cells[2].value for row in table.rows} == {None}
    assert table.rows[0].cells[-1].value == papers.ABSENT


def test_costs_are_those_of_the_model_that_is_here(project):
    def ours():
        found, _ = cells(papers.table(gathered.gather(project), BY_ID["someone-6"]), "Head")
        assert (found["millions: paper"].shown, found["s: paper"].shown) == ("5.3", "1,071")
        return [(cell.value, cell.note) for cell in (found["millions: ours"], found["s: ours"])]

    untrained = (None, "not trained on this machine")
    assert ours() == [(None, "not noted"), untrained]
    write_json(project.summary("train", "by_country"), {"trainable_parameters": 3, "parameters": 7})
    write_checksums(project.model("by_country"), "model")
    model = sha256_of(project.model("by_country") / CHECKSUMS)
    write_json(project.pace("by_country"), {"model": model, "seconds_per_epoch": 2.5, "photos_per_second": 80.0})
    assert ours() == [(3e-6, "of 0.00"), (2.5, "")], "of 7 in all"
    write_json(project.pace("by_country"), {"model": "another", "seconds_per_epoch": 2.5})
    assert ours()[1] == untrained


def test_a_benchmark_that_a_variant_is_not_scored_on_is_said(known):
    table = published.Table.model_validate(OF_COSTS | {
        "columns": [{"head": "a", "metric": "accuracy", "on": "im2gps3k"}],
        "rows": [{"name": "Head", "variants": ["nobody", "by_region"], "cells": "1"}],
    })  # fmt: skip
    found, _ = cells(papers.table(known, table), "Head")
    assert (found["a: ours"].value, found["a: ours"].note) == (None, "not scored on im2gps3k")
    assert found["here"].value.text == "by_region", "the first that this profile has"


def test_the_whole_report_is_written(written):
    html = (written.report / "report.html").read_text()
    markdown = (written.report / "report.md").read_text()
    shown = Page(html)
    for printed in ("8.2", "5,107", "4.40", "5.5", "6.6", "N/A", "10,633,534", "17,605", "1,071"):
        assert f">{printed}<" in html, printed
        assert re.search(rf"\| {re.escape(printed)} \|", markdown), printed
    for name in ("by_country", "by_region"):
        assert ("id", f"variant-{name}") in shown.attributes
        assert f"### Variant {name}" in markdown
    assert shown.tags.count("img") == 2 * 3 * variants.EACH
    summary = json.loads(written.summary("report", "report").read_text())
    assert summary == {"variants": 2, "paper_tables": 6, "rows_of_papers": 13, "rows_trained_here": 11}
    command.report(written)
    assert (written.report / "report.html").read_text() == html, "the same scores give the same page"


def test_every_table_and_picture_of_rendered_photos_is_marked(written, known):
    html = (written.report / "report.html").read_text()
    pictures = html.count('<figure class="plot') + html.count('<figure class="world')
    assert html.count(f'<span class="mark">{known.mark}</span>') >= html.count("<table>") + pictures
    markdown = (written.report / "report.md").read_text()
    assert markdown.count(f"**{known.mark}.**") == len(re.findall(r"^\|(?: -+:? \|)+$", markdown, re.MULTILINE))
    board = known.board.model_copy(update={"banner": ""})
    assert replace(known, board=board, _kept={}).mark == ""


def test_maps_of_cells_stand_with_their_variant(known):
    box = np.array([shapely.box(1, 45, 3, 47)], dtype=object)
    space = LabelSpace("geocell", ["c"], ["Cell <&>"], [""], np.array([46.0]), np.array([2.0]))
    drawn = around.probabilities("Around <&>", space, box, ["c"], np.array([0.9]), (46, 2), (46.1, 2.1))
    filled = command._filled(known)
    filled["pages"] = [replace(page, around=(drawn,) * (page.name == "by_region")) for page in filled["pages"]]
    html = render.document("evaluation/report/report.html", **filled)
    [figure] = re.findall(r'<figure class="around">.*?</figure>', html, re.DOTALL)
    assert drawn.areas[0].path in figure
    assert "Around &lt;&amp;&gt;" in figure
    assert "Cell &lt;&amp;&gt;: 90.0%" in figure
    assert known.mark in figure
    assert html.index('id="variant-by_region"') < html.index(figure)


def test_the_page_needs_nothing_but_itself(written):
    html = (written.report / "report.html").read_text()
    shown = Page(html)
    assert len(html) < 10e6
    assert not {"link", "iframe", "object", "embed", "base"} & set(shown.tags)
    given = [value for name, value in shown.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert given
    assert all(value.startswith(("#", "data:image/webp;base64,")) for value in given)
    assert not re.search(r"url\(|@import", html)
    ids = {value for name, value in shown.attributes if name == "id"}
    assert {value[1:] for value in given if value.startswith("#")} <= ids, "every link leads somewhere"
    assert len(ids) == len([value for name, value in shown.attributes if name == "id"])


def test_names_are_shown_and_do_nothing(project, known, monkeypatch):
    told, met, read = known.reports["by_country"], known.answered("by_country", "im2gps"), answered.read

    def page(names):
        majority = told.majority.model_copy(update={"name": names[0]})
        other = told.model_copy(update={"majority": majority, "encoders": tuple(names)})
        of = replace(known, reports=known.reports | {"by_country": other}, _kept={})
        written = {f"{at} {name}": name.encode("utf-8", "replace").decode() for at, name in enumerate(names)}
        write_json(project.summary("train", "by_country"), written | {"nested": {"a": 1.5, "b": names[:1]}})
        of.notes["by_country"] = of.notes["by_country"].model_copy(update={"trained_on": names})
        named = replace(met, ids=np.resize(np.array(names, dtype=object), 39))
        monkeypatch.setattr(answered, "read", lambda *of: named if of[1:] == ("by_country", "im2gps") else read(*of))
        filled = command._filled(of)
        return [render.document(f"evaluation/report/report.{ending}", **filled) for ending in ("html", "md")]

    plain, evil = page(["plain"] * len(HOSTILE)), page(HOSTILE)
    shown, expected = Page(evil[0]), Page(plain[0])
    assert shown.tags == expected.tags
    assert [name for name, _ in shown.attributes] == [name for name, _ in expected.attributes]
    assert all(is_quiet(text) for text in evil)
    assert evil[1].count("\n") == plain[1].count("\n")
    assert "alert(1)" in shown.text


def test_a_benchmark_without_places_has_no_distances_and_no_photos(known, monkeypatch):
    read = answered.read

    def nowhere(*of):
        told = read(*of)
        return replace(told, true=(np.full(len(told.rows), np.nan),) * 2)

    monkeypatch.setattr(answered, "read", nowhere)
    page = variants.page(known, "by_country")
    assert page.albums == ()
    assert [plot.across for plot in page.plots] == ["confidence, %", "answered, %"]


def test_photos_that_are_not_on_this_machine_are_left_out(project):
    shutil.rmtree(project.corpus("im2gps") / "shards")
    command.report(project)
    assert "<img" not in (project.report / "report.html").read_text()


def test_the_photos_have_their_places_and_candidates(project, known):
    [album] = variants.page(known, "by_country").albums
    assert (album.benchmark, {one.why for one in album.photos}) == ("im2gps", {None}), (
        "no encoder is here to explain by"
    )
    assert [one.said.partition(":")[0] for one in album.photos] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
    table = pd.read_parquet(answers.path(project, "by_country", "im2gps")).set_index("image_id")
    for one in album.photos:
        row = table.loc[one.title]
        km = haversine_km(row.latitude, row.longitude, row.true_latitude, row.true_longitude)
        assert one.said.endswith(f": {km:,.0f} km")
        assert (one.pin.x, one.pin.y) == (f"{row.true_longitude + 180:.1f}", f"{90 - row.true_latitude:.1f}")
        assert (one.pin.to_x, one.pin.to_y) == (f"{row.longitude + 180:.1f}", f"{90 - row.latitude:.1f}")
        assert [spot.said for spot in one.spots] == [f"{share:.1%}" for share in row.probabilities.astype(float)]


def test_explained_photos_stand_beside_their_maps_and_checks(project, known, monkeypatch):
    whole = everything()
    why = explained.why(replace(whole, maps=whole.maps[:1]), made_models.space())
    asked = []
    monkeypatch.setattr(variants, "is_here", lambda project, name: True)
    monkeypatch.setattr(
        variants, "explained", lambda _, name, photos: asked.append((name, photos)) or [why] * len(photos)
    )
    filled = command._filled(known)
    html, markdown = (render.document(template, **filled) for template in command.TEMPLATES[::-1])
    shown = Page(html)
    assert [(name, [one.why for one in photos]) for name, photos in asked if photos] == [
        (name, ["best", "median", "worst"]) for name in ("by_country", "by_region")
    ]
    assert shown.attributes.count(("class", "explained")) == 6
    assert html.count(str(escape(why.map.verdict))) == html.count(str(escape(why.map.charts[0].said))) == 6
    alike = [Page(one) for one in re.findall(r'<div class="near">(.*?)</div>', html, re.DOTALL)]
    said = [[near.title, *near.lines, *(["source"] if near.address else [])] for near in why.neighbours]
    assert [one.text.strip().splitlines() for one in alike] == said * 6
    assert {tag for one in alike for tag in one.tags} == {"img", "p", "strong", "br", "a"}
    assert is_quiet(html.partition("<script>")[0].partition("</style>")[2])
    assert markdown.count("#### Maps of photos of im2gps") == 2
    only = project.profile.model_copy(update={"report": Report(explained=Explained(each=2, variants=1))})
    asked.clear()
    first, *_ = (row.name for row in known.board.sections[0].rows if not row.baseline)
    command._filled(replace(known, project=Project(project.root, only), _kept={}))
    assert [(name, len(photos)) for name, photos in asked if photos] == [(first, 6)]


def test_photos_of_other_benchmarks_are_shown_where_they_are_asked_for(project, known):
    asked = project.profile.model_copy(update={"report": Report(photos_of=("im2gps", "validation", "nowhere"))})
    page = variants.page(replace(known, project=Project(project.root, asked), _kept={}), "by_country")
    assert [album.benchmark for album in page.albums] == ["im2gps"], "the photos of validation are not on this machine"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_table_of_distances_is_restated_under_every_convention(project, known, convention):
    other = known.under(convention)
    found, _ = cells(papers.table(other, PAPERS.tables[0]), "Head")
    scored = json.loads((project.scores("by_country") / "conventions.json").read_text())
    for head, on, metric in (("mean", "validation", "mean_km"), ("200 km", "im2gps", "within_200km")):
        expected = scored[on]["ours"][convention][metric]
        assert found[f"{head}: ours"].value == expected["value"]
        assert (expected["low"] is None) == (found[f"{head}: ours"].interval == "")
    assert found["accuracy: ours"].value == known.reports["by_country"].benchmarks["validation"]["accuracy"]
    section = other.board.sections[0]
    table = tables.distances(other.board, section)
    heads = [column.group for column in table.columns[1:]]
    assert set(heads) == set(DISTANCES)
    row = next(row for row in section.rows if row.name == "by_country")
    shown, _ = cells(table, "by_country")
    assert (
        shown["mean km"].value
        == row.values["mean_km"]
        == round(scored["im2gps"]["ours"][convention]["mean_km"]["value"], 1)
    )
    assert str(CONVENTIONS[convention]) in table.about


def test_the_page_offers_each_convention_that_differs_once(written):
    html = (written.report / "report.html").read_text()
    names = [found[0] for found in alike().values()]
    assert names == ["geoloc", "pigeon", "osv5m", "geoclip", "g3"]
    assert re.findall(r'<option value="(\w+)">', html) == names
    compared = json.loads((written.leaderboard / "leaderboard.json").read_text())["sections"]
    for name in names[1:]:  # a table for each section of the leaderboard, and for the paper's that has distances
        assert html.count(f'<div data-convention="{name}" hidden>') == len(compared) + 1


def test_the_highest_and_lowest_recall_are_of_countries_with_enough_photos():
    def region(name, n, recall):
        return Region(name=name, top={1: Figure(n=n, value=recall)}, median_km=Figure(n=n, value=1.0))

    rows = [region(f"A{at:02}", 5 + at, 100.0 - at) for at in range(12)]
    few = [region("one", 1, 100.0), *rows, region("none", 4, 0.0)]
    names = [row.cells[0].value for row in variants._ends(SimpleNamespace(countries=few), "b").rows]
    assert names == ["A00", "A01", "A02", "A03", "A04", "A07", "A08", "A09", "A10", "A11"]
    short = variants._ends(SimpleNamespace(countries=few[:3]), "b")
    assert [row.cells[0].value for row in short.rows] == ["one", "A00", "A01"], "none twice, where there are few"
    assert variants._ends(SimpleNamespace(countries=[]), "b").rows == ()


def test_without_a_leaderboard_of_these_variants_there_is_no_report(project):
    path = project.leaderboard / "leaderboard.json"
    text = path.read_text().replace('"by_region"', '"another"')
    path.unlink()
    with pytest.raises(UserError, match=r"leaderboard\.json: no such file; run `geoloc leaderboard`"):
        command.report(project)
    (project.leaderboard / "checksums.json").unlink()
    path.write_text(text)
    with pytest.raises(UserError, match=r"not of the variants of params\.yaml; run `geoloc leaderboard` first"):
        command.report(project)


def test_shares_within_a_distance_are_those_of_the_errors():
    rng = np.random.default_rng(3)
    errors = np.r_[rng.lognormal(6, 2, 500), 0.0, 25.0, np.nan]
    curve = charts.shares(errors)
    known = errors[~np.isnan(errors)]
    np.testing.assert_allclose(curve.percent, [100 * np.mean(known <= limit) for limit in curve.km])
    assert {1, 25, 200, 750, 2500, 20000} <= set(curve.km)
    assert (np.diff(curve.km) > 0).all()
    assert charts.shares(np.array([])) is charts.shares(np.array([np.nan])) is None


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.points.split()]


def test_a_curve_of_distances_runs_up_in_logarithms():
    plot = charts.distances("t", {f"v{n}": charts.shares(np.array([1.0, 20040.0])) for n in range(8)})
    front = points(plot.lines[-1])
    assert plot.lines[-1].name == "v0", "the first is in front"
    assert front[0] == (0, charts.HIGH / 2), "half of them are within a kilometre"
    assert front[-1] == (charts.WIDE, 0)
    assert [line.style for line in plot.lines] == ["aside", "aside", "c5", "c4", "c3", "c2", "c1", "c0"]
    assert {line.name for line in plot.legend} == {f"v{n}" for n in range(6)}
    at = {tick.text: float(tick.at) for tick in plot.x_ticks}
    assert at["1"] == 0
    assert at["25"] / charts.WIDE == pytest.approx(np.log(25) / np.log(20040), abs=1e-3)


def test_reliability_stands_on_equal_axes():
    bins = [
        Bin(confidence=10.0, accuracy=Figure(n=5, value=20.0, low=5.0, high=42.0)),
        Bin(confidence=30.0, accuracy=Figure(n=5, value=40.0)),
        Bin(confidence=35.0, accuracy=Figure(n=0, value=None)),
    ]
    plot = charts.reliability("t", bins)
    assert [tick.text for tick in plot.x_ticks] == [tick.text for tick in plot.y_ticks]
    first, second = plot.dots
    assert (float(first.x), float(first.y)) == (charts.WIDE * 10 / 50, charts.HIGH * (1 - 20 / 50))
    assert (float(first.low), float(first.high)) == (charts.HIGH * (1 - 5 / 50), pytest.approx(charts.HIGH * 8 / 50))
    assert (second.low, second.high) == ("", "")
    assert charts.reliability("t", []).dots == ()


def test_a_ladder_has_stairs_of_the_steps_that_are_known():
    steps = ["base", "more", "most"]
    plot = charts.ladder("t", steps, {"25 km": [10.0, 20.0, 40.0], "1 km": [1.0, None, 2.0]},
                         {"25 km": [None, 10.0, 30.0], "1 km": [None, None, None]})  # fmt: skip
    theirs, ours, one, last = plot.lines
    wide = charts.WIDE
    assert points(theirs) == [
        (x * wide / 100, y) for x, y in ((10, 0), (10, 34), (20, 34), (20, 68), (40, 68), (40, 102))
    ]
    assert points(ours) == [(x * wide / 100, y) for x, y in ((10, 34), (10, 68), (30, 68), (30, 102))]
    assert [line.name for line in plot.legend] == ["25 km, paper", "25 km, ours", "1 km, paper"]
    assert points(one) == [(wide / 100, 0), (wide / 100, 34)], "a gap where a step is missing"
    assert points(last) == [(wide / 50, 68), (wide / 50, 102)]
    assert [(tick.text, float(tick.at)) for tick in plot.y_ticks] == [("base", 17), ("more", 51), ("most", 85)]


def test_a_ladder_is_drawn_where_two_of_its_steps_are_trained(known):
    def of(*rows):
        return published.Table.model_validate(OF_COSTS | {
            "ladder": True, "on": "im2gps", "columns": [{"head": "25", "metric": "within_25km"}],
            "rows": [{"name": name, "variants": [name], "cells": cells} for name, cells in rows],
        })  # fmt: skip

    plot = command._ladder(known, of(("by_country", "10"), ("nobody", "–"), ("by_region", "30")))
    assert [line.name for line in plot.legend] == ["25 km, paper", "25 km, ours"]
    assert [tick.text for tick in plot.y_ticks] == ["by_country", "nobody", "by_region"]
    told = known.reports["by_region"].benchmarks["im2gps"]["within_25km"]
    assert points(plot.lines[-1])[-1] == (pytest.approx(told * charts.WIDE / 100, abs=0.06), 102)
    assert command._ladder(known, of(("by_country", "10"), ("nobody", "20"))) is None


def of_pairs(*pairs):
    true, said = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    nothing = np.zeros(len(true))
    return Answered("b", nothing, nothing, (nothing, nothing), (nothing, nothing), true, said)


def test_confusions_are_counted_either_way_and_neighbours_told():
    found = confused.confused(of_pairs(
        *[("FRA", "DEU")] * 3, *[("DEU", "FRA")] * 2, *[("KEN", "FRA")] * 4, *[("FRA", "FRA")] * 5,
        (None, "FRA"), ("FRA", ""),
    ))  # fmt: skip
    assert found.said == "9 answers are in a wrong country; 5 of them (56%) in one that borders on it."
    assert [[cell.value for cell in row.cells] for row in found.pairs.rows] == [
        ["Germany and France", 5, 2, 3, "yes"], ["France and Kenya", 4, 0, 4, "no"],
    ]  # fmt: skip
    heads = [column.heading for column in found.matrix.columns]
    assert heads == ["photos of", "FRA", "DEU", "KEN", "elsewhere"], "from west to east"
    assert [[cell.value for cell in row.cells] for row in found.matrix.rows] == [
        ["France (FRA)", 5, 3, 0, 0], ["Germany (DEU)", 2, 0, 0, 0], ["Kenya (KEN)", 4, 0, 0, 0],
    ]  # fmt: skip
    assert confused.confused(of_pairs(("FRA", "FRA"), (None, "DEU"))) is None
    many = [(a, b) for a in world.outlines().countries for b in ("FRA", "USA")]
    assert len(confused.confused(of_pairs(*many)).matrix.rows) == confused.MOST


def test_maps_are_darker_where_recall_is_higher_and_errors_are_larger():
    def region(name, recall, km):
        return Region(name=name, top={1: Figure(n=2, value=recall)}, median_km=Figure(n=2, value=km))

    regions = [
        region("FRA", 25.0, 25.0),
        region("KEN", None, None),
        region("PER", 100.0, 1e5),
        region("XYZ", 0.0, 500.0),
    ]
    recall, error = world.recall("r", regions), world.median_error("e", regions)
    assert [(one.code, one.shade, one.said) for one in recall.shades] == [
        ("FRA", "0.25", "France: 25 % of 2 photos"), ("PER", "1.00", "Peru: 100 % of 2 photos"),
    ]  # fmt: skip
    assert [(one.code, one.shade) for one in error.shades] == [("FRA", "0.00"), ("PER", "1.00")]
    assert recall.left_out == error.left_out == ("XYZ",)
    middle = world.median_error("e", [region("FRA", 0.0, 500.0)])
    assert middle.shades[0].shade == "0.50", "in logarithms"


def test_the_outlines_are_whole():
    known = world.outlines().countries
    assert len(known) > 230
    for code, one in known.items():
        latitude, longitude = one.place
        assert -90 <= latitude <= 90
        assert -180 <= longitude <= 180
        assert all(code in known[other].neighbours for other in one.neighbours)
    assert world.borders("FRA", "DEU")
    assert not world.borders("FRA", "GBR")
    assert not world.borders("FRA", "XYZ")
    numbers = np.array(re.findall(r"-?[\d.]+", known["FRA"].path), float).reshape(-1, 2)
    assert numbers.min(axis=0) == pytest.approx([180 - 54.5, 90 - 51.1], abs=0.6), "French Guiana in the west"
    assert (world.DATA, "public domain" in world.outlines().made_of) == ("evaluation/report/outlines.json", True)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1500,2400", "400,2400"])
def test_a_browser_shows_the_page_without_an_error_and_within_its_width(written, tmp_path, size):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not on PATH")
    watch = """<script>
      for (const one of document.querySelectorAll("details")) one.open = true;
      for (const one of document.images) one.loading = "eager";
      addEventListener("load", () => {
        const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
        location.hash = "#variant-by_region";
        chosen.value = "pigeon"; chosen.dispatchEvent(new Event("change"));
        const seen = new Set([...document.querySelectorAll("[data-convention]")].filter(
          one => one.offsetHeight > 0).map(one => one.dataset.convention));
        const wide = [...document.querySelectorAll("main > *")].filter(
          one => one.getBoundingClientRect().right > innerWidth + 1).length;
        document.title = JSON.stringify([[...seen], document.images.length, broken, wide,
          document.documentElement.scrollWidth <= innerWidth]);
      });
    </script>"""
    html = (written.report / "report.html").read_text()
    (tmp_path / "page.html").write_text(html.replace("</body>", watch + "</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--window-size={size}"]
    shown = subprocess.run(
        [browser, *flags, f"file://{tmp_path / 'page.html'}"], check=True, capture_output=True, text=True, timeout=180
    )
    assert re.search(r"<title>(.*?)</title>", shown.stdout)[1] == '[["pigeon"],12,0,0,true]'
