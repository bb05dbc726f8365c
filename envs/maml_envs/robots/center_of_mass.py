"""Centre of mass of a robot and its velocity, as functions of positions and velocities."""

from typing import NamedTuple

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.robots.mujoco_task import State

Array = NDArray[np.float64]


def rotation(quaternion: Tensor) -> Tensor:
    """Return rotation matrices (..., 3, 3) of quaternions (..., 4), scalar first, of any length but zero."""
    w, x, y, z = (quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _spin(axis: Array) -> tuple[Array, Array, Array]:
    """Return Rodrigues' constants a, b, c: the rotation by θ about a unit axis is a + b sin θ + c cos θ."""
    x, y, z = axis
    along = np.outer(axis, axis)
    return along, np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.eye(3) - along


class _Hinge(NamedTuple):
    joint: int
    parent: int  # link that it turns on; link 0 is the root, link i + 1 hangs on hinge i
    depth: int
    turn: Array  # (3, 3) orientation, at angle 0, of its link in the parent's frame


class _Slide(NamedTuple):
    joint: int
    axis: Array  # (3,) in the world, times the share of mass that slides


class _Level(NamedTuple):
    """The n hinges at one depth, which turn on p links."""

    hinges: slice  # of all hinges, deepest first
    lever: Tensor  # (3, n, 2, 1): constant, so its rate is 0
    gather: Tensor  # (3 p, 9 n) sums (1, sin θ, cos θ) m over the hinges on each link, in that link's frame


def _level(model: mujoco.MjModel, start: int, hinges: list[_Hinge], levers: list[Array], above: list[int]) -> _Level:
    gather = np.zeros((3, len(above), 3, 3, len(hinges)))
    for index, hinge in enumerate(hinges):
        for part, spin in enumerate(_spin(model.jnt_axis[hinge.joint])):
            gather[:, above.index(hinge.parent), part, :, index] = hinge.turn @ spin
    lever = np.stack((np.stack(levers, -1), np.zeros((3, len(levers)))), -1)
    return _Level(
        slice(start, start + len(hinges)),
        torch.from_numpy(lever).unsqueeze(-1),
        torch.from_numpy(gather.reshape(3 * len(above), -1)),
    )


class CenterOfMass:
    """Centre of mass of a tree of hinges on a root that is free, slides along fixed axes or is fixed.

    With every mass as a share of the whole, the moment of all that hangs on a hinge, in the frame of the link that
    the hinge turns on, and its rate, at angle θ, are

        s = R(θ) m,    ds/dt = R(θ) dm/dt + dθ/dt R'(θ) m,    m = lever + sum of s over the hinges on the link itself

    where the lever is constant: masses on the link times their offsets from the joint's anchor, and the mass behind
    each further hinge times that hinge's anchor. Summed from the leaves to the root, this is exact. At a free root it
    ends with p + R m and v + R (dm/dt + ω × m): MuJoCo's linear velocity v is global, its angular velocity ω local, and
    its quaternion need not have length 1.

    Args:
        model: Model of one robot.
        like: A tensor of the dtype and on the device of the states; None for float64 on the CPU.

    Raises:
        ValueError: It has ball joints, slides behind a hinge, or a free joint that a part of the mass does not follow.
    """

    def __init__(self, model: mujoco.MjModel, like: Tensor | None = None) -> None:
        self._free = False
        self._slides: list[_Slide] = []
        like = torch.zeros((), dtype=torch.float64) if like is None else like
        levers, hinges = self._tree(model)
        self._root = torch.tensor([[*levers[0]], [0.0] * 3], dtype=torch.float64).T.unsqueeze(-1).to(like)
        deepest = max((hinge.depth for hinge in hinges), default=0)
        links = [[i + 1 for i, hinge in enumerate(hinges) if hinge.depth == depth] for depth in range(1, deepest + 1)]
        self._levels: list[_Level] = []
        joints: list[int] = []
        for level, above in zip(links[::-1], [*links[-2::-1], [0]], strict=True):
            members = [hinges[link - 1] for link in level]
            constants = _level(model, len(joints), members, [levers[link] for link in level], above)
            self._levels.append(_Level(constants.hinges, constants.lever.to(like), constants.gather.to(like)))
            joints += [hinge.joint for hinge in members]
        slides = [slide.joint for slide in self._slides]
        self._qpos, self._qvel, self._slide_qpos, self._slide_qvel = (
            torch.from_numpy(address[indices]).to(like.device)
            for indices in (joints, slides)
            for address in (model.jnt_qposadr, model.jnt_dofadr)
        )
        self._rest = torch.from_numpy(model.qpos0[model.jnt_qposadr[joints]]).unsqueeze(-1).to(like)
        self._slide_rest = torch.from_numpy(model.qpos0[model.jnt_qposadr[slides]]).to(like)
        self._slide_axis = torch.from_numpy(np.reshape([slide.axis for slide in self._slides], (-1, 3))).to(like)

    def _tree(self, model: mujoco.MjModel) -> tuple[list[Array], list[_Hinge]]:
        """Return the links' levers and the hinges between them; a body without a joint is part of the link it is on."""
        total = model.body_subtreemass[0]
        levers, hinges = [np.zeros(3)], list[_Hinge]()
        frames = [(0, np.eye(3), np.zeros(3))]  # of each body: its link, orientation and offset there
        for body in range(1, model.nbody):
            link, turn, offset = frames[model.body_parentid[body]]
            offset = offset + turn @ model.body_pos[body]
            turn = turn @ rotation(torch.from_numpy(model.body_quat[body])).numpy()
            share = model.body_subtreemass[body] / total
            for joint in range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]):
                if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE:
                    anchor = model.jnt_pos[joint]
                    levers[link] = levers[link] + share * (offset + turn @ anchor)
                    levers.append(-share * anchor)
                    hinges.append(_Hinge(joint, link, 1 + (hinges[link - 1].depth if link else 0), turn))
                    link, turn, offset = len(hinges), np.eye(3), np.zeros(3)
                elif model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE and link == 0:
                    self._slides.append(_Slide(joint, share * turn @ model.jnt_axis[joint]))
                elif model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE and share == 1:
                    self._free, turn, offset = True, np.eye(3), np.zeros(3)
                else:
                    raise ValueError(
                        f"joint {joint} is a ball, a slide behind a hinge, or frees a part of the whole only"
                    )
            levers[link] = levers[link] + model.body_mass[body] / total * (offset + turn @ model.body_ipos[body])
            frames.append((link, turn, offset))
        return levers, hinges

    def __call__(self, state: State) -> tuple[Tensor, Tensor]:
        """Return position (..., 3) in m and velocity (..., 3) in m/s of the centre of mass."""
        # The batch comes last inside, where long rows are fast.
        both = self._moment(*(part.reshape(-1, part.shape[-1]).T.contiguous() for part in state))
        m, dm = (part.T.reshape(*state.qpos.shape[:-1], 3) for part in both.unbind(1))
        qpos, qvel = state
        if self._free:
            turn = rotation(qpos[..., 3:7])
            dm = dm + torch.linalg.cross(qvel[..., 3:6], m)
            m, dm = ((turn @ part.unsqueeze(-1)).squeeze(-1) for part in (m, dm))
            return qpos[..., :3] + m, qvel[..., :3] + dm
        slid, slides = qpos.index_select(-1, self._slide_qpos), qvel.index_select(-1, self._slide_qvel)
        return m + (slid - self._slide_rest) @ self._slide_axis, dm + slides @ self._slide_axis

    def _moment(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return the moment of everything on the root, in its frame, and the moment's rate: (3, 2, batch)."""
        angle, spin = qpos.index_select(0, self._qpos) - self._rest, qvel.index_select(0, self._qvel)
        sine, cosine = angle.sin().unsqueeze(1), angle.cos().unsqueeze(1)
        both = qpos.new_zeros(3, 1, 2, qpos.shape[1])
        for hinges, lever, gather in self._levels:
            both = both + lever
            with_sine, with_cosine = sine[hinges] * both, cosine[hinges] * both
            with_sine[:, :, 1].addcmul_(spin[hinges], with_cosine[:, :, 0])
            with_cosine[:, :, 1].addcmul_(spin[hinges], with_sine[:, :, 0], value=-1)
            terms = torch.cat((both, with_sine, with_cosine))
            both = (gather @ terms.reshape(gather.shape[1], -1)).reshape(3, -1, 2, qpos.shape[1])
        return both.sum(1) + self._root
