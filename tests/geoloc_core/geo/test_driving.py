import json

import pytest

from geoloc_core.errors import UserError
from geoloc_core.geo.driving import driving_sides


def write(path, rows):
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def test_names_become_codes_and_parts_are_left_out(tmp_path, capsys):
    names = {
        "United Kingdom": "left",
        "England": "right",
        "Cape Verde": "right",
        "Micronesia, Federated States of": "right",
    }
    rows = [{"country": name, "side": side} for name, side in names.items()]
    assert driving_sides(write(tmp_path / "sides.json", rows)) == {"GBR": "left", "CPV": "right", "FSM": "right"}
    assert "not names of countries: England" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("[", "not JSON"),
        ({}, "not a list"),
        ([{"country": "Kenya", "side": "left"}, {"country": "Chad"}], r"row 1: {'country': 'Chad'}"),
        ([{"country": "Kenya", "side": "middle"}], "row 0: .*middle"),
    ],
)
def test_another_file_is_named(tmp_path, rows, says):
    with pytest.raises(UserError, match=f"sides.json.*{says}"):
        driving_sides(write(tmp_path / "sides.json", rows))
    with pytest.raises(UserError, match=r"other.json: no such file"):
        driving_sides(tmp_path / "other.json")


def test_known_countries(shared):
    sides = driving_sides(shared / "geodata/country-by-driving-side.json")
    assert len(sides) > 235
    for left in ("GBR", "IRL", "AUS", "NZL", "JPN", "IND", "KEN", "ZAF", "THA", "IDN", "CYP", "MLT", "TLS"):
        assert sides[left] == "left", left
    for right in ("USA", "FRA", "DEU", "BRA", "CHN", "NGA", "RUS", "EGY", "SWE", "MMR"):
        assert sides[right] == "right", right
