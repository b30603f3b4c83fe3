"""How fast answers are scored and compared, and in how much memory: ``python tests/benchmarks/bench_score.py``.

First many variants on one benchmark of a few thousand photos by a few hundred photographers: their scores, then the
leaderboard and the report of all (without MLflow, and without photos to explain). Then one variant on very many photos.
Everything is computed: figures, intervals, differences, details and conventions. The last column is that of one plain
pass over the same rows (the great-circle errors alone), in the same run. Where other processes are at work, seconds of
CPU tell more than those of the clock.

Last, what each answer adds to the memory: the peaks of two processes that score a quarter of the most answers and all
of them, and nothing else.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from memory import peak
from report import machine, row

from geoloc_core import files, parquet
from geoloc_core.contracts.geolocator import LABELS
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.corpora.countries import alpha3
from geoloc_core.evaluation.leaderboard import leaderboard
from geoloc_core.evaluation.report.command import report
from geoloc_core.evaluation.score import score
from geoloc_core.families import classifier
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.params import Evaluation, Profile, Registry
from geoloc_core.params.schema import Report
from geoloc_core.project import Project
from geoloc_core.registry import tracking
from geoloc_core.variants import answers

PART = 2**16


def answered(project: Project, variant: str, rows: int, groups: int, seed: int = 0) -> None:
    """Answers as of a model of 200 countries, made up: of each variant other ones to the same photos."""
    truths, random = np.random.default_rng(0), np.random.default_rng(seed + 1)
    ids = sorted(alpha3().values())[:200]
    space = LabelSpace("country", ids, ids, [""] * 200, truths.uniform(-60, 70, 200), truths.uniform(-180, 180, 200))
    folder = project.answers(variant)
    folder.mkdir(parents=True)
    with parquet.writer(folder / "b.parquet", answers.ANSWERS) as out:
        for start in range(0, rows, PART):
            n = min(PART, rows - start)
            truth = truths.integers(0, 200, n)
            shares = random.random((n, 200), np.float32) ** 8
            shares[np.arange(n), truth] += 0.5
            found = Prediction.of_probabilities(shares / shares.sum(axis=1, keepdims=True), space, 10, truth)
            names = np.array(ids, object)[truth]
            known = {
                "image_id": [f"p{i}" for i in range(start, start + n)],
                "group_id": [f"g{i}" for i in truths.integers(0, groups, n)],
                "true_latitude": np.clip(space.latitudes[truth] + truths.normal(0, 3, n), -90, 90),
                "true_longitude": space.longitudes[truth],
                "true_class": list(names),
                "true_country": list(names),
                "true_subdivision": [None] * n,
            }
            out.write_table(answers.table(found, space, np.arange(start, start + n), known))
    space.save(folder / LABELS)
    note = answers.Note(
        variant=variant, family="classifier", encoders=["e"], members=[], corpus="c", labels="country",
        frequencies=[1] * 200, benchmarks={"b": answers.Asked(corpus="b", published=rows)}, demo=True,
        trained_on=["c"], parameters=1,
    )  # fmt: skip
    files.write_json(folder / answers.NOTE, note.model_dump(mode="json"))


def made(folder: str, variants: int) -> Project:
    """A project of so many variants."""
    block = classifier.Options(kind="classifier", corpus="c", encoders=("e",), labels="country")
    profile = Profile.model_construct(
        demo=True,
        evaluation=Evaluation(),
        registry=Registry(model="m", benchmark="b", metric="accuracy"),
        corpora={"b": SimpleNamespace(role="benchmark")},
        pretrain={},
        pretrain_from={},
        checkpoints={},
        variants={f"v{number}": block for number in range(variants)},
        boundaries=SimpleNamespace(kind="gadm"),
        report=Report(),
    )
    return Project(Path(folder), profile)


def scored(project: Project) -> None:
    """All variants, one after the other."""
    for name in project.profile.variants:
        score(project, name)


def peak_bytes(folder: str) -> int:
    """Of this process, once it has scored the one variant of a project."""
    tracking.log_scores = lambda *_: None
    scored(made(folder, 1))
    return peak()


def memory(most: int) -> None:
    """Bytes that each answer adds to the peak of scoring, from a quarter of the most answers to all."""
    row("scored by a fresh process", "peak memory", "bytes per answer more")
    row("---", "---:", "---:")
    before = None
    for n in (most // 4, most):
        with tempfile.TemporaryDirectory() as folder:
            answered(made(folder, 1), "v0", n, most // 16)
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                held = fresh.submit(peak_bytes, folder).result()
        row(
            f"{n:,} answers",
            f"{held / 1e9:.2f} GB",
            "" if before is None else f"{(held - before) / (most - n // 4):,.0f}",
        )
        before = held


def main(rows: int, groups: int, variants: int, most: int) -> None:
    print(f"{machine()}\n")
    tracking.log_scores = lambda *_: None
    row("what", "answers", "groups", "variants", "clock", "CPU", "peak memory", "times one pass")
    row("---", *["---:"] * 7)
    for n, of, times in ((rows, groups, variants), (most, most // 4, 1)):
        if not n:
            continue
        with tempfile.TemporaryDirectory() as folder:
            project = made(folder, times)
            for number, name in enumerate(project.profile.variants):
                answered(project, name, n, of, number)
            table = parquet.read(answers.path(project, "v0", "b"), "", ["latitude", "longitude", "true_latitude"])
            axes = [table[name].to_numpy() for name in table.column_names]
            started = time.process_time()
            haversine_km(axes[0], axes[1], axes[2], axes[1])
            plain = times * (time.process_time() - started)
            steps = {"score": scored} | ({"leaderboard": leaderboard, "report": report} if times > 1 else {})
            for what, step in steps.items():
                clock, busy = time.perf_counter(), time.process_time()
                step(project)
                clock, busy = time.perf_counter() - clock, time.process_time() - busy
                sizes = f"{n:,}", f"{of:,}", times
                row(what, *sizes, f"{clock:.1f} s", f"{busy:.1f} s", f"{peak() / 1e9:.2f} GB", f"{busy / plain:,.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=3000)
    parser.add_argument("--groups", type=float, default=200)
    parser.add_argument("--variants", type=int, default=50)
    parser.add_argument("--most", type=float, default=1e6)
    chosen = parser.parse_args()
    main(int(chosen.rows), int(chosen.groups), chosen.variants, int(chosen.most))
    if chosen.most:
        print()
        memory(int(chosen.most))
