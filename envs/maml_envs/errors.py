"""Errors that tell a user what to mend."""


class InputError(ValueError):
    """A wrong value given by the user; the message names the value, the place and the fix."""


class WorkerError(RuntimeError):
    """An error raised by an environment, or a worker process that died or stalled; the message says which and how."""
