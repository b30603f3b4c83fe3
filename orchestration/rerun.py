"""A registered version made again, in a folder of its own, and its scores compared: ``geoloc reproduce``.

The code of its revision is checked out of git, the data of its time out of DVC's cache or a remote, by the lock file
that was kept with it. The project itself is only read.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from geoloc_core.errors import UserError
from geoloc_core.files import digest, write_json
from geoloc_core.project import Project
from geoloc_core.registry import origin
from geoloc_core.registry.origin import Origin
from geoloc_core.yamls import read_yaml
from orchestration.environment import project_root, tools
from orchestration.terminal import console, print_error

DIFFERENT, USER_ERROR = 1, 2
SHOWN = 10
"""Figures that are named where they differ."""
STAGES = ("train", "answer", "score")


@dataclass(frozen=True)
class Step:
    """A stage as it ran.

    Attributes:
        command: What it ran.
        reads: The paths of the data that it read.
    """

    command: str
    reads: tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    """Make a version again, and say whether its scores are the same.

    Returns:
        0 if they are, 1 if they are not, 2 after a user's mistake.
    """
    parser = argparse.ArgumentParser(prog="python -m orchestration.rerun", description=__doc__)
    parser.add_argument("version", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train", action="store_true")
    options = parser.parse_args(arguments)
    root, shown = project_root(), console()
    try:
        project = Project.open(root / "params.yaml")
        place = _place(project, options.version, options.out)
        with origin.of_version(project, options.version) as (found, kept):
            return _again(project, options.version, found, kept, place, options.train, shown)
    except UserError as error:
        print_error(shown, error)
        return USER_ERROR


def _place(project: Project, number: int, out: Path | None) -> Path:
    """The folder to work in: of this project's state, to be made anew; or a new one of the user's.

    Raises:
        UserError: The user's is not empty.
    """
    if out is None:
        place = project.state / "reproduced" / str(number)
        shutil.rmtree(place, ignore_errors=True)
        return place
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there; expected a new folder; choose another name")
    return out.resolve()


def _again(project: Project, number: int, found: Origin, kept: Path, place: Path, train: bool, shown: Console) -> int:
    steps = _steps(kept / "dvc.lock", found.variant)
    wanted = [steps[stage] for stage in STAGES if train or stage != "train"]
    inside = _checked_out(project.root, found.commit, place)
    for name in origin.OF_THE_PROJECT:
        shutil.copyfile(kept / name, inside / name)
    shown.print(
        f"version {number}: revision {found.commit[:10]} is in {inside}", style="dim", highlight=False, soft_wrap=True
    )
    _bring(project.root, inside, _outputs(kept / "dvc.lock", found, train, {p for step in wanted for p in step.reads}))
    for step in wanted:
        shown.print(f"version {number}: {step.command}", style="dim", highlight=False, soft_wrap=True)
        _run(step.command, inside)
    scores = inside / "data" / "scores" / found.variant / origin.SCORES
    differ = origin.differences(kept / origin.SCORES, scores)
    if train and digest(inside / _model(found)) != found.model_sha256:
        differ.append("the model that was trained again has other weights")
    total = origin.count(kept / origin.SCORES)
    result = {"version": number, "variant": found.variant, "commit": found.commit, "trained": train}
    write_json(inside / "reproduced.json", {**result, "figures": total, "differences": differ})
    if not differ:
        how = "trained, answered and scored again" if train else "answered and scored again"
        shown.print(
            f"version {number} ({found.variant}): {how}, all {total:,} figures are the same",
            highlight=False,
            soft_wrap=True,
        )
        return 0
    shown.print(
        f"version {number} ({found.variant}): {len(differ):,} of {total:,} figures differ",
        highlight=False,
        soft_wrap=True,
    )
    for line in differ[:SHOWN]:
        shown.print(f"  {line}", highlight=False, soft_wrap=True)
    return DIFFERENT


def _outputs(lock: Path, found: Origin, train: bool, reads: set[str]) -> list[str]:
    """The outputs of DVC's stages that hold what is read, but for those that are made again."""
    made = {f"data/answers/{found.variant}", f"data/scores/{found.variant}", *([_model(found)] if train else [])}
    outs = {out["path"] for entry in read_yaml(lock)["stages"].values() for out in entry.get("outs", [])} - made
    return sorted(out for out in outs if any(_overlap(out, path) for path in reads))


def _overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other, or lies in it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _model(found: Origin) -> str:
    return f"data/models/{found.variant}"


def _steps(lock: Path, variant: str) -> dict[str, Step]:
    """How a variant was trained, answered and scored, of DVC's lock file.

    Raises:
        UserError: It does not say.
    """
    stages = (read_yaml(lock) or {}).get("stages", {})
    found = {}
    for name, entry in stages.items():
        kind = re.fullmatch(rf"({'|'.join(STAGES)})(?:_\w+)?@{re.escape(variant)}", name)
        if kind:
            reads = tuple(read["path"] for read in entry.get("deps", []))
            found[kind[1]] = Step(entry["cmd"], reads)
    if lacking := [stage for stage in STAGES if stage not in found]:
        raise UserError(f"{variant}: made outside DVC, which knows no {lacking[0]} of it; it cannot be made again")
    return found


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603, S607


def _checked_out(root: Path, commit: str, place: Path) -> Path:
    """The project of a revision in a folder of its own, which shares git's objects.

    Raises:
        UserError: The revision is not in this repository.
    """
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise UserError(f"{root}: no revision {commit[:10]} in this git repository; fetch it with `git fetch --all`")
    top = Path(_git(root, "rev-parse", "--show-toplevel").stdout.strip())
    place.parent.mkdir(parents=True, exist_ok=True)
    for words in (
        ("clone", "--quiet", "--shared", "--no-checkout", str(top), str(place)),
        ("-C", str(place), "checkout", "--quiet", "--detach", commit),
    ):
        done = _git(top, *words)
        if done.returncode:
            raise UserError(f"{place}: git could not make it: {' '.join(done.stderr.split())[:300]}")
    return place / root.relative_to(top)


def _bring(root: Path, inside: Path, paths: Sequence[str]) -> None:
    """Bring data of another time from the cache or a remote of the project to a checkout of it.

    Raises:
        UserError: It is in neither.
    """
    from dvc.exceptions import DvcException

    from orchestration.repository import with_dvc

    with_dvc(root, lambda repo: _share(repo, inside))
    try:
        with_dvc(inside, lambda repo: repo.checkout(targets=list(paths), force=True))
    except DvcException:  # not all of it is in the cache
        try:
            with_dvc(inside, lambda repo: repo.pull(targets=list(paths), force=True))
        except DvcException as error:
            raise UserError(
                f"{root}: data of that time is neither in DVC's cache nor on a remote "
                f"({' '.join(str(error).split())[:300]})"
            ) from None


def _share(repo: Any, inside: Path) -> None:
    """Let a checkout use a project's cache and remotes, whose addresses may be relative to the project."""
    from dvc.repo import Repo

    with Repo(str(inside)) as other, other.config.edit("local") as config:
        config["cache"] = {"dir": str(repo.cache.local_cache_dir)}
        config["remote"] = {name: dict(remote) for name, remote in repo.config["remote"].items()}
        if "remote" in repo.config["core"]:
            config["core"]["remote"] = repo.config["core"]["remote"]


def _run(command: str, inside: Path) -> None:
    """Run a stage's command with the code of the checkout.

    Raises:
        UserError: It failed; what it said is on the terminal.
    """
    environment = {**os.environ, **tools(), "PYTHONPATH": str(inside)}
    environment.pop("MLFLOW_TRACKING_URI", None)  # its runs stay with the checkout
    words = command.split()
    if words[0] != "geoloc":
        raise UserError(f"{command}: no command of this project's")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", "-m", "geoloc_core", *words[1:]], cwd=inside, env=environment, check=False
    )
    if done.returncode:
        raise UserError(f"`{command}` failed in {inside} with the code of that time; what it said is above")


if __name__ == "__main__":
    sys.exit(main())
