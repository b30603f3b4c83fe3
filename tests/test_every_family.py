"""A variant of every family on its whole road, small: trained, scored, promoted, and asked about a new photo."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from geoloc_core.contracts.geolocator import FAMILIES
from geoloc_core.files import CHECKSUMS, digest, sha256_of, write_checksums
from geoloc_core.plugins import kinds

from .commands import commands
from .conftest import PHOTOS, ROOT, write_countries
from .geoloc_core.encoders import made_checkpoints, made_segmenters

pytestmark = pytest.mark.slow

PLACES = {
    "France": (48.8, 2.3, "FRA", (200, 30, 30)),
    "Kenya": (-1.3, 36.8, "KEN", (30, 200, 30)),
    "Spain": (40.4, -3.7, "ESP", (30, 30, 200)),
}
SMALL = {"epochs": 3, "batch": 8, "precision": "fp32", "augment": "none", "optimiser": {"kind": "adamw", "lr": 0.003}}
ON_PIECES = {"kind": "fine_tuned", "tower": "vit", "pieces": "pieces", "recipe": SMALL}
CLUES = {"kind": "guidebook_attention", "encoders": ["clip"], "text_encoder": "clip", "texts": "clues"}
TOWNS = {"path": "data/corpora/spots/attributes.parquet", "text": "town"}
CAPTIONS = {
    "kind": "contrastive_captions", "corpus": "spots", "text_encoder": "clip", "texts": "towns", "labels": "town",
}  # fmt: skip
VARIANTS = {
    "linear": {"kind": "classifier", "encoders": ["clip"]},
    "tuned": {"kind": "fine_tuned", "tower": "vit", "encoders": ["clip"], "recipe": SMALL},
    "ground": {**ON_PIECES, "groups": ["ground"]},
    "others": {**ON_PIECES, "groups": ["structures", "vegetation"]},
    "experts": {"kind": "feature_experts", "pieces": "pieces", "experts": ["ground", "others"]},
    "clues": CLUES,
    "clues_along": {**CLUES, "tower": "vit", "network": SMALL},
    "both": {"kind": "ensemble", "members": ["linear", "clues"]},
    "cells": {"kind": "geocell_classifier", "encoder": "clip", "labels": "squares", "smoothing": {}},
    "points": {
        "kind": "geoclip",
        "encoder": "clip",
        "hidden": [16],
        "dim": 8,
        "frequencies": 4,
        "capsule": [8, 8],
        "queue": 8,
        "recipe": {"epochs": 2, "batch": 8},
    },
    "captions": {"kind": "zero_shot", "encoder": "clip", "towns": 2},
    "towns": {**CAPTIONS, "encoders": ["clip"]},
    "towns_along": {**CAPTIONS, "tower": "vit", "network": SMALL},
    "views": {"kind": "sequence_classifier", "corpus": "spots", "encoders": ["clip"]},
    "retrieved": {
        "kind": "retrieval",
        "variant": "cells",
        "encoder": "clip",
        "labels": "squares",
        "bands": {"hidden": 8, "epochs": 1, "batch": 8},
    },
    "tree": {"kind": "hierarchical", "encoder": "clip", "labels": "squares", "recipe": {"epochs": 2, "batch": 8}},
    "likely": {"kind": "density", "encoder": "clip", "labels": "squares", "recipe": {"epochs": 2, "batch": 8}},
    "flow": {
        "kind": "flow_matching",
        "encoder": "clip",
        "labels": "squares",
        "width": 8,
        "depth": 1,
        "sampling": {"draws": 8, "steps": 2},
        "recipe": {"epochs": 2, "batch": 8},
    },
    "places": {"kind": "place_ensemble", "members": ["cells", "points"], "labels": "squares"},
    "refined": {"kind": "protonet_refinement", "variant": "cells", "encoder": "clip", "labels": "squares"},
}
ENCODERS = {
    "clip": {"kind": "open_clip"},
    "vit": {"kind": "vit"},
    "pieces": {"kind": "segformer", "min_area": 0.0005},
}
CORPORA = ("photos", "spots", "asked")
PREPARED = (
    "boundaries", *(f"{stage} {corpus}" for stage in ("fetch", "ingest", "label") for corpus in CORPORA), "leaks",
    *(f"truth {corpus}" for corpus in CORPORA), *(f"download {encoder}" for encoder in ENCODERS),
    *(f"encode {corpus} --encoder clip" for corpus in CORPORA), "encode photos --encoder pieces",
    "encode asked --encoder pieces", "texts clues", "encode-text clues --encoder clip", "texts towns",
    "encode-text towns --encoder clip", "fit-cells squares photos",
)  # fmt: skip
STAGES = tuple(f"{stage} {variant}" for variant in VARIANTS for stage in ("train", "answer", "score"))


def picture(colour, rng) -> Image.Image:
    """A picture of one colour, with a texture that no other has."""
    noise = rng.integers(-25, 26, (48, 48, 3)) + np.array(colour)
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A project of thirty pictures and small random encoders, run up to its leaderboard."""
    root = tmp_path_factory.mktemp("road")
    rng = np.random.default_rng(0)
    for folder, numbers in {"photos": range(30), "spots": range(30), "asked": range(30, 45)}.items():
        given, rows = root / folder, ["path,latitude,longitude,by,heading,town"]
        given.mkdir()
        for number in numbers:
            who, (latitude, longitude, _, colour) = list(PLACES.items())[number % 3]
            picture(colour, rng).save(given / f"{number}.png")
            place = latitude + rng.normal(0, 0.05), longitude + rng.normal(0, 0.05)
            rows.append(f"{number}.png,{place[0]},{place[1]},{who}{number // 6},{number % 2 * 90},Town of {who}")
        (given / "photos.csv").write_text("\n".join(rows))
    picture(PLACES["Kenya"][3], rng).save(root / "new.png")
    boundaries = write_countries(root, {name: place[:3] for name, place in PLACES.items()})
    (root / "clues.csv").write_text("clue,about\n" + "".join(f"Bollards of {name}.,{name}\n" for name in PLACES))
    for name in ENCODERS:
        (root / "published" / name).mkdir(parents=True)
    made_checkpoints.open_clip({"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}).write(
        root / "published" / "clip"
    )
    made_segmenters.vit(root / "published" / "vit")
    made_segmenters.segformer(root / "published" / "pieces", labels=["sky", "road", "tree", "building"])
    source = {"kind": "photos", "table": "photos.csv", "group_column": "by"}
    corpora = {name: {"role": "train", "fetch": {"kind": "files", "path": name}, "source": source} for name in CORPORA}
    corpora["spots"]["source"] = {**source, "place_column": "by", "heading_column": "heading"}
    corpora["asked"]["role"] = "benchmark"
    profile = {
        **PHOTOS,
        "boundaries": boundaries,
        "labels": {"validation_share": 0.4},
        "corpora": corpora,
        "expect": {"spots": {"countries": ["ESP", "FRA", "KEN"]}},  # so that it is not asked about the planet
        "attributes": ["town"],
        "checkpoints": {name: {"file": f"published/{name}"} for name in ENCODERS},
        "encoders": ENCODERS,
        "texts": {"clues": {"path": "clues.csv", "text": "clue", "country": "about"}, "towns": TOWNS},
        "text_encoders": {"clip": {"kind": "open_clip"}},
        "cells": {"squares": {"kind": "quadtree", "split_points": 5}},
        "registry": {**PHOTOS["registry"], "benchmark": "asked"},
        "variants": {name: {"corpus": "photos", "labels": "country", **block} for name, block in VARIANTS.items()},
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    commands(root, *PREPARED, *STAGES, "leaderboard", "report")
    return root


def read(path):
    return json.loads(path.read_text())


def test_every_family_is_on_it_and_says_how_many_parameters_it_has(road):
    assert {block["kind"] for block in VARIANTS.values()} == set(kinds(FAMILIES))
    said = {name: read(road / f"data/summaries/train/{name}.json") for name in VARIANTS}
    for name, figures in said.items():
        assert 0 <= figures["trainable_parameters"] <= figures["parameters"], name
        assert figures["parameters"] > 0, name
    pace = {name: read(road / f".state/pace/run/{name}.json") for name in VARIANTS}
    for name, known in pace.items():
        assert known["model"] == sha256_of(road / "data/models" / name / CHECKSUMS)
    assert all(pace[name]["seconds_per_epoch"] > 0 for name in ("linear", "tuned", "cells", "tree"))
    assert pace["experts"].keys() == {"model"}, "it has no epochs"
    total = {name: figures["parameters"] for name, figures in said.items()}
    assert said["experts"]["trainable_parameters"] == 0
    assert total["experts"] == total["ground"] + total["others"]
    assert said["both"]["trainable_parameters"] == 2
    assert total["both"] == 2 + total["linear"] + total["clues"]


def test_the_report_tells_all_about_every_variant(road):
    page = (road / "data/report/report.html").read_text()
    assert [name for name in VARIANTS if f'id="variant-{name}"' not in page] == []
    assert read(road / "data/summaries/report/report.json")["variants"] == len(VARIANTS)
    assert page.count('<div class="explained">') == 3 * 6, "the best, median and worst photos of the best six"


def test_the_leaderboard_names_all_encoders(road):
    sections = read(road / "data/leaderboard/leaderboard.json")["sections"]
    on_spots = {row["name"]: part["limited"] for part in sections if part["corpus"] == "spots" for row in part["rows"]}
    assert {name: said for name, said in on_spots.items() if name in VARIANTS} == {
        "towns": "",
        "towns_along": "",
        "views": ", place by place",
    }
    rows = [row for section in sections for row in section["rows"]]
    assert {row["name"]: row["encoders"] for row in rows if not row["baseline"]} == {
        "linear": ["clip"],
        "tuned": ["vit", "clip"],
        "ground": ["vit", "pieces"],
        "others": ["vit", "pieces"],
        "experts": ["vit", "pieces"],
        "clues": ["clip"],
        "clues_along": ["vit", "clip"],
        "both": ["linear", "clues"],
        "cells": ["clip"],
        "points": ["clip"],
        "captions": ["clip"],
        "towns": ["clip"],
        "towns_along": ["vit"],
        "views": ["clip"],
        "retrieved": ["clip"],
        "tree": ["clip"],
        "likely": ["clip"],
        "flow": ["clip"],
        "places": ["cells", "points"],
        "refined": ["clip"],
    }


@pytest.mark.parametrize("variant", ["tuned", "clues_along", "experts"])
def test_a_variant_with_networks_of_its_own_answers_from_the_registry(road, tmp_path, variant):
    root = shutil.copytree(road, tmp_path / "road", symlinks=True)
    path = root / "data/leaderboard/leaderboard.json"
    board = read(path)
    best, first = board["best"], board["sections"][0]
    scores = read(root / f"data/scores/{variant}/scores.json")["benchmarks"]
    best |= {"variant": variant, "value": scores[best["benchmark"]][best["metric"]]}
    first["rows"] = [row for row in first["rows"] if row["name"] == variant]
    path.write_text(json.dumps(board))
    write_checksums(path.parent, "leaderboard")
    promoted, said = commands(root, "promote", "predict --json new.png")
    assert f"{variant} (version 1" in promoted
    answer = json.loads(said)
    assert answer["model"]["variant"] == variant
    [photo] = {row["photo"] for row in answer["places"]}
    assert photo == "new.png"
    kind = {"tuned": None, "clues_along": "clue", "experts": "piece"}[variant]
    assert {row["kind"] for row in answer.get("evidence", [])} == ({kind} - {None})
    if variant == "experts":
        assert all(row["text"].split(":")[0] in ("ground", "structures", "vegetation") for row in answer["evidence"])


def runs(root) -> list[tuple[str, str]]:
    """Name and status of MLflow's runs, oldest first."""
    with sqlite3.connect(root / ".state/mlflow/mlflow.db") as database:
        return database.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()


def test_processes_that_train_together_leave_what_one_leaves(road, tmp_path):
    root = shutil.copytree(road, tmp_path / "road", symlinks=True)
    model = root / "data/models/tuned"
    before, alone, summary = runs(root), weights_of(model), read(root / "data/summaries/train/tuned.json")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*start, "-m", "geoloc_core", "train", "tuned"], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train tuned: ") == 2, "the first process speaks, as it begins and as it ends"
    assert runs(root)[len(before) :] == [("train tuned", "FINISHED")]
    assert not [path for path in (root / ".state" / "partial").rglob("*") if path.is_file()], "nothing unfinished"
    for name, tensor in weights_of(model).items():
        np.testing.assert_allclose(tensor, alone[name], rtol=1e-3, atol=1e-4)
    assert read(root / "data/summaries/train/tuned.json") == pytest.approx(summary, rel=1e-2, abs=1e-3)


def weights_of(model) -> dict[str, np.ndarray]:
    """All tensors of a model, by file and name."""
    files = sorted(model.rglob("*.safetensors"))
    return {f"{path.relative_to(model)} {name}": value for path in files for name, value in load_file(path).items()}


def test_what_one_process_does_alone_the_others_leave_to_it(road):
    before = digest(road / "data")
    assert commands(road, "train linear", "answer linear", "leaderboard", RANK="1") == ["", "", ""]
    assert digest(road / "data") == before
