"""Whatever happens to a file of the project, who reads it says so in one line: no traceback, and no other result."""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import geopandas
import pyarrow.parquet as pq
import pytest
import shapely
import yaml

from geoloc_core import artefacts, cli, files
from geoloc_core.corpora.ingest import ingest
from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.project import Project
from geoloc_core.serving import bundle

from ..conftest import PHOTOS
from .corpora.made_photos import encoded
from .encoders.made_checkpoints import MADE

BOXES = {"FRA": ("France", 48.0, 2.0), "KEN": ("Kenya", 0.5, 38.0), "PER": ("Peru", -9.0, -75.0)}
PHOTOS_MADE = 60
STAGES = ("train", "answer", "score")
"""Of each variant, in this order."""


def run(root: Path, *words: object) -> int:
    """A command in this process, and its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["geoloc", *map(str, words)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A project of sixty photos in three countries, with every kind of artefact, made by the stages themselves."""
    root = tmp_path_factory.mktemp("artefacts")
    write_raw(root)
    profile = {**PHOTOS, "checkpoints": {"net": {"file": "net"}, "words": {"file": "words"}}}
    profile |= {"encoders": {"net": {"kind": "vit"}}, "text_encoders": {"words": {"kind": "bert"}}}
    profile |= {"texts": {"clues": {"path": "clues.json", "id": "id", "text": "text", "country": "country"}}}
    source = {"kind": "photos", "table": "photos.csv", "group_column": "group"}
    profile["corpora"] = {"photos": {**PHOTOS["corpora"]["photos"], "source": source}}
    few = {"recipe": {"epochs": 2}}
    photo = {"corpus": "photos", "encoders": ["net"], **few}
    profile["cells"] = {"units": {"kind": "admin", "level": 0}}
    profile["variants"] = {
        "linear": {"kind": "classifier", "labels": "country", **photo},
        "celled": {"kind": "classifier", "labels": "units", **photo},
        "guided": {
            "kind": "guidebook_attention",
            "labels": "country",
            "text_encoder": "words",
            "texts": "clues",
            **photo,
        },
        "both": {"kind": "ensemble", "corpus": "photos", "labels": "country", "members": ["linear", "guided"]},
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    boundaries.write({0: countries()}, root / "data" / "boundaries")
    for words in (
        "fetch photos", "ingest photos", "label photos", "leaks", "download net", "download words",
        "encode photos --encoder net", "texts clues", "encode-text clues --encoder words", "truth photos",
        "fit-cells units photos",
        *(f"{stage} {name}" for name in profile["variants"] for stage in STAGES), "leaderboard", "report",
        "check photos", "check",
        "cells build given/photos.csv --scheme admin --boundaries data/boundaries --out cells",
        f"locate given/photos.csv --boundaries {root / 'units.gpkg'} --index index --out located.csv",
    ):  # fmt: skip
        assert run(root, *words.split()) == 0, words
    return root


def write_raw(root: Path) -> None:
    given = root / "given"
    given.mkdir()
    lines = ["path,latitude,longitude,group"]
    for number in range(PHOTOS_MADE):
        _, latitude, longitude = list(BOXES.values())[number % 3]
        (given / f"{number}.jpg").write_bytes(encoded(number))
        lines.append(f"{number}.jpg,{latitude + number / 100},{longitude},{number}")
    (given / "photos.csv").write_text("\n".join([*lines, "gone.jpg,1,1,x"]) + "\n")
    for name, kind in (("net", "vit-l16-in21k"), ("words", "distilbert")):
        (root / name).mkdir()
        MADE[kind].write(root / name)
    (root / "clues.json").write_text(
        '[{"id": "a", "text": "red soil", "country": "KEN"}, {"id": "b", "text": "left side", "country": null}]'
    )
    countries().to_file(root / "units.gpkg", layer="ADM_0")


def countries() -> geopandas.GeoDataFrame:
    shapes = [shapely.box(lon - 5, lat - 5, lon + 5, lat + 5) for _, lat, lon in BOXES.values()]
    columns = {"GID_0": list(BOXES), "COUNTRY": [name for name, _, _ in BOXES.values()]}
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


Damage = Callable[[Path], None]


def replaced(data: bytes) -> Damage:
    return lambda path: path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    """One bit: in the middle, or of Parquet in the values of the last column."""
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    if path.suffix == ".parquet":
        rows = pq.read_metadata(path).row_group(0)
        column = rows.column(rows.num_columns - 1)
        at = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
    data[at] ^= 1
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "empty": replaced(b""),
    "cut": cut,
    "flipped": flipped,
    "garbage": replaced(bytes(range(256)) * 8),
    "folder": folder,
    "missing": Path.unlink,
}
JSON_DAMAGES: dict[str, Damage] = {
    "list": replaced(b"[1]"),
    "text": replaced(b'"x"'),
    "object": replaced(b"{}"),
    "deep": replaced(b"[" * 100_000),
    "latin": replaced('{"é": 1}'.encode("latin-1")),
}
ASSIGN = "cells assign given/photos.csv --cells cells --out c.csv"
LOCATE = "locate given/photos.csv --boundaries data/boundaries --out c.csv"
READ = {
    "data/corpora/photos/manifest.parquet": ("label photos", "leaks", "truth photos", "encode photos --encoder net"),
    "data/corpora/photos/attributes.parquet": ("label photos", "check photos"),
    "data/corpora/photos/rejects.parquet": ("truth photos", "check photos", "describe photos"),
    "data/corpora/photos/shards/00000.parquet": ("encode photos --encoder net",),
    "data/labels/photos.parquet": ("leaks", "truth photos", "check photos", "describe photos"),
    "data/boundaries/units.parquet": ("label photos", "train linear", ASSIGN),
    "data/boundaries/boundaries.gpkg": ("cells map cells --out c.html",),
    "data/boundaries/index/units.json": ("label photos", LOCATE),
    "data/boundaries/index/tiles.npy": ("label photos",),
    "data/leaks/blocking.json": ("train linear",),
    "data/weights/net/model.safetensors": ("encode photos --encoder net",),
    "data/weights/net/config.json": ("encode photos --encoder net",),
    "data/weights/net/preprocessor_config.json": ("encode photos --encoder net",),
    "data/weights/words/tokenizer.json": ("encode-text clues --encoder words",),
    "data/texts/clues.parquet": ("encode-text clues --encoder words", "train guided"),
    "data/features/net/photos/features.json": ("train linear", "answer linear"),
    "data/features/net/photos/features.npy": ("train linear", "answer linear"),
    "data/text_features/words/clues/features.json": ("train guided",),
    "data/text_features/words/clues/features.npy": ("train guided",),
    "data/truth/photos.parquet": ("train linear", "answer linear", "fit-cells units photos"),
    "data/cells/units/photos/cells.json": ("train celled", "answer celled"),
    "data/cells/units/photos/arrays.npz": ("train celled", "answer celled"),
    "data/models/linear/model.json": ("answer linear",),
    "data/models/linear/labels.json": ("answer linear",),
    "data/models/linear/model.safetensors": ("answer linear",),
    "data/models/guided/clues.json": ("answer guided",),
    "data/answers/linear/answers.json": ("score linear",),
    "data/answers/linear/labels.json": ("train both", "answer both", "score linear"),
    "data/answers/linear/validation.parquet": ("train both", "answer both", "score linear"),
    "data/scores/linear/scores.json": ("leaderboard",),
    "data/scores/linear/conventions.json": ("leaderboard --convention pigeon",),
    "data/scores/linear/details.json": ("report",),
    "data/leaderboard/leaderboard.json": ("leaderboard --show", "report", "promote"),
    "cells/cells.json": (ASSIGN,),
    "cells/labels.json": (ASSIGN,),
    "cells/arrays.npz": (ASSIGN,),
}  # fmt: skip
"""By artefact, the commands that read it."""
UNREAD = {
    ("data/corpora/photos/manifest.parquet", "flipped"),
    ("data/corpora/photos/rejects.parquet", "flipped"),
    ("data/corpora/photos/attributes.parquet", "flipped"),
    ("data/corpora/photos/attributes.parquet", "missing"),
    ("data/labels/photos.parquet", "missing"),
    ("data/texts/clues.parquet", "flipped"),
    ("data/answers/linear/validation.parquet", "flipped"),
}
"""Where a command may not read what is damaged; ``geoloc check`` reads all."""


@contextmanager
def damaged(root: Path, name: str, damage: Damage, listed: bool):
    """A file that is not as it was written, with or without the list of its folder; all is restored in the end."""
    path, kept = root / name, root / "kept"
    lists = [] if listed else [up / files.CHECKSUMS for up in path.parents[:2] if (up / files.CHECKSUMS).exists()]
    for at, place in [(path, kept), *((at, at.with_suffix(".kept")) for at in lists)]:
        shutil.copyfile(at, place)
    for at in lists:
        at.unlink()
    damage(path)
    try:
        yield
    finally:
        files.remove(path)
        kept.rename(path)
        for at in lists:
            at.with_suffix(".kept").rename(at)


CASES = [
    pytest.param(name, damage, listed, id=f"{name}-{damage}-{'listed' if listed else 'as before'}")
    for name in READ
    for damage in (*DAMAGES, *(JSON_DAMAGES if name.endswith(".json") else ()))
    for listed in (True, False)
    if listed or (damage != "flipped" and not name.endswith(".parquet"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage", "listed"), CASES)
def test_a_damaged_artefact_is_one_line_for_every_command_that_reads_it(root, capsys, name, damage, listed):
    made = [path for path in (root / "data").iterdir() if path.name != "datasheets"]  # one is made without labels too
    before = files.digest(*made, root / "cells")
    with damaged(root, name, {**DAMAGES, **JSON_DAMAGES}[damage], listed):
        for words in READ[name]:
            capsys.readouterr()
            code, said = run(root, *words.split()), capsys.readouterr().err
            if code == 0 and (name, damage) in UNREAD:
                continue
            assert code == 2, f"{words}: {said}"
            last = said.strip().splitlines()[-1]
            assert last.startswith("geoloc: error: "), said
            assert Path(name).name.partition(".")[0] in last or name.split("/")[-2] in last
            assert not re.search(r"Traceback|0x[0-9a-f]{6}", said)
        alone = Path(name).parts[1] in ("labels", "truth", "texts")  # and nothing says that there was one
        if listed and name.startswith("data/") and not (alone and damage in ("folder", "missing")):
            assert run(root, "check") == 2
            assert f"{root / name}" in " ".join(capsys.readouterr().err.split())
    assert files.digest(*made, root / "cells") == before, "nothing was made of it"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bundle.json", "models/linear/model.json", "models/linear/model.safetensors", "encoders/net/config.json"]
)
@pytest.mark.parametrize("damage", [*DAMAGES, *JSON_DAMAGES])
def test_a_damaged_bundle_is_named(root, tmp_path, name, damage):
    bundle.pack(Project.open(root / "params.yaml"), "linear", tmp_path / "bundle")
    assert bundle.load(tmp_path / "bundle").variant == "linear"
    {**DAMAGES, **JSON_DAMAGES}[damage](tmp_path / "bundle" / name)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "bundle"))) as refused:
        bundle.load(tmp_path / "bundle")
    assert "run `geoloc promote --replace`" in str(refused.value)


@pytest.mark.slow
def test_check_names_every_damaged_file_and_what_makes_it_anew(root, capsys):
    names = {
        "data/features/net/photos/features.npy": "geoloc encode photos --encoder net",
        "data/labels/photos.parquet": "geoloc label photos",
        "data/corpora/photos/shards/00000.parquet": "geoloc ingest photos",
        "data/weights/net/model.safetensors": "geoloc download net",
        "data/summaries/train/linear.json": "geoloc train linear",
        "data/models/linear/checksums.json": "rebuild the folder",
        "data/text_features/words/clues/features.npy": "geoloc encode-text clues --encoder words",
    }
    kept = {name: (root / name).read_bytes() for name in names}
    for name, data in kept.items():
        (root / name).write_bytes(b"[" + data[1:-20])
    code, said = run(root, "check"), " ".join(capsys.readouterr().err.split())
    for name, data in kept.items():
        (root / name).write_bytes(data)
    assert code == 2
    assert f"{len(names)} of " in said
    for name, command in names.items():
        assert re.search(f"{re.escape(str(root / name))}: [^;]*;? ?.*?{re.escape(command)}", said), name
    assert run(root, "check") == 0


@pytest.mark.slow
def test_artefacts_of_a_former_version_have_no_lists_and_are_read(root):
    lists = list((root / "data").rglob(files.CHECKSUMS))
    kept = {path: path.read_bytes() for path in lists}
    for path in lists:
        path.unlink()
    try:
        assert run(root, "leaderboard", "--show") == 0
        assert run(root, "truth", "photos") == 0
        assert run(root, "check") == 0
        assert run(root, "leaks") == 2, "and replaced by nobody but who takes them away"
    finally:
        for path, data in kept.items():
            path.write_bytes(data)


def test_a_file_that_cannot_be_read_is_one_of_the_damaged(tiny_project, capsys):
    summaries = [tiny_project.summary("ingest", name) for name in ("endless", "cut", "whole")]
    for path in summaries:
        files.write_json(path, {})
    summaries[0].unlink()
    summaries[0].symlink_to(summaries[0])
    summaries[1].write_text("{")
    with pytest.raises(UserError, match="2 of 3 files are damaged"):
        artefacts.check(tiny_project)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{summaries[0]}: cannot be read: Too many levels of symbolic links" in said
    assert f"{summaries[1]}: not valid JSON" in said
    assert "run `geoloc ingest cut` again" in said


def test_ingest_again_replaces_its_own_and_no_other(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": PHOTOS}))
    project = Project.open(tmp_path / "params.yaml")
    raw = project.raw("photos")
    raw.mkdir(parents=True)
    from .corpora.made_photos import located

    for number in range(3):
        (raw / f"{number}.jpg").write_bytes(located(number))
    ingest(project, "photos")
    ingest(project, "photos")
    (project.corpus("photos") / "mine.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"already contains files .* .mine.txt"):
        ingest(project, "photos")
    assert (project.corpus("photos") / "mine.txt").read_text() == "years of work"
