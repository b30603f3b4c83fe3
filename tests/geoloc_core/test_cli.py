"""The command line: help with examples, one clear line and exit code 2 for a mistake, no traceback ever."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from geoloc_core import cli
from geoloc_core.cli import geoloc

ROOT = Path(__file__).parents[2]


def run(*words, cwd=ROOT, **variables) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "geoloc_core", *words]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "words"),
    [("click", []), ("pydantic", []), ("pyarrow", ["describe", "mp16"]), ("dagster", ["demo"])],
    ids=["of the commands", "of the parameters", "of a stage", "of the orchestrator"],
)
def test_a_library_that_cannot_be_imported_is_one_line(tmp_path, library, words):
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text(f"import {library}_core_that_is_gone")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    done = run(*words, cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2, done.stderr
    said = f"geoloc: error: {library}_core_that_is_gone: cannot be imported (No module named"
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert "remove .venv and run `make demo`" in done.stderr


@pytest.mark.parametrize("name", sorted(geoloc.commands))
def test_every_command_explains_itself_with_examples(name):
    from click.testing import CliRunner

    result = CliRunner().invoke(geoloc, [name, "--help"])
    assert result.exit_code == 0
    assert f"  geoloc {name}" in result.output.split("Examples:")[1] or "geoloc --params" in result.output


@pytest.mark.parametrize("words", [[], ["cells"]])
def test_the_list_of_commands_is_whole_in_80_columns(words):
    from click.testing import CliRunner

    said = CliRunner().invoke(geoloc, [*words, "--help"], terminal_width=80).output.split("Commands:")[1].splitlines()
    assert len(said) > 2
    assert [line for line in said if len(line) > 80 or line.endswith("...")] == []


def test_every_stage_of_the_graph_has_its_command():
    import yaml

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = {(stage.get("do") or stage)["cmd"].split()[1] for stage in stages.values()}
    assert commands <= set(geoloc.commands)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fetch", "nowhere"], "corpus 'nowhere': not in the profile in use; expected one of: mp16, im2gps, im2gps3k"),
        (["train", "nothing"], "variant 'nothing': not in the profile in use"),
        (["encode", "nowhere", "--encoder", "clip"], "corpus 'nowhere'"),
        (["pretrain", "nothing"], "pretrain 'nothing'"),
        (
            ["download", "nothing"],
            "encoder 'nothing': not in params.yaml; expected one of: clip, vit, pieces, clip-vit",
        ),
        (["download", "clip"], "encoder 'clip': is trained here rather than downloaded; run `geoloc pretrain clip`"),
        (
            ["encode", "mp16", "--encoder", "nothing"],
            "encoder 'nothing': not in params.yaml; expected one of: clip, vit",
        ),
        (["encode", "mp16", "--encoder", "roberta-base"], "encodes texts; name an encoder of photos"),
        (
            ["encode-text", "nothing", "--encoder", "clip"],
            "texts 'nothing': not in the profile in use; expected one of: clues",
        ),
        (["texts", "nothing"], "texts 'nothing': not in the profile in use; expected one of: clues"),
        (["predict", "nowhere.jpg"], "nowhere.jpg: no such file; expected a photo"),
        (["predict", "params.yaml"], "params.yaml: not a readable photo"),
        (["--params", "nowhere.yaml", "params"], "nowhere.yaml: no such file"),
        (["fetch"], "Missing argument 'CORPUS'"),
        (["fly"], "No such command 'fly'"),
        (["simulate", "nowhere", "--out", "nowhere"], "corpus 'nowhere': not in params.yaml; expected one of: mp16"),
        (["simulate", "mp16"], "Missing option '--out'"),
        (["simulate", "mp16", "--photos", "9", "--out", "nowhere"], "9 is not in the range"),
        (
            ["simulate", "mp16", "--out", "geoloc_core"],
            "geoloc_core: already contains files that geoloc did not write (",
        ),
        (["ingest", "mp16", "--raw", "nowhere"], "--raw and --out: expected both or neither"),
        (["ingest", "mp16", "--raw", "nowhere", "--out", "nowhere"], "nowhere/mp16_places365.csv: no such file"),
        (
            ["ingest", "mp16", "--raw", "nowhere", "--out", "geoloc_core"],
            "geoloc_core: already contains files that geoloc did not write as photos (",
        ),
        (["predict"], "Missing argument 'PHOTOS...'"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(words, says):
    result = run(*words)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_one_clear_line_too():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "geoloc_core", "params"], cwd=ROOT, stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("geoloc: error: the disk that is written to: No space left on device; make room")
    assert "Traceback" not in done.stderr


def ended(monkeypatch, capsys, error: BaseException) -> tuple[object, str]:
    """How the command line ends when a command raises, and what it says."""

    def command(**_):
        raise error

    monkeypatch.setattr(cli, "geoloc", command)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("number", sorted(cli.OF_THE_MACHINE), ids=errno.errorcode.get)
def test_an_error_of_the_machine_is_one_clear_line(monkeypatch, capsys, number):
    for error in (OSError(number, "whatever a library says, over\nlines", "data/x"), OSError(number, "whatever")):
        if number == errno.ENOENT and not error.filename:
            with pytest.raises(FileNotFoundError):
                ended(monkeypatch, capsys, error)
            continue
        code, said = ended(monkeypatch, capsys, error)
        assert code == 2
        where = error.filename or "the disk that is written to"
        assert said == f"geoloc: error: {where}: {os.strerror(number)}; {cli.OF_THE_MACHINE[number]}\n"


def test_too_little_memory_is_one_clear_line(monkeypatch, capsys):
    code, said = ended(monkeypatch, capsys, MemoryError())
    assert (code, said) == (
        2,
        "geoloc: error: Cannot allocate memory; close other programs and run the same command again\n",
    )


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyError("x"), OSError("said nothing"), RuntimeError("x")])
def test_a_fault_of_the_program_is_shown_whole(monkeypatch, capsys, error):
    with pytest.raises(type(error)):
        ended(monkeypatch, capsys, error)


def test_a_file_that_ends_too_early_is_no_key_of_the_user(monkeypatch):
    @click.command
    def command():
        raise EOFError("No data left in file")

    monkeypatch.setattr(cli, "geoloc", command)
    monkeypatch.setattr(sys, "argv", ["geoloc"])
    with pytest.raises(EOFError, match="No data left"):
        cli.main()


def test_light_commands_start_light():
    loaded = subprocess.run(
        [sys.executable, "-c", "import geoloc_core.cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for heavy in ("torch", "pandas", "mlflow", "great_expectations", "dagster", "dvc", "matplotlib"):
        assert heavy not in loaded


@pytest.mark.slow
def test_a_corpus_is_simulated_and_ingested_by_itself(tmp_path):
    made, corpus = tmp_path / "made", tmp_path / "corpus"
    simulated = run("simulate", "im2gps3k", "--size", "32", "--out", str(made))
    assert simulated.returncode == 0, simulated.stderr
    assert "100 photos" in simulated.stdout
    for _ in range(2):  # an earlier result is replaced
        assert run("ingest", "im2gps3k", "--raw", str(made), "--out", str(corpus)).returncode == 0
    from geoloc_core.corpora.manifest import read_manifest

    assert set(read_manifest(corpus, ["corpus"])["corpus"].to_pylist()) == {"im2gps3k"}
    assert read_manifest(corpus).num_rows == 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "made"]
    (corpus / "notes.txt").write_text("mine")
    for name in ("im2gps3k", "im2gps"):
        refused = run("ingest", name, "--raw", str(made), "--out", str(corpus))
        assert (refused.returncode, "already contains" in refused.stderr) == (2, True)
        (corpus / "notes.txt").unlink(missing_ok=True)  # what is left is of another corpus than the second


@pytest.mark.slow
def test_stages_of_tables_start_without_what_takes_long_to_import():
    heavy = ("torch", "matplotlib", "scipy", "shapely", "great_expectations", "dagster", "dvc", "mlflow")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from geoloc_core.project import Project\n"
        "import geoloc_core.cli\n"
        f"Project.open(Path({str(ROOT / 'params.yaml')!r}))\n"
        "import geoloc_core.corpora.fetch, geoloc_core.corpora.ingest, geoloc_core.corpora.describe\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
