"""An adapted policy: acts in an environment's own spaces and units, and is a plain torch module to take along."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from maml_envs.adapters.actions import Actions
from maml_envs.adapters.spaces import rows_of
from maml_rl.core.tree import Params
from maml_rl.machine.export import save_module
from maml_rl.rl.policies import CONTEXT, GaussianPolicy, Policy

LAYERS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class PolicyModule(nn.Module):
    """The network of one task, from rows of observations to actions in the environment's units.

    Args:
        policy: What the parameters are of.
        params: Of one task; the context is taken into the first layer's bias, units of observations into its weight.
        actions: The environment's actions.
        task: Numbers of the task that the policy observes, which are taken into the bias too; None for none.
    """

    least: Tensor
    most: Tensor
    middle: Tensor
    reach: Tensor

    def __init__(self, policy: Policy, params: Params, actions: Actions, task: Tensor | None) -> None:
        super().__init__()
        params = {name: value.detach().cpu() for name, value in params.items()}
        self.observations = policy.observations - (0 if task is None else len(task))
        self.layers = self._layers(policy, params, task) if policy.own is None else policy.own.adapted(params, task)
        self.discrete, self.start, self.shape = actions.choices > 0, actions.start, tuple(actions.low.shape)
        self.scale = 1.0
        if isinstance(policy, GaussianPolicy):
            self.scale = policy.action_scale
            floor = float(np.log(policy.min_std))
            self.log_std = nn.Parameter(params["log_std"].clamp(min=floor).clone())
        for name, values in actions.affine()._asdict().items():
            self.register_buffer(name, torch.from_numpy(values).float())

    @staticmethod
    def _layers(policy: Policy, params: Params, task: Tensor | None) -> nn.Sequential:
        told = [] if task is None else [task.cpu().float()]
        known = told + ([params[CONTEXT]] if CONTEXT in params else [])
        layers: list[nn.Module] = []
        for k in range(len(policy.hidden) + 1):
            weight, bias = params[f"{k}.weight"], params[f"{k}.bias"]
            if k == 0 and policy.units is not None:
                seen = policy.observations
                weight = torch.cat([weight[:seen] / policy.units.to(weight).unsqueeze(-1), weight[seen:]])
            if k == 0 and known:
                given = torch.cat(known)
                weight, bias = weight[: -len(given)], bias + given @ weight[-len(given) :]
            layer = nn.Linear(*weight.shape)
            layer.weight, layer.bias = nn.Parameter(weight.T.clone()), nn.Parameter(bias.clone())
            layers += [layer, LAYERS[policy.activation]()]
        return nn.Sequential(*layers[:-1])

    def forward(self, observations: Tensor) -> Tensor:
        """Return the most probable actions, (n, *action shape) or (n,) of a Discrete space, for rows (n, obs)."""
        return self.own(self.layers(observations))

    def own(self, outputs: Tensor) -> Tensor:
        """Return the environment's actions for the policy's, or for logits the most probable choice."""
        if self.discrete:
            return outputs.argmax(-1) + self.start
        unit = torch.minimum(torch.maximum(outputs / self.scale, self.least), self.most)
        action = self.middle + self.reach * unit
        return action.reshape(outputs.shape[0], *self.shape)

    def sampled(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Return actions drawn with noise (n, act): standard normal, or of Gumbel's distribution for a choice."""
        outputs = self.layers(observations)
        return self.own(outputs + noise if self.discrete else outputs + self.log_std.exp() * noise)


class AdaptedPolicy:
    """A policy that has adapted to a task.

    It pickles, with the state of its random numbers.

    Attributes:
        module: The network as a ``torch.nn.Module``, from flattened observations to the most probable actions in the
            environment's units: for ``torch.export``, ONNX, or a robot without this package.
        parameters: Its parameters by this package's names.
        observation_space: The environment's own; a row of numbers where it is not known.
        action_space: The environment's own.
    """

    def __init__(
        self,
        policy: Policy,
        params: Params,
        observation_space: gymnasium.Space[Any],
        actions: Actions,
        task: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.parameters = {name: value.detach().cpu().clone() for name, value in params.items()}
        self.module = PolicyModule(policy, params, actions, task).eval()
        self.observation_space, self._actions, self._width = observation_space, actions, policy.actions
        self.action_space = actions.space()
        self._random = np.random.default_rng(seed)

    def act(self, observation: Any, deterministic: bool = False) -> Any:  # noqa: ANN401  the environment's own
        """Return an action for an observation, both of the environment's own spaces, or of each of a batch.

        Args:
            observation: One of the observation space; or a batch, whose arrays have one axis more.
            deterministic: Take the most probable action, and do not draw one as in training and evaluation.

        Raises:
            InputError: It is not of the observation space.
        """
        rows, single = rows_of(self.observation_space, observation)
        seen = torch.from_numpy(rows)
        with torch.no_grad():
            if deterministic:
                action = self.module(seen)
            else:
                draw = self._random.gumbel if self._actions.choices else self._random.standard_normal
                noise = torch.from_numpy(draw(size=(len(rows), self._width)).astype(np.float32))
                action = self.module.sampled(seen, noise)
        taken = self._actions.exact(action.numpy())
        return taken[0] if single else taken

    def save(self, path: Path | str) -> Path:
        """Write the module to a file: PATH.pt2 by ``torch.export``, PATH.onnx as ONNX (extra ``onnx``).

        It takes any number of rows of flattened observations, float32, in the environment's own units (bytes of a
        picture as 0 ... 255), and gives the most probable actions.

        Raises:
            InputError: The name ends otherwise, the file is there already, or a package is missing.
        """
        names = ("observations", "actions")
        return save_module(self.module, torch.zeros(2, self.module.observations), path, names)
