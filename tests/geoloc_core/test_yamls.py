"""YAML means what it means to DVC, and what means two things is refused in one line."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.errors import UserError
from geoloc_core.yamls import PLAIN, parse_yaml, read_yaml

PLAIN_TEXT = [
    "NO", "No", "no", "yes", "Yes", "on", "off", "y", "n", "true", "True", "TRUE", "false", "null", "~", "Null", "nULL",
    "12:30:45", "1:30", "010", "0o10", "0x1F", "0b101", "1_000", "1e3", "1e-4", "1.5e-4", "1.", ".5", "-.5", "+12",
    "1_0.5", ".inf", "-.inf", "0.000001", "007", "08", "-0", "=", "a", "_", "1a", "3d74acf9a28c67741b2f4f2e",
    "1e", "e1", "--1", "0x", "0o8", "1__0", "-.5e3",
]  # fmt: skip


@pytest.mark.parametrize("text", PLAIN_TEXT)
def test_plain_text_is_what_it_is_to_dvc(text):
    assert_same(text)


@given(st.text("0123456789_-+.eExobNnOoyYsStTrRuUfFlL:~", min_size=1, max_size=8))
def test_any_plain_text_is_what_it_is_to_dvc(text):
    try:
        node = yaml.compose(f"[{text}]", yaml.SafeLoader)
        assert isinstance(node.value[0], yaml.ScalarNode)
    except (yaml.YAMLError, AssertionError):
        return  # other than plain text
    assert_same(text)


def assert_same(text):
    from dvc.utils.serialize import YAMLFileCorruptedError
    from dvc.utils.serialize import parse_yaml as to_dvc

    try:
        expected = to_dvc(f"a: {text}\n", "params.yaml")["a"]
    except (YAMLFileCorruptedError, ValueError, TypeError, IndexError):
        return  # DVC itself stumbles
    found = parse_yaml(f"a: {text}\n")["a"]
    assert (type(found), repr(found)) == (type(expected), repr(expected))


def test_norway_is_no_falsehood_and_dates_are_text():
    assert parse_yaml("[NO, SE, 2020-01-31, 'NO']") == ["NO", "SE", "2020-01-31", "NO"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nrun: 2\nb: 3\nrun: 4\n", r"line 4: duplicate key `run` \(first on line 2\)"),
        ("a: {b: 1, b: 2}", r"line 1: duplicate key `b` \(first on line 1\)"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", r"line 4: duplicate key `<<` \(first on line 3\)"),
        ('a: 1\n"a": 2\n', r"line 2: duplicate key `a` \(first on line 1\)"),
        ("a:\n\tb: 1\n", "line 2: .*; expected spaces in place of a tab"),
        ("a: [1\nb: 2", "line 2: "),
        ("a: 1\n---\na: 2\n", "line 2: but found another document"),
        ("a: *b\n", "line 1: found undefined alias"),
        ("a: &a [*a]\n", "line 1: an alias that contains itself"),
        ("a: &a {b: *a}\n", "line 1: an alias that contains itself"),
        ("a: &a\n  <<: *a\n", "line .: an alias that contains itself"),
        ("[" * 150 + "]" * 150, "line 1: more than 100 levels"),
        ("[" * 100_000, "line 1: more than 100 levels"),
        ("- " * 100_000, "line 1: more than 100 levels"),
        ("? [a]\n: 1\n", "line 1: a key that is not text"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: tag .*; expected plain mappings and lists"),
        ("a: !x 1\n", "line 1: '1' is not of the type !x; remove the tag"),
        ("a: !!int b\n", "line 1: 'b' is not of the type int"),
        ("a: !!timestamp b\n", "line 1: 'b' is not of the type timestamp"),
        ("a: " + "9" * 5000, "line 1: Exceeds the limit"),
        ("a: 1\x00", "."),
        ("<<: 1\n", "line 1: expected a mapping"),
    ],
)
def test_what_is_no_yaml_or_means_two_things_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"params.yaml: not valid YAML: {says}") as said:
        read_yaml(path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("how", ["lists", "merges"])
def test_aliases_of_aliases_are_counted_before_they_are_written_out(how):
    lines = ["a0: &a0 {x: 1}"]
    for n in range(1, 40):
        nine = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"a{n}: &a{n} [{nine}]" if how == "lists" else f"a{n}: &a{n} {{<<: [{nine}]}}")
    with pytest.raises(yaml.YAMLError, match="its aliases expand to more than 1,000,000 values"):
        parse_yaml("\n".join(lines))


def test_what_is_said_twice_by_an_alias_is_said_once():
    assert parse_yaml("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}\n") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 3},
    }


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a: é".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("a: é".encode("latin-1"), "byte 4 is not valid UTF-8"),
    ],
)
def test_other_encodings_are_named(data, says):
    with pytest.raises(yaml.YAMLError, match=says):
        parse_yaml(data)


@pytest.mark.parametrize("data", ["a: é".encode("utf-8-sig"), "a: é".encode()])
def test_utf_8_is_read_with_its_mark_and_without(data):
    assert parse_yaml(data) == {"a": "é"}


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"# nothing\n", b"---\n"])
def test_nothing_is_nothing(data):
    assert parse_yaml(data) is None


@pytest.mark.parametrize("kind", PLAIN)
def test_the_first_characters_miss_nothing(kind):
    import re

    first, pattern = PLAIN[kind]
    for text in PLAIN_TEXT:
        assert not re.fullmatch(pattern, text) or text[0] in first


def test_a_folder_is_no_file_of_parameters(tmp_path):
    with pytest.raises(UserError, match="Is a directory; expected a file of parameters"):
        read_yaml(tmp_path)
