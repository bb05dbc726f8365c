"""Conventions of all environments. Nothing here imports torch, as a worker loads this file."""

HELD_OUT_SEED = 20170310
"""Held-out tasks are drawn from this seed, whatever the seed of training."""

SUCCESS = "success"
"""The name in an info of what is counted beside the return: above 0 where the task is solved in this step."""
