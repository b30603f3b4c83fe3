"""What a user did wrong, said in one line; and which errors are the machine's."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OF_THE_MACHINE = frozenset({errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of reading that say nothing about what is in a file: the same file may be read well later."""


OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
"""An object of the program's, as Python shows it: its address means nothing to anyone."""


class UserError(Exception):
    """A mistake the user can mend: says what, where, what was expected and what to do.

    The command line prints the message without a traceback and exits with code 2. Each argument is a line of it: a
    line break within one is untrusted text, and shown as such.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


OURS = ("geoloc_core", "orchestration")


@contextmanager
def installed() -> Iterator[None]:
    """End the program with a line and exit code 2 where the block cannot import a library.

    What cannot be imported from a module of this project is a fault of the program's, and raised.
    """
    try:
        yield
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library in OURS:
            raise
        sys.stderr.write(
            f"geoloc: error: {library or 'a library'}: cannot be imported ({in_a_line(error)}); the installation is "
            "damaged: remove .venv and run `make demo`, or install what requirements.lock names again\n"
        )
        sys.exit(2)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error says nothing about the input, so that it must refuse no file for good.

    It is one of :data:`OF_THE_MACHINE`, a lack of memory, or a library that is missing.
    """
    if isinstance(error, MemoryError | ImportError):
        return True
    return isinstance(error, OSError) and error.errno in OF_THE_MACHINE


def in_a_line(error: object, longest: int = 300) -> str:
    """What an error says, on one line of at most so many characters; its class where it says nothing."""
    return " ".join(OBJECT.sub("…", str(error)).split())[:longest] or type(error).__name__


def named(error: Exception, path: object) -> Exception:
    """An error with the file that it was met at, for its message: reading on names none."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)
    return error
