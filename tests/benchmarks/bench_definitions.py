"""How long Dagster takes to load a large graph: ``python tests/benchmarks/bench_definitions.py``.

The project's own graph, with as many rendered corpora added to the demo profile as make it the size that is asked for.
Each figure is the median of fresh processes, in seconds of wall clock and of processor: the first load, which works out
the digests of the stages' code; later loads, with nothing changed; and asking which stages are out of date.
"""

import argparse
import copy
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from report import machine, row

ROOT = Path(__file__).resolve().parents[2]
LOAD = "import orchestration.definitions as d; d.defs.get_repository_def(); print(len(d.stages))"
ASK = """
import dagster
from orchestration.dvc import changed_stages
from orchestration.environment import project_root
changed_stages(project_root())
"""


def project(root: Path, corpora: int) -> Path:
    """A project whose profile has so many corpora more than the demo's."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["run"] = copy.deepcopy(params["profiles"]["demo"])
    known = params["run"]["corpora"]
    known |= {f"more_{number:03}": copy.deepcopy(known["photos"]) for number in range(corpora)}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for name in ("dvc.yaml", ".dvcignore", "LICENSE"):
        shutil.copyfile(ROOT / name, root / name)
    subprocess.run([sys.executable, "-P", "-m", "dvc", "init", "--no-scm", "-q"], cwd=root, check=True)
    return root


def timed(root: Path, code: str) -> tuple[float, float, str]:
    """Seconds of wall clock and of processor, of a process and all that it starts; the last line that it printed."""
    environment = {**os.environ, "GEOLOC_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=root, env=environment, check=True, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout.strip().rpartition("\n")[2]


def shown(taken: list[tuple[float, float, str]]) -> str:
    wall, cpu = (statistics.median(column) for column in list(zip(*taken, strict=True))[:2])
    return f"{wall:.1f} ({cpu:.1f})"


def main(sizes: list[int], times: int) -> None:
    print(f"{machine()}; seconds of wall clock (of processor)\n")
    row("stages", "first load", "load", "what is out of date")
    row(*["---:"] * 4)
    for corpora in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = project(Path(folder), corpora)
            first = timed(root, LOAD)
            taken = ([first], *([timed(root, code) for _ in range(times)] for code in (LOAD, ASK)))
            row(first[2], *map(shown, taken))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=int, nargs="+", default=[0, 41], help="how many are added: three stages each")
    parser.add_argument("--times", type=int, default=3)
    chosen = parser.parse_args()
    main(chosen.corpora, chosen.times)
