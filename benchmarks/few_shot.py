"""One few-shot meta-iteration against loops over tasks on the same data, as ratios.

The loops are a plain one of PyTorch, as learn2learn's clone and adapt take it, and torchopt's MetaSGD where that is
installed (pip install torchopt). All have the same model, with torch's fused batch norm where tasks are looped over.

python benchmarks/few_shot.py                          # sinusoid
OMNIGLOT_ROOT=... python benchmarks/few_shot.py --config omniglot_5way_1shot --queries 15
"""

import copy
import importlib.util
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from torch import nn
from torch.func import functional_call

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import load, of_kind
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.machine.device import set_up
from maml_rl.supervised.batch_norm import BatchNorm
from maml_rl.supervised.learner import FewShotLearner, build, loss_of
from maml_rl.supervised.outer import gradient
from maml_rl.supervised.tasks import TaskBatch


@dataclass(frozen=True)
class Arguments:
    """What is timed."""

    config: str = "sinusoid"
    queries: int | None = None
    """Query examples (of each class); None: the configuration's."""
    repeats: int = 15
    threads: int = 0


def of_torch(module: nn.Module) -> nn.Module:
    """Return the same layers with torch's own batch norm, as a loop of torch alone would have them."""
    layers = dict(copy.deepcopy(module).named_children())
    of_images = any(isinstance(layer, nn.Conv2d) for layer in layers.values())
    kind = nn.BatchNorm2d if of_images else nn.BatchNorm1d
    for name, layer in layers.items():
        if isinstance(layer, BatchNorm):
            layers[name] = kind(len(layer.weight), track_running_stats=False)
    return nn.Sequential(OrderedDict(layers))


def plain_loop(learner: FewShotLearner, module: nn.Module, theta: Params, batch: TaskBatch) -> Params:
    """One task after the other, the inner gradient with create_graph, one backward pass at the end of each."""
    inner, tasks = learner.config.inner, len(batch.query.targets)
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    for k in range(tasks):
        params = leaves
        for _ in range(inner.steps):
            outputs = functional_call(module, params, (batch.support.inputs[k],))
            loss = loss_of(outputs, batch.support.targets[k])
            slope = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {name: x - inner.lr * g for (name, x), g in zip(params.items(), slope, strict=True)}
        outputs = functional_call(module, params, (batch.query.inputs[k],))
        (loss_of(outputs, batch.query.targets[k]) / tasks).backward()
    return {name: value.grad for name, value in leaves.items()}


def torchopt_loop(learner: FewShotLearner, theta: Params) -> Callable[[TaskBatch], Params]:
    """The same by torchopt's differentiable optimiser, whose state and the module's are put back after each task."""
    import torchopt

    module = of_torch(learner.module)
    module.load_state_dict(theta, strict=False)
    optimiser = torchopt.MetaSGD(module, lr=learner.config.inner.lr)
    start = [torchopt.extract_state_dict(each) for each in (module, optimiser)]
    leaves = dict(module.named_parameters())

    def run(batch: TaskBatch) -> Params:
        module.zero_grad()
        tasks = len(batch.query.targets)
        for k in range(tasks):
            for _ in range(learner.config.inner.steps):
                optimiser.step(loss_of(module(batch.support.inputs[k]), batch.support.targets[k]))
            (loss_of(module(batch.query.inputs[k]), batch.query.targets[k]) / tasks).backward()
            for each, state in zip((module, optimiser), start, strict=True):
                torchopt.recover_state_dict(each, state)
        return {name: value.grad for name, value in leaves.items()}

    return run


def main() -> None:
    """Time them in turn, and print medians."""
    chosen = tyro.cli(Arguments, description=__doc__)
    changes = {"threads": chosen.threads} | ({"queries": chosen.queries} if chosen.queries else {})
    set_up("auto", chosen.threads)
    learner = build(of_kind(load(chosen.config, **changes), FewShotConfig, chosen.config))
    theta = learner.initial_params()
    batches = [learner.training_tasks(k) for k in range(chosen.repeats + 1)]
    stacked = of_one_seed(theta)
    ways: dict[str, Callable[[TaskBatch], Params]] = {
        "maml_rl": lambda batch: {name: value[0] for name, value in gradient(learner, stacked, batch)[1].items()},
        "plain loop": partial(plain_loop, learner, of_torch(learner.module), theta),
    }
    if importlib.util.find_spec("torchopt"):
        ways["torchopt"] = torchopt_loop(learner, theta)
    found = {name: run(batches[0]) for name, run in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for batch in batches[1:]:
        for name, run in ways.items():
            began = time.perf_counter()
            run(batch)
            times[name].append(time.perf_counter() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{chosen.config}: {learner.config.tasks} tasks, {torch.get_num_threads()} threads, peak {memory:.2f} GiB")
    ours = float(np.median(times["maml_rl"]))
    for name, values in times.items():
        off = max(float((found[name][k] - x).norm() / x.norm()) for k, x in found["maml_rl"].items())
        middle = float(np.median(values))
        print(
            f"{name:<12} {1000 * middle:8.2f} ms an iteration, {middle / ours:5.2f} times ours; gradient {off:.1e} off"
        )


if __name__ == "__main__":
    main()
