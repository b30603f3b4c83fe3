"""What a user did wrong, said in one line."""


class UserError(Exception):
    """A mistake the user can mend: says what, where, what was expected and what to do.

    The command line prints the message without a traceback and exits with code 2. Each argument is a line of it: a
    line break within one is text of others, and shown as such.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))
