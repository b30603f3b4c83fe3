import json

import geopandas
import pandas as pd
import pytest
import shapely
from made_layouts import split
from made_photos import encoded, project, write

from geoloc_core.corpora import manifest
from geoloc_core.corpora.countries import ALIASES, alpha3, iso3
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.label import label, with_published
from geoloc_core.corpora.sources.countries import Options, read
from geoloc_core.corpora.truth import TRUTH, truth
from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.geo.names import known_names

OPTIONS = Options(kind="countries", images=".")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("France", "FRA"),
        ("south africa", "ZAF"),
        ("Côte d’Ivoire", "CIV"),
        ("Curacao", "CUW"),
        ("Réunion", "REU"),
        ("Bosnia & Herzegovina", "BIH"),
        ("The Netherlands", "NLD"),
        ("Isle-of-Man", "IMN"),
        ("St Lucia", "LCA"),
        ("US Virgin Islands", "VIR"),
        ("Atlantis", None),
        ("", None),
        ("Guinea", "GIN"),
        ("Niger", "NER"),
    ],
)
def test_countries_by_their_names(name, code):
    assert iso3(name) == code


def test_aliases_are_codes_of_countries():
    codes = set(alpha3().values())
    assert set(ALIASES.values()) <= codes
    assert all(iso3(name) == code for name, code in ALIASES.items())


def test_most_names_of_iso_3166_are_known(shared):
    table = pd.read_csv(shared / "gazetteer/country-codes.csv", dtype=str, keep_default_na=False)
    known = set(known_names(table["ISO3166-1-Alpha-3"]))
    for column in ("official_name_en", "CLDR display name"):
        rows = table[table[column].ne("") & table["ISO3166-1-Alpha-3"].isin(known)]
        found = rows[column].map(iso3)
        wrong = found.notna() & found.ne(rows["ISO3166-1-Alpha-3"])
        assert not wrong.any()
        assert found.notna().mean() > 0.9


def test_folders_are_countries_and_the_others_are_listed(tmp_path, capsys):
    write(
        tmp_path,
        {f"{folder}/{n}.jpg": encoded(hash((folder, n)) % 999) for folder in ("Chile", "Atlantis") for n in (1, 2)},
    )
    write(tmp_path, {"readme.txt": b"", "stray.jpg": encoded(5), "Chile/.DS_Store": b""})
    photos, refused = split(read(OPTIONS, tmp_path))
    assert [(p.image_id, p.attributes["gid_0"], p.latitude) for p in photos] == [
        ("Chile/1.jpg", "CHL", None),
        ("Chile/2.jpg", "CHL", None),
    ]
    assert {r.image_id: r.reason.value for r in refused} == {
        "Atlantis/1.jpg": "no_metadata",
        "Atlantis/2.jpg": "no_metadata",
        "Chile/.DS_Store": "not_a_photo",
        "readme.txt": "not_a_photo",
        "stray.jpg": "no_metadata",
    }
    assert "Atlantis" in capsys.readouterr().err
    named = OPTIONS.model_copy(update={"names": {"Atlantis": "GRC"}})
    assert {p.attributes["gid_0"] for p in split(read(named, tmp_path))[0]} == {"CHL", "GRC"}


def test_no_country_at_all_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="no folder is named after a country"):
        read(OPTIONS, write(tmp_path, {"a/1.jpg": b""}))


def test_a_corpus_without_coordinates_has_countries(tmp_path):
    made = project(tmp_path, OPTIONS)
    write(made.raw("c"), {f"{folder}/1.jpg": encoded(seed) for seed, folder in enumerate(("Chile", "Peru", "Malta"))})
    ingest(made, "c")
    rows = manifest.read_manifest(made.corpus("c")).to_pandas()
    assert rows["latitude"].isna().all()
    assert rows["longitude"].isna().all()
    published = manifest.read_published(made.corpus("c"))
    assert sorted(published) == ["CHL", "MLT", "PER"]
    names = {"name": ["Chile", "Peru", "Lima"], "iso_3166": ["CL", "PE", ""]}
    units = pd.DataFrame({"gid": ["CHL", "PER", "PER.1"], "level": [0, 0, 1], **names})
    empty = pd.DataFrame({"gid_0": [None] * 3, "name_0": [None] * 3, "gid_1": [None] * 3})
    labels = with_published(empty, rows, published, units)
    by_id = dict(zip(rows["image_id"], zip(labels["gid_0"], labels["name_0"], strict=True), strict=True))
    assert by_id == {"Chile/1.jpg": ("CHL", "Chile"), "Peru/1.jpg": ("PER", "Peru"), "Malta/1.jpg": (None, None)}


def test_coordinates_outrank_what_the_corpus_states(tmp_path):
    units = pd.DataFrame({"gid": ["CHL"], "level": [0], "name": ["Chile"], "iso_3166": ["CL"]})
    photos = pd.DataFrame({"latitude": [1.0, None]})
    rows = pd.DataFrame({"gid_0": [None, None], "name_0": [None, None]}, dtype=object)
    found = with_published(rows, photos, pd.Series(["CHL", "CHL"]), units)
    assert found["gid_0"].tolist() == [None, "CHL"]
    assert with_published(rows, photos, None, units) is rows


def test_photos_of_a_country_alone_are_kept_labelled_split_and_true(tmp_path, capsys):
    """GADM calls Kosovo XKO; Malta is not in these boundaries."""
    made = project(tmp_path, OPTIONS)
    made.profile.attributes_of, made.profile.learned_labels = (lambda corpus: []), (lambda corpus: set())
    folders = {"Chile": 8, "Kosovo": 5, "Malta": 1}
    names = [f"{folder}/{n}.jpg" for folder, count in folders.items() for n in range(count)]
    write(made.raw("c"), {name: encoded(seed) for seed, name in enumerate(names)})
    shapes = [shapely.box(-75, -50, -70, -20), shapely.box(20, 42, 21, 43)]
    known = {"GID_0": ["CHL", "XKO"], "COUNTRY": ["Chile", "Kosovo"]}
    boundaries.write({0: geopandas.GeoDataFrame(known, geometry=shapes, crs="EPSG:4326")}, made.boundaries)
    ingest(made, "c")
    label(made, "c")
    truth(made, "c")
    rows = manifest.read_table(made.truth("c"), TRUTH)
    assert rows["image_id"].to_pylist() == names
    assert rows["latitude"].null_count == rows["longitude"].null_count == 14
    assert rows["gid_0"].to_pylist() == ["CHL"] * 8 + ["XKO"] * 5 + [None]
    assert set(rows["split"].to_pylist()) == {"train", "validation"}
    labels = manifest.read_table(made.labels("c"), manifest.LABELS)
    assert labels["name_0"].to_pylist() == ["Chile"] * 8 + ["Kosovo"] * 5 + [None]
    assert labels["distance_km"].null_count == 14
    ingested, labelled, summed = (
        json.loads(made.summary(stage, "c").read_text()) for stage in ("ingest", "label", "truth")
    )
    assert (ingested["seen"], ingested["kept"], ingested["refused"]) == (14, 14, 0)
    assert (labelled["located"], labelled["country_only"], labelled["unlocated"]) == (13, 13, 1)
    assert labelled["unknown_countries"] == {"MLT": 1}
    assert summed == {"rows": 14, "placed": 0, "country_only": 13, "published": 14}
    told = capsys.readouterr().err
    assert "photos of countries that the boundaries lack have no unit: MLT 1" in told
    assert "of 14 published photos 0 have coordinates, 13 only a country" in told
