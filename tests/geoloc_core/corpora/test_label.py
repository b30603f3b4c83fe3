import json
from types import SimpleNamespace

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely

from geoloc_core.corpora import label as stage
from geoloc_core.corpora import manifest
from geoloc_core.corpora.manifest import LABELS, read_table
from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.params import Corpus, Labels, Profile
from geoloc_core.project import Project

PHOTOS = pd.DataFrame(
    [
        ("west", 5.0, 5.0, "ann"),
        ("east", 5.0, 15.0, "ben"),
        ("no place", None, None, "cat"),
        ("beach", -0.2, 5.0, "dan"),
        ("sea", -50.0, 5.0, "eve"),
        ("west again", 6.0, 6.0, "ann"),
        *[(f"west {n}", 5.0, 4.0, f"person {n}") for n in range(40)],
    ],
    columns=["image_id", "latitude", "longitude", "group_id"],
)


def fill(photos: pd.DataFrame) -> pa.Table:
    rest = {"corpus": "x", "shard": 0, "row": np.arange(len(photos)), "width": 1, "height": 1, "sha256": "0"}
    empty = dict.fromkeys(("place_id", "heading", "captured_at", "author", "licence", "source_url", "phash"))
    return pa.Table.from_pandas(photos.assign(**rest, **empty), manifest.MANIFEST, preserve_index=False)


@pytest.fixture
def project(tmp_path) -> Project:
    country = {"GID_0": ["ALB"], "COUNTRY": ["Alba"]}
    parts = {"GID_1": ["ALB.1_1", "ALB.2_1"], "GID_0": "ALB", "COUNTRY": "Alba", "NAME_1": ["West", "East"]}
    shapes = [shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)]
    levels = {
        0: geopandas.GeoDataFrame(country, geometry=[shapely.box(0, 0, 20, 10)], crs="EPSG:4326"),
        1: geopandas.GeoDataFrame(parts, geometry=shapes, crs="EPSG:4326"),
    }
    source = SimpleNamespace(kind="photos")
    roles = (("mine", "train"), ("test", "benchmark"))
    corpora = {name: Corpus.model_construct(role=role, source=source) for name, role in roles}
    project = Project(
        tmp_path, Profile.model_construct(seed=1, demo=False, labels=Labels(limit_km=100), corpora=corpora)
    )
    boundaries.write(levels, project.boundaries)
    for name in corpora:
        project.corpus(name).mkdir(parents=True)
        manifest.write_table(fill(PHOTOS), project.corpus(name) / "manifest.parquet", manifest.MANIFEST)
        manifest.write_table(manifest.REJECTS.empty_table(), project.corpus(name) / "rejects.parquet", manifest.REJECTS)
    return project


def test_labels_follow_the_manifest_row_by_row(project):
    stage.label(project, "mine")
    rows = read_table(project.labels("mine"), LABELS).to_pylist()
    assert [row["image_id"] for row in rows] == PHOTOS["image_id"].tolist()
    west, east, unknown, beach, sea, again = rows[:6]
    assert (west["gid_0"], west["gid_1"], west["gid_2"]) == ("ALB", "ALB.1_1", None)
    assert (west["name_0"], west["name_1"], west["name_2"]) == ("Alba", "West", None)
    assert east["name_1"] == "East"
    assert west["distance_km"] == 0
    assert beach["gid_1"] == "ALB.1_1"
    assert beach["distance_km"] == pytest.approx(22.24, abs=0.01)
    for row in (unknown, sea):
        assert [row[key] for key in ("gid_0", "gid_1", "name_0", "distance_km")] == [None] * 4
    assert west["split"] == again["split"]
    assert {row["split"] for row in rows} == {"train", "validation"}


def test_a_benchmark_is_never_split(project):
    stage.label(project, "test")
    assert set(read_table(project.labels("test"), LABELS, ["split"])["split"].to_pylist()) == {"benchmark"}


def test_figures_add_up(project, capsys):
    stage.label(project, "mine")
    summary = json.loads(project.summary("label", "mine").read_text())
    splits = summary.pop("splits")
    assert splits["train"] + splits["validation"] == 46
    assert summary == {
        "rows": 46,
        "located": 44,
        "inside": 43,
        "near": 1,
        "unlocated": 2,
        "without_coordinates": 1,
        "country_only": 0,
        "countries": 1,
        "subdivisions": 2,
        "continents": {"Europe": 44},
        "unknown_countries": {},
    }
    assert "| validation |" in project.datasheet("mine").read_text()
    assert project.datasheet("mine").with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "44 of 46 photos in 1 countries, 2 without a unit" in capsys.readouterr().err


def test_the_same_data_are_the_same_bytes(project):
    outputs = (project.labels("mine"), project.summary("label", "mine"), project.datasheet("mine"))
    stage.label(project, "mine")
    first = [path.read_bytes() for path in outputs]
    stage.label(project, "mine")
    assert [path.read_bytes() for path in outputs] == first


def test_a_corpus_without_coordinates_is_labelled_all_the_same(project):
    photos = PHOTOS.assign(latitude=None, longitude=None).astype({"latitude": float, "longitude": float})
    manifest.write_table(fill(photos), project.corpus("test") / "manifest.parquet", manifest.MANIFEST)
    stage.label(project, "test")
    assert read_table(project.labels("test"), LABELS)["gid_0"].null_count == len(photos)


def test_with_blocks_no_place_straddles_the_split(project):
    spread = PHOTOS[6:].reset_index(drop=True)
    spread = spread.assign(latitude=np.repeat(np.arange(20) * 0.5, 2), longitude=np.tile([4.0, 4.0001], 20))
    manifest.write_table(fill(spread), project.corpus("mine") / "manifest.parquet", manifest.MANIFEST)
    sides = {}
    for km in (None, 1):
        stage.label(told(project, blocks_km=km), "mine")
        split = read_table(project.labels("mine"), LABELS)["split"].to_numpy().reshape(20, 2)
        sides[km] = (split[:, 0] != split[:, 1]).sum()
    assert sides[None] > 0
    assert sides[1] == 0


def told(project, **labels) -> Project:
    """The project with other options of labels."""
    profile = project.profile.model_copy(update={"labels": Labels(limit_km=100, **labels)})
    return Project(project.root, profile)


def test_a_test_split_is_made_counted_and_described_where_it_is_asked_for(project):
    stage.label(project, "mine")
    before = read_table(project.labels("mine"), LABELS)["split"].to_numpy()
    made = told(project, test_share=0.3)
    for name in ("mine", "test"):
        stage.label(made, name)
    after = read_table(made.labels("mine"), LABELS)["split"].to_numpy()
    assert set(before[before != after]) == {"train"}
    assert set(after[before != after]) == {"test"}
    splits = json.loads(made.summary("label", "mine").read_text())["splits"]
    assert splits == {name: int((after == name).sum()) for name in ("train", "validation", "test")}
    assert f"| test | {splits['test']} |" in made.datasheet("mine").read_text()
    assert set(read_table(made.labels("test"), LABELS)["split"].to_pylist()) == {"benchmark"}


@pytest.mark.parametrize(("share", "absent"), [(0.0, "train|validation"), (0.5, "(train|validation|test) or ")])
def test_one_group_cannot_be_split(project, share, absent):
    manifest.write_table(
        fill(PHOTOS.assign(group_id="all")), project.corpus("mine") / "manifest.parquet", manifest.MANIFEST
    )
    with pytest.raises(UserError, match=rf"corpus 'mine': none of its photos \(1 groups\) falls to ({absent})"):
        stage.label(told(project, test_share=share), "mine")
    assert not project.labels("mine").exists()


def test_unknown_and_missing_corpora_are_named(project):
    with pytest.raises(UserError, match=r"corpus 'other': not in the profile in use; expected one of: mine, test"):
        stage.label(project, "other")
    (project.corpus("mine") / "manifest.parquet").unlink()
    with pytest.raises(UserError, match=r"manifest.parquet: no such file"):
        stage.label(project, "mine")
