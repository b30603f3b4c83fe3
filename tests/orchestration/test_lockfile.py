from collections import OrderedDict

import pytest
import yaml
from dvc.utils.serialize import loads_yaml, modify_yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestration import lockfile

STAGES = {
    "fetch@mp16": {
        "cmd": "geoloc fetch mp16 " + "and a command that is longer than a line is wide " * 4,
        "deps": [OrderedDict(path="geoloc_core/corpora/world", hash="md5", md5="0123456789ab.dir", size=7, nfiles=2)],
        "params": {
            "params.yaml": {
                "run.seed": 20,
                "run.x": {"lr": 0.003, "wd": 1e-05, "on": True, "said": ["no", "1e-05", "über", None], "none": None},
            }
        },
        "outs": [{"path": "data/raw/mp16", "hash": "md5", "md5": "1234567", "size": 5}],
    },
    "leaks": {"cmd": "geoloc leaks", "deps": []},
}


def stored(path, change, by):
    with by(str(path)) as data:
        data.update({"schema": "2.0"})
        data.setdefault("stages", {}).update(OrderedDict(change))
    return path.read_text()


def test_it_is_written_byte_for_byte_as_dvc_writes_it(tmp_path):
    for name, stage in STAGES.items():
        ours = stored(tmp_path / "ours.lock", {name: stage}, lockfile.modified)
        assert ours == stored(tmp_path / "theirs", {name: stage}, modify_yaml)
    assert list(yaml.safe_load(ours)["stages"]) == list(STAGES)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_dvc_reads_what_is_written(content):
    assert (loads_yaml(lockfile.printed(content)) or {}) == content


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    before = stored(tmp_path / "a", STAGES, lockfile.modified)
    with pytest.raises(KeyError), lockfile.modified(str(tmp_path / "a")) as data:
        data.clear()
        raise KeyError
    assert (tmp_path / "a").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
