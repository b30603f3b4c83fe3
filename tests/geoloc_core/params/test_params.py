"""params.yaml: what is right is typed, what is wrong is listed whole."""

from pathlib import Path

import pytest
import yaml

from geoloc_core.errors import UserError
from geoloc_core.params import load

ROOT = Path(__file__).parents[2]


def written(tmp_path, change) -> Path:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(raw)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_every_profile_of_the_project_is_valid(tmp_path, profile):
    loaded = load(written(tmp_path, lambda raw: raw.update(run=raw["profiles"][profile])))
    assert loaded.demo is (profile == "demo")
    assert set(loaded.encoders) == {"clip", "vit"}
    assert loaded.variant("mlp_clip_vit_country").hidden == (1024, 512, 256)
    assert loaded.variant("mlp_clip_vit_country").inputs() == ["clip", "vit"]


def test_the_demo_has_every_corpus_of_the_catalogue_rendered(tmp_path):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]
    catalogue, demo = raw["catalogue"]["corpora"], raw["demo"]["corpora"]
    assert list(demo) == list(catalogue)
    for name, corpus in demo.items():
        assert corpus["fetch"]["kind"] == "world"
        assert {**corpus, "fetch": None} == {**catalogue[name], "fetch": None}


def test_all_errors_are_listed_at_once_with_their_keys(tmp_path):
    def spoil(raw):
        demo = raw["profiles"]["demo"]
        demo["seed"] = -1
        demo["labels"]["limit"] = 3
        demo["corpora"]["mp16"]["source"]["kind"] = "tarball"
        demo["variants"]["head"]["linear_clip_country"]["hidden"] = "deep"
        del demo["registry"]["metric"]

    with pytest.raises(UserError) as error:
        load(written(tmp_path, spoil))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("8 errors"), "the profiles share variants and what the catalogue says of a corpus"
    for key in (
        "profiles.demo.seed",
        "profiles.demo.labels.limit",
        "profiles.demo.corpora.mp16.source",
        "profiles.demo.variants.head.linear_clip_country.hidden",
        "profiles.demo.registry.metric",
    ):
        assert sum(line.strip().startswith(key + ":") for line in lines) == 1, key


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(expect={"mp61": {"min_countries": 3}}), "expect.mp61: no corpus of that name"),
        (lambda d: d.update(expect={"mp16": {"countries": ["UK"]}}), "expect.mp16.countries.0: "),
        (lambda d: d.update(expect={"mp16": {"countries": []}}), "expect.mp16.countries: "),
        (lambda d: d.update(expect={"mp16": {"max_refused_share": 5}}), "expect.mp16.max_refused_share: "),
        (lambda d: d.update(expect={"mp16": {"drift": {"speed": 1}}}), "expect.mp16.drift.speed: unknown key"),
        (lambda d: d["variants"]["head"]["mlp_clip_country"].update(encoder="clop"), "encoder 'clop': unknown"),
        (lambda d: d["variants"]["head"]["mlp_clip_country"].update(corpus="im2gps"), "no corpus with role: train"),
        (lambda d: d["variants"].update(guesser={"x": {}}), "variants.guesser: unknown model family"),
        (lambda d: d["variants"]["hybrid"].update(mlp_clip_country=d["variants"]["hybrid"]["mlp_clip_vit_country"]),
         "the name is taken"),
        (lambda d: d["pretrain"].pop("clip"), "encoders.clip: needs its weights"),
        (lambda d: d["pretrain"]["vit"].update(corpus="nowhere"), "pretrain.vit.corpus: 'nowhere' is no corpus"),
        (lambda d: d["pretrain"]["vit"].update(corpus="im2gps"), "pretrain.vit.corpus: 'im2gps' is no corpus"),
        (lambda d: d["registry"].update(benchmark="mp16"), "registry.benchmark: 'mp16'"),
        (lambda d: d["registry"].update(metric="within_750"), "registry.metric: 'within_750'; expected one of"),
        (lambda d: d["variants"].update(head=["a"]), "variants.head"),
        (lambda d: d["variants"]["head"]["mlp_clip_country"].update(hidden=[64, 0]), "hidden.1: .* greater than 0"),
        (lambda d: d["pretrain"]["vit"].update(heads=5), "pretrain.vit: heads 5 does not divide dim 96"),
        (lambda d: d["pretrain"]["vit"].update(patch_size=9), "pretrain.vit: patch_size 9 does not divide"),
        (lambda d: d["pretrain"]["clip"].update(text_width=33), "pretrain.clip.text_width: .* multiple of 2"),
        (lambda d: d.update(checkpoints={"x": {}}), "expected one of hub, url, tag, file and parts, got none"),
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
        (lambda d: d.update(encoded=["mp16", "im2gps3k", "nowhere"]), "encoded: 'nowhere' is no corpus"),
        (lambda d: d.update(encoded=["mp16", "im2gps3k", "mp16"]), "encoded: 'mp16' is there twice"),
        (lambda d: d.update(encoded=["im2gps3k"]), "mlp_clip_country.corpus: 'mp16' is not in encoded"),
        (lambda d: d.update(encoded=["mp16"]), "registry.benchmark: 'im2gps3k' .* that is encoded"),
        (lambda d: d.pop("encoded"), "encoded: missing"),
        (lambda d: d.pop("threads"), "profiles.demo.threads: missing; expected their number"),
        (lambda d: d["corpora"].update({"Bad Name": d["corpora"]["mp16"]}), "Bad Name"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere_are_found(tmp_path, change, says):
    def spoil(raw):
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


def test_a_file_of_the_former_shape_is_told_what_moved_where(tmp_path):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    demo = raw["profiles"]["demo"]
    next(iter(demo["variants"]["head"].values()))["paper"] = {"source": "A", "accuracy": 3.5}
    demo["checkpoints"] = {"clip": {"hub": "a/b", "revision": "c", "about": {"dim": 3}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": demo}))
    with pytest.raises(UserError) as told:
        load(tmp_path / "params.yaml")
    said = "\n".join(told.value.args)
    assert ".paper: unknown key; a variant's published figures now stand in the profile, under papers.<variant>" in said
    assert ".about: unknown key; what is published about weights now stands in the profile, under about.<" in said


def test_figures_of_what_is_not_there_are_a_mistake(tmp_path):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    demo = raw["profiles"]["demo"]
    demo["papers"] = {"nobody": {"source": "A"}}
    demo["about"] = {"nothing": {"dim": 3}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": demo}))
    with pytest.raises(UserError) as told:
        load(tmp_path / "params.yaml")
    assert told.value.args[1:] == ("  run.about.nothing: no checkpoint of that name",
                                   "  run.papers.nobody: no variant of that name")  # fmt: skip
