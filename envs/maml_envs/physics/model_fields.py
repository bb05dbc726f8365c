"""Fields of MuJoCo's model that differ from world to world."""

from collections.abc import Mapping

from mujoco.batch import Batch
from torch import Tensor


def expand(batch: Batch, parameters: Mapping[str, Tensor]) -> None:
    """Give each world of a batch values of its own of the model's fields, (worlds, ...), and what follows from them."""
    for name, values in parameters.items():
        batch.expand(name)[:] = values.cpu().numpy()
    batch.set_const()
