import pandas as pd
import pytest
from made_layouts import split
from made_photos import encoded, project, write

from geoloc_core.corpora import manifest
from geoloc_core.corpora.countries import ALIASES, alpha3, iso3
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.label import with_published
from geoloc_core.corpora.sources.countries import Options, read
from geoloc_core.errors import UserError
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
    units = pd.DataFrame({"gid": ["CHL", "PER", "PER.1"], "level": [0, 0, 1], "name": ["Chile", "Peru", "Lima"]})
    empty = pd.DataFrame({"gid_0": [None] * 3, "name_0": [None] * 3, "gid_1": [None] * 3})
    labels = with_published(empty, rows, published, units)
    by_id = dict(zip(rows["image_id"], zip(labels["gid_0"], labels["name_0"], strict=True), strict=True))
    assert by_id == {"Chile/1.jpg": ("CHL", "Chile"), "Peru/1.jpg": ("PER", "Peru"), "Malta/1.jpg": (None, None)}


def test_coordinates_outrank_what_the_corpus_states(tmp_path):
    units = pd.DataFrame({"gid": ["CHL"], "level": [0], "name": ["Chile"]})
    photos = pd.DataFrame({"latitude": [1.0, None]})
    rows = pd.DataFrame({"gid_0": [None, None], "name_0": [None, None]}, dtype=object)
    found = with_published(rows, photos, pd.Series(["CHL", "CHL"]), units)
    assert found["gid_0"].tolist() == [None, "CHL"]
    assert with_published(rows, photos, None, units) is rows
