"""Errors that are the user's to mend: shown as one line, without a traceback, with exit code 2."""


class UserError(ValueError):
    """What was wrong, where, and what to do, in one sentence."""


class FaultError(UserError):
    """What no recipe is to blame for, and no other would escape: it ends the study, which can be resumed."""


class MeasurementError(UserError):
    """A file that cannot be timed, or a way of timing that this machine does not allow."""


class UnansweredError(FaultError):
    """The bench of a target did not answer, which is no file's fault: its node is gone, or hangs."""
