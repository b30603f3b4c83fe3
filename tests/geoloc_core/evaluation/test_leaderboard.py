import copy
import io
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from geoloc_core.contracts.metrics import column
from geoloc_core.errors import UserError
from geoloc_core.evaluation import board, leaderboard, page, published, tables
from geoloc_core.evaluation import score as stage
from geoloc_core.evaluation.score import score
from geoloc_core.params import Evaluation, Registry
from geoloc_core.project import Project
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import PAPERS, make_project, profile, save_models

FORMATS = ("leaderboard.md", "leaderboard.html", "leaderboard.json")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two evaluated variants: made once, read by all."""
    made = make_project(tmp_path_factory.mktemp("evaluated"))
    save_models(made)
    for variant in ("by_country", "by_region"):
        answer(made, variant)
        score(made, variant)
    return made.root


@pytest.fixture
def scored(evaluated, tmp_path):
    """The same, free to be written to."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, profile())


@pytest.fixture
def written(scored):
    leaderboard.leaderboard(scored)
    return leaderboard.load(scored)


@pytest.fixture(autouse=True)
def papers(monkeypatch):
    """The tables of a paper that stands beside these variants."""
    monkeypatch.setattr(published, "tables", lambda: PAPERS)


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """What tracking was told: MLflow itself is tested where it is called."""
    from geoloc_core.registry import tracking

    scores = {}
    monkeypatch.setattr(tracking, "log_scores", lambda project, found, cards: scores.update(found))
    return scores


def test_tracking_gets_every_score_in_full_precision(written, scored, told):
    for variant in ("by_country", "by_region"):
        report = json.loads((scored.scores(variant) / "scores.json").read_text())
        assert told[variant]["benchmarks"] == report["benchmarks"]
        assert report["benchmarks"]["im2gps"].keys() >= {"accuracy", "mean_km", "nll", "ece", "macro_country"}


class Cells(HTMLParser):
    """The bodies of a page's tables: rows of cells, each our figure and the paper's beneath, if any."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.inside = [], False
        self.feed(text.replace("<wbr>", ""))  # which says only where a line may end

    def handle_starttag(self, tag, attrs):
        if tag == "tbody":
            self.tables.append([])
            self.inside = True
        elif self.inside and tag == "tr":
            self.tables[-1].append([])
        elif self.inside and tag in ("td", "th"):
            self.tables[-1][-1].append([])

    def handle_endtag(self, tag):
        self.inside &= tag != "tbody"

    def handle_data(self, data):
        if self.inside and data.strip():
            self.tables[-1][-1][-1].append(data.strip())


def test_markdown_html_and_json_agree(scored, written):
    folder = scored.leaderboard
    in_html = Cells((folder / "leaderboard.html").read_text()).tables
    lines = (folder / "leaderboard.md").read_text().splitlines()
    in_markdown = [line.strip("|").replace("**", "").split("|") for line in lines if line.startswith("| ")]
    in_markdown = [[cell.strip() for cell in row] for row in in_markdown]
    in_markdown = [row for row in in_markdown if row[0] not in ("variant", "---")]
    assert len(in_html) == len(written.sections) == 2
    assert sum(map(len, in_html)) == len(in_markdown)
    for section, html_rows in zip(written.sections, in_html, strict=True):
        for row, cells in zip(section.rows, html_rows, strict=True):
            expected = []
            for found in section.columns():
                theirs, ends = row.paper.get(found.name), row.intervals.get(found.name)
                shown = found.show(row.values.get(found.name))
                between = tables.span(ends.low, ends.high, found.format) if ends else ""
                printed = found.show(theirs) if theirs else ""
                expected.append((shown, between, printed))
            assert cells[0][0] == row.name
            size = "–" if row.parameters is None else f"{row.parameters:,}"
            about = [row.labels, row.family, ", ".join(row.encoders), size]
            assert [cell[0] if cell else "" for cell in cells[-4:]] == about
            assert cells[1:-6] == [list(filter(None, parts)) for parts in expected]
            plain = in_markdown.pop(0)
            assert plain[0].removeprefix("★ ").removesuffix(f" ({row.labels})") == row.name
            assert plain[1:-6] == [
                a + (f" [{between}]" if between else "") + (f" ({theirs})" if theirs else "")
                for a, between, theirs in expected
            ]
            assert plain[-4:] == about
            if not row.baseline:
                assert cells[-6][0] == f"{row.over_majority.value:+.1f}"
                assert row.beats_majority == row.over_majority.sure


@pytest.mark.parametrize("value", [12.34, None])
def test_the_figure_without_leaked_photos_may_be_missing(written, value):
    clean = {"n": 1234, "leaked": 2, "figures": {written.best.metric: value}, "intervals": {}}
    section = written.sections[0]
    row = section.rows[0].model_copy(update={"clean": board.Clean.model_validate(clean)})
    changed = written.model_copy(update={"sections": [section.model_copy(update={"rows": [row]})]})
    [note] = [note for note in tables.notes(changed) if note.startswith("Without photos that share")]
    figure = "no figure" if value is None else f"{column(written.best.metric).label} 12.3"
    assert f"{row.name} on {section.name}: {figure} of 1,234 photos, 2 left out" in note


def test_the_page_needs_no_network_and_closes_what_it_opens(scored, written):
    text = (scored.leaderboard / "leaderboard.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|\bsrc=|fetch\(", text)
    for tag in ("section", "table", "tr", "td", "th", "thead", "tbody", "div", "main", "script", "style"):
        assert len(re.findall(rf"<{tag}\b", text)) == text.count(f"</{tag}>"), tag


def test_names_cannot_break_the_tables(written):
    evil = "<script>alert('x')</script>|"
    section = written.sections[0]
    row = section.rows[0].model_copy(update={"name": evil, "source": '"><b>', "paper": {"accuracy": 1.0}})
    changed = written.model_copy(update={"sections": [section.model_copy(update={"rows": [row]})]})
    assert "<script>alert" not in page.html(changed)
    assert 'title=""><b>' not in page.html(changed)
    assert r"\<script\>alert('x')\</script\>\|" in tables.markdown(changed)


def test_the_best_leads_its_table_and_is_what_promotion_reads(scored, written):
    best = json.loads((scored.leaderboard / "leaderboard.json").read_text())["best"]
    reports = leaderboard.gather(scored)
    values = {name: report["benchmarks"]["im2gps"]["within_750km"] for name, report in reports.items()}
    assert best == {
        "variant": max(values, key=values.__getitem__),
        "benchmark": "im2gps",
        "metric": "within_750km",
        "value": max(values.values()),
        "higher_is_better": True,
        "benchmark_sha256": reports["by_country"]["sha256"]["im2gps"],
    }
    assert written.sections[0].name == "im2gps"
    assert written.sections[0].rows[0].name == best["variant"]
    assert [row.baseline for row in written.sections[0].rows] == [False, False, True, True]
    summary = json.loads(scored.summary("leaderboard", "leaderboard").read_text())
    assert summary["values"] == pytest.approx(
        {row.name: row.values["within_750km"] for row in written.sections[0].rows}
    )
    assert scored.plot("leaderboard", "leaderboard").is_file()


def test_the_best_is_compared_with_each_other_on_the_same_photos(scored, written):
    section = written.sections[0]
    first, second = (row.name for row in section.rows[:2])
    (found,) = section.comparisons
    assert (found.variant, found.other, found.metric) == (first, second, "within_750km")
    reports = leaderboard.gather(scored)
    values = [reports[name]["benchmarks"]["im2gps"]["within_750km"] for name in (first, second)]
    assert found.value == pytest.approx(values[0] - values[1])
    draws = [stage.read_draws(scored, name, "im2gps", "within_750km") for name in (first, second)]
    assert found.low <= found.value <= found.high
    assert found.high - found.low == pytest.approx(4 * np.std(draws[0] - draws[1]), rel=0.1, abs=1e-6)
    assert found.p_corrected == found.p, "one comparison needs no correction"
    assert section.comparison(section.rows[0]) is None
    assert section.comparison(section.rows[1]) == found
    cell = tables._behind_the_best(section, section.rows[1])
    assert cell.value == found.value
    assert cell.interval == tables.span(found.low, found.high, ".1f") != ""
    assert cell.note.startswith("p ")
    assert tables._behind_the_best(section, section.rows[0]).value is None


def test_what_a_row_has_over_the_majority_stands_with_its_interval(written):
    [row, *_] = [row for row in written.sections[0].rows if row.over_majority]
    cell, gain = tables._over_majority(row), row.over_majority
    assert (cell.value, cell.interval) == (gain.value, tables.span(gain.low, gain.high, ".1f"))
    assert cell.interval


def test_where_not_all_have_what_decides_the_best_is_compared_in_countries(scored):
    reports = leaderboard.gather(scored)
    reports["by_region"]["benchmarks"]["im2gps"]["mean_km"] = None
    (found,) = board._comparisons("im2gps", "mean_km", reports, partial(stage.read_draws, scored))
    assert found.metric == "country_accuracy"


def test_a_figure_that_was_selected_on_says_so(written):
    assert [section.selected for section in written.sections] == [True, False]
    assert "variants were selected on these" in written.sections[0].count
    assert "selected" not in written.sections[1].count
    assert "selected on im2gps: its figures there are too good" in tables.markdown(written)


def chosen(name, **more):
    return {"registry": Registry(model="m", benchmark=name, metric="within_750km"), **more}


def test_a_selection_set_is_asked_about_though_it_is_no_benchmark():
    corpora = {name: SimpleNamespace(role=role) for name, role in (("mp16", "train"), ("im2gps", "benchmark"),
                                                                   ("picked", "benchmark"))}  # fmt: skip
    named = {"corpora": corpora, "evaluation": Evaluation(benchmarks=("im2gps",))}
    assert profile(**chosen("picked", **named)).benchmarks == ["im2gps", "picked"]
    assert profile(**chosen("validation", **named)).benchmarks == ["im2gps"]


def test_a_table_is_restated_in_any_convention(scored, written):
    found = leaderboard.restated(scored, written, "pigeon")
    for before, after in zip(written.sections[0].rows, found.sections[0].rows, strict=True):
        longer = 6378.137 / 6371
        assert after.values["mean_km"] == pytest.approx(before.values["mean_km"] * longer, abs=0.11)
        assert after.values["accuracy"] == before.values["accuracy"]
        if not before.baseline:
            assert after.intervals["mean_km"].low == pytest.approx(before.intervals["mean_km"].low * longer)
        else:
            assert after.intervals == before.intervals == {}
    shown = io.StringIO()
    leaderboard.show(scored, shown, "pigeon")
    assert "pigeon: sphere of 6378.14 km, within means <" in " ".join(shown.getvalue().split())
    with pytest.raises(UserError, match=r"convention 'miles': .*expected one of: geoloc, pigeon"):
        leaderboard.show(scored, shown, "miles")


def test_spreads_over_trainings_are_those_of_figures_that_are_not_restated(scored, written):
    section = written.sections[0]
    spread = board.Spread(mean=50, sd=1, trainings=3)
    row = section.rows[0].model_copy(update={"spreads": {"accuracy": spread, "mean_km": spread}})
    changed = written.model_copy(update={"sections": [section.model_copy(update={"rows": [row]})]})
    [found] = leaderboard.restated(scored, changed, "pigeon").sections[0].rows
    assert found.spreads == {"accuracy": spread}


def test_who_does_not_beat_the_majority_is_named(written):
    section = written.sections[0]
    row = section.rows[0].model_copy(update={"beats_majority": False})
    changed = written.model_copy(update={"sections": [section.model_copy(update={"rows": [row]})]})
    assert any(f"within its interval: {row.name} on im2gps" in note for note in tables.notes(changed))
    assert any("all are beyond their interval" in note for note in tables.notes(written)) == all(
        found.beats_majority is not False for part in written.sections for found in part.rows
    )


def test_smaller_errors_win(scored):
    made = board.build(profile(metric="median_km"), leaderboard.gather(scored))
    medians = [row.values["median_km"] for row in made.sections[0].rows if not row.baseline]
    assert medians == sorted(medians)
    assert not made.best.higher_is_better
    assert made.best.variant == made.sections[0].rows[0].name


@pytest.mark.parametrize("demo", [True, False])
def test_a_demo_says_so_everywhere(scored, demo):
    project = replace(scored, profile=profile(demo=demo))
    leaderboard.leaderboard(project)
    shown = io.StringIO()
    leaderboard.show(project, shown)
    for name in FORMATS[:2]:
        text = (project.leaderboard / name).read_text().replace("&#39;", "'")
        assert (board.BANNER in text) == demo
    assert json.loads((project.leaderboard / "leaderboard.json").read_text())["banner"] == (
        board.BANNER if demo else ""
    )
    assert ("Not a result on real photos" in shown.getvalue()) == demo


def test_the_terminal_states_n_and_marks_the_best(scored, written):
    shown = io.StringIO()
    leaderboard.show(scored, shown)
    assert "39 of 42 published rows" in shown.getvalue()
    assert f"★ Best {written.best.variant}" in shown.getvalue()


def test_the_papers_validation_numbers_stand_in_the_validation_table_only(written):
    rows = {section.name: next(r for r in section.rows if r.name == "by_country") for section in written.sections}
    assert rows["validation"].paper == {"accuracy": 8.2, "mean_km": 5107}
    assert rows["im2gps"].paper == {"within_200km": 4.4}
    assert written.sources == {"Someone 2024, Table 2": ["by_country"]}


def test_a_threshold_that_only_the_paper_has_is_shown_too(written):
    section = written.sections[0]
    row = section.rows[0].model_copy(update={"paper": {"within_100km": 3.0}})
    heads = [found.head for found in section.model_copy(update={"rows": [row]}).columns()]
    assert heads[heads.index("25 km") : heads.index("200 km") + 1] == ["25 km", "100 km", "200 km"]


def test_an_unknown_metric_is_named_with_what_there_is(scored):
    with pytest.raises(UserError, match=r"registry.metric: by_country has no 'luck' on im2gps; expected one of: n, "):
        board.build(profile(metric="luck"), leaderboard.gather(scored))


def test_scores_on_different_photos_are_not_compared(scored):
    reports = leaderboard.gather(scored)
    reports["by_region"]["sha256"]["im2gps"] = "other"
    with pytest.raises(UserError, match="im2gps: by_country, by_region were scored on different photos"):
        board.build(profile(), reports)


@pytest.mark.parametrize(
    ("countries", "limited"),
    [
        (6, ", its 6 most frequent countries"),
        (("FRA",), ", FRA alone"),
    ],
)
def test_a_variant_that_learns_some_countries_alone_has_a_table_of_its_own(scored, countries, limited):
    reports = leaderboard.gather(scored)
    reports["by_region"]["sha256"]["validation"] = "other"
    usual = profile()
    block = usual.variants["by_region"].model_copy(update={"countries": countries})
    chosen = usual.model_copy(update={"variants": {**usual.variants, "by_region": block}})
    made = {
        section.title: [r.name for r in section.rows if not r.baseline]
        for section in board.build(chosen, reports).sections
    }
    title = f"validation split of {reports['by_region']['corpus']}"
    assert made[title] == ["by_country"]
    assert made[title + limited] == ["by_region"]
    assert set(made["im2gps"]) == {"by_country", "by_region"}, "a benchmark is asked whole"


def test_trainings_with_other_seeds_are_a_spread_and_no_rows_of_their_own(scored):
    reports = leaderboard.gather(scored)
    chosen = profile()
    chosen._repeats = {"by_region": ("by_region_seed_2", "by_region_seed_3")}  # as its validation fills it
    first = reports["by_region"]["benchmarks"]["im2gps"]["within_750km"]
    for seed, change in ((2, 1.0), (3, 100.0)):  # the third is best by far, and no candidate
        again = copy.deepcopy(reports["by_region"])
        again["benchmarks"]["im2gps"]["within_750km"] = first + change
        reports[f"by_region_seed_{seed}"] = again
    made = board.build(chosen, reports)
    assert made.best.variant in ("by_country", "by_region")
    [part] = [section for section in made.sections if section.name == "im2gps"]
    rows = {row.name: row for row in part.rows if not row.baseline}
    assert set(rows) == {"by_country", "by_region"}
    assert rows["by_country"].spreads == {}
    found = rows["by_region"].spreads["within_750km"]
    values = [first, first + 1, first + 100]
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.trainings == 3
    assert rows["by_region"].spreads["accuracy"].sd == 0
    shown = tables.markdown(made)
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in shown
    assert "by_region, 3 trainings" in shown


def test_a_variant_without_scores_is_named(project):
    with pytest.raises(UserError, match="run `geoloc score by_country`"):
        leaderboard.leaderboard(project)
    assert not project.leaderboard.exists()


def test_the_same_scores_give_the_same_bytes(scored):
    first, second = [], []
    for found in (first, second):
        leaderboard.leaderboard(scored)
        found += [(scored.leaderboard / name).read_bytes() for name in FORMATS]
        found.append(scored.plot("leaderboard", "leaderboard").read_bytes())
    assert first == second


def test_right_classes_compare_within_a_label_space_only(written):
    section = written.sections[0]
    top, median = (column(name) for name in ("accuracy", "median_km"))
    assert [section.is_best(top, row) for row in section.rows] == [True, True, False, False]
    assert sum(section.is_best(median, row) for row in section.rows) == 1


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_terminal_gets_fewer_columns_not_broken_ones(written, width):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width)
    console.print(tables.render_terminal(written, width))
    shown = console.file.getvalue()
    assert "…" not in shown.replace("“always …”", "")
    assert "≤750" in shown
    assert ("≤2,500" in shown) == (width == 200)
