"""Run ``geoloc`` and write down which of its functions were called: ``python called.py FILE WORD ...``.

Calls while a module is imported do not count, and neither do those of functions that no digest follows.
"""

import atexit
import inspect
import sys
import threading
from functools import cache
from pathlib import Path

import geoloc_core
from geoloc_core.code import is_left_out

PACKAGE = Path(geoloc_core.__file__).parent
calls: set[tuple[str, str]] = set()


def note(frame, event, _):
    code = frame.f_code
    # templates have frames too, in files of their own names
    if (
        event != "call"
        or not code.co_filename.startswith(str(PACKAGE))
        or not code.co_filename.endswith(".py")
        or not code.co_flags & inspect.CO_OPTIMIZED
    ):
        return
    call = (code.co_filename, code.co_qualname.partition(".")[0])
    if call not in calls and not call[1].startswith("<") and not apart(frame):
        calls.add(call)


def apart(frame):
    """Whether a call happens while a module is imported, or below a function that is not followed."""
    while frame:
        code = frame.f_code
        if code.co_filename.startswith(str(PACKAGE)):
            if code.co_name == "<module>":
                return True
            at = module(code.co_filename)
            # what `progress` counts is made while it is asked for the next
            if at != "geoloc_core.progress" and is_left_out((at, code.co_name)):
                return True
        frame = frame.f_back
    return False


@cache
def module(file):
    parts = Path(file).relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


if __name__ == "__main__":
    out, *sys.argv[1:] = sys.argv[1:]
    from geoloc_core.cli import main

    atexit.register(lambda: Path(out).write_text("\n".join(sorted(f"{module(file)}:{name}" for file, name in calls))))
    threading.setprofile(note)
    sys.setprofile(note)
    main()
