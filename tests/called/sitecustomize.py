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
done = {}
"""What need not be looked at again, by its id; held here, so that nothing else gets that id."""


def note(frame, event, _):
    if event != "call":
        return
    code = frame.f_code
    if id(code) in done:
        return
    # templates have frames too, in files of their own names
    if (
        not code.co_filename.startswith(str(PACKAGE))
        or not code.co_filename.endswith(".py")
        or not code.co_flags & inspect.CO_OPTIMIZED
    ):
        done[id(code)] = code
        return
    call = (code.co_filename, code.co_qualname.partition(".")[0])
    if call in calls or call[1].startswith("<"):
        done[id(code)] = code
    elif not apart(frame):
        calls.add(call)
        done[id(code)] = code


def apart(frame):
    """Whether a call happens below a function that is not followed."""
    while frame:
        code = frame.f_code
        # a module's own frame is where the process began
        if code.co_filename.startswith(str(PACKAGE)) and code.co_flags & inspect.CO_OPTIMIZED:
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


def write():
    noted = "\n".join(sorted(f"{module(file)}:{name}" for file, name in calls))
    Path(os.environ["GEOLOC_CALLED"], os.environ["DVC_STAGE"]).write_text(noted)


def begin():
    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)


# a stage's own process, or one that forks for stages; not those that they start
does, forks = Path(sys.orig_argv[1]).name == "geoloc", "geoloc_core.warm" in sys.orig_argv
if "GEOLOC_CALLED" in os.environ and ((does and "DVC_STAGE" in os.environ) or forks):
    import geoloc_core
    from geoloc_core.code import is_left_out

    PACKAGE = Path(geoloc_core.__file__).parent
    SourceFileLoader.exec_module = unnoted(SourceFileLoader.exec_module)
    if forks:
        os.register_at_fork(after_in_child=begin)
    else:
        begin()
