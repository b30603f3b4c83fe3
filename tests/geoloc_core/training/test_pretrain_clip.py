"""The stage ``geoloc pretrain`` for CLIP: what it learns, what it keeps out, and that kills change nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from geoloc_core.corpora.leaks import leaks
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json, write_json
from geoloc_core.project import Project
from geoloc_core.training import photos
from geoloc_core.training.pretrain import clip, pretrain

from ...conftest import ROOT
from .corpus import make_project

TINY = {
    "kind": "clip",
    "corpus": "photos",
    "image_size": 32,
    "embed_dim": 16,
    "text_width": 16,
    "epochs": 2,
    "batch": 8,
    "lr": 0.003,
}
PIGEON = {"captions": {"template": "pigeon"}, "context": 40}


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order: some tests compare networks bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def options(project: Project, name: str = "clip") -> clip.Options:
    return (project.profile.pretrain | project.profile.pretrain_from)[name]


def train(project: Project, out: Path, name: str = "clip") -> tuple[list, dict, list]:
    """History, figures and what was logged."""
    out.mkdir(parents=True)
    logged: list = []
    partial = project.partial("pretrain", name)
    history, figures = clip.pretrain(project, options(project, name), out, partial, lambda m, n: logged.append((n, m)))
    return history, figures, logged


@pytest.mark.slow
def test_colours_are_learned_from_captions_made_of_geography(tmp_path):
    project = make_project(tmp_path, 120, {"clip": {**TINY, **PIGEON, "epochs": 8}})
    history, figures, logged = train(project, project.weights("clip"))
    assert history[-1]["loss"] < history[0]["loss"]
    seen = figures["zero_shot"]["seen"]
    assert seen["photos"] == 24
    assert seen["accuracy"] > 60, "a third by chance"
    assert "unseen" not in figures["zero_shot"]
    assert logged[-1][1]["zero_shot.seen.accuracy"] == seen["accuracy"]
    network = clip.from_checkpoint(project.weights("clip"))
    assert network.preprocess.size == 32
    assert network.tokenise(["a"]).shape == (1, 40)


@pytest.mark.slow
def test_a_held_out_country_never_trains_and_is_scored(tmp_path, monkeypatch):
    project = make_project(tmp_path, 60, {"clip": {**TINY, "hold_out": ["JPN"], "epochs": 1}})
    trained: list[int] = []

    def watched(rows, size, first=0):
        for batch in real(rows, size, first):
            trained.extend(batch)
            yield batch

    real = photos.batches
    monkeypatch.setattr(photos, "batches", watched)
    _, figures, _ = train(project, tmp_path / "out")
    # rows 0, 3, … are of France, 1, 4, … of Japan, every fifth is for validation, the last has no country
    assert len(trained) == 24
    assert not [row for row in trained if row % 3 == 1 or row % 5 == 0 or row == 59]
    assert figures["photos"] == 31
    assert figures["zero_shot"]["unseen"]["photos"] == 20
    assert figures["zero_shot"]["unseen"]["countries"] == 1
    assert figures["zero_shot"]["seen"]["photos"] == 8


def same(one: Path, other: Path) -> bool:
    return digest(one) == digest(other)


KILLED = """
import os, signal, sys
from pathlib import Path
from geoloc_core.project import Project
from geoloc_core.training import checkpoints
from geoloc_core.training.pretrain import clip

saves, save = [], checkpoints.save
def save_and_die(*arguments):
    save(*arguments)
    saves.append(1)
    if len(saves) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = save_and_die
project = Project.open(Path(sys.argv[1]))
Path(sys.argv[2]).mkdir()
options, partial = project.profile.pretrain["clip"], project.partial("pretrain", "clip")
clip.pretrain(project, options, Path(sys.argv[2]), partial, lambda metrics, number: None)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_ends_like_an_uninterrupted_one(tmp_path, capsys):
    # a save every fourth of the five steps: the third save is within the second epoch
    recipe = {**TINY, **PIGEON, "save_steps": 4, "augment": "crop", "clip_norm": 1.0, "schedule": "linear"}
    project = make_project(tmp_path / "whole", 60, {"clip": recipe})
    whole = train(project, tmp_path / "a")
    broken = make_project(tmp_path / "broken", 60, {"clip": recipe})
    script = [sys.executable, "-c", KILLED, str(broken.root / "params.yaml"), str(tmp_path / "killed")]
    killed = subprocess.run(script, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not list((tmp_path / "killed").iterdir()), "nothing half-written"
    capsys.readouterr()
    again = train(broken, tmp_path / "b")
    assert "resuming after epoch 1, step 4 of the next" in capsys.readouterr().err
    assert again[:2] == whole[:2]
    assert same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_photos_from_the_shards_train_the_same_network(tmp_path):
    cached = make_project(tmp_path / "cached", 60, {"clip": {**TINY, "epochs": 1}})
    streamed = make_project(tmp_path / "streamed", 60, {"clip": {**TINY, "epochs": 1, "cache_gb": 0}})
    assert train(cached, tmp_path / "a")[:2] == train(streamed, tmp_path / "b")[:2]
    assert same(tmp_path / "a", tmp_path / "b")
    assert not list(streamed.partial("pretrain", "clip").glob("*.npy"))


@pytest.fixture
def started(tmp_path):
    """A project whose second tower goes on from the first, a small transformer."""
    more = {"kind": "clip", "corpus": "photos", "start": "base", "epochs": 1, "batch": 8, "lr": 1e-3, "warmup": 0}
    recipe = {**more, "micro_batch": 3, "freeze_text": True, "freeze_blocks": "all_but_last", "amp": False}
    project = make_project(tmp_path, 60, {"base": TINY}, {"clip": {**recipe, "hold_out": ["NLD"]}})
    from geoloc_core.encoders.openclip import save_clip

    from .networks import TEXT, VISION, transformer

    project.weights("base").mkdir(parents=True)
    model, config = transformer(5), {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
    save_clip(
        model, config, {"size": 32, "resize_mode": "shortest", "interpolation": "bicubic"}, project.weights("base")
    )
    return project, model


@pytest.mark.slow
def test_a_tower_goes_on_from_another_and_frozen_parts_stay(started, tmp_path):
    project, before = started
    _, figures, logged = train(project, tmp_path / "out")
    after = clip.from_checkpoint(tmp_path / "out").model.state_dict()
    assert read_json(tmp_path / "out/open_clip_config.json") == read_json(
        project.weights("base") / "open_clip_config.json"
    )
    changed = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert "logit_scale" in changed
    assert {name.split(".")[1] for name in changed - {"logit_scale"}} == {"transformer", "ln_post", "proj"}
    assert {name.split(".")[3] for name in changed if name.startswith("visual.transformer")} == {"2"}
    assert set(figures["zero_shot"]) == set(figures["zero_shot_before"]) == {"seen", "unseen"}
    assert "zero_shot_before.unseen.accuracy" in logged[-1][1]


@pytest.mark.slow
def test_micro_batches_train_the_network_that_whole_batches_do(started, tmp_path):
    project, _ = started
    raw = yaml.safe_load((project.root / "params.yaml").read_text())
    train(project, tmp_path / "micro")
    raw["run"]["pretrain_from"]["clip"].pop("micro_batch")
    (project.root / "params.yaml").write_text(yaml.safe_dump(raw))
    train(Project.open(project.root / "params.yaml"), tmp_path / "whole")
    one, other = (clip.from_checkpoint(tmp_path / name).model.state_dict() for name in ("micro", "whole"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_whole_stage_writes_weights_summary_and_run(tmp_path):
    project = make_project(tmp_path, 60, {"clip": {**TINY, "epochs": 1, "hold_out": ["JPN"]}})
    leaks(project)
    pretrain(project, "clip")
    summary = read_json(project.summary("pretrain", "clip"))
    assert summary["zero_shot"]["unseen"]["photos"] == 20
    assert project.plot("pretrain", "clip").is_file()
    assert not project.partial("pretrain", "clip").exists()
    from geoloc_core.registry import tracking

    note = read_json(tracking.store(project) / "runs/pretrain/clip.json")
    metrics = tracking.client(project).get_run(note["run_id"]).data.metrics
    assert metrics["zero_shot.unseen.accuracy"] == summary["zero_shot"]["unseen"]["accuracy"]


def test_no_tower_is_trained_on_photos_that_leak_or_that_nobody_looked_at(tmp_path):
    project = make_project(tmp_path, 60, {"tower": TINY})
    with pytest.raises(UserError, match=r"blocking\.json: no such file; run `geoloc leaks`"):
        pretrain(project, "tower")
    write_json(project.leaks / "blocking.json", ["photographers: photos/train + photos/validation"])
    with pytest.raises(UserError, match=r"'photographers: photos/train \+ photos/validation' leaks; expected nothing"):
        pretrain(project, "tower")
    assert not project.weights("tower").exists()
    assert not (project.root / ".state").exists()


def test_whatever_trains_waits_for_the_verdict_on_leaks():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {name: stage.get("do", stage)["deps"] for name, stage in stages.items() if "train" in name}
    assert {"pretrain", "pretrain_from"} < set(deps)
    assert [name for name, known in deps.items() if "data/leaks/blocking.json" not in known] == []


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (
            {"captions": {"template": "dove"}},
            r"pretrain\.clip\.captions: unknown kind 'dove'; expected one of 'pigeon'",
        ),
        (
            {"captions": {"template": "pigeon", "town": 2}},
            r"pretrain\.clip\.captions\.pigeon\.town: .*less than or equal to 1",
        ),
        ({"captions": {"template": "pigeon", "village": 1}}, r"pretrain\.clip\.captions\.pigeon\.village: unknown key"),
        ({"facts": {"legend": "koppen"}}, r"pretrain\.clip\.facts\.legend: Input should be 'beck' or 'rubel'"),
        (
            {"facts": {"climate": "koppen.tif"}},
            r"pretrain\.clip: facts: only captions of geography use them; add captions",
        ),
        ({"hold_out": ["France"]}, r"pretrain\.clip\.hold_out\.0: .*pattern"),
        ({"micro_batch": 9}, r"pretrain\.clip: micro_batch 9 is larger than batch 8"),
        ({"compare": "micro_batch"}, r"pretrain\.clip: compare: micro_batch needs the size"),
        ({"warmup": 1}, r"pretrain\.clip\.warmup: .*less than 1"),
        ({"betas": [0.9, 1.5]}, r"pretrain\.clip\.betas\.1: .*less than 1"),
        ({"freeze_blocks": "all"}, r"pretrain\.clip\.freeze_blocks"),
        ({"zero_shot": {"country": ["here"]}}, r"pretrain\.clip\.zero_shot\.country: 'here'; expected a text with"),
        (
            {"start": "net"},
            r"pretrain\.clip: embed_dim, image_size, text_width: already set by the checkpoint in start",
        ),
    ],
)
def test_wrong_parameters_are_named_with_their_keys(tmp_path, block, says):
    with pytest.raises(UserError, match=says):
        make_project(tmp_path, 3, {"clip": {**TINY, **block}})


PLAIN = {"kind": "clip", "corpus": "photos", "epochs": 1, "batch": 8, "lr": 1e-3}


@pytest.mark.parametrize(
    ("scratch", "going_on", "says"),
    [
        ({**PLAIN, "start": "net"}, None, r"pretrain\.a\.start: belongs under pretrain_from"),
        (None, PLAIN, r"pretrain_from\.a\.start: None; expected another encoder, one of: net"),
        (None, {**PLAIN, "start": "a"}, r"pretrain_from\.a\.start: 'a'; expected another encoder"),
        (None, {**PLAIN, "start": "b"}, r"pretrain_from\.a\.start: 'b'; expected another encoder"),
    ],
)
def test_where_weights_start_is_checked(tmp_path, scratch, going_on, says):
    with pytest.raises(UserError, match=says):
        make_project(tmp_path, 3, scratch and {"a": scratch}, going_on and {"a": going_on})


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"hold_out": ["PER"]}, r"pretrain\.clip\.hold_out: PER: not a country of the boundaries"),
        ({"caption": "title"}, "no column title; found image_id, caption"),
        ({"micro_batch": 2}, r"pretrain\.clip\.micro_batch: .* batch normalisation"),
        ({"freeze_blocks": 1}, r"pretrain\.clip\.freeze_blocks: 1; the image tower has no blocks"),
        ({"batch": 50}, "48 training photos; expected at least 50, one batch"),
    ],
)
def test_what_does_not_fit_the_corpus_or_tower_is_said_before_training(tmp_path, block, says):
    project = make_project(tmp_path, 60, {"clip": {**TINY, **block}})
    with pytest.raises(UserError, match=says):
        train(project, tmp_path / "out")


@pytest.mark.slow
def test_facts_are_read_only_with_their_checksum(tmp_path):
    facts = {"climate": "koppen.tif", "driving_sides": "sides.json"}

    def said(root: str, **more: str) -> str:
        project = make_project(tmp_path / root, 60, {"clip": {**TINY, **PIGEON, "facts": {**facts, **more}}})
        for name in facts.values():
            (project.root / name).write_text(name)
        with pytest.raises(UserError) as error:
            train(project, tmp_path / root / "out")
        return str(error.value)

    asked = re.search(r"clip\.facts\.sha256: missing; expected (\w+), that of koppen\.tif and 1 more", said("a"))
    assert asked
    assert "sha256" not in said("b", sha256=asked[1]), "they are read, and are no such files"
    assert f"facts.sha256: {'0' * 64}; expected {asked[1]}" in said("c", sha256="0" * 64)


def test_a_start_must_be_a_clip_of_open_clip(started, tmp_path):
    project, _ = started
    (project.weights("base") / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"no open_clip_config\.json"):
        train(project, tmp_path / "out")


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_said(tmp_path):
    project = make_project(tmp_path, 60, {"clip": {**TINY, "lr": 1e30, "warmup": 0}})
    with pytest.raises(UserError, match=r"the loss is nan; expected a finite number; lower lr"):
        train(project, tmp_path / "out")


def test_the_published_recipes_are_as_published():
    block = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]["catalogue"]
    recipes = {name: clip.Options.model_validate(tower) for name, tower in block["pretrain_from"].items()}
    assert {recipe.start for recipe in recipes.values()} <= set(block["checkpoints"])
    pigeon, pigeotto, streetclip = (recipes[f"{name}_recipe"] for name in ("pigeon", "pigeotto", "streetclip"))
    for recipe in recipes.values():
        assert (recipe.betas, recipe.eps, recipe.weight_decay, recipe.clip_norm) == ((0.9, 0.98), 1e-6, 1e-3, 1.0)
        assert recipe.schedule == "linear"
        assert recipe.micro_batch == 32
    assert (pigeon.lr, pigeon.epochs, pigeon.warmup, pigeon.batch) == (1e-6, 20, 0.2, 32 * 8 * 4)
    assert (pigeotto.lr, pigeotto.epochs, pigeotto.warmup, pigeotto.batch) == (5e-7, 4, 0.02, 32 * 8 * 4)
    assert (streetclip.lr, streetclip.epochs, streetclip.batch) == (1e-6, 3, 32 * 12 * 3)
    assert [recipe.captions.template for recipe in (pigeon, pigeotto, streetclip)] == ["pigeon", "pigeotto", "pigeon"]
    assert streetclip.hold_out == ("CHN", "IND")
