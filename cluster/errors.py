"""Errors that are the user's to mend: shown as one line, without a traceback, with exit code 2."""


class UserError(Exception):
    """What was wrong, where, and what to do, in one sentence."""
