"""Writing ``dvc.lock`` fast and atomically.

DVC rewrites the file after every stage with a parser and a printer that preserve comments, though a lock has none: with
a hundred stages that takes a second, as long as a small stage. The plain parser and printer of the same library give
the same bytes in a quarter of the time. The file is replaced; DVC writes it in place, and half of it if killed.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from geoloc_core.files import replacing

NULL = re.compile(r"(?m)(:|- )( ?)~$")
"""A null after a key or in a list, for which DVC writes nothing."""


@contextmanager
def modified(path: str, fs: Any = None) -> Iterator[dict[str, Any]]:
    """The contents of a lock file, to be changed in the block and then written: in place of DVC's ``modify_yaml``.

    Args:
        path: The file; created if it does not exist.
        fs: Ignored for lock files, which are local.
    """
    from dvc.utils.serialize import load_yaml, modify_yaml

    file = Path(path)
    if file.suffix != ".lock":  # people edit those
        with modify_yaml(path, fs=fs) as kept:
            yield kept
        return
    content = load_yaml(path) if file.exists() else {}
    yield content
    with replacing(file) as aside:
        aside.write_text(printed(content), encoding="utf-8")


def printed(content: dict[str, Any]) -> str:
    """A lock file's text, as DVC prints it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Representer.add_representer(OrderedDict, SafeRepresenter.represent_dict)
    Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "~"))
    writer, text = YAML(typ="safe"), StringIO()
    writer.Representer = Representer
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.dump(content, text)
    return NULL.sub(r"\1", text.getvalue())
