"""A small project with a real DVC pipeline: its stages are one shell script, so that tests are quick."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg

from orchestration.dvc import Stage, read_stages
from orchestration.environment import tools
from orchestration.pipeline import pipeline
from orchestration.reproduce import Outcome, reproducing

REPOSITORY = Path(__file__).parents[2]

WORK = """
out=$1 stage=$2 name=$3
shift 3
echo "working on $name" >&2
if [ -e "trouble/$name" ]; then cat "trouble/$name" >&2; exit 2; fi
mkdir -p "$(dirname "$out")" "data/summaries/$stage"
{ echo "$name"; cat "$@" /dev/null; } > "$out"
echo '{"rows": 5, "loss": 0.25, "benchmarks": {"im2gps": {"km": 812.5}}}' > "data/summaries/$stage/$name.json"
"""

PARAMS = """
run:
  seed: 1
  corpora: {mp16: {n: 5}, im2gps: {n: 2}}
  encoders: {clip: {dim: 4}, vit: {dim: 8}}
  heads: {linear: {lr: 0.1}, mlp: {lr: 0.2}}
"""

PIPELINE = """
stages:
  fetch:
    foreach: ${run.corpora}
    do:
      cmd: sh code/work.sh data/raw/${key} fetch ${key} outside/${key}.csv
      desc: Bring ${key} here
      deps: [code/work.sh, "outside/${key}.csv"]
      params: ["run.corpora.${key}"]
      outs: ["data/raw/${key}"]
      metrics: ["data/summaries/fetch/${key}.json"]
      meta: {dagster: {group: 1_fetch, kinds: [file]}}
  ingest:
    foreach: ${run.corpora}
    do:
      cmd: sh code/work.sh data/corpora/${key} ingest ${key} data/raw/${key}
      deps: ["data/raw/${key}", code/work.sh]
      params: [run.seed]
      outs: ["data/corpora/${key}"]
      metrics: ["data/summaries/ingest/${key}.json"]
      meta: {dagster: {group: 2_ingest, kinds: [parquet], check: manifest}}
  encode:
    matrix: {encoder: "${run.encoders}", corpus: "${run.corpora}"}
    cmd: sh code/work.sh data/features/${key} encode ${key} data/corpora/${item.corpus}
    deps: ["data/corpora/${item.corpus}", code/work.sh]
    params: ["run.encoders.${item.encoder}"]
    outs: ["data/features/${key}"]
    metrics: ["data/summaries/encode/${key}.json"]
    meta: {dagster: {group: 4_encode, kinds: [numpy], pool: gpu}}
  train_head:
    foreach: ${run.heads}
    do:
      cmd: sh code/work.sh data/models/${key} train ${key} data/features/clip-mp16
      deps: [data/features/clip-mp16, code/work.sh]
      params: ["run.heads.${key}"]
      outs: ["data/models/${key}"]
      metrics: ["data/summaries/train/${key}.json"]
      meta: {dagster: {group: 5_train, kinds: [pytorch], pool: gpu, mlflow: "train/${key}"}}
"""


def dvc(root: Path, *words: str) -> None:
    command = [sys.executable, "-P", "-m", "dvc", *words]
    environment = {**os.environ, **tools()}
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)


def make_project(root: Path) -> Path:
    files = {
        "code/__init__.py": "",  # as is the next, the name of a module of Python's own
        "random.py": "raise ImportError('a file of the project')",
        "code/work.sh": WORK,
        "params.yaml": PARAMS,
        "dvc.yaml": PIPELINE,
        "outside/mp16.csv": "a",
        "outside/im2gps.csv": "b",
        ".dvcignore": ".state\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    dvc(root, "init", "--no-scm", "-q")
    return root


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def reproduce(root: Path, stage: Stage) -> Outcome:
    """Run one stage if it is out of date."""
    *_, outcome = reproducing(root, stage)
    assert isinstance(outcome, Outcome)
    return outcome


def definitions(root: Path) -> dg.Definitions:
    """The project as it is now."""
    return pipeline(root, read_stages(root))


def materialize(
    root: Path, instance: dg.DagsterInstance, *keys: str, definitions_: dg.Definitions | None = None
) -> dg.ExecuteInProcessResult:
    """Materialise in this process."""
    found = definitions_ or definitions(root)
    selection = [dg.AssetKey(key.split("/")) for key in keys] or None
    job = found.resolve_job_def("everything")
    return job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False)
