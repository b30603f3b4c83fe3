"""What a user did wrong, said in one line."""


class UserError(Exception):
    """A mistake the user can mend: says what, where, what was expected and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
