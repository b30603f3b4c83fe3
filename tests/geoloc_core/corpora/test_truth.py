import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from geoloc_core.corpora import manifest
from geoloc_core.corpora.truth import TRUTH, truth
from geoloc_core.errors import UserError
from geoloc_core.files import digest
from tests.geoloc_core.made_answers import make_project, write_corpus


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def test_it_holds_the_places_the_units_and_the_split_row_by_row(project):
    found = pd.read_parquet(project.truth("mp16"))
    photos = pd.read_parquet(project.corpus("mp16") / "manifest.parquet")
    labels = pd.read_parquet(project.labels("mp16"))
    units = ["gid_0", "gid_1", "gid_2", "split"]
    assert list(found) == ["image_id", "group_id", "latitude", "longitude", "place_id", "heading", *units]
    for name in found:
        pd.testing.assert_series_equal(found[name], (photos if name in photos else labels)[name])
    summary = json.loads(project.summary("truth", "mp16").read_text())
    assert summary == {"rows": 40, "placed": 38, "country_only": 1, "published": 42}
    assert pq.read_schema(project.truth("mp16")).metadata[b"geoloc.published"] == b"42"


def test_what_no_score_needs_does_not_change_it(project):
    before = digest(project.truth("mp16"))
    photos = manifest.read_manifest(project.corpus("mp16")).to_pandas().assign(author="ann", width=9)
    labels = manifest.read_table(project.labels("mp16"), manifest.LABELS).to_pandas().assign(name_0="Anywhere")
    for frame, path, schema in (
        (photos, project.corpus("mp16") / "manifest.parquet", manifest.MANIFEST),
        (labels, project.labels("mp16"), manifest.LABELS),
    ):
        manifest.write_table(manifest.pa.Table.from_pandas(frame, schema, preserve_index=False), path, schema)
    truth(project, "mp16")
    assert digest(project.truth("mp16")) == before
    labels = labels.assign(gid_0="KEN")
    table = manifest.pa.Table.from_pandas(labels, manifest.LABELS, preserve_index=False)
    manifest.write_table(table, project.labels("mp16"), manifest.LABELS)
    truth(project, "mp16")
    assert digest(project.truth("mp16")) != before


def test_what_lies_beside_a_corpus_was_not_published(project):
    path = project.corpus("mp16") / "rejects.parquet"
    rejects = manifest.read_table(path, manifest.REJECTS).to_pandas()
    stray = [("Thumbs.db", "not_a_photo", "x"), ("extra.jpg", "no_metadata", "x"), ("row 7", "bad_row", "x")]
    more = pd.concat([rejects, pd.DataFrame(stray, columns=rejects.columns)])
    manifest.write_table(
        manifest.pa.Table.from_pandas(more, manifest.REJECTS, preserve_index=False), path, manifest.REJECTS
    )
    truth(project, "mp16")
    assert json.loads(project.summary("truth", "mp16").read_text())["published"] == 43


def test_a_corpus_that_is_not_in_the_profile_is_refused(project):
    write_corpus(project, "crawl", np.random.default_rng(3))
    with pytest.raises(UserError, match="corpus 'crawl': not in the profile in use; expected one of: mp16"):
        truth(project, "crawl")
    assert not project.truth("crawl").exists()


def test_labels_of_other_photos_are_refused_and_nothing_is_lost(project):
    before = digest(project.truth("im2gps"))
    rows = manifest.read_table(project.labels("im2gps"), manifest.LABELS)
    manifest.write_table(rows.take(list(range(39, -1, -1))), project.labels("im2gps"), manifest.LABELS)
    with pytest.raises(UserError, match=r"im2gps\.parquet: does not match the manifest; run `geoloc label im2gps`"):
        truth(project, "im2gps")
    assert digest(project.truth("im2gps")) == before


def test_it_has_the_types_of_what_it_is_made_of(project):
    assert pq.read_schema(project.truth("mp16")).equals(TRUTH)
