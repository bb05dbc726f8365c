"""The errors that tell a user what to mend."""


class InputError(ValueError):
    """A value that the user gave is wrong; the message names the value, the place and the fix."""


class WorkerError(RuntimeError):
    """An environment raised an error, or a process that steps some died or stalled; the message says which and how."""
