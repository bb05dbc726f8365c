"""Logging of MuJoCo's warnings."""

import logging


def log_warnings() -> None:
    """Log each of MuJoCo's warnings once, unless somebody handles them already.

    Without a handler MuJoCo writes them, such as of a diverged world, to MUJOCO_LOG.TXT where it runs.
    """
    import mujoco  # here, as this function also runs in workers, which do without where they can

    seen: set[str] = set()

    def warn(message: str) -> None:
        if message not in seen and len(seen) < 1000:
            seen.add(message)
            logging.getLogger("mujoco").warning(message)

    if hasattr(mujoco, "get_mju_user_warning") and mujoco.get_mju_user_warning() is None:  # old versions have none
        mujoco.set_mju_user_warning(warn)
