"""What makes a stage out of date: the code that it runs, and nothing else."""

import ast
import shutil
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

import geoloc_core
from geoloc_core.cli import geoloc
from geoloc_core.code import NOT_FOLLOWED, Module, Sources, digests
from geoloc_core.params import load
from tests.conftest import ROOT

PACKAGE = Path(geoloc_core.__file__).parent


@pytest.fixture(scope="module", autouse=True)
def parsed_once():
    """Sources of the same text are parsed once: a test edits one of two hundred."""
    parse, known = Module.parsed, {}

    def parsed(name, path):
        key = name, path.read_bytes()
        if key not in known:
            known[key] = parse(name, path)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Module, "parsed", parsed)
        yield


@pytest.fixture(scope="module")
def profile():
    return load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def before(profile):
    return flat(digests(profile, parsed(PACKAGE)))


@pytest.fixture
def sources(tmp_path):
    """A copy of the package's sources, to be edited."""
    names = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "geoloc_core", ignore=names))


@cache
def parsed(sources):
    """Sources, read once."""
    return Sources(sources)


def flat(found):
    """Digests by ``stage`` or ``stage.name``."""
    return {
        f"{kind}.{name}" if name else kind: digest
        for kind, block in found.items()
        for name, digest in (block.items() if isinstance(block, dict) else [("", block)])
    }


def stale(before, profile, sources=PACKAGE):
    """The stages whose digest is another one now."""
    return {name for name, digest in flat(digests(profile, parsed(sources))).items() if before[name] != digest}


def kinds(stages):
    return {stage.partition(".")[0] for stage in stages}


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path}: no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def every(profile, stage):
    names = {"fetch": profile.corpora, "ingest": profile.corpora, "label": profile.corpora}
    return {f"{stage}.{name}" for name in names[stage]}


@pytest.mark.slow
def test_comments_docstrings_and_layout_do_not_count(profile, before, sources):
    for path in sources.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                node.body.insert(0, ast.Expr(ast.Constant("Another docstring.")))
        path.write_text("# another comment\n" + ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    assert stale(before, profile, sources) == set()


@pytest.mark.slow
def test_what_is_new_makes_nothing_out_of_date(profile, before, sources):
    for room in (
        "families",
        "encoders/towers",
        "encoders/text/towers",
        "corpora/sources",
        "corpora/fetch",
        "geo/sources",
        "geo/geocells/schemes",
        "training/pretrain",
    ):
        (sources / room / "brand_new.py").write_text("def read():\n    return 1\n")
    with (sources / "evaluation" / "metrics.py").open("a") as metrics:
        metrics.write("\n\ndef parochial_score(errors_km):\n    return errors_km.min()\n")
    with (sources / "cli.py").open("a") as cli:
        cli.write("\n\n@stage(examples=('new',))\ndef new(project):\n    print(project)\n")
    assert stale(before, profile, sources) == set()


TUNED = ("ground", "structures", "experts")
"""Variants whose networks start from the ViT."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("encoders/towers/vit.py", "def load(", "ANSWER = 42\n\n\ndef load(",
         {"encode.vit", "report"} | {f"{stage}.{name}_country" for stage in ("train", "answer") for name in TUNED}),
        ("families/fine_tuned.py", "TOWER = ", "ANSWER = 42\nTOWER = ",
         {"report", *(f"{stage}.{name}_country" for stage in ("train", "answer") for name in TUNED)}),
        ("families/feature_experts.py", "NAMED = 3", "NAMED = 4",
         {"train.experts_country", "answer.experts_country", "report"}),
        ("families/classifier.py", "def fit(", "ANSWER = 42\n\n\ndef fit(",
         {"report", *(f"{stage}.{name}" for stage in ("train", "answer")
                      for name in ("mlp_clip_vit_country", "linear_clip_cells", "refined_cells"))}),
        ("families/protonet_refinement.py", "BLOCK = 2**22", "BLOCK = 2**21",
         {"train.refined_cells", "answer.refined_cells", "report"}),
        ("training/prototypes.py", "BLOCK = 2**24", "BLOCK = 2**23",
         {"train.refined_cells", "answer.refined_cells", "report"}),
        ("families/guidebook_attention.py", "NAMED = 5", "NAMED = 6",
         {"train.guidebook_country", "answer.guidebook_country", "report"}),
        ("families/geoclip/network.py", "2 * np.pi * projected", "2.0 * np.pi * projected",
         {"train.geoclip", "answer.geoclip", "report"}),
        ("encoders/text/towers/open_clip.py", "def load(", "ANSWER = 42\n\n\ndef load(",
         {"encode_text.clip", "train.zero_shot_clip", "answer.zero_shot_clip", "report"}),
        ("training/selection.py", "for number in range(1, rounds + 1):", "for number in range(1, rounds + 2):",
         {"report", *(f"{stage}.ensemble_{name}" for stage in ("train", "answer") for name in ("country", "places"))}),
        ("geo/geocells/schemes/semantic.py", "def build(options", "ANSWER = 42\n\n\ndef build(options",
         {"cells.semantic", "report", *(f"{stage}.{name}" for stage in ("train", "answer")
                              for name in ("linear_clip_cells", "refined_cells", "smoothed_cells", "retrieved_cells",
                                           "density_cells", "ensemble_places"))}),
        ("families/geocell_classifier.py", "def fit(", "ANSWER = 42\n\n\ndef fit(",
         {"report", *(f"{stage}.{name}_cells" for stage in ("train", "answer") for name in ("smoothed", "retrieved"))}),
        ("geo/facts.py", "found[there] = values", "found[there] = 1 * values", {"facts"}),
        ("corpora/sources/osv5m.py", "def write(", "EXTRA = 1\n\n\ndef write(", {"fetch.osv5m", "ingest.osv5m"}),
        ("cli.py", "    fetch(project, corpus)", "    print(fetch(project, corpus))", "fetch"),
        ("corpora/splits.py", "/ 2**48", "/ 2.0**48", "label"),
        ("evaluation/metrics.py", "return np.round(points)", "return 1 * np.round(points)", {"score", "report"}),
        ("contracts/metrics.py", 'Column("median_km"',
         'Column("p90_km", ERROR, "p90", (3, 2)),\n        Column("median_km"',
         {"score", "leaderboard", "report"}),
        ("evaluation/scoring.py", "return ", "return None or ", {"score", "report"}),
        ("evaluation/published.yaml", "3.5 6205", "3.6 6205", {"leaderboard", "report"}),
        ("evaluation/report/outlines.json", "public domain", "Public domain", {"report"}),
        ("evaluation/report/plot.html", "<figure", "<figure ", {"report"}),
        ("evaluation/page.py", "return ", "return '' + ", {"leaderboard"}),
    ],
)  # fmt: skip
def test_an_edit_makes_out_of_date_what_runs_it_and_no_more(profile, before, sources, path, old, new, expected):
    edit(sources / path, old, new)
    found = stale(before, profile, sources)
    assert (found if isinstance(expected, set) else kinds(found)) == (
        expected if isinstance(expected, set) else {expected}
    )


@pytest.mark.slow
def test_a_default_that_changes_makes_out_of_date_what_uses_it(profile, before):
    labels = profile.labels.model_copy(update={"blocks_km": 3.0})
    assert stale(before, profile.model_copy(update={"labels": labels})) == every(profile, "label")
    evaluation = profile.evaluation.model_copy(update={"top_k": (1, 3)})
    assert stale(before, profile.model_copy(update={"evaluation": evaluation})) == {"score", "leaderboard"}
    evaluation = profile.evaluation.model_copy(update={"candidates": 3})
    answers = {f"answer.{name}" for name in profile.variants}
    assert stale(before, profile.model_copy(update={"evaluation": evaluation})) == answers
    name, variant = next(iter(profile.variants.items()))
    recipe = variant.recipe.model_copy(update={"epochs": 7})
    variants = profile.variants | {name: variant.model_copy(update={"recipe": recipe})}
    assert stale(before, profile.model_copy(update={"variants": variants})) == {f"train.{name}"}


def test_figures_of_weights_make_nothing_out_of_date(profile, before):
    assert stale(before, profile.model_copy(update={"about": {}})) == set()


def test_a_digest_is_the_same_on_every_python(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('''
"""A docstring."""
from functools import cache
LIMIT: float = 1e-3  # a comment
@cache
def shown(value, *, width=8, **rest):
    """Another."""
    match value:
        case {"a": [first, *_]} if (n := len(rest)) > 2:
            return f"{first!r:>{width}} {n:.{width}f} and {value['a']}"
        case None:
            return [x async for x in rest] if False else ...
    try:
        return lambda a, /, b=None: -a ** b
    except* ValueError:
        raise
''')
    found = Module.parsed("module", path).digests
    assert found == {"": "4f53cda18c2baa0c", "LIMIT": "0651281ae18a97b7", "shown": "3527d96f76cb401f"}


def test_the_exceptions_exist():
    sources = Sources()
    for name in NOT_FOLLOWED:
        module, _, defined = name.partition(":")
        assert sources[module], name
        assert defined in sources[module].statements, name


@pytest.mark.slow
def test_the_file_is_written_once(tmp_path):
    for name in ("params.yaml", "plan.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    told = [CliRunner().invoke(geoloc, ["--params", str(tmp_path / "params.yaml"), "code"]).output for _ in range(2)]
    assert told == ["code.yaml: written\n", "code.yaml: unchanged\n"]
    assert "\n  mlp_clip_vit_country: " in (tmp_path / "code.yaml").read_text()
