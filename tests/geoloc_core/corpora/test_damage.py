"""Every file of every layout but its photos, damaged in every way: one clear line, or each photo kept or refused."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_layouts import layout
from test_layouts import LAYOUTS

from geoloc_core.corpora import manifest
from geoloc_core.corpora.ingest import write as write_corpus
from geoloc_core.corpora.photo import Reason
from geoloc_core.errors import UserError
from geoloc_core.files import files_under, remove

pytestmark = pytest.mark.slow

OPTIONAL = {
    "gone": b"IMG_ID,url,reason,detail\nx.jpg,http://x,404,not found\n",
    "only": b"1\n2\n",
    "leave_out": b"1\n",
    "authors": b"IMG_ID,AUTHOR\naa/bb/1.jpg,me\n",
}
"""Tables that no simulated corpus has."""
RANDOM = np.random.default_rng(5)


def flipped(data: bytes, share: float = 0.01) -> bytes:
    out = np.frombuffer(data, np.uint8).copy()
    at = RANDOM.integers(0, max(1, len(out)), max(1, int(share * len(out)))) if len(out) else []
    out[at] ^= np.uint8(1) << RANDOM.integers(0, 8, len(at)).astype(np.uint8)
    return out.tobytes()


DAMAGES: dict[str, list[Callable[[bytes], bytes]]] = {
    "empty": [lambda _: b""],
    "truncated": [lambda data, part=part: data[: int(part * len(data))] for part in (0.3, 0.95, 0.999)],
    "flipped": [flipped, lambda data: flipped(data, 0), lambda data: flipped(data[:200], 0.02) + data[200:]],
    "garbage": [
        lambda _: RANDOM.bytes(3000),
        lambda _: bytes(3000),
        lambda _: b"<html>404</html>\n",
        lambda _: b"\n\n\n",
    ],
    "doubled": [lambda data: data + data, lambda data: data[len(data) // 2 :] + data],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], tuple]:
    """Each layout once, with the optional tables it may have."""
    known = {}

    def of(name: str) -> tuple:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            module, options, _ = layout(folder, 4, **LAYOUTS[name])
            wanted = {key: f"{key}.txt" for key in OPTIONAL if key in options.model_fields}
            for key, file in wanted.items():
                (folder / file).write_bytes(OPTIONAL[key])
            known[name] = module, options.model_copy(update=wanted), folder
        return known[name]

    return of


def tables_of(raw: Path) -> Iterator[str]:
    return (file for file in files_under(raw) if not file.endswith((".jpg", ".png")))


def answered(module, options, raw: Path, out: Path) -> str:
    """The line that refuses the corpus whole; empty where each of its photos is accounted for."""
    remove(out)
    out.mkdir()
    said = ""
    try:
        tally = write_corpus(module.read(options, raw), out, "c", 1e6)
    except UserError as error:
        said = str(error)
    if said:
        check(said)
        assert "expected" in said or "fetch it again" in said
        return said
    assert tally.seen == sum(manifest.count(out / f"{name}.parquet") for name in ("manifest", "rejects"))
    rejects = pd.read_parquet(out / "rejects.parquet")
    assert len(rejects) == tally.refused
    assert set(rejects["reason"]) <= {reason.value for reason in Reason}
    for detail in rejects["detail"]:
        check(detail)
    return ""


def check(said: str) -> None:
    assert said.strip()
    assert "\n" not in said
    assert not re.search(r" object at |0x[0-9a-f]{6}|<_io\.|Traceback", said), said


@pytest.mark.parametrize("damage", [*DAMAGES, "folder", "missing"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_damaged_file_is_one_clear_line_or_loses_no_photo(tmp_path, made, name, damage, capfd):
    module, options, whole = made(name)
    raw = tmp_path / "raw"
    shutil.copytree(whole, raw)
    assert answered(module, options, raw, tmp_path / "out") == ""
    for table in tables_of(whole):
        path = raw / table
        for spoil in DAMAGES.get(damage, [bytes]):
            remove(path)
            if damage == "folder":
                path.mkdir()
            elif damage != "missing":
                path.write_bytes(spoil((whole / table).read_bytes()))
            answered(module, options, raw, tmp_path / "out")
        remove(path)
        shutil.copyfile(whole / table, path)
    assert not re.search(r" object at |Traceback", capfd.readouterr().err)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_or_a_link_in_the_place_of_a_photo_is_refused(tmp_path, made, name):
    module, options, whole = made(name)
    shutil.copytree(whole, tmp_path / "raw")
    photos = [file for file in files_under(whole) if file.endswith((".jpg", ".png"))]
    for file, spoil in zip(photos, (Path.mkdir, lambda path: path.symlink_to("nowhere"), Path.touch), strict=False):
        (tmp_path / "raw" / file).unlink()
        spoil(tmp_path / "raw" / file)
    assert answered(module, options, tmp_path / "raw", tmp_path / "out") == ""
