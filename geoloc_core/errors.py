"""What a user did wrong, said in one line; and which errors are the machine's."""

import errno

OF_THE_MACHINE = frozenset({errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of reading that say nothing about what is in a file: the same file may be read well later."""


class UserError(Exception):
    """A mistake the user can mend: says what, where, what was expected and what to do.

    The command line prints the message without a traceback and exits with code 2. Each argument is a line of it: a
    line break within one is untrusted text, and shown as such.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error is one of :data:`OF_THE_MACHINE` or a lack of memory, which must refuse no photo for good."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in OF_THE_MACHINE)


def named(error: Exception, path: object) -> Exception:
    """An error with the file that it was met at, for its message: reading on names none."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)
    return error
