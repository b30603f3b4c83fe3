"""params.yaml: what is right is typed, what is wrong is listed whole."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import yaml

from geoloc_core.errors import UserError
from geoloc_core.params import load
from geoloc_core.params.reading import PAPERS
from geoloc_core.plugins import kinds
from geoloc_core.yamls import parse_yaml

ROOT = Path(__file__).parents[3]


@cache
def as_it_stands() -> dict:
    return parse_yaml((ROOT / "params.yaml").read_text())


def written(tmp_path, change) -> Path:
    raw = deepcopy(as_it_stands())
    change(raw)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.dump(raw, Dumper=yaml.CSafeDumper))
    return path


@pytest.mark.parametrize("profile", ["demo", "papers", "full"])
def test_every_profile_of_the_project_is_valid(tmp_path, profile):
    loaded = load(written(tmp_path, lambda raw: raw.update(run=raw["profiles"][profile])))
    assert loaded.demo is (profile != "full")
    assert {"clip", "vit"} <= set(loaded.encoders)
    assert loaded.variant("mlp_clip_vit_country").hidden == (1024, 512, 256)
    assert loaded.variant("mlp_clip_vit_country").needs().encoders == ["clip", "vit"]
    assert loaded.benchmarks == ["im2gps", "im2gps3k", "yfcc4k"]
    assert loaded.registry.benchmark not in loaded.evaluation.benchmarks, "what is selected on is not reported"


def test_the_demo_has_a_variant_of_every_family_but_the_slow(tmp_path):
    loaded = load(ROOT / "params.yaml")
    slow = {"flow_matching"}  # integrates a network for each photo: the profile papers has it
    assert {block.kind for block in loaded.variants.values()} == set(kinds("geoloc_core.families")) - slow
    with pytest.raises(UserError, match="variant 'hybrid': not in the profile in use; expected one of: mlp_clip_vit"):
        loaded.variant("hybrid")


def test_a_refinement_reads_what_the_variant_under_it_reads(tmp_path):
    def change(raw):
        raw["profiles"]["demo"]["variants"]["linear_clip_cells"]["encoders"] = ["vit"]

    needs = load(written(tmp_path, change)).variant("refined_cells").needs()
    assert (needs.models, needs.encoders, needs.labels) == (["linear_clip_cells"], ["vit", "clip"], "semantic")


@pytest.mark.parametrize("profile", ["demo", "papers", "full"])
def test_a_model_within_another_finds_all_that_it_answers_from(tmp_path, profile):
    loaded = load(written(tmp_path, lambda raw: raw.update(run=raw["profiles"][profile])))
    layers = {name: block.needs() for name, block in loaded.variants.items() if block.needs().models}
    assert layers
    for name, needs in layers.items():
        for part in needs.models:
            inner = loaded.variant(part).needs()
            assert set(inner.encoded) <= set(needs.encoded), name
            assert inner.photos <= needs.photos, name
            assert set(inner.members) <= set(needs.members), name


def test_the_demo_has_every_corpus_of_the_catalogue_rendered(tmp_path):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]
    catalogue, demo = raw["catalogue"]["corpora"], raw["demo"]["corpora"]
    assert list(demo) == [*catalogue, "masked"], "which a segmenter learns from"
    assert {corpus["fetch"]["kind"] for corpus in demo.values()} == {"world"}
    for name in catalogue:
        assert {**demo[name], "fetch": None} == {**catalogue[name], "fetch": None}


def test_all_errors_are_listed_at_once_with_their_keys(tmp_path):
    def spoil(raw):
        demo = raw["profiles"]["demo"]
        demo["seed"] = -1
        demo["labels"]["limit"] = 3
        demo["corpora"]["mp16"]["source"]["kind"] = "tarball"
        demo["variants"]["linear_clip_cells"]["hidden"] = "deep"
        demo["evaluation"] = {"benchmark": []}
        demo["encoders"]["vit"]["kind"] = "vitt"
        del demo["registry"]["metric"]

    with pytest.raises(UserError) as error:
        load(written(tmp_path, spoil))
    lines = str(error.value).splitlines()
    assert lines[0].endswith(" 7 errors"), "what profiles share is said once"
    assert "evaluation.benchmark: unknown key; did you mean 'benchmarks'?" in str(error.value)
    assert "did you mean 'vit'? (also in profiles.papers" in str(error.value)
    for key in (
        "profiles.demo.seed",
        "profiles.demo.labels.limit",
        "profiles.catalogue.corpora.mp16.source",
        "profiles.demo.encoders.vit",
        "profiles.demo.variants.linear_clip_cells.hidden",
        "profiles.demo.registry.metric",
    ):
        assert sum(line.strip().startswith(key + ":") for line in lines) == 1, key


def many(demo) -> None:
    """Add a variant of cells that reads six encoders, and so seven things."""
    names = [f"e{n}" for n in range(6)]
    demo["encoders"] |= {name: {"kind": "vit"} for name in names}
    demo["checkpoints"] |= {name: {"file": "x"} for name in names}
    demo["variants"]["many"] = {**demo["variants"]["linear_clip_cells"], "encoders": names}


FAMILIES = ", ".join(kinds("geoloc_core.families"))


def cells_of(demo, **given):
    """A variant that learns cells from features, tokens or facts."""
    block = {"kind": "geocell_classifier", "corpus": "mp16", "encoder": "clip", "labels": "semantic"}
    demo["variants"]["smoothed"] = block | given


def tuned(demo, **more) -> None:
    """Add a segmenter, and a network that is fine-tuned."""
    demo["encoders"]["cut"], demo["checkpoints"]["cut"] = {"kind": "mask2former"}, {"file": "x"}
    demo["variants"]["tuned"] = {"kind": "fine_tuned", "corpus": "mp16", "tower": "vit", "labels": "country", **more}


def experts(demo, *names, **more) -> None:
    """Add experts that vote."""
    demo["encoders"]["cut"], demo["checkpoints"]["cut"] = {"kind": "mask2former"}, {"file": "x"}
    demo["variants"]["experts"] = {"kind": "feature_experts", "corpus": "mp16", "pieces": "cut", "labels": "country",
                                   "experts": list(names), **more}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(expect={"mp61": {"min_countries": 3}}), "expect.mp61: no corpus of that name"),
        (lambda d: d.update(expect={"mp16": {"countries": ["UK"]}}), "expect.mp16.countries.0: "),
        (lambda d: d.update(expect={"mp16": {"countries": []}}), "expect.mp16.countries: "),
        (lambda d: d.update(expect={"mp16": {"max_refused_share": 5}}), "expect.mp16.max_refused_share: "),
        (lambda d: d.update(expect={"mp16": {"drift": {"speed": 1}}}), "expect.mp16.drift.speed: unknown key"),
        (lambda d: d["variants"]["mlp_clip_vit_country"].update(encoders=["clop"]),
         "variants.mlp_clip_vit_country: encoder 'clop': unknown; expected one of `encoders`"),
        (lambda d: d["variants"]["mlp_clip_vit_country"].update(encoders=["vit", "vit"]),
         "encoder 'vit' is there twice"),
        (lambda d: d["variants"]["mlp_clip_vit_country"].update(encoders=[]), "encoders: "),
        (lambda d: d["variants"]["mlp_clip_vit_country"].update(corpus="im2gps"),
         "mlp_clip_vit_country.corpus: 'im2gps' is not a corpus with role: train"),
        (lambda d: d["variants"]["mlp_clip_vit_country"].update(corpus="nowhere"),
         "mlp_clip_vit_country.corpus: 'nowhere' is not a corpus with role: train"),
        (lambda d: d["variants"]["linear_clip_cells"].update(labels="street"),
         "linear_clip_cells.labels: 'street'; expected one of: country, subdivision, semantic, tree, square, city"),
        (lambda d: d.update(attributes=["country"]), "attributes: 'country': the name is taken by the units of bound"),
        (lambda d: d.update(attributes=["semantic"]), "attributes: 'semantic': the name is taken by cells"),
        (lambda d: d.update(attributes=[""]), "attributes.0: "),
        (lambda d: d["variants"]["uk_clip_cities_50"].update(texts="clues"),
         "uk_clip_cities_50.texts: 'clues' is read from data/raw/mp16/clues.csv; expected a caption per photo: "),
        (lambda d: d["variants"]["uk_clip_cities_50"].update(tower="vit"),
         "variants.uk_clip_cities_50: expected either encoders, which stay frozen, or a tower"),
        (lambda d: d["variants"]["uk_clip_cities_50"].update(network={}), "network: goes with a tower"),
        (lambda d: d["variants"]["uk_clip_cities_50"].update(encoders=[], tower="vit", network={"weights": {
            "kind": "inverse_frequency"}}), "network.weights: the contrastive loss has no classes to weigh"),
        (lambda d: d["variants"]["geoguessr_lstm"].update(views=0), "geoguessr_lstm.views: "),
        (lambda d: d["variants"]["linear_clip_cells"].update(benchmarks=["im2gps", "mp16"]),
         "linear_clip_cells.benchmarks: 'mp16' is not a corpus with role: benchmark"),
        (lambda d: d["variants"]["linear_clip_cells"].update(benchmarks=[]), "linear_clip_cells.benchmarks: "),
        (lambda d: d["variants"]["guidebook_country"].update(text_encoder="vit"), "text encoder 'vit': unknown"),
        (lambda d: d["variants"]["guidebook_country"].update(texts="rumours"), "texts 'rumours': unknown"),
        (lambda d: d["variants"]["ensemble_country"].update(members=["guidebook_country", "nobody"]),
         "variants.ensemble_country: variant 'nobody': unknown; expected one of `variants`"),
        (lambda d: d["variants"]["ensemble_country"].update(members=["guidebook_country"]),
         "ensemble_country.members: "),
        (lambda d: d["variants"]["ensemble_country"].update(members=["guidebook_country"] * 2),
         "ensemble_country: variant 'guidebook_country' is there twice"),
        (lambda d: d["variants"]["ensemble_country"].update(members=["guidebook_country", "linear_clip_cells"]),
         "'linear_clip_cells' learns semantic from mp16; expected country from mp16, as the ensemble"),
        (lambda d: d["variants"]["ensemble_places"].update(members=["tree_cells", "ensemble_country"]),
         "ensemble_places.members: 'ensemble_country' reads other variants' answers itself"),
        (lambda d: d["variants"]["ensemble_places"].update(members=["tree_cells", "geoguessr_lstm"]),
         "ensemble_places.members: 'geoguessr_lstm' learns from us_grid; expected mp16, as the ensemble"),
        (lambda d: d["variants"]["ensemble_country"].update(corpus="yfcc100m"),
         "'guidebook_country' learns country from mp16; expected country from yfcc100m"),
        (lambda d: d["variants"].update(of_all={**d["variants"]["ensemble_country"], "members": [
            "ensemble_country", "guidebook_country"]}),
         "of_all.members: 'ensemble_country' reads other variants itself"),
        (lambda d: d["variants"]["guidebook_country"].update(benchmarks=["im2gps"]),
         "ensemble_country.benchmarks: 'im2gps3k': 'guidebook_country', whose answers it reads, is not scored on it"),
        (lambda d: d["variants"].update(guesser={"kind": "guesser"}),
         "variants.guesser: unknown kind 'guesser'; expected one of " + FAMILIES),
        (lambda d: d["variants"].update(guesser={}),
         "variants.guesser: expected a mapping with `kind`, one of " + FAMILIES),
        (lambda d: d.update(variants=["guesser"]), "variants: "),
        (lambda d: d["variants"].update(x=linear(recipe={"optimiser": {"lr": 0.1}})),
         "variants.x.recipe.optimiser: expected a mapping with `kind`"),
        (lambda d: d["variants"].update(x=linear(recipe={"optimiser": {"kind": "lamb", "lr": 0.1}})),
         "variants.x.recipe.optimiser: unknown kind 'lamb'; expected one of 'sgd', 'adam', 'adamw'"),
        (lambda d: d["variants"].update(x=linear(recipe={"optimiser": {"kind": "sgd", "lr": 1, "rates": {"a": 1}}})),
         "variants.x.recipe: optimiser.rates.a: this family has no parts with one"),
        (lambda d: d["variants"]["guidebook_country"].update(attends=["vit"]),
         "variants.guidebook_country: attends: 'vit'; expected one of its encoders: clip"),
        (lambda d: d["cells"].update(country=d["cells"]["semantic"]), "cells.country: the name is taken"),
        (lambda d: d["cells"]["semantic"].update(kind="sematic"), "cells.semantic"),
        (lambda d: many(d), "many: reads 7 things, cells among them; expected at most 6"),
        (lambda d: d["corpora"].update(validation=d["corpora"]["mp16"]), "corpora.validation: the name is taken"),
        (lambda d: d["evaluation"].update(benchmarks=["nowhere"]), "evaluation.benchmarks: 'nowhere' is not a corpus"),
        (lambda d: d["evaluation"].update(benchmarks=["mp16"]), "evaluation.benchmarks: 'mp16' is not a corpus"),
        (lambda d: d["evaluation"].update(candidates=0), "evaluation.candidates: "),
        (lambda d: (d["registry"].update(benchmark="yfcc26k"),
                    [v.update(benchmarks=["im2gps"]) for v in d["variants"].values()]),
         "registry.benchmark: 'yfcc26k': no variant is scored on it"),
        (lambda d: d["pretrain"].pop("clip"), "encoders.clip: needs its weights"),
        (lambda d: d["pretrain"]["vit"].update(corpus="nowhere"), "pretrain.vit.corpus: 'nowhere' is not a corpus"),
        (lambda d: d["pretrain"]["vit"].update(corpus="im2gps"), "pretrain.vit.corpus: 'im2gps' is not a corpus"),
        (lambda d: d["registry"].update(benchmark="mp16"), "registry.benchmark: 'mp16'"),
        (lambda d: d["registry"]["guards"].update(benchmarks={"yfcc26k": {}}),
         "registry.guards.benchmarks.yfcc26k: no variant is scored on it; expected some of: "),
        (lambda d: d["registry"]["guards"].update(benchmarks={"yfcc4k": {}}),
         "registry.guards.benchmarks.yfcc4k: the selection set, whose guards stand in registry.guards itself"),
        (lambda d: d["registry"]["guards"].update(continents={"Europa": 5}),
         "registry.guards.continents.Europa: no continent; expected some of: Africa, "),
        (lambda d: d["registry"]["guards"].update(benchmarks={"im2gps": {"continents": {"Asia": 1, "Asien": 1}}}),
         "registry.guards.benchmarks.im2gps.continents.Asien: no continent"),
        (lambda d: d["registry"]["guards"].update(benchmarks={"im2gps": {"metric": -1}}),
         "registry.guards.benchmarks.im2gps.metric: "),
        (lambda d: d.update(report={"photos_of": ["im2gps", "yfcc26k"]}),
         "report.photos_of: 'yfcc26k': no variant is scored on it; expected some of: "),
        (lambda d: d.update(report={"explained": {"each": -1}}), "report.explained.each: "),
        (lambda d: d["registry"].update(metric="within_750"), "registry.metric: 'within_750'; expected one of"),
        (lambda d: d["variants"]["mlp_clip_vit_country"].update(hidden=[64, 0]), "hidden.1: .* greater than 0"),
        (lambda d: d["pretrain"]["vit"].update(heads=5), "pretrain.vit: heads 5 does not divide dim 96"),
        (lambda d: d["pretrain"]["vit"].update(patch_size=9), "pretrain.vit: patch_size 9 does not divide"),
        (lambda d: d["pretrain"]["clip"].update(text_width=33), "pretrain.clip.text_width: .* multiple of 2"),
        (lambda d: d.update(checkpoints={"x": {}}), "expected one of hub, url, tag, file, trained and parts, got none"),
        (lambda d: d.update(checkpoints={"x": {"hub": "a/b", "tag": "c"}}), "got hub and tag"),
        (lambda d: d.update(checkpoints={"x": {"hub": "a/b"}}), "checkpoints.x: no revision"),
        (lambda d: d.update(checkpoints={"x": {"tag": "openai"}}), "checkpoints.x: no model"),
        (lambda d: d.update(checkpoints={"x": {"url": "http://a/b"}}), "checkpoints.x: no sha256"),
        (lambda d: d.update(checkpoints={"x": {"file": "a", "sha256": "A1"}}), "checkpoints.x.sha256: "),
        (lambda d: d["text_encoders"].update(words={"kind": "bert"}), "text_encoders.words: needs its weights"),
        (lambda d: d["text_encoders"].update(clip={"kind": "clip"}), "text_encoders.clip.kind: 'clip'; expected 'op"),
        (lambda d: d["text_encoders"].update(clip={"kind": "open_clip", "pooling": "mean"}), "text_encoders.clip.pool"),
        (lambda d: d["encoders"].update({name: {"kind": "vit"} for name in ("a-b", "a_b")}), "a-b: too like 'a_b'"),
        (lambda d: d["encoders"].update({"a-": {"kind": "vit"}}), "encoders.a-"),
        (lambda d: d["corpora"].update({"a-b": d["corpora"]["mp16"]}), "corpora.a-b"),
        (lambda d: d["texts"]["clues"].pop("text"), "texts.clues.text: missing"),
        (lambda d: d["evaluation"].update(top_k=[0]), "evaluation.top_k.0: .* greater than 0"),
        (lambda d: d.pop("threads"), "profiles.demo.threads: missing; expected their number"),
        (lambda d: d["corpora"].update({"Bad Name": d["corpora"]["mp16"]}), "Bad Name"),
        (lambda d: d["labels"].update(validation_share=0.7, test_share=0.3), "expected less than 1 together$"),
        (lambda d: d["labels"].update(test_share=-0.1), "labels.test_share: .* greater than or equal to 0"),
        (lambda d: d["labels"].update(test_shares={"mp16": 0.9}),
         "validation_share 0.2 and test_shares.mp16 0.9 leave nothing to train on"),
        (lambda d: d["labels"].update(test_shares={"im2gps": 0.1}),
         "labels.test_shares.im2gps: not a corpus with role: train"),
        (lambda d: (d["corpora"].update(test=d["corpora"]["mp16"]), d["labels"].update(test_shares={"mp16": 0.1})),
         "corpora.test: the name is taken"),
        (lambda d: cells_of(d, encoder={"last_block": "clip"}),
         "encoder 'clip': pooling projection; expected penultimate, which gives the tokens that enter the last block"),
        (lambda d: cells_of(d, encoder={"last_block": "clips"}),
         "encoder 'clips': unknown; expected one of `encoders`"),
        (lambda d: (d["encoders"]["vit"].update(pooling="penultimate"), cells_of(d, encoder="vit")),
         "encoder 'vit': gives many tokens per photo; expected another pooling"),
        (lambda d: cells_of(d, tasks={"facts": ["soil"]}), "smoothed.*tasks.facts.0"),
        (lambda d: (d["facts"].pop("climate"), cells_of(d, tasks={})),
         "variants.smoothed: facts: 'climate': no source; expected `facts.climate` in the profile, a raster"),
        (lambda d: (d.pop("facts"), cells_of(d, tasks={})),
         "variants.smoothed: facts: 'elevation'; expected `facts` in the profile"),
        (lambda d: d["facts"].update(elevation={"file": "e.tif", "unit": "ft"}), "facts.elevation.unit: unknown key"),
        (lambda d: d["facts"].update(climate={"file": "c.tif", "legend": "ours"}), "facts.climate.legend"),
        (lambda d: d["leaks"].update(block=["copies"]), "leaks.block.0: .*'photographers', 'near_duplicates'"),
        (lambda d: d["leaks"].update(allow=["neighbours: mp16/train + mp16/test"]),
         "'mp16/test' is not a set of photos"),
        (lambda d: (d["corpora"].update(test=d["corpora"]["mp16"]), d["labels"].update(test_share=0.1)),
         "corpora.test: the name is taken"),
        (lambda d: d["variants"]["zero_shot_clip"].update(encoder="vit"),
         "variants.zero_shot_clip: text encoder 'vit': unknown; expected one of `text_encoders`, of the photos' enc"),
        (lambda d: d["encoders"]["clip"].update(pooling="mean"),
         "variants.zero_shot_clip.encoder: 'clip' has pooling: mean under encoders; expected projection, the joint sp"),
        (lambda d: d["variants"]["geoclip"].update(weights={"path": "w"}),
         "variants.geoclip: .*queue, recipe: nothing is trained with weights"),
        (lambda d: tuned(d, tower="clips"),
         "variants.tuned: tower: encoder 'clips': unknown; expected one of `encoders`"),
        (lambda d: tuned(d, pieces="clip"),
         "variants.tuned: pieces: encoder 'clip': cuts no pieces; expected a segmenter"),
        (lambda d: tuned(d, tower="cut"), "variants.tuned: tower: encoder 'cut': kind mask2former: not a network that"),
        (lambda d: tuned(d, groups=["ground"]),
         "variants.tuned.groups: goes with pieces; expected `pieces`, a segmenter"),
        (lambda d: tuned(d, pieces="cut", groups=["sky"]), "variants.tuned.groups"),
        (
            lambda d: (tuned(d, pieces="cut", groups=["ground"]), experts(d, "tuned", "linear_clip_cells")),
            "variants.experts.experts: 'linear_clip_cells'; expected variants of fine_tuned with pieces: cut",
        ),
        (
            lambda d: (tuned(d, pieces="cut"), experts(d, "tuned")),
            "variants.experts.experts: 'tuned' has no groups; expected the groups whose pieces it is shown",
        ),
        (
            lambda d: (tuned(d, pieces="cut", groups=["ground"]), experts(d, "tuned", corpus="g50")),
            "variants.experts.experts: 'tuned' learns country from mp16; expected country from g50",
        ),
        (lambda d: d["variants"]["refined_cells"].update(variant="ghost"),
         "variants.refined_cells: variant 'ghost': unknown; expected one of `variants`"),
        (lambda d: d["variants"]["refined_cells"].update(variant="mlp_clip_vit_country"),
         "variants.refined_cells.variant: 'mlp_clip_vit_country' learns country; expected a variant over one of "
         "`cells`: semantic"),
        (lambda d: d["variants"]["refined_cells"].update(variant="refined_cells"),
         "variants.refined_cells.variant: 'refined_cells' is refined already; expected the model of cells under it"),
        (lambda d: (d["cells"].update(coarse=d["cells"]["semantic"]),
                    d["variants"]["refined_cells"].update(labels="coarse")),
         "refined_cells.variant: 'linear_clip_cells' learns semantic from mp16; expected coarse from mp16"),
        (lambda d: d["variants"]["refined_cells"].update(encoder="clop"),
         "variants.refined_cells: encoder 'clop': unknown; expected one of `encoders`"),
        (lambda d: d["variants"]["refined_cells"].update(encoder="pieces"),
         "variants.refined_cells: encoder 'pieces': gives pictures; expected one that gives a vector per photo"),
        (lambda d: d["variants"]["refined_cells"].update(temperature=0), "variants.refined_cells.temperature: "),
        (lambda d: d["variants"]["refined_cells"].update(clusters={"min_samples": 1}),
         "variants.refined_cells.clusters.min_samples: "),
        (lambda d: d["variants"]["refined_cells"].update(max_km=-1), "variants.refined_cells.max_km: "),
        (lambda d: d["variants"]["retrieved_cells"].update(variant="mlp_clip_vit_country"),
         "variants.retrieved_cells.variant: 'mlp_clip_vit_country' learns country; expected a variant over one of "
         "`cells`: semantic, tree"),
        (lambda d: d["variants"]["retrieved_cells"].update(variant="retrieved_cells"),
         "variants.retrieved_cells.variant: 'retrieved_cells' is searched already; expected the model of cells under"),
        (lambda d: d["variants"]["tree_cells"].update(labels="semantic"),
         "variants.tree_cells.labels: 'semantic' are no cells of a quadtree; expected one of `cells` of that kind"),
        (lambda d: experts(d, "ghost"), "variants.experts: variant 'ghost': unknown; expected one of `variants`"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere_are_found(tmp_path, change, says):
    def spoil(raw):
        raw["profiles"] = {"demo": raw["profiles"]["demo"]}
        change(raw["profiles"]["demo"])

    with pytest.raises(UserError, match=says):
        load(written(tmp_path, spoil))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profiles: [1]\nrun: 1", "profiles: expected a mapping"),
        ("run: [", "not valid YAML"),
        ("profiles: {}", "no key `run`"),
        ("", "no key `run`"),
        ("- 1", "no key `run`"),
    ],
)
def test_a_broken_file_is_said_in_one_line(tmp_path, text, says):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no such file; run from the project's root or give --params"):
        load(tmp_path / "params.yaml")


def test_a_change_of_what_is_expected_makes_no_stage_stale():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    params = [param for stage in stages for param in stage.get("do", stage).get("params", ())]
    assert params
    assert not [param for param in params if param in ("run", "profiles") or "expect" in param]


def test_what_is_pretrained_is_stale_with_another_number_of_threads():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {name for name, stage in stages.items() if "run.threads" in stage.get("do", stage).get("params", ())} == {
        "pretrain",
        "pretrain_from",
    }


@pytest.mark.slow
def test_encoders_of_any_profile_have_pinned_weights():
    from geoloc_core.params import any_encoder, encoders

    path = ROOT / "params.yaml"
    names = [name for name, encoder in encoders(path) if encoder.profile == "catalogue"]
    assert {"clip-vit-b32", "clip-vit-l14", "clip-vit-l14-336", "clip-rn50x16", "streetclip", "vit-l16-in21k"} < {
        *names
    }
    for name in names:
        encoder = any_encoder(path, name)
        checkpoint = encoder.checkpoint
        if checkpoint is None or checkpoint.tag:
            continue  # trained here, or of the library's own list
        for part in (checkpoint.parts or {name: checkpoint}).values():
            yours = part.file  # of no known checksum: to be put there by whoever has it
            assert yours or part.sha256 or len(part.revision) == 40, name
        assert encoder.about.licence or name.startswith("isn"), name
    assert any_encoder(path, "clip").profile == "demo", "the profile in use comes first"
    assert any_encoder(path, "clip").checkpoint is None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: text + "run: *full\n", r"line \d+: duplicate key `run` \(first on line \d+\)"),
        (lambda text: text.replace("  full: &full", "  full: &full\n    seed: 3"), "duplicate key `seed`"),
        (lambda text: text.replace("{model: geolocator,", "{model: 2026,"), "got 2026.; put it in quotes"),
        (lambda text: text.replace("    demo: false", "\tdemo: false", 1), "expected spaces in place of a tab"),
    ],
    ids=["two runs", "two seeds", "a number", "a tab"],
)
def test_yaml_that_means_two_things_is_refused(tmp_path, spoil, says):
    path = tmp_path / "params.yaml"
    path.write_text(spoil((ROOT / "params.yaml").read_text()))
    with pytest.raises(UserError, match=says):
        load(path)


def test_norway_is_a_country(tmp_path):
    from geoloc_core.params import any_corpus

    text = (ROOT / "params.yaml").read_text().replace("run: *demo", "run: *full")
    crawl = "{kind: streetview, path: p, places: {plan: towns, countries: [NO, SE]}, view: {budget: 2}}"
    changed = text.replace("fetch: {kind: files, path: /photos}", f"fetch: {crawl}")
    assert changed != text
    (tmp_path / "params.yaml").write_text(changed)
    assert any_corpus(tmp_path / "params.yaml", "photos").fetch.places.countries == ("NO", "SE")


def linear(**more):
    return {"kind": "classifier", "corpus": "mp16", "encoders": ["clip"], "labels": "country", **more}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(encoded=["mp16"]),
         "encoded: unknown key; what is encoded now follows from the variants and from evaluation.benchmarks"),
        (lambda d: d["variants"].update(head={"linear": {"corpus": "mp16", "encoder": "clip", "labels": "country"}}),
         "variants.head: variants are no longer grouped by family; "
         "expected `<variant>: {kind: classifier, encoders: […], …}` directly under variants"),
        *[(lambda d, group=group: d.update(variants={"hybrid": group}),
           "variants.hybrid: variants are no longer grouped by family; "
           "expected `<variant>: {kind: classifier, encoders: […], …}` directly under variants")
          for group in ({}, None, ["a"], 3)],
        (lambda d: d["variants"].update(x=linear(encoder="clip")),
         "variants.x.encoder: unknown key; a classifier now lists its encoders: `encoders: [<encoder>]`"),
        (lambda d: d["variants"].update(x=linear(paper={"source": "A", "accuracy": 3.5})),
         f"variants.x.paper: {PAPERS}"),
        (lambda d: d.update(papers={"x": {"source": "A", "accuracy": 3.5}}), f"papers: {PAPERS}"),
        (lambda d: d["checkpoints"].update(clip={"hub": "a/b", "revision": "c", "about": {"dim": 3}}),
         "checkpoints.clip.about: unknown key; "
         "what is published about weights is now in the profile, under about.<encoder>"),
        *[(lambda d, key=key: d["variants"].update(x=linear(recipe={key: 1})),
           f"variants.x.recipe.{key}: unknown key; it is now {now}")
          for key, now in {
              "lr": "part of the optimiser: `optimiser: {kind: sgd, lr: …}`",
              "momentum": "part of the optimiser: `optimiser: {kind: sgd, lr: …, momentum: …}`",
              "weight_decay": "part of the optimiser: `optimiser: {kind: sgd, lr: …, weight_decay: …}`",
              "weight_power": "`weights: {kind: inverse_frequency, power: …}`",
              "plateau_factor": "`schedule: {kind: plateau, factor: …}`",
              "plateau_patience": "`schedule: {kind: plateau, patience: …}`",
              "standardise": "`normalise: standardise` or `normalise: none`, beside the recipe",
          }.items()],
    ],
)  # fmt: skip
def test_each_key_of_a_former_shape_is_told_in_one_line_what_moved_where(tmp_path, change, says):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    demo = raw["profiles"]["demo"]
    change(demo)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": demo}))
    with pytest.raises(UserError) as told:
        load(tmp_path / "params.yaml")
    assert told.value.args[1:] == (f"  run.{says}",)


def test_a_variant_may_be_named_as_a_former_family_was(tmp_path):
    loaded = load(written(tmp_path, lambda raw: raw["run"]["variants"].update(head=linear())))
    assert loaded.variant("head").kind == "classifier"


@pytest.mark.parametrize("metric", ["accuracy", "top_5", "country_accuracy", "mean_km", "within_750km", "geoguessr"])
def test_a_champion_may_be_chosen_by_any_metric(tmp_path, metric):
    assert load(written(tmp_path, lambda raw: raw["run"]["registry"].update(metric=metric))).registry.metric == metric


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda run: None, ["im2gps", "im2gps3k"]),
        (lambda run: run["evaluation"].pop("benchmarks"), ["im2gps", "im2gps3k", "yfcc4k", "yfcc26k"]),
        (lambda run: run["variants"]["linear_clip_cells"].update(benchmarks=["yfcc4k"]), ["yfcc4k"]),
        # of one country: not asked about the planet, nor about what promises nothing
        (lambda run: run.update(expect={"mp16": {"countries": ["GBR"]}}), []),
        (lambda run: run.update(expect={"mp16": {"countries": ["GBR"]}, "im2gps": {"countries": ["GBR", "FRA"]}}), []),
        (lambda run: run.update(expect={"mp16": {"countries": ["GBR", "FRA"]}, "im2gps": {"countries": ["GBR"]}}),
         ["im2gps"]),
        # of the planet: asked about a country as well
        (lambda run: run.update(expect={"im2gps": {"countries": ["GBR"]}}), ["im2gps", "im2gps3k"]),
        # what is selected on is answered too
        (lambda run: run["registry"].update(benchmark="yfcc4k"), ["im2gps", "im2gps3k", "yfcc4k"]),
        # what it names counts, wherever that is
        (lambda run: (run.update(expect={"mp16": {"countries": ["GBR"]}}),
                      run["variants"]["linear_clip_cells"].update(benchmarks=["im2gps3k"])), ["im2gps3k"]),
    ],
)  # fmt: skip
def test_a_variant_is_scored_on_what_lies_in_the_countries_it_knows(tmp_path, change, expected):
    def spoil(raw):
        raw["run"] = {**raw["run"], "registry": {**raw["run"]["registry"], "benchmark": "validation"}}
        raw["run"]["variants"] = {"linear_clip_cells": raw["run"]["variants"]["linear_clip_cells"]}
        change(raw["run"])

    loaded = load(written(tmp_path, spoil))
    assert sorted(loaded.scored_on("linear_clip_cells")) == sorted(expected)
    assert loaded.benchmarks == loaded.scored_on("linear_clip_cells")


def test_a_variant_with_several_seeds_is_trained_with_each(tmp_path):
    def change(raw):
        raw["run"]["variants"]["linear_clip_cells"]["seeds"] = [3, 1, 2]

    loaded = load(written(tmp_path, change))
    names = ["linear_clip_cells", "linear_clip_cells_seed_1", "linear_clip_cells_seed_2"]
    assert loaded.repeats == {names[0]: tuple(names[1:])}
    blocks = [loaded.variant(name) for name in names]
    assert [block.seed_or(20) for block in blocks] == [3, 1, 2]
    assert {block.model_copy(update={"seeds": None}).model_dump_json() for block in blocks} == {
        load(ROOT / "params.yaml").variant("linear_clip_cells").model_dump_json()
    }
    assert loaded.variant("smoothed_cells").seed_or(20) == 20

    def taken(raw):
        change(raw)
        raw["run"]["variants"]["linear_clip_cells_seed_2"] = raw["run"]["variants"]["smoothed_cells"]

    with pytest.raises(UserError, match="seeds: 'linear_clip_cells_seed_2' is there already"):
        load(written(tmp_path, taken))


def test_figures_of_what_is_not_there_are_a_mistake(tmp_path):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    demo = raw["profiles"]["demo"]
    demo["about"] = {"nothing": {"dim": 3}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": demo}))
    with pytest.raises(UserError) as told:
        load(tmp_path / "params.yaml")
    assert told.value.args[1:] == ("  run.about.nothing: no checkpoint of that name",)


def test_the_test_split_is_a_set_and_its_name_is_taken_only_where_there_is_one(tmp_path):
    def change(raw, share):
        demo = raw["profiles"]["demo"]
        demo["labels"]["test_share"] = share
        if share:
            demo["leaks"]["allow"] = ["near_duplicates: mp16/train + mp16/test"]
            raw["profiles"] = {"demo": demo}  # the others share its corpora, and have shares of their own
        else:
            demo["corpora"]["test"] = demo["corpora"]["im2gps"]

    sets = {share: load(written(tmp_path, lambda raw, s=share: change(raw, s))).sets for share in (0.0, 0.1)}
    assert {name for name in sets[0.1] if name.startswith("mp16/")} == {"mp16/train", "mp16/validation", "mp16/test"}
    assert "im2gps" in sets[0.1]
    assert set(sets[0.0]) - set(sets[0.1]) == {"test"}
    assert not any(name.endswith("/test") for name in sets[0.0])
