"""One corpus and one encoder alone: any profile, any checkpoint, any place, and never another's features."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from geoloc_core.cli import geoloc
from geoloc_core.corpora import manifest
from geoloc_core.encoders import encoder, store
from geoloc_core.encoders.towers import vit
from geoloc_core.errors import UserError
from geoloc_core.files import digest

from ...conftest import PHOTOS
from .made_checkpoints import MADE
from .test_preprocess import photo

PICTURES = [photo(60 + number, 70) for number in range(7)]


def corpus(folder: Path, name: str) -> Path:
    """An ingested corpus of seven photos in two shards."""
    (folder / "shards").mkdir(parents=True)
    ids = [f"p{number}" for number in range(len(PICTURES))]
    for shard, rows in enumerate((range(4), range(4, 7))):
        images = [{"bytes": PICTURES[row], "path": f"{ids[row]}.jpg"} for row in rows]
        table = pa.table({"image_id": [ids[row] for row in rows], "image": images}, manifest.SHARD)
        pq.write_table(table, manifest.shard_path(folder, shard))
    rows = {"image_id": ids, "corpus": [name] * 7, "shard": [0] * 4 + [1] * 3, "row": [0, 1, 2, 3, 0, 1, 2]}
    rows |= {"group_id": ids, "width": [60] * 7, "height": [70] * 7, "sha256": ids}
    table = pa.table({key: rows.get(key, [None] * 7) for key in manifest.MANIFEST.names})
    manifest.write_table(table, folder / "manifest.parquet", manifest.MANIFEST)
    return folder


@pytest.fixture
def root(tmp_path):
    """A project whose profile in use has no ViT, a profile that has one, a checkpoint of it, and a corpus folder."""
    other = {**PHOTOS, "threads": 1, "encoders": {"small-vit": {"kind": "vit"}}, "variants": {}}
    other |= {"checkpoints": {"small-vit": {"hub": "a/b", "revision": "0" * 40}}}
    other |= {"about": {"small-vit": {"dim": 24, "licence": "MIT"}}}
    other |= {"text_encoders": {"words": {"kind": "bert"}}}
    other["checkpoints"] |= {"words": {"file": "words"}}
    params = {"profiles": {"used": PHOTOS, "other": other}, "run": PHOTOS}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "given").mkdir()
    MADE["vit-l16-in21k"].write(tmp_path / "given")
    corpus(tmp_path / "made", "elsewhere")
    return tmp_path


def run(root: Path, *words: str) -> str:
    """What the command prints, or its one clear line as an exception."""
    result = CliRunner().invoke(geoloc, ["--params", str(root / "params.yaml"), *words], catch_exceptions=True)
    if result.exception:
        raise result.exception
    return result.output


def expected(root: Path) -> np.ndarray:
    return encoder.load(vit.Options(kind="vit"), root / "given")(PICTURES).astype(np.float16)


def encode(root: Path, *words: str) -> None:
    run(root, "encode", str(root / "made"), "--encoder", "small-vit", *words)


@pytest.mark.slow
def test_a_folder_is_encoded_with_a_checkpoint_of_ones_own(root):
    out = root / "features"
    before = digest(root / "given")
    encode(root, "--checkpoint", str(root / "given"), "--out", str(out))
    np.testing.assert_array_equal(store.read(out), expected(root))
    note = store.note(out)
    assert (note["encoder"], note["corpus"], note["rows"]) == ("small-vit", "elsewhere", 7)
    assert digest(root / "given") == before
    assert not (root / "data").exists()
    assert not list((root / ".state/partial").rglob("*.npy")), "no unfinished work is left"
    encode(root, "--checkpoint", str(root / "given"), "--out", str(out))  # an earlier result is replaced


def test_what_is_not_given_is_the_projects(root):
    with pytest.raises(UserError, match="no weights of small-vit; run `geoloc download small-vit` first, or give"):
        encode(root)
    (root / "data/weights").mkdir(parents=True)
    (root / "given").rename(root / "data/weights/small-vit")
    corpus(root / "data/corpora/photos", "photos")
    run(root, "encode", "photos", "--encoder", "small-vit")
    features = store.read(root / "data/features/small-vit/photos")
    (root / "data/weights/small-vit").rename(root / "given")
    np.testing.assert_array_equal(features, expected(root))


def test_a_changed_checkpoint_never_reuses_old_features(root, monkeypatch):
    """Neither finished features, nor the unfinished work of a run that was stopped."""
    out = root / "features"
    words = ("--checkpoint", str(root / "given"), "--out", str(out))
    encode(root, *words)
    old, fingerprint = np.array(store.read(out)), store.note(out)["fingerprint"]
    write = store.write
    monkeypatch.setattr(store, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit):
        encode(root, *words)
    monkeypatch.setattr(store, "write", write)
    assert list((root / ".state/partial").rglob("*.npy")), "what was done is kept"
    np.testing.assert_array_equal(store.read(out), old)

    from safetensors.torch import load_file, save_file

    tensors = load_file(root / "given/model.safetensors")
    save_file(
        {name: tensor * 1.5 for name, tensor in tensors.items()}, root / "given/model.safetensors", {"format": "pt"}
    )
    encode(root, *words)
    assert store.note(out)["fingerprint"] != fingerprint
    np.testing.assert_array_equal(store.read(out), expected(root))
    assert np.abs(store.read(out).astype(float) - old).max() > 0.01


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("encode", "nowhere", "--encoder", "small-vit"), "corpus 'nowhere': not in the profile in use; expected"),
        (("encode", "photos", "--encoder", "nothing"), "encoder 'nothing': not in params.yaml; .*small-vit"),
        (("encode", "photos", "--encoder", "words"), "encodes texts; name an encoder of photos"),
        (("encode", "{made}", "--encoder", "small-vit", "--checkpoint", "{root}/none"), "none: no such file or folder"),
        (("encode", "{made}", "--encoder", "small-vit", "--checkpoint", "{made}"), "made has no config.json"),
        (("encode", "{made}", "--encoder", "net", "--checkpoint", "{root}/given"), "given has no model.onnx"),
        (("encode", "{made}", "--encoder", "net", "--checkpoint", "{root}/params.yaml"), "not an ONNX network"),
        (("encode", "{made}", "--encoder", "small-vit", "--checkpoint", "{root}/given", "--out", "{made}"),
         "made: already contains files that geoloc did not write as features"),
        (("encode-text", "none", "--encoder", "words"), "texts 'none': not in the profile in use"),
        (("encode-text", "none", "--encoder", "small-vit"), "encodes photos; name an encoder of texts"),
        (("encode-text", "none", "--encoder", "nothing"), "encoder 'nothing': not in params.yaml; .*words"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(root, words, says):
    words = [word.format(root=root, made=root / "made") for word in words]
    before = digest(root / "made", root / "given")
    with pytest.raises(UserError, match=says) as error:
        run(root, *words)
    assert "\n" not in str(error.value)
    assert digest(root / "made", root / "given") == before
    assert not (root / "data").exists()


def test_encoders_of_all_profiles_are_listed(root):
    rows = {(row["name"], row["profile"]): row for row in json.loads(run(root, "encoders", "--json"))}
    assert set(rows) == {("net", "used"), ("small-vit", "other"), ("words", "other")}
    small = rows["small-vit", "other"]
    assert (small["what"], small["dimension"], small["licence"], small["at_hand"]) == ("image", 24, "MIT", False)
    assert small["checkpoint"] == "a/b @ 0000000"
    assert rows["words", "other"]["what"] == "text"
    (root / "data/weights").mkdir(parents=True)
    (root / "given").rename(root / "data/weights/small-vit")
    listed = run(root, "encoders")
    assert re.search(r"^small-vit .*✓ +data/weights/small-vit", listed, re.MULTILINE)


def test_what_is_measured_counts_more_than_what_is_published(root):
    (root / "data/weights").mkdir(parents=True)
    (root / "given").rename(root / "data/weights/small-vit")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["profiles"]["other"]["about"]["small-vit"] = {"dim": 512, "parameters": 300}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (row,) = (row for row in json.loads(run(root, "encoders", "--json")) if row["name"] == "small-vit")
    assert row["dimension"] == 24
    assert 0 < row["parameters"] < 1
    assert row["remark"].startswith("dimension 24, published as 512; million parameters ")
    (root / "data/weights/small-vit/config.json").write_text("{}")
    (row,) = (row for row in json.loads(run(root, "encoders", "--json")) if row["name"] == "small-vit")
    assert not row["at_hand"]
    assert "model_type None; expected vit" in row["remark"]


def test_what_brings_an_encoder_here_is_said_and_does(root):
    params = yaml.safe_load((root / "params.yaml").read_text())
    recipe = {"pretrain": {"own": {"kind": "clip", "corpus": "photos", "epochs": 1, "batch": 2, "lr": 0.1}}}
    other = params["profiles"]["other"] | recipe
    other["encoders"] |= {"own": {"kind": "open_clip"}, "net": {"kind": "vit"}}
    other["checkpoints"] |= {"net": {"file": "given"}}
    used = PHOTOS | {"threads": 1, "texts": {"clues": {"path": "clues.csv", "text": "clue"}}}

    def remedies(used) -> dict[tuple[str, str], str | None]:
        (root / "params.yaml").write_text(yaml.safe_dump({"profiles": {"used": used, "other": other}, "run": used}))
        return {(row["name"], row["profile"]): row["remedy"] for row in json.loads(run(root, "encoders", "--json"))}

    copied = (
        "copy recipe, encoder, start and corpus from profile other to the one in use, then run `geoloc pretrain own`"
    )
    assert remedies(used) == {
        ("net", "used"): "put net.onnx there or change the place in params.yaml, then run `geoloc download net`",
        ("small-vit", "other"): "run `geoloc download small-vit`",
        ("words", "other"): "put words there or change the place in params.yaml, then run `geoloc download words`",
        ("own", "other"): copied,
        ("net", "other"): "name profile other under `run` of params.yaml first: till then it is another encoder",
    }
    assert "\n  small-vit: run `geoloc download NAME`\n" in run(root, "encoders")
    for words in (("download", "own"), ("encode", str(root / "made"), "--encoder", "own")):
        with pytest.raises(UserError, match=copied):
            run(root, *words)

    followed = used | recipe | {"encoders": used["encoders"] | {"own": {"kind": "open_clip"}}}
    assert remedies(followed)["own", "used"] == "run `geoloc pretrain own`"
    (root / "words").mkdir()
    MADE["distilbert"].write(root / "words")
    assert remedies(used)["words", "other"] == "run `geoloc download words`"
    run(root, "download", "words")
    assert remedies(used)["words", "other"] is None
    (root / "clues.csv").write_text("clue\nroad\nbuilding\n")
    run(root, "texts", "clues")
    run(root, "encode-text", "clues", "--encoder", "words")  # of another profile
    assert store.read(root / "data/text_features/words/clues").shape == (2, 32)
