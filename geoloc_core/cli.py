"""The command line: one subcommand per stage, and the few commands around them."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from geoloc_core.errors import UserError, installed

with installed():
    import click

    from geoloc_core import escape, telemetry
    from geoloc_core.geo.commands import cells, locate
    from geoloc_core.lifeline import end_with_step
    from geoloc_core.project import Project
    from geoloc_core.threads import limit
    from geoloc_core.training.processes import is_first

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Libraries whose words would stand between ours."""


class Commands(click.Group):
    """Lists commands in the order of the pipeline, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--params",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The project's parameters; everything else lies beside this file.",
)
@click.version_option(package_name="geoloc")
@click.pass_context
def geoloc(context: click.Context, params: Path) -> None:
    """Given a photo, say where on Earth it was taken.

    The stages, in order: fetch and boundaries, ingest, label, leaks, truth, fit-cells, pretrain or download, encode,
    texts and encode-text, train, answer, score, leaderboard, report, promote. `dvc repro` runs those that are out of
    date; `geoloc demo` does so through Dagster.
    """
    context.obj = params
    if not is_first() and context.invoked_subcommand != "train":  # the only stage that processes share
        context.exit()


def stage(*arguments: str, examples: tuple[str, ...]) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand of a function of a project, of some names, and of the options it is decorated with.

    Args:
        arguments: What the names are, such as ``corpus``.
        examples: Lines a user can type.
    """

    def wrap(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def command(**given: Any) -> None:
            project = Project.open(click.get_current_context().obj)
            limit(project.profile.threads)
            function(project, **given)

        lines = "\n".join(f"  geoloc {example}" for example in examples)
        made: Callable[..., Any] = command
        for argument in reversed(arguments):
            made = click.argument(argument)(made)
        return geoloc.command(epilog=f"\b\nExamples:\n{lines}")(made)

    return wrap


@geoloc.command(epilog="\b\nExamples:\n  geoloc demo\n  geoloc demo --profile papers")
@click.option("--profile", help="Choose this profile first, as `geoloc use` does; left out, the one in use.")
@click.pass_obj
def demo(params: Path, profile: str | None) -> None:
    """Run the whole graph of a profile through Dagster. What is up to date is skipped."""
    from geoloc_core.evaluation import leaderboard as board
    from geoloc_core.params.using import use

    if profile:
        use(params, profile)
    project = Project.open(params)
    code = _orchestrate("run", project, [])
    if code:
        sys.exit(code)
    click.echo()
    board.show(project)
    click.echo(f"""
Where to look next
  the leaderboard with all columns   {project.leaderboard / "leaderboard.html"}
  everything about every model       {project.report / "report.html"}
  what is in each corpus             {project.data / "datasheets"}
  Dagster and MLflow in a browser    make ui
  ask the champion about a photo     .venv/bin/geoloc predict PHOTO""")


@geoloc.command(epilog="\b\nExamples:\n  geoloc ui\n  geoloc ui --port 3001 --mlflow-port 5001")
@click.option("--port", default=3000, show_default=True, help="Port of Dagster's pages.")
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of MLflow's pages.")
@click.option("--allow-host", multiple=True, help="Another host name under which the pages may be opened.")
@click.pass_obj
def ui(params: Path, port: int, mlflow_port: int, allow_host: tuple[str, ...]) -> None:
    """Serve the pages of Dagster and MLflow, until Ctrl-C."""
    project = Project.open(params)
    names = [f"--allow-host={name}" for name in allow_host]
    sys.exit(_orchestrate("ui", project, ["--port", str(port), "--mlflow-port", str(mlflow_port), *names]))


def _orchestrate(module: str, project: Project, words: list[str]) -> int:
    """Hand over to the orchestrator, which this package never imports, and return its exit code.

    A first Ctrl-C, or what else asks this process to end, lets it end its steps; a second one ends them all at once.
    Where either of both is killed, the other ends.
    """
    import signal
    import subprocess

    # -P: a folder of the project may be named like a module of Python's own
    owner = str(os.getpid())
    command = [sys.executable, "-P", "-m", "geoloc_core.lifeline", owner, f"orchestration.{module}", *words]
    process: subprocess.Popen[bytes] | None = None
    asked = 0

    def stop(*_: object) -> None:
        nonlocal asked
        asked += 1
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL) if asked > 1 else process.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    # In a session of its own: what asks the whole group to end would end its steps while they hold each other's locks.
    process = subprocess.Popen(command, cwd=project.root, start_new_session=True)  # noqa: S603
    if asked:
        process.send_signal(signal.SIGINT)
    code = process.wait()
    if code >= 0:
        return code
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it had no time to end
    if asked:
        raise click.Abort
    click.echo(f"geoloc: error: killed by signal {-code}; run the same command again to go on", err=True)
    return 128 - code


@geoloc.command(name="params", epilog="\b\nExamples:\n  geoloc params\n  geoloc --params other/params.yaml params")
@click.pass_obj
def check_params(params: Path) -> None:
    """Check the parameters and sum them up. All errors are listed at once."""
    profile = Project.open(params).profile
    families = {block.kind for block in profile.variants.values()}
    click.echo(f"{params}: valid. {profile.description}")
    click.echo(f"  corpora     {', '.join(profile.corpora)}")
    click.echo(f"  benchmarks  {', '.join(profile.benchmarks) or 'none'}")
    click.echo(f"  encoders    {', '.join(dict.fromkeys((*profile.encoders, *profile.text_encoders)))}")
    click.echo(f"  variants    {len(profile.variants)} of {len(families)} families")
    click.echo(f"  champion    {profile.registry.model}: {profile.registry.metric} on {profile.registry.benchmark}")


@geoloc.command(
    epilog="\b\nExamples:\n  geoloc options\n  geoloc options classifier\n"
    "  geoloc options --markdown > docs/parameters.md"
)
@click.argument("kind", required=False)
@click.option("--markdown", is_flag=True, help="Print everything as Markdown.")
def options(kind: str | None, markdown: bool) -> None:
    """Show what params.yaml may say: the keys of KIND. Without KIND, all kinds.

    KIND is what `kind` says in a block, such as classifier or sgd, or a block without one, such as labels.
    """
    from geoloc_core.params import reference
    from geoloc_core.progress import output
    from geoloc_core.report import render

    if markdown:
        if kind:
            raise UserError("--markdown prints everything: expected no KIND")
        click.echo(reference.markdown(), nl=False)
        return
    shown = [reference.keys(*found) for found in reference.named(kind)] if kind else reference.contents()
    console = output()
    for table in shown:
        console.print(render.terminal(table))


@geoloc.command("use", epilog="\b\nExamples:\n  geoloc use papers\n  geoloc use demo")
@click.argument("profile")
@click.pass_obj
def choose(params: Path, profile: str) -> None:
    """Choose the PROFILE of params.yaml that everything runs. DVC, Dagster and MLflow follow it."""
    from geoloc_core.params.using import use

    use(params, profile)
    _plan(Project.open(params))
    click.echo(f"{params}: the profile in use is {profile}; `geoloc demo` or `dvc repro` runs it")


@stage(examples=("plan",))
def plan(project: Project) -> None:
    """Write plan.yaml and code.yaml: what to do, with which code. `geoloc demo` does so too."""
    click.echo(", ".join(f"{name} {'written' if new else 'unchanged'}" for name, new in _plan(project).items()))


def _plan(project: Project) -> dict[str, bool]:
    from geoloc_core import code, plan

    return {plan.FILE: plan.write(project), code.FILE: code.write(project)}


@stage(examples=("code",))
def code(project: Project) -> None:
    """Write code.yaml: a digest of the code of each stage. It tells DVC what is out of date."""
    from geoloc_core import plan
    from geoloc_core.code import write

    if plan.write(project):
        raise UserError(
            f"{plan.FILE}: was out of date with params.yaml and is written anew; run the same command again"
        )
    click.echo("code.yaml: " + ("written" if write(project) else "unchanged"))


@stage("corpus", examples=("fetch mp16", "fetch im2gps3k"))
def fetch(project: Project, corpus: str) -> None:
    """Bring the raw files of CORPUS to data/raw, as published."""
    from geoloc_core.corpora.fetch import fetch

    fetch(project, corpus)


@stage(examples=("boundaries",))
def boundaries(project: Project) -> None:
    """Build the administrative units, in GADM's schema."""
    from geoloc_core.geo.boundaries import build

    build(project)


@geoloc.command(
    epilog="\b\nExamples:\n  geoloc ingest mp16\n  geoloc ingest osv5m --raw /datasets/osv5m --out corpora/osv5m"
)
@click.argument("corpus")
@click.option("--raw", type=click.Path(path_type=Path), help="A folder in the corpus' published layout.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write, with --raw.")
@click.pass_obj
def ingest(params: Path, corpus: str, raw: Path | None, out: Path | None) -> None:
    """Read CORPUS, say why photos are refused, and keep the rest. What is kept is a manifest and shards.

    With --raw and --out a corpus of any profile is read by itself, outside the project's stages.
    """
    from geoloc_core.corpora.ingest import ingest, ingest_alone
    from geoloc_core.params import any_corpus

    if (raw is None) != (out is None):
        raise UserError("--raw and --out: expected both or neither; neither reads data/raw and writes data/corpora")
    if raw and out:
        ingest_alone(corpus, any_corpus(params, corpus), raw, out)
        return
    project = Project.open(params)
    limit(project.profile.threads)
    ingest(project, corpus)


@geoloc.command(
    epilog="\b\nExamples:\n  geoloc simulate osv5m --photos 500 --out made/osv5m\n"
    "  geoloc ingest osv5m --raw made/osv5m --out made/corpus"
)
@click.argument("corpus")
@click.option("--photos", default=100, show_default=True, type=click.IntRange(100, 1_000_000), help="How many.")
@click.option("--size", default=224, show_default=True, type=click.IntRange(32, 2048), help="Pixels of a side.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.pass_obj
def simulate(params: Path, corpus: str, photos: int, size: int, out: Path) -> None:
    """Render photos of the demo world in the layout of CORPUS. CORPUS may be of any profile."""
    from geoloc_core.corpora.fetch.world import simulate
    from geoloc_core.params import any_corpus

    project = Project.open(params)
    limit(project.profile.threads)
    source = any_corpus(params, corpus).source
    made = simulate(corpus, source, photos, size, project.profile.seed, out)
    click.echo(f"{out}: {made['photos']:,} photos of {made['countries']} countries in the layout {source.kind}")


@stage("corpus", examples=("label mp16",))
def label(project: Project, corpus: str) -> None:
    """Find the units of every photo of CORPUS, and split it. Photos of one group stay in one split."""
    from geoloc_core.corpora.label import label

    label(project, corpus)


@stage(examples=("leaks",))
def leaks(project: Project) -> None:
    """Report what training, validation and benchmarks share.

    It looks for the same photographers, near-duplicates and neighbours.
    """
    from geoloc_core.corpora.leaks import leaks

    leaks(project)


@stage("corpus", examples=("describe mp16",))
def describe(project: Project, corpus: str) -> None:
    """Write the datasheet of CORPUS. It has counts, countries, licences, years, and what is missing or refused."""
    from geoloc_core.corpora.describe import describe

    describe(project, corpus)


@stage(examples=("check", "check mp16", "check mp16 --accept"))
@click.argument("corpus", required=False)
@click.option("--accept", is_flag=True, help="Take a version that moved too far from the last one as it is.")
def check(project: Project, corpus: str | None, accept: bool) -> None:
    """Check CORPUS against its promises and its last version.

    Without CORPUS, check every file under data/, except the published ones, against its checksum.
    """
    if corpus is None:
        from geoloc_core import artefacts

        if accept:
            raise UserError("--accept needs a corpus: `geoloc check CORPUS --accept`")
        artefacts.check(project)
        return
    from geoloc_core.corpora.checks import check

    check(project, corpus, accept)


@stage("encoder", examples=("pretrain clip", "pretrain vit"))
def pretrain(project: Project, encoder: str) -> None:
    """Train ENCODER, from scratch or from another's weights."""
    from geoloc_core.training.pretrain import pretrain

    pretrain(project, encoder)


@geoloc.command(epilog="\b\nExamples:\n  geoloc download clip\n  geoloc download clip-vit-l14")
@click.argument("encoder")
@click.pass_obj
def download(params: Path, encoder: str) -> None:
    """Download the published weights of ENCODER, of any profile."""
    from geoloc_core.encoders.checkpoints import download
    from geoloc_core.params import any_encoder

    download(Project.open(params), encoder, any_encoder(params, encoder))


@geoloc.command(epilog="\b\nExamples:\n  geoloc encoders\n  geoloc encoders --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def encoders(params: Path, as_json: bool) -> None:
    """List the encoders of all profiles, and which can be used now."""
    from geoloc_core.encoders import listing
    from geoloc_core.params import encoders

    found = listing.rows(Project.open(params), encoders(params))
    if as_json:
        click.echo(listing.as_json(found))
    else:
        listing.show(found)


@geoloc.command(
    epilog="\b\nExamples:\n  geoloc encode mp16 --encoder clip\n"
    "  geoloc encode made/corpus --encoder clip-vit-l14 --checkpoint /models/clip-vit-large-patch14 --out made/features"
)
@click.argument("corpus")
@click.option("--encoder", required=True, help="An encoder of params.yaml, of any profile.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Its weights as published: a folder or a file.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write; else that of the project.")
@click.pass_obj
def encode(params: Path, corpus: str, encoder: str, checkpoint: Path | None, out: Path | None) -> None:
    """Extract the features of CORPUS. CORPUS is a name, or an ingested folder."""
    from geoloc_core.encoders.alone import encode_alone
    from geoloc_core.encoders.extraction import encode
    from geoloc_core.params import any_encoder

    project = Project.open(params)
    limit(project.profile.threads)
    if checkpoint or out or corpus not in project.profile.corpora or encoder not in project.profile.encoders:
        encode_alone(project, corpus, encoder, any_encoder(params, encoder), checkpoint, out)
    else:
        encode(project, corpus, encoder)


@stage("name", examples=("texts clues",))
def texts(project: Project, name: str) -> None:
    """Gather the sentences of NAME. These are, for example, the clues of a guidebook or the captions of a corpus."""
    from geoloc_core.encoders.text.sentences import texts

    texts(project, name)


@geoloc.command(epilog="\b\nExamples:\n  geoloc encode-text clues --encoder clip")
@click.argument("texts")
@click.option("--encoder", required=True, help="A text encoder of params.yaml, of any profile.")
@click.pass_obj
def encode_text(params: Path, texts: str, encoder: str) -> None:
    """Extract the features of the sentences TEXTS."""
    from geoloc_core.encoders.text.extraction import encode_text
    from geoloc_core.params import any_encoder

    project = Project.open(params)
    limit(project.profile.threads)
    encode_text(project, texts, encoder, any_encoder(params, encoder))


@stage("variant", examples=("train mlp_clip_vit_country",))
def train(project: Project, variant: str) -> None:
    """Train VARIANT on its corpus' features and labels."""
    from geoloc_core.variants.train import train

    train(project, variant)


@stage("corpus", examples=("truth im2gps",))
def truth(project: Project, corpus: str) -> None:
    """Gather what is true of CORPUS: places, units and splits. How many photos were published is noted too."""
    from geoloc_core.corpora.truth import truth

    truth(project, corpus)


@stage("corpus", examples=("facts panoramas",))
def facts(project: Project, corpus: str) -> None:
    """Read the elevation, climate and so on of CORPUS from rasters."""
    from geoloc_core.corpora.facts import facts

    facts(project, corpus)


@stage("name", "corpus", examples=("fit-cells semantic mp16",))
def fit_cells(project: Project, name: str, corpus: str) -> None:
    """Build the geocells NAME from the training photos of CORPUS."""
    from geoloc_core.variants.cells import fit_cells

    fit_cells(project, name, corpus)


@stage("variant", examples=("answer mlp_clip_vit_country",))
def answer(project: Project, variant: str) -> None:
    """Let VARIANT answer its validation split and benchmarks."""
    from geoloc_core.variants.answer import answer

    answer(project, variant)


@stage("variant", examples=("score mlp_clip_vit_country",))
def score(project: Project, variant: str) -> None:
    """Score the answers of VARIANT; no model runs."""
    from geoloc_core.evaluation.score import score

    score(project, variant)


@stage(examples=("leaderboard", "leaderboard --show", "leaderboard --convention pigeon"))
@click.option("--show", is_flag=True, help="Print the leaderboard that there is, and write nothing.")
@click.option("--convention", help="Print it with distances measured as another project's code does, such as pigeon.")
def leaderboard(project: Project, show: bool, convention: str | None) -> None:
    """Put all scores beside the papers' figures. The output is Markdown, HTML and JSON."""
    from geoloc_core.evaluation import leaderboard as board

    if show or convention is not None:
        board.show(project, convention=convention)
    else:
        board.leaderboard(project)


@stage(examples=("report",))
def report(project: Project) -> None:
    """Write one page about everything. It has the leaderboard, the papers' tables with ours, maps and each variant."""
    from geoloc_core.evaluation.report.command import report

    report(project)


@stage(
    examples=(
        "promote",
        "promote --version 3",
        'promote --rollback --because "calls every beach Brazil"',
        'promote --reject 4 --because "trained on the wrong corpus"',
    )
)
@click.option("--replace", is_flag=True, help="Put the best variant in the champion's place whatever the evidence.")
@click.option("--version", "number", type=click.IntRange(1), help="Make this version the champion.")
@click.option("--rollback", is_flag=True, help="Go back to the champion before this one, which will not come back.")
@click.option("--reject", type=click.IntRange(1), help="Never make this version the champion; needs --because.")
@click.option("--because", default="", help="Why, to be kept with the version.")
def promote(
    project: Project, replace: bool, number: int | None, rollback: bool, reject: int | None, because: str
) -> None:
    """Register the best variant, or choose the champion by hand.

    Without options, the best one becomes the champion if the evidence says so.
    """
    from geoloc_core.registry import news, promotion

    chosen = {"--replace": replace, "--version": number, "--rollback": rollback, "--reject": reject}
    given = [name for name, value in chosen.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: one at a time")
    if because and given in ([], ["--replace"]):
        raise UserError("--because: expected with --version, --rollback or --reject")
    if number:
        decision = promotion.choose(project, number, because)
    elif rollback:
        decision = promotion.roll_back(project, because)
    elif reject:
        if not because.strip():
            raise UserError("--reject: expected the reason too, as in --because 'trained on the wrong corpus'")
        decision = promotion.reject(project, reject, because)
    else:
        decision = promotion.promote(project, replace)
    click.echo(f"promote: {decision.verdict}")
    if wrong := news.tell(project):
        click.echo(f"geoloc: {wrong}", err=True)


@geoloc.command(epilog="\b\nExamples:\n  geoloc reproduce 3\n  geoloc reproduce 3 --train --out /tmp/again")
@click.argument("version", type=click.IntRange(1))
@click.option("--train", is_flag=True, help="Train it again too, and not only answer and score.")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder to work in; left out, one below .state.")
@click.pass_obj
def reproduce(params: Path, version: int, train: bool, out: Path | None) -> None:
    """Make a registered VERSION again and compare the scores.

    It is made from its git revision and its data. Exit code 1 if a figure differs.
    """
    project = Project.open(params)
    words = ["--train"] if train else []
    words += ["--out", str(out.absolute())] if out else []
    sys.exit(_orchestrate("rerun", project, [str(version), *words]))


@geoloc.command(
    epilog="\b\nExamples:\n  geoloc predict holiday.jpg\n  geoloc predict --json a.jpg b.jpg\n"
    "  geoloc predict --csv photos > places.csv\n  geoloc predict --place north.jpg east.jpg south.jpg west.jpg"
)
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 100), help="Places per photo.")
@click.option("--place", is_flag=True, help="The photos are views of one place, answered together.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, names as they are.")
@click.pass_obj
def predict(params: Path, photos: tuple[Path, ...], top: int, place: bool, form: str | None) -> None:
    """Ask the champion where PHOTOS were taken.

    It names the most probable places, with probabilities. A folder stands for the photos in it. A photo that cannot be
    read gets a row that says why, and the exit code is 1.
    """
    from geoloc_core.serving import answer

    project = Project.open(params)
    paths = answer.photos_at(photos)
    if place or len(paths) == 1:  # nothing else could be answered
        good, wrong = dict(zip(paths, answer.read_photos(paths), strict=True)), dict[Path, str]()
    else:
        good, wrong = answer.read_each(paths)
    if not good:
        raise UserError(*(f"{path}: {said}" for path, said in wrong.items()))
    import numpy as np

    from geoloc_core.contracts.batch import Units
    from geoloc_core.corpora import countries
    from geoloc_core.registry import promotion
    from geoloc_core.serving import bundle

    version, folder = promotion.champion(project)
    champion = bundle.load(folder)
    encoded = list(good.values())
    names = [str(path) for path in ([*good][:1] if place else good)]
    units = Units(np.arange(len(encoded)), np.array([0, len(encoded)])) if place else None
    prediction = champion.predict(encoded, top, units)
    table = answer.rows(prediction, champion.labelspace, names, countries.names_by_alpha3()) + answer.errors(wrong)
    pieces = answer.evidence(prediction, champion.explain, names)
    facts = answer.told(prediction, names)
    card = {
        "name": project.profile.registry.model,
        "version": version,
        "variant": champion.variant,
        "demo": champion.demo,
    }
    if form == "json":
        click.echo(answer.as_json(table, card, pieces, facts))
    elif form == "csv":
        # The bytes of names that are no text in this locale, as they are.
        click.echo(answer.as_csv(table).encode("utf-8", "surrogateescape"), nl=False)
    else:
        answer.show(table, card, pieces, facts)
    if wrong:
        sys.exit(1)


EXPLAINED = ("occlusion", "lime", "attention", "gradients", "evidence", "pieces", "neighbours")
"""The methods of ``geoloc explain``, here so that the help of the other commands loads none of them."""


OF_BENCHMARK = "A benchmark that VARIANT answered; left out, the one that the report shows."
MAP = click.Path(path_type=Path, dir_okay=False)


@stage(
    "variant", examples=("map-cells pigeon_semantic --out cells.html", "map-cells pigeon_semantic --photo 12_b7.jpg")
)
@click.option("--benchmark", help=OF_BENCHMARK)
@click.option("--photo", help="Id of a photo of it; left out, the one with the median error.")
@click.option("--out", default=Path("cells.html"), show_default=True, type=MAP, help="HTML file to write.")
def map_cells(project: Project, variant: str, benchmark: str | None, photo: str | None, out: Path) -> None:
    """Draw VARIANT's probabilities of the cells around a photo."""
    from geoloc_core.evaluation.report.drawn import map_cells

    map_cells(project, variant, benchmark, photo, out)


@stage("variant", examples=("map-clusters pigeon_refined", "map-clusters pigeon_refined --place 48.9 2.3 --km 300"))
@click.option("--place", nargs=2, type=float, metavar="LATITUDE LONGITUDE", help="The middle, degrees.")
@click.option(
    "--km", default=200.0, show_default=True, type=click.FloatRange(1, 10_000), help="From there to the edge."
)
@click.option("--out", default=Path("clusters.html"), show_default=True, type=MAP, help="HTML file to write.")
def map_clusters(project: Project, variant: str, place: tuple[float, float] | None, km: float, out: Path) -> None:
    """Draw the clusters of training photos that VARIANT refines by.

    It draws one region: without a place, that around the cell with the most clusters.
    """
    from geoloc_core.evaluation.report.drawn import map_clusters

    map_clusters(project, variant, place, km, out)


@stage(
    examples=(
        "explain holiday.jpg",
        "explain a.jpg b.jpg --method occlusion --method lime --out why",
        "explain --benchmark im2gps3k --variant guidebook_country",
    )
)
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--variant", default="champion", show_default=True, help="A trained variant, or the champion.")
@click.option("--benchmark", help="Explain photos of this benchmark: the best, the median and the worst answer.")
@click.option("--each", default=1, show_default=True, type=click.IntRange(1, 20), help="How many of each of these.")
@click.option("--method", multiple=True, type=click.Choice(EXPLAINED), help="Repeatable; left out, all that apply.")
@click.option("--samples", default=300, show_default=True, type=click.IntRange(50), help="Photos that LIME looks at.")
@click.option("--of", help="The id of the class to explain, such as KEN; left out, each photo's answer.")
@click.option(
    "--out", default=Path("explanations"), show_default=True, type=click.Path(path_type=Path), help="Folder to write."
)
def explain(
    project: Project,
    photos: tuple[Path, ...],
    variant: str,
    benchmark: str | None,
    each: int,
    method: tuple[str, ...],
    samples: int,
    of: str | None,
    out: Path,
) -> None:
    """Say why PHOTOS were answered as they were. Maps with their checks, evidence, the nearest training photos."""
    from geoloc_core.explain.command import explain

    click.echo(explain(project, photos, benchmark, each, variant, method, samples, of, out))


geoloc.add_command(locate)
geoloc.add_command(cells)


def set_quiet() -> None:
    """Let no library report to anyone or speak between our lines: they look when they are loaded."""
    for name, value in (telemetry.OFF | QUIET).items():
        os.environ.setdefault(name, value)


def main() -> None:
    """Run the command line: a user's mistake is one clear line and exit code 2, never a traceback."""
    set_quiet()
    end_with_step()
    try:
        with installed():
            geoloc(standalone_mode=False)
    except UserError as error:
        _end(*error.args)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort as stop:
        if isinstance(stop.__cause__, EOFError):  # which click takes for Ctrl-D
            raise stop.__cause__ from None
        click.echo("geoloc: stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (OSError, MemoryError) as error:
        said = _of_the_machine(error)
        if said is None:
            raise
        _end(said)


def _end(*lines: object) -> NoReturn:
    """Say why not, in words that may be those of others, and end."""
    click.echo("geoloc: error: " + "\n".join(escape.terminal(str(line)) for line in lines), err=True)
    sys.exit(2)


ROOM = "make room and run the same command again"
RIGHT = "get access to it, or choose another place"
OPEN = "raise the limit of open files, as with `ulimit -n 4096`"
OF_THE_MACHINE = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "allow larger files, as with `ulimit -f unlimited`, or name a place on another disk",
    errno.EACCES: RIGHT,
    errno.EPERM: RIGHT,
    errno.EROFS: RIGHT,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove the links that lead in a circle",
    errno.ENOTDIR: "expected a folder; move the file away",
    errno.EISDIR: "expected a file; move the folder away",
    errno.EEXIST: "move away what is there",
    errno.ENOTEMPTY: "something else writes there; run the same command again",
    errno.EMFILE: OPEN,
    errno.ENFILE: OPEN,
    errno.ENOMEM: "close other programs and run the same command again",
    errno.EIO: "the disk may be failing; make a copy of what it holds",
    errno.ESTALE: "the network drive cannot be reached; run the same command again when it is back",
    errno.ENOENT: "it no longer exists; run the stage that makes it, or the same command, again",
}
"""What a user can do about errors of the disk and of the machine, which are no fault of the program's."""


def _of_the_machine(error: OSError | MemoryError) -> str | None:
    """An error of the machine in one line; None where it may be a fault of the program's."""
    if isinstance(error, MemoryError):
        return f"{os.strerror(errno.ENOMEM)}; {OF_THE_MACHINE[errno.ENOMEM]}"
    if error.errno not in OF_THE_MACHINE or (error.errno == errno.ENOENT and not error.filename):
        return None
    where = error.filename or "the disk that is written to"
    return f"{where}: {os.strerror(error.errno)}; {OF_THE_MACHINE[error.errno]}"
