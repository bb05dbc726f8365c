"""The error for what a user can mend."""


class InputError(ValueError):
    """A value that the user gave is wrong; the message names the value, the place and the fix."""
