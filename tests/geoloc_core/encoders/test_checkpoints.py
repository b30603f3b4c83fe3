"""Weights come pinned and in one folder format, or with one clear line and nothing half-written."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from geoloc_core.encoders import checkpoints, encoder, published
from geoloc_core.encoders.preprocess import decode
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json, sha256_of
from geoloc_core.params import any_encoder
from geoloc_core.plugins import kinds
from geoloc_core.project import Project

from ...conftest import PHOTOS
from .made_checkpoints import MADE, RESIDUAL, open_clip, open_clip_config
from .test_round_trips import PHOTOS as PICTURES

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLIP, VIT = {"kind": "open_clip"}, {"kind": "vit"}


def project_with(tmp_path, kind: dict | None, checkpoint: dict, text: dict | None = None) -> Project:
    profile = {**PHOTOS, "encoders": {"net": kind} if kind else {}, "checkpoints": {"net": checkpoint}, "variants": {}}
    profile |= {"text_encoders": {"net": text} if text else {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    return Project.open(tmp_path / "params.yaml")


def download(project: Project) -> Path:
    checkpoints.download(project, "net", any_encoder(project.root / "params.yaml", "net"))
    return project.weights("net")


def refused(project: Project, says: str) -> str:
    """What ``download`` answers in one line, leaving nothing behind."""
    with pytest.raises(UserError, match=says) as error:
        download(project)
    assert "\n" not in str(error.value)
    assert not project.weights("net").exists()
    return str(error.value)


def test_every_kind_of_tower_says_which_files_it_reads():
    assert all(published.files(kind) or published.parts(kind) for kind in kinds(encoder.TOWERS))
    assert all(map(published.text_files, kinds(published.TEXT_TOWERS)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "checkpoint", "says"),
    [
        (VIT, {"hub": "google/vit", "revision": "main"}, "'main' may move; expected a commit.* of google/vit under"),
        (VIT, {"model": "ViT-B-32", "tag": "openai"}, "a vit tower needs `hub` with `revision`, or `file`"),
        (VIT, {"file": "nowhere"}, "no such file or folder"),
        (
            VIT,
            {"file": "params.yaml"},
            "params.yaml: a vit tower needs a folder with config.json, model.safetensors or",
        ),
        (CLIP, {"file": "params.yaml"}, "needs `model` beside a file, or a folder with open_clip_config.json"),
        (
            CLIP,
            {"model": "ViT-B-32", "tag": "no_such_tag"},
            "ViT-B-32 with no_such_tag: open_clip has no such tag.*one of: openai",
        ),
        (CLIP, {"model": "ViT-B-32", "file": "params.yaml"}, "ViT-B-32 with .*params.yaml"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(tmp_path, kind, checkpoint, says):
    assert "checkpoints.net" in refused(project_with(tmp_path, kind, checkpoint), says)


def test_offline_says_so(tmp_path):
    refused(project_with(tmp_path, VIT, {"hub": "google/vit", "revision": COMMIT}), "config.json of google/vit@0123")


# -- A hub of this machine ---------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """Serves the files of one commit of one repository, as the Hugging Face hub does."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.served = files, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        asked, _, name = self.path.partition(f"/resolve/{COMMIT}/")
        data = self.server.files.get(name)
        if asked != "/org/net" or data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if asked == "/org/net" and name else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.server.served.append(name)
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path):
    """A hub with a checkpoint of CLIP in its older format, and much that no tower reads."""
    made = tmp_path / "made"
    made.mkdir()
    MADE["clip-vit-b32"].write(made)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    files |= {"README.md": b"read me", "tf_model.h5": b"of another library", "flax_model.msgpack": b"as well"}
    server = Hub(files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(project: Project, *words: str, endpoint: str = "", offline: str = "0") -> subprocess.CompletedProcess:
    home = {"HF_HOME": str(project.root / "home"), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline}
    return subprocess.run(
        [sys.executable, "-m", "geoloc_core", *words],
        cwd=project.root,
        env={**os.environ, **home, "HF_HUB_ETAG_TIMEOUT": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_commit_of_the_hub_becomes_a_folder_of_what_is_read(tmp_path, hub):
    project = project_with(tmp_path, {"kind": "clip"}, {"hub": "org/net", "revision": COMMIT}, {"kind": "clip"})
    got = run(project, "download", "net", endpoint=hub.url)
    assert got.returncode == 0, got.stderr
    names = {path.name for path in project.weights("net").iterdir()} - {"checksums.json"}
    assert names == {"config.json", "preprocessor_config.json", "pytorch_model.bin", "vocab.json", "merges.txt"}
    assert all((project.weights("net") / name).read_bytes() == hub.files[name] for name in names)
    assert set(hub.served) == names, "nothing else was sent"
    assert read_json(project.summary("download", "net"))["sha256"] == digest(project.weights("net"))
    tower = encoder.load(project.profile.encoders["net"], project.weights("net"))
    # the hub is asked once: what it had, and what it had not, is known of this commit
    again = run(project, "download", "net", offline="1")
    assert again.returncode == 0, again.stderr
    assert encoder.load(project.profile.encoders["net"], project.weights("net")).fingerprint == tower.fingerprint


@pytest.mark.slow
def test_what_a_hub_has_not_or_has_otherwise_is_one_line_and_exit_code_2(tmp_path, hub):
    wrong = hashlib.sha256(b"other weights").hexdigest()
    right = hashlib.sha256(hub.files["pytorch_model.bin"]).hexdigest()
    there = {"hub": "org/net", "revision": COMMIT}
    for kind, checkpoint, says in (
        ("clip", {"hub": "org/other", "revision": COMMIT}, f"config.json of org/other@{COMMIT}: 404"),
        ("open_clip", there, f"org/net@{COMMIT} has no open_clip_config.json"),
        ("clip", {**there, "sha256": wrong}, f"pytorch_model.bin has {right}; expected {wrong}"),
    ):
        project = project_with(tmp_path, {"kind": kind}, checkpoint)
        got = run(project, "download", "net", endpoint=hub.url)
        assert got.returncode == 2
        assert says in got.stderr
        assert "Traceback" not in got.stderr
        assert len(got.stderr.strip().splitlines()) == 1
        assert not project.weights("net").exists()
        assert not list(project.data.rglob("*.bin")), "nothing is half-written"
    project = project_with(tmp_path, {"kind": "clip"}, {**there, "sha256": right})
    assert run(project, "download", "net", endpoint=hub.url).returncode == 0


# -- Files and folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_architecture(tmp_path):
    """An architecture of open_clip that the library does not come with, known by a name."""
    import json

    import open_clip as library

    path = tmp_path / "tiny-rn.json"
    path.write_text(json.dumps(open_clip_config(RESIDUAL)))
    library.add_model_config(path)
    return "tiny-rn"


def trained(folder: Path):
    """A small CLIP with attention pooling, and the photos as its own transform gives them."""
    import open_clip as library
    import torch

    open_clip(RESIDUAL).write(folder)
    model, transform = library.create_model_from_pretrained(f"local-dir:{folder}")
    return model.eval(), torch.stack([transform(decode(data)) for data in PICTURES])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tensors", "program"])
def test_a_file_of_any_architecture_becomes_a_checkpoint_folder(tmp_path, tiny_architecture, form):
    """Saved as users save, or as OpenAI publishes: TorchScript in half precision, with a number beside."""
    import torch

    (tmp_path / "made").mkdir()
    model, pixels = trained(tmp_path / "made")
    if form == "tensors":
        torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pt")
    else:
        del model.attn_mask  # which is not in OpenAI's files
        model.register_buffer("input_resolution", torch.tensor(64))
        with torch.no_grad():
            program = torch.jit.trace_module(model, {"encode_image": pixels}).half()
        torch.jit.save(program, tmp_path / "weights.pt")
        model = model.half().float()
    right = sha256_of(tmp_path / "weights.pt")
    checkpoint = {"model": tiny_architecture, "file": "weights.pt", "sha256": right}
    project = project_with(tmp_path, CLIP, checkpoint)
    tower = encoder.load(project.profile.encoders["net"], download(project))
    with torch.inference_mode():
        theirs = model.encode_image(pixels).numpy()
    np.testing.assert_allclose(tower(PICTURES), theirs, atol=1e-5)
    (tmp_path / "other").mkdir()
    other = project_with(tmp_path / "other", CLIP, {**checkpoint, "file": "../weights.pt", "sha256": "0" * 64})
    refused(other, f"weights.pt has {right}; expected 0000")


def test_an_address_is_fetched_and_held_against_its_checksum(tmp_path):
    from ..corpora.loopback import Reply, serving

    data = b"an ONNX network"
    with serving(lambda path, time: Reply(body=data, headers={"Content-Type": "application/octet-stream"})) as server:
        checkpoint = {"url": f"{server.url}/net.onnx", "sha256": hashlib.sha256(data).hexdigest()}
        project = project_with(tmp_path, {"kind": "onnx", "output": "x"}, checkpoint)
        folder = download(project)
        assert (folder / "model.onnx").read_bytes() == data
        assert {path.name for path in folder.iterdir()} == {"model.onnx", "checksums.json"}
        assert not project.partial("download", "net").exists()
        (tmp_path / "other").mkdir()
        other = {**checkpoint, "sha256": "0" * 64}
        refused(project_with(tmp_path / "other", {"kind": "onnx", "output": "x"}, other), "expected .*sha256 0000")


def test_a_folder_is_copied_without_what_is_not_read(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    MADE["vit-l16-in21k"].write(given)
    (given / "optimizer.pt").write_bytes(b"large")
    project = project_with(tmp_path, VIT, {"file": "given"})
    names = {"checksums.json", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in download(project).iterdir()} == names
    (given / "preprocessor_config.json").unlink()
    kept = digest(project.weights("net"))
    with pytest.raises(UserError, match=r"given has no preprocessor_config\.json"):
        download(project)
    assert digest(project.weights("net")) == kept, "what was there is still there"


def test_a_checkpoint_of_your_own_is_linked_and_has_the_fingerprint_of_a_downloaded_one(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    MADE["vit-l16-in21k"].write(given)
    (given / "README.md").write_text("not read")
    project = project_with(tmp_path, VIT, {"hub": "google/vit", "revision": COMMIT})
    named = any_encoder(tmp_path / "params.yaml", "net")
    with checkpoints.of_your_own(named, given) as folder:
        assert all(path.is_symlink() for path in folder.iterdir())
        linked = encoder.load(named.image, folder).fingerprint
    assert not folder.exists()
    assert (given / "model.safetensors").is_file()
    local = project_with(tmp_path, VIT, {"file": "given"})
    assert encoder.load(named.image, download(local)).fingerprint == linked
    missing = checkpoints.of_your_own(named, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--checkpoint.*nowhere: no such file or folder"):
        missing.__enter__()
    assert project.weights("net").exists()


@pytest.mark.slow
def test_photos_alone_need_no_tokenizer(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    MADE["streetclip"].write(given)
    project = project_with(tmp_path, {"kind": "clip"}, {"file": "given"}, {"kind": "clip"})
    named = any_encoder(tmp_path / "params.yaml", "net")
    with checkpoints.of_your_own(named, given) as folder:
        assert digest(folder) == digest(download(project)), "the tokenizer is taken where there is one"
    (given / "vocab.json").unlink()
    with checkpoints.of_your_own(named, given) as folder:
        assert encoder.load(named.image, folder).shape == (24,)
    with pytest.raises(UserError, match=r"given has no tokenizer\.json or vocab\.json with merges\.txt or vocab\.txt"):
        download(project)


def test_a_tower_that_is_added_later_finds_its_files_and_changes_no_features(tmp_path):
    from geoloc_core.encoders.text import encoder as text_encoder

    given, kind = tmp_path / "given", {"kind": "clip"}
    given.mkdir()
    MADE["streetclip"].write(given)
    photos = project_with(tmp_path, kind, {"file": "given"})
    folder = download(photos)
    before = encoder.load(photos.profile.encoders["net"], folder).fingerprint
    both = project_with(tmp_path, kind, {"file": "given"}, kind)
    assert text_encoder.load(both.profile.text_encoders["net"], folder)(["a photo"]).shape == (1, 24)
    assert encoder.load(both.profile.encoders["net"], download(both)).fingerprint == before


@pytest.mark.parametrize(("image", "text"), [({"kind": "clip"}, None), (None, {"kind": "clip"})])
def test_what_only_an_unused_tower_reads_may_be_missing(tmp_path, image, text):
    given = tmp_path / "given"
    given.mkdir()
    MADE["streetclip"].write(given)
    missing = "vocab.json" if image else "preprocessor_config.json"
    (given / missing).unlink()
    project = project_with(tmp_path, image, {"file": "given"}, text)
    assert {"config.json", "model.safetensors"} <= {path.name for path in download(project).iterdir()}
    (tmp_path / "both").mkdir()
    refused(project_with(tmp_path / "both", {"kind": "clip"}, {"file": "../given"}, {"kind": "clip"}), missing)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    given = tmp_path / "given"
    given.mkdir()
    MADE["vit-l16-in21k"].write(given)

    def full(*_):
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(checkpoints.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device"):
        download(project_with(tmp_path, VIT, {"file": "given"}))
    assert not list((tmp_path / "data/weights").iterdir())


def test_what_is_trained_here_is_not_downloaded(tmp_path):
    path = Path(__file__).parents[3] / "params.yaml"
    with pytest.raises(UserError, match="'clip': is trained here rather than downloaded; run `geoloc pretrain clip`"):
        checkpoints.download(Project.open(path), "clip", any_encoder(path, "clip"))
