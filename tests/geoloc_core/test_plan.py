"""plan.yaml: what the stages go through, as far as variants need it and no further."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from dvc.repo import Repo

from geoloc_core import plan
from geoloc_core.cli import geoloc
from geoloc_core.contracts.needs import MOST
from geoloc_core.errors import UserError
from geoloc_core.params.using import use
from geoloc_core.project import Project
from tests.conftest import ROOT

PROFILES = ("demo", "papers", "full", "catalogue")
DVC_YAML = (ROOT / "dvc.yaml").read_text()


def planned(project: Project) -> dict:
    """The plan, with trainings, answers and composed weights of any number of reads together."""
    found = plan.plan(project)
    for stage, most in (("train", MOST), ("answer", MOST), ("compose", plan.MOST_PARTS)):
        groups = [found.pop(f"{stage}_{count}") for count in range(1, most + 1)]
        for count, group in enumerate(groups, 1):
            assert all(len(item["reads"]) == count for item in group.values())
        found[stage] = {name: item for group in groups for name, item in group.items()}
    return found


def opened(folder: Path, profile: str, change=lambda run: None) -> Project:
    """A project of a profile of the repository, and nothing else in it."""
    run = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"][profile]
    change(run)
    (folder / "params.yaml").write_text(yaml.safe_dump({"run": run}, sort_keys=False))
    return Project.open(folder / "params.yaml")


def test_the_plan_in_git_is_that_of_the_parameters():
    project = Project.open(ROOT / "params.yaml")
    assert yaml.safe_load((ROOT / plan.FILE).read_text()) == {"plan": plan.plan(project)}
    shown = plan.HEAD + yaml.safe_dump({"plan": plan.plan(project)}, sort_keys=False, allow_unicode=True, width=1000)
    assert (ROOT / plan.FILE).read_text() == shown, "run `geoloc plan`"


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_every_variant_is_trained_and_answers_once(tmp_path, profile):
    project = opened(tmp_path, profile)
    found = planned(project)
    assert sorted(found["train"]) == sorted(found["answer"]) == sorted(project.profile.variants)


def test_only_what_variants_need_is_made(tmp_path):
    def change(run):
        run["variants"] = {
            "one": {"kind": "classifier", "corpus": "mp16", "encoders": ["clip"], "labels": "country"},
            "other": {"kind": "classifier", "corpus": "uk_grid", "encoders": ["vit"], "labels": "semantic",
                      "benchmarks": ["yfcc26k"]},
        }  # fmt: skip
        run["evaluation"]["benchmarks"] = ["im2gps3k"]
        run["registry"]["benchmark"] = "im2gps3k"

    found = planned(opened(tmp_path, "demo", change))
    assert list(found["encode"]) == ["clip-mp16", "clip-im2gps3k", "vit-uk_grid", "vit-yfcc26k"]
    assert found["encode"]["vit-yfcc26k"] == {"encoder": "vit", "corpus": "yfcc26k"}
    assert found["encode_text"] == {}
    assert found["cells"] == {"semantic-uk_grid": {"cells": "semantic", "corpus": "uk_grid"}}
    assert sorted(found["truth"]) == ["im2gps3k", "mp16", "uk_grid", "yfcc26k"]
    assert found["benchmarks"] == ["im2gps3k", "yfcc26k"]
    assert found["answer"]["one"]["benchmarks"] == ["im2gps3k"]
    assert found["answer"]["other"]["benchmarks"] == ["yfcc26k"]


def test_tokens_weights_and_facts_are_read_where_they_are_learned_from(tmp_path):
    def change(run):
        run["encoders"]["vit"]["pooling"] = "penultimate"
        block = {"kind": "geocell_classifier", "corpus": "mp16", "encoder": {"last_block": "vit"}, "labels": "semantic"}
        run["variants"] = {"tuned": block | {"tasks": {}, "benchmarks": ["im2gps3k"]}, "plain": block}
        run["evaluation"]["benchmarks"] = ["im2gps"]

    found = planned(opened(tmp_path, "demo", change))
    tokens, weights, cells = "data/features/vit/mp16", "data/weights/vit", "data/cells/semantic/mp16"
    assert found["train"]["tuned"]["reads"] == [tokens, weights, "data/facts/mp16.parquet", cells]
    assert found["train"]["plain"]["reads"] == [tokens, weights, cells]
    assert found["answer"]["tuned"]["reads"] == ["data/features/vit", "data/facts", cells]
    assert found["facts"] == {name: {"rasters": "data/raw/mp16/rasters"} for name in ("mp16", "im2gps3k")}


def test_what_photos_and_pieces_need_is_read(tmp_path):
    """A fine-tuned network reads photos and weights, one of pieces what was cut; experts read trained models."""

    def change(run):
        run["encoders"]["cut"], run["checkpoints"]["cut"] = {"kind": "mask2former"}, {"file": "cut"}
        tuned = {"kind": "fine_tuned", "corpus": "g50", "tower": "vit", "labels": "country", "benchmarks": ["im2gps"]}
        run["variants"] = {
            "whole": tuned,
            "ground": {**tuned, "pieces": "cut", "groups": ["ground"]},
            "cars": {**tuned, "pieces": "cut", "groups": ["vehicles"]},
            "experts": {"kind": "feature_experts", "corpus": "g50", "pieces": "cut", "experts": ["ground", "cars"],
                        "labels": "country", "benchmarks": ["im2gps"]},
        }  # fmt: skip
        run["registry"]["benchmark"] = "im2gps"

    project = opened(tmp_path, "demo", change)
    found = planned(project)
    assert list(found["encode"]) == ["cut-g50", "cut-im2gps"], "nobody needs features of the tower that is fine-tuned"
    assert {name: item["reads"] for name, item in found["train"].items()} == {
        "whole": ["data/corpora/g50", "data/weights/vit"],
        "ground": ["data/features/cut/g50", "data/weights/vit"],
        "cars": ["data/features/cut/g50", "data/weights/vit"],
        "experts": ["data/features/cut/g50", "data/models/ground", "data/models/cars"],
    }
    assert {name: item["reads"] for name, item in found["answer"].items()} == {
        "whole": ["data/corpora/g50", "data/corpora/im2gps"],
        "ground": ["data/features/cut"],
        "cars": ["data/features/cut"],
        "experts": ["data/features/cut"],
    }
    change_ = {"benchmarks": ("im2gps", "im2gps3k", "yfcc4k")}
    many = project.profile.model_copy(
        update={"variants": {"whole": project.profile.variants["whole"].model_copy(update=change_)}}
    )
    read = plan.plan(Project(tmp_path, many))["answer_1"]["whole"]["reads"]
    assert read == ["data/corpora"], "where a model is asked about many corpora, all of them are one thing"


def test_a_corpus_has_the_attributes_that_are_learned_from_it(tmp_path):
    """And those that are learned by variants which are asked about it; none lies in one country alone here."""

    def change(run):
        run["expect"] = {}

    truth = {profile: planned(opened(tmp_path, profile))["truth"] for profile in ("demo", "papers")}
    assert truth["demo"] == {
        "mp16": {"attributes": []}, "g50": {"attributes": []}, "im2gps": {"attributes": []},
        "im2gps3k": {"attributes": []}, "yfcc4k": {"attributes": []},
        "uk_cities_50": {"attributes": ["city"]}, "us_grid": {"attributes": ["square"]},
    }  # fmt: skip
    assert truth["papers"]["uk_grid"] == truth["papers"]["us_grid"] == {"attributes": ["square"]}
    assert truth["papers"]["uk_cities"] == {"attributes": ["city"]}
    everywhere = planned(opened(tmp_path, "demo", change))["truth"]
    assert everywhere["im2gps"] == {"attributes": ["square", "city"]}


def test_nothing_is_made_for_no_variant(tmp_path):
    found = planned(opened(tmp_path, "catalogue"))
    assert set(found.pop("download")) == set(opened(tmp_path, "catalogue").profile.checkpoints)
    assert not any(found.values())


def test_weights_made_of_those_trained_here_wait_for_them(tmp_path):
    found = planned(opened(tmp_path, "papers"))
    assert found["download"] == []
    assert found["compose"] == {
        "crops": {"reads": ["data/weights/pieces"]},
        "clip-vit-tokens": {"reads": ["data/weights/clip-vit"]},
        "clip-vit-street-mean": {"reads": ["data/weights/clip-vit-street"]},
        "seg-vit": {"reads": ["data/weights/pieces", "data/weights/vit"]},
    }


def test_a_stage_reads_what_its_family_needs(tmp_path):
    train, answer = (planned(opened(tmp_path, "demo"))[stage] for stage in ("train", "answer"))
    reads = {name: (train[name]["reads"], answer[name]["reads"]) for name in train}
    members = ["data/answers/mlp_clip_vit_country", "data/answers/guidebook_country"]
    cells = "data/cells/semantic/mp16"
    voters = ("refined_cells", "retrieved_cells", "tree_cells", "density_cells", "geoclip")
    located = [*(f"data/answers/{name}" for name in voters), cells]
    tuned = (["data/features/pieces/g50", "data/weights/vit"], ["data/features/pieces"])
    assert reads == {
        "mlp_clip_vit_country": (
            ["data/features/clip/mp16", "data/features/vit/mp16"],
            ["data/features/clip", "data/features/vit"],
        ),
        "geoclip": (["data/features/clip/mp16"], ["data/features/clip"]),
        "zero_shot_clip": (["data/features/clip/mp16", "data/weights/clip"], ["data/features/clip"]),
        "linear_clip_cells": (["data/features/clip/mp16", cells], ["data/features/clip", cells]),
        # the refined model is in the model
        "refined_cells": (
            ["data/features/clip/mp16", "data/models/linear_clip_cells", cells],
            ["data/features/clip", cells],
        ),
        "smoothed_cells": (
            ["data/features/clip/mp16", "data/facts/mp16.parquet", cells],
            ["data/features/clip", "data/facts", cells],
        ),
        "retrieved_cells": (
            ["data/features/clip/mp16", "data/models/smoothed_cells", cells],
            ["data/features/clip", cells],
        ),
        "density_cells": (["data/features/clip/mp16", cells], ["data/features/clip", cells]),
        "tree_cells": (
            ["data/features/clip/mp16", "data/cells/tree/mp16"],
            ["data/features/clip", "data/cells/tree/mp16"],
        ),
        # the clues are in the model
        "guidebook_country": (["data/features/clip/mp16", "data/text_features/clip/clues"], ["data/features/clip"]),
        "ground_country": tuned,
        "structures_country": tuned,
        "experts_country": (
            ["data/features/pieces/g50", "data/models/ground_country", "data/models/structures_country"],
            ["data/features/pieces"],
        ),
        "ensemble_country": (members, members),
        "ensemble_places": (located, located),
        "uk_clip_cities_50": (
            ["data/features/vit/uk_cities_50", "data/text_features/clip/uk_cities_50"],
            ["data/features/vit"],
        ),
        "geoguessr_lstm": (["data/features/vit/us_grid"], ["data/features/vit"]),
    }
    assert {(item["family"], item["labels"]) for item in train.values()} == {
        ("classifier", "country"), ("classifier", "semantic"), ("guidebook_attention", "country"),
        ("ensemble", "country"), ("fine_tuned", "country"), ("feature_experts", "country"),
        ("contrastive_captions", "city"), ("sequence_classifier", "square"),
        ("protonet_refinement", "semantic"), ("retrieval", "semantic"), ("hierarchical", "tree"),
        ("place_ensemble", "semantic"),
        ("density", "semantic"), ("geocell_classifier", "semantic"), ("geoclip", "country"), ("zero_shot", "country"),
    }  # fmt: skip


def wide(count: int):
    """Let a variant read so many encoders."""

    def change(run):
        names = [f"e{n}" for n in range(count)]
        run["encoders"] |= {name: {"kind": "vit"} for name in names}
        run["checkpoints"] |= {name: {"file": "x"} for name in names}
        run["variants"]["wide"] = {
            "kind": "classifier", "corpus": "mp16", "encoders": names, "labels": "country"
        }  # fmt: skip

    return change


@pytest.mark.slow
def test_as_much_as_there_are_templates_for_is_read_and_no_more(tmp_path):
    assert len(planned(opened(tmp_path, "demo", wide(MOST)))["train"]["wide"]["reads"]) == MOST
    with pytest.raises(UserError) as told:
        opened(tmp_path, "demo", wide(MOST + 1))
    (line,) = told.value.args[1:]
    assert line.strip().startswith(f"run.variants.wide: reads {MOST + 1} things")


def test_there_are_templates_for_each_number_of_reads():
    stages = yaml.safe_load(DVC_YAML)["stages"]
    for stage in ("train", "answer"):
        templates = [stages[f"{stage}_{count}"]["do"] for count in range(1, MOST + 1)]
        assert f"{stage}_{MOST + 1}" not in stages
        shared = [{**template, "deps": None, "params": None} for template in templates]
        assert all(template == shared[0] for template in shared), f"the {stage}ings differ in what they read alone"
        for count, template in enumerate(templates, 1):
            reads = [dep for dep in template["deps"] if "item.reads" in dep]
            assert reads == [f"${{item.reads[{n}]}}" for n in range(count)]
            assert stages[f"{stage}_{count}"]["foreach"] == f"${{plan.{stage}_{count}}}"


def test_the_graph_is_short_and_lists_no_source_file():
    lines = DVC_YAML.splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 160
    assert not re.search(r"\.py\b", DVC_YAML)


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_dvc_resolves_the_plan_of_every_profile(tmp_path, profile):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    use(tmp_path / "params.yaml", profile)
    project = Project.open(tmp_path / "params.yaml")
    assert plan.write(project)
    found = planned(project)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
        made = {Path(out.fs_path) for stage in stages.values() for out in stage.outs}
        read = {
            name.partition("@")[2]: {
                Path(dep.fs_path) for dep in stage.deps if type(dep).__name__ != "ParamsDependency"
            }
            for name, stage in stages.items()
            if name.startswith("train_")
        }
    assert sum(name.startswith("encode@") for name in stages) == len(found["encode"])
    assert sum(name.startswith("score@") for name in stages) == len(found["train"]) == len(project.profile.variants)
    for name, item in found["train"].items():
        assert {tmp_path / path for path in item["reads"]} <= read[name]
        assert {tmp_path / path for path in item["reads"]} <= made, "each is the output of a stage"
    for item in found["answer"].values():
        for path in item["reads"]:
            assert any(out.is_relative_to(tmp_path / path) for out in made)


def invoke(folder: Path, *words: str):
    return CliRunner().invoke(geoloc, ["--params", str(folder / "params.yaml"), *words])


def test_the_plan_is_written_once(tiny_project):
    assert [plan.write(tiny_project) for _ in range(2)] == [True, False]
    (tiny_project.root / plan.FILE).write_text("plan: {}")
    assert plan.write(tiny_project)


@pytest.mark.slow
def test_the_stage_of_the_code_stops_at_a_plan_that_is_out_of_date_and_mends_it(tmp_path):
    plan.write(opened(tmp_path, "demo"))
    project = opened(tmp_path, "demo", wide(2))
    refused = invoke(tmp_path, "code")
    assert isinstance(refused.exception, UserError)
    assert "plan.yaml: was out of date with params.yaml and is written anew" in str(refused.exception)
    assert "\n" not in str(refused.exception)
    assert yaml.safe_load((tmp_path / plan.FILE).read_text()) == {"plan": plan.plan(project)}
    assert not (tmp_path / "code.yaml").exists()
    assert invoke(tmp_path, "plan").output == "plan.yaml unchanged, code.yaml written\n"
