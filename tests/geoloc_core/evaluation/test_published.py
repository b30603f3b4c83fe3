"""The tables of the papers: read, whole, and as they are printed."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from geoloc_core.contracts.metrics import column
from geoloc_core.evaluation import published
from geoloc_core.evaluation.published import COSTS, COUNTED, Tables
from geoloc_core.yamls import read_yaml
from tests.conftest import ROOT
from tests.geoloc_core.made_answers import PAPERS

TABLES = {table.id: table for table in published.tables().tables}


def cell(table: str, row: str, head: str) -> str:
    found = TABLES[table]
    [cells] = [one.cells for one in found.rows if one.name == row]
    return cells[[one.head for one in found.columns].index(head)]


@pytest.mark.parametrize(
    ("table", "row", "head", "printed"),
    [
        ("okkerman-1-countries", "Mean", "photos", "17605"),
        ("okkerman-1-subdivisions", "Median", "photos", "53"),
        ("okkerman-2", "NN with hidden layers, CLIP + ViT", "accuracy, %", "26.4"),
        ("okkerman-2", "Baseline, CLIP", "top-10, %", "29.3"),
        ("okkerman-3", "IM2GPS3k: NN with hidden layers + CLIP", "Country, 750 km", "15.4"),
        ("sinski-results", "GeoCLIP", "IM2GPS, top-1", "0.728"),
        ("sinski-results", "CLIP + ISN (G³)", "IM2GPS, top-5", "0.017"),
        ("sinski-cost", "(G³) CLIP + Attn", "training time per epoch, s", "8375"),
        ("sinski-pairs", "Puerto Rico and Dominican Republic", "photos", "9"),
        ("sinski-continents", "South & North America", "top-10", "0.927"),
        ("sinski-recall", "Slovakia", "recall", "0.200"),
        ("gong-1", "G50 Baseline", "accuracy", "–"),
        ("gong-1", "G50 6 Country Feature Classifier", "accuracy", "0.8181"),
        ("gong-2", "G50 Vegetation Classifier", "accuracy", "0.0754"),
        ("figueroa", "Top 150 cities", "mean distance, km", "128"),
        ("haas-2022-1", "+ ProtoNet Refinement", "City, 25 km", "40.36"),
        ("haas-2022-1", "CLIP Base", "Country, 750 km", "80.20"),
        ("haas-2022-2", "CLIP Base", "season accuracy, %", "N/A"),
        ("haas-2022-2", "+ Semantic Geocells", "elevation error, m", "147.1"),
        ("haas-2022-3", "IM2GPS3K: TransLocator", "Continent, 2500 km", "80.10"),
        ("haas-2023", "StreetCLIP", "200 km", "45.1"),
    ],
)
def test_cells_are_as_the_papers_print_them(table, row, head, printed):
    assert cell(table, row, head) == printed


def test_every_column_is_a_metric_and_every_variant_one_of_a_profile():
    profiles = read_yaml(ROOT / "params.yaml")["profiles"].values()
    known = {name for profile in profiles for name in profile["variants"]}
    for table in TABLES.values():
        for one in table.columns:
            assert one.metric == COUNTED or one.metric in COSTS or column(one.metric), one
        named = {name for row in table.rows for name in table.standing(row)}
        assert named <= known, table.id
    assert len(TABLES) == 16
    assert {table.id for table in TABLES.values() if not any(map(table.standing, table.rows))} == {
        "okkerman-1-countries", "okkerman-1-subdivisions",
    }  # fmt: skip


def test_rows_that_are_only_published_are_there():
    only = {row.name for table in TABLES.values() for row in table.rows if not table.standing(row) and not row.key}
    assert only == {
        "GeoCLIP", "IM2GPS: ViT Base", "IM2GPS: TransLocator", "IM2GPS3K: ViT Base", "IM2GPS3K: TransLocator",
        "PlaNet", "ISNs", "TransLocator",
    }  # fmt: skip


def test_figures_keep_their_digits_and_come_in_our_unit():
    whole, [share, *_] = TABLES["haas-2022-1"].columns[3], TABLES["sinski-results"].columns
    assert str(published.figure("80.20", whole)) == "80.20"
    assert str(published.figure("0.940", share)) == "94.0"
    assert published.figure("0.0000", share) == Decimal(0)
    assert published.figure("N/A", whole) is published.figure("–", whole) is None


def test_what_stands_beside_a_variant():
    assert PAPERS.beside("by_country", "validation") == (
        {"accuracy": 8.2, "mean_km": 5107},
        "Someone 2024, Table 2",
    )
    assert PAPERS.beside("by_country", "im2gps") == ({"within_200km": 4.4}, "Someone 2024, Table 2")
    assert PAPERS.beside("elsewhere", "validation") == PAPERS.beside("nobody", "im2gps") == ({}, "")
    found = published.tables()
    figures, source = found.beside("pigeon_tasks", "test")
    assert (figures["within_25km"], figures["elevation_mae"]) == (33.22, 141.7)
    assert source == "Haas, Skreta and Alberti 2022, Table 1; Haas, Skreta and Alberti 2022, Table 2"
    assert found.beside("clip_isn", "im2gps") == ({}, ""), "an evaluation that went wrong"
    assert found.beside("clip_isn", "validation")[0]["accuracy"] == 61.7
    assert found.beside("geoclip", "im2gps") == found.beside("geoclip_released", "im2gps")
    assert found.beside("streetclip_attn", "validation")[0].keys() == {"accuracy", "top_5", "top_10"}


def made(rows=None, **changed):
    table = PAPERS.tables[0].model_dump() | changed
    return {"tables": [table | {"rows": rows} if rows else table]}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (made([{"name": "a", "cells": "1 2"}]), "someone: a: 2 cells; expected 3"),
        (made([{"name": "a", "cells": "1 2 three"}]), "someone: a: 'three'; expected a number, – or N/A"),
        (made(columns=[{"head": "a", "metric": "luck", "on": "im2gps"}]), "'luck': no metric of a table of scores"),
        (
            made([{"name": "a", "cells": "1"}], columns=[{"head": "a", "metric": "accuracy"}]),
            "someone: a: not said on which benchmark",
        ),
        (made([{"name": "a", "key": "USA", "cells": "1 2 3"}]), "someone: a: expected a key in all tables but those"),
        (made([{"name": "a", "cells": "0.1 2 3"}, {"name": "b", "cells": "0.2 2 101"}]),
         "someone: 200 km: expected figures from 0, and shares to 100 %"),
        (made(level="country"), "expected level and corpus of units, and of nothing else"),
        ({"tables": [PAPERS.tables[0], PAPERS.tables[0]]}, "two of one id"),
        (
            {"tables": [PAPERS.tables[0].model_copy(update={"id": "b", "rows": (
                PAPERS.tables[0].rows[0].model_copy(update={"cells": ("0.083", "–", "–")}),)}), PAPERS.tables[0]]},
            "by_country: accuracy on validation is 8.2, and in Someone 2024, Table 2 8.3",
        ),
    ],
)  # fmt: skip
def test_a_table_that_is_not_whole_says_what_is_wrong(raw, says):
    with pytest.raises(ValidationError) as told:
        Tables.model_validate(raw)
    assert says in str(told.value)


def test_tables_of_one_paper_are_cited_together():
    known = {table.source for table in published.tables().tables}
    okkerman = [f"Okkerman 2024, Table {number}" for number in (2, 3)]
    assert set(okkerman) <= known
    assert published.cited(okkerman[:1]) == "Okkerman 2024, Table 2"
    assert published.cited([*okkerman, okkerman[0]]) == "Okkerman 2024, Tables 2 and 3"
    left = "Okkerman 2024, Table 1, left"
    assert published.cited([left, *okkerman]) == "Okkerman 2024, Tables 2 and 3 and Table 1, left"
    assert published.cited([okkerman[0], "A guess", okkerman[1]]) == "Okkerman 2024, Tables 2 and 3; A guess"
