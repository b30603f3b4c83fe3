import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.geo import names


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("UnitedKingdom", [], "United Kingdom"),
        ("RiodeJaneiro", ["Rio de Janeiro"], "Rio de Janeiro"),
        ("SãoToméandPríncipe", ["Sao Tome and Principe"], "São Tomé and Príncipe"),
        ("RiodeJaneiro", [], "RiodeJaneiro"),
        ("MøreogRomsdal", [], "MøreogRomsdal"),
        ("Provence-Alpes-Côted'Azur", [], "Provence-Alpes-Côte d'Azur"),
        ("McCreary", [], "McCreary"),
        ("DeKalb", ["DeKalb", "De Kalb"], "DeKalb"),
        ("Nairobi(Kenya)", [], "Nairobi (Kenya)"),
        ("臺北市", ["臺 北"], "臺北市"),
        ("", [], ""),
        (None, [], None),
    ],
)
def test_spaces_come_back_where_that_is_certain(name, known, expected):
    assert names.restore([name], known) == [expected]


def test_a_file_is_stripped_when_no_name_kept_its_spaces():
    assert names.stripped(["UnitedKingdom", "England", None])
    assert not names.stripped(["United Kingdom", "McDonald"])
    assert not names.stripped(["Monaco"])
    assert not names.stripped([])


@given(st.lists(st.text(min_size=1), max_size=5), st.lists(st.text(), max_size=5))
def test_nothing_but_spaces_is_added(found, known):
    bare = [name.replace(" ", "") for name in found]
    assert [name.replace(" ", "") for name in names.restore(bare, known)] == bare


@pytest.mark.slow
def test_places_of_a_country_are_known():
    known = names.known_names(["USA", "BRA", "Z01"])
    assert set(known) == {"USA", "BRA"}
    assert {"United States", "New York", "North Carolina", "San Diego"} <= set(known["USA"])
    assert "São Paulo" in known["BRA"]
