"""Sizes of mujoco_warp's buffers: the most contacts and constraint rows that a world can have."""

import mujoco
import numpy as np
from mujoco_warp import GeomType

PAIR_CONTACTS = {
    (GeomType.PLANE, GeomType.SPHERE): 1,
    (GeomType.PLANE, GeomType.CAPSULE): 2,
    (GeomType.SPHERE, GeomType.SPHERE): 1,
    (GeomType.SPHERE, GeomType.CAPSULE): 1,
    (GeomType.CAPSULE, GeomType.CAPSULE): 2,
}
"""Most contacts of two shapes; of others, mjMAXCONPAIR."""


def buffer_sizes(model: mujoco.MjModel, pairs: np.ndarray) -> tuple[int, int]:
    """Return the most contacts and constraint rows that a world of rigid bodies can have, so that no buffer overflows.

    Every pair of geometries that may collide does, in as many points as two such shapes have. A row is a friction
    loss, a limit, one of up to 6 of an equality, or one of a contact's: 1 without friction, else the 2 (condim - 1)
    edges of the pyramid (condim, if the cone is elliptic). There is always one: without any, mujoco_warp's Euler
    integrator leaves the velocities as they are.

    Args:
        model: The model.
        pairs: (pairs, 2) geometries that may collide.
    """
    kinds = np.sort(model.geom_type[pairs], axis=1)
    points = np.array([PAIR_CONTACTS.get((a, b), mujoco.mjMAXCONPAIR) for a, b in kinds.tolist()], dtype=int)
    dimensions = model.geom_condim[pairs].max(axis=1, initial=0)
    if model.npair:
        dimensions = np.maximum(dimensions, model.pair_dim.max())
    edges = dimensions if model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC else np.maximum(1, 2 * (dimensions - 1))
    rows = 6 * model.neq + model.jnt_limited.sum() + model.tendon_limited.sum()
    rows += (model.dof_frictionloss > 0).sum() + (model.tendon_frictionloss > 0).sum()
    return int(points.sum()), max(1, int(rows + (points * edges).sum()))
