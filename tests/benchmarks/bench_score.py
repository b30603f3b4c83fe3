"""How fast answers are scored, and in how much memory: ``python tests/benchmarks/bench_score.py``.

First many variants on one benchmark of a few thousand photos by a few hundred photographers; then one variant on very
many. Everything is computed: figures, intervals, differences, details and conventions. The last column is that of one
plain pass over the same rows (the great-circle errors alone), in the same run.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from report import machine, row

from geoloc_core import files, parquet
from geoloc_core.contracts.geolocator import LABELS
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.corpora.countries import alpha3
from geoloc_core.evaluation.score import score
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.params import Evaluation, Profile, Registry
from geoloc_core.project import Project
from geoloc_core.variants import answers

PART = 2**16


def answered(project: Project, rows: int, groups: int) -> None:
    """Answers as of a model of 200 countries, made up."""
    random = np.random.default_rng(0)
    ids = sorted(alpha3().values())[:200]
    space = LabelSpace("country", ids, ids, [""] * 200, random.uniform(-60, 70, 200), random.uniform(-180, 180, 200))
    folder = project.answers("v")
    folder.mkdir(parents=True)
    with parquet.writer(folder / "b.parquet", answers.ANSWERS) as out:
        for start in range(0, rows, PART):
            n = min(PART, rows - start)
            truth = random.integers(0, 200, n)
            shares = random.random((n, 200), np.float32) ** 8
            shares[np.arange(n), truth] += 0.5
            found = Prediction.of_probabilities(shares / shares.sum(axis=1, keepdims=True), space, 10, truth)
            names = np.array(ids, object)[truth]
            known = {
                "image_id": [f"p{i}" for i in range(start, start + n)],
                "group_id": [f"g{i}" for i in random.integers(0, groups, n)],
                "true_latitude": np.clip(space.latitudes[truth] + random.normal(0, 3, n), -90, 90),
                "true_longitude": space.longitudes[truth],
                "true_class": list(names),
                "true_country": list(names),
                "true_subdivision": [None] * n,
            }
            out.write_table(answers.table(found, space, np.arange(start, start + n), known))
    space.save(folder / LABELS)
    note = answers.Note(
        variant="v", family="classifier", encoders=["e"], members=[], corpus="c", labels="country",
        frequencies=[1] * 200, benchmarks={"b": answers.Asked(corpus="b", published=rows)}, demo=True,
        trained_on=["c"], parameters=1,
    )  # fmt: skip
    files.write_json(folder / answers.NOTE, note.model_dump(mode="json"))


def main(rows: int, groups: int, variants: int, most: int) -> None:
    print(f"{machine()}\n")
    row("answers", "groups", "variants", "time of all", "peak memory", "times one pass")
    row(*["---:"] * 6)
    for n, of, times in ((rows, groups, variants), (most, most // 4, 1)):
        with tempfile.TemporaryDirectory() as folder:
            profile = Profile.model_construct(
                demo=True,
                evaluation=Evaluation(),
                registry=Registry(model="m", benchmark="b", metric="accuracy"),
                corpora={"b": SimpleNamespace(role="benchmark")},
            )
            project = Project(Path(folder), profile)
            answered(project, n, of)
            started = time.perf_counter()
            for _ in range(times):
                score(project, "v")
            taken = time.perf_counter() - started
            table = parquet.read(answers.path(project, "v", "b"), "", ["latitude", "longitude", "true_latitude"])
            axes = [table[name].to_numpy() for name in table.column_names]
            started = time.perf_counter()
            for _ in range(times):
                haversine_km(axes[0], axes[1], axes[2], axes[1])
            plain = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        row(f"{n:,}", f"{of:,}", times, f"{taken:.1f} s", f"{peak:.2f} GB", f"{taken / plain:,.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=3000)
    parser.add_argument("--groups", type=float, default=200)
    parser.add_argument("--variants", type=int, default=50)
    parser.add_argument("--most", type=float, default=1e6)
    chosen = parser.parse_args()
    main(int(chosen.rows), int(chosen.groups), chosen.variants, int(chosen.most))
