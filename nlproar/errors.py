"""The error for everything a user can mend: shown as one line, exit code 2, no traceback."""


class UserError(Exception):
    """What is wrong, with what, and what to do, in one sentence or two."""
