"""Pictures that lie in shards, read in any order."""

import numpy as np
import pytest

from geoloc_core.corpora import manifest
from geoloc_core.corpora.stored import Stored
from geoloc_core.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """600 pictures in some shards of more than one row group."""
    made = tmp_path_factory.mktemp("stored")
    with manifest.ShardWriter(made, limit=3_500) as writer:
        for number in range(600):
            writer.add(f"p{number}", b"%09d" % number, f"{number}.jpg")
    assert len(manifest.shards(made)) == 2
    return made


def test_any_pictures_come_in_the_order_asked_for(folder):
    stored = Stored.all_of(folder)
    assert len(stored) == 600
    which = np.random.default_rng(1).integers(0, 600, 50)
    assert stored.take(which).read() == [b"%09d" % number for number in which]
    assert stored.read() == [b"%09d" % number for number in range(600)]
    assert stored.take(np.empty(0, int)).read() == []


def test_a_missing_shard_is_one_clear_line(tmp_path):
    stored = Stored(tmp_path, np.array([3]), np.array([0]))
    with pytest.raises(UserError, match=r"00003\.parquet"):
        stored.read()
