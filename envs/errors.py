"""The errors that tell a user what to mend."""


class InputError(ValueError):
    """A value that the user gave is wrong; the message names the value, the place and the fix."""


class WorkerError(RuntimeError):
    """A process that steps environments raised an error, died or stalled; the message says which and how."""
