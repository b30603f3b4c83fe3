"""Write down which functions of ``geoloc_core`` each stage calls: Python loads this where ``PYTHONPATH`` names it.

A stage's calls go to ``$GEOLOC_CALLED``, a file for each stage that DVC runs. Calls while a module is imported do not
count, and neither do those of functions that no digest follows.
"""

import atexit
import inspect
import os
import sys
import threading
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

calls: set[tuple[str, str]] = set()


def note(frame, event, _):
    if event != "call":
        return
    code = frame.f_code
    # templates have frames too, in files of their own names
    if (
        not code.co_filename.startswith(str(PACKAGE))
        or not code.co_filename.endswith(".py")
        or not code.co_flags & inspect.CO_OPTIMIZED
    ):
        return
    call = (code.co_filename, code.co_qualname.partition(".")[0])
    if call not in calls and not call[1].startswith("<") and not apart(frame):
        calls.add(call)


def apart(frame):
    """Whether a call happens below a function that is not followed."""
    while frame:
        code = frame.f_code
        if code.co_filename.startswith(str(PACKAGE)):
            at = module(code.co_filename)
            # what `progress` counts is made while it is asked for the next; its tables are of the terminal alone
            if (at != "geoloc_core.progress" or code.co_name == "table") and is_left_out((at, code.co_name)):
                return True
        frame = frame.f_back
    return False


@cache
def module(file):
    parts = Path(file).relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unnoted(execute):
    """Imports, of which no call counts, and which make thousands."""

    def execute_unnoted(loader, module):
        before = sys.getprofile()
        sys.setprofile(None)
        try:
            execute(loader, module)
        finally:
            sys.setprofile(before)

    return execute_unnoted


def write(path):
    path.write_text("\n".join(sorted(f"{module(file)}:{name}" for file, name in calls)))


# a stage's own process; not those that it starts
if "GEOLOC_CALLED" in os.environ and "DVC_STAGE" in os.environ and Path(sys.orig_argv[1]).name == "geoloc":
    import geoloc_core
    from geoloc_core.code import is_left_out

    PACKAGE = Path(geoloc_core.__file__).parent
    atexit.register(write, Path(os.environ["GEOLOC_CALLED"], os.environ["DVC_STAGE"]))
    SourceFileLoader.exec_module = unnoted(SourceFileLoader.exec_module)
    threading.setprofile(note)
    sys.setprofile(note)
