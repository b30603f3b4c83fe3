"""What a corpus states of its photos is learned and answered like any other classes, by photo and by place."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from geoloc_core import parquet
from geoloc_core.contracts.batch import Run
from geoloc_core.corpora import manifest
from geoloc_core.corpora.truth import truth
from geoloc_core.families import classifier, sequence_classifier
from geoloc_core.geo.sphere import coordinates, unit_vectors
from geoloc_core.project import Project
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from geoloc_core.variants.train import gather
from tests.geoloc_core.made_answers import make_project, profile, save_model

BLOCK = {"corpus": "mp16", "encoders": ("clip",), "labels": "square"}


def stating(root, block) -> tuple[Project, pd.DataFrame]:
    """A project whose corpus states the square of each photo, in places of up to four, and what is true of it."""
    made = Project(make_project(root).root, profile(variants={"v": block}, attributes=("square",)))
    folder, number = made.corpus("mp16"), np.arange(40)
    photos = manifest.read_manifest(folder).to_pandas()
    photos["place_id"] = [f"p{n // 4}" for n in number]
    photos["heading"] = 90.0 * (3 - number % 4)
    labels = manifest.read_table(made.labels("mp16"), manifest.LABELS).to_pandas()
    labels["split"] = np.where(number // 4 % 5 == 1, "validation", "train")
    for table, path, schema in ((photos, folder / "manifest.parquet", manifest.MANIFEST),
                                (labels, made.labels("mp16"), manifest.LABELS)):  # fmt: skip
        manifest.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), path, schema)
    squares = [None if n >= 36 else int(n // 4 % 3) for n in number]
    stated = pa.table({"image_id": photos["image_id"], "square": pa.array(squares, pa.int32())})
    parquet.write(stated, folder / "attributes.parquet")
    parquet.write(pa.table({"image_id": ["x"]}), made.corpus("im2gps") / "attributes.parquet")
    for corpus in ("mp16", "im2gps"):
        truth(made, corpus)
    known = photos.assign(square=[None if s is None else str(s) for s in squares], split=labels["split"])
    return made, known


def trained(made, block, family) -> pd.DataFrame:
    """Train the variant and let it answer; its answers to the validation split."""
    made.model("v").mkdir(parents=True)
    run = Run(5, made.model("v").parent / "checkpoint.pt", "x", lambda metrics, step: None)
    model = family.fit(gather(made, block), block, run).model
    save_model(made, "v", block, model, {"clip": "f00d"})
    answer(made, "v")
    return pd.read_parquet(answers.path(made, "v", "validation"))


def test_the_squares_of_a_corpus_are_classes(tmp_path):
    block = classifier.Options(kind="classifier", recipe={"epochs": 2}, **BLOCK)
    made, known = stating(tmp_path, block)
    data = gather(made, block)
    assert (data.space.kind, data.space.ids) == ("square", ["0", "1", "2"])
    assert data.space.names[1] == "square 1"
    training = known[(known["split"] == "train") & known["square"].notna()]
    assert data.training.tolist() == training.index.tolist()
    for at, square in enumerate(data.space.ids):
        mine = training[(training["square"] == square) & training["latitude"].notna()]
        latitude, _ = coordinates(unit_vectors(mine["latitude"], mine["longitude"]).mean(axis=0))
        assert data.space.latitudes[at] == pytest.approx(latitude)
        assert (data.targets[training.index[training["square"] == square]] == at).all()
    rows = trained(made, block, classifier)
    assert rows["true_class"].tolist() == known["square"][rows["row"]].tolist()
    assert answers.note(made, "v").labels == "square"
    assert answers.note(made, "v").frequencies == training["square"].value_counts().sort_index().tolist()
    elsewhere = pd.read_parquet(answers.path(made, "v", "im2gps"))
    assert elsewhere["true_class"].isna().all(), "another corpus states no squares"
    assert elsewhere["latitude"].isin(data.space.latitudes.round(6)).all()


def test_places_are_answered_once_by_all_their_views(tmp_path):
    block = sequence_classifier.Options(kind="sequence_classifier", recipe={"epochs": 2}, **BLOCK)
    made, known = stating(tmp_path, block)
    rows = trained(made, block, sequence_classifier)
    held = known[known["split"] == "validation"]
    assert len(rows) == held["place_id"].nunique() == 2
    assert rows["row"].tolist() == held.groupby("place_id").head(1).index.tolist()
    data = gather(made, block)
    units = data.units(data.validation)
    assert units.rows.tolist() == [row for place in (4, 24) for row in range(place + 3, place - 1, -1)]
