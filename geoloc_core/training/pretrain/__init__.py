"""Towers trained here: a module per kind, named by ``kind`` under ``pretrain`` and ``pretrain_from`` in params.yaml."""

from geoloc_core.corpora.guard import guard
from geoloc_core.files import remove, replacing_folder, write_json
from geoloc_core.params import entry
from geoloc_core.plots import picture
from geoloc_core.plugins import module_of
from geoloc_core.progress import say
from geoloc_core.project import Project

KINDS = "geoloc_core.training.pretrain"


def pretrain(project: Project, encoder: str) -> None:
    """Train an encoder's tower: the stage ``geoloc pretrain ENCODER``.

    Raises:
        UserError: The encoder is not trained here, or its corpus is not ready or leaks into what is scored.
    """
    from geoloc_core.registry import tracking

    options = entry(project.profile.pretrain | project.profile.pretrain_from, encoder, "pretrain")
    guard(project, options.corpus)
    partial = project.partial("pretrain", encoder)
    with tracking.run(
        project,
        "pretrain",
        encoder,
        options.model_dump(),
        reads=[project.corpus(options.corpus), project.labels(options.corpus)],
    ) as log:
        with replacing_folder(project.weights(encoder), "weights") as aside:
            aside.mkdir()
            history, figures = module_of(KINDS, options.kind).pretrain(project, options, aside, partial, log)
        write_json(project.summary("pretrain", encoder), {"epochs": len(history), **history[-1], **figures})
        with picture(project.plot("pretrain", encoder)) as axes:
            for name in history[0]:
                axes.plot(range(1, len(history) + 1), [epoch[name] for epoch in history], label=name)
            axes.set(title=f"{encoder}: pre-training", xlabel="epoch")
            axes.legend(frameon=False)
    remove(partial)
    say(f"pretrain {encoder}: " + ", ".join(f"{name} {value:.3f}" for name, value in history[-1].items()))
