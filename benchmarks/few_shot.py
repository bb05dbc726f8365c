"""One few-shot meta-iteration against a plain PyTorch loop over tasks on the same data, as a ratio.

python benchmarks/few_shot.py                          # sinusoid
OMNIGLOT_ROOT=... python benchmarks/few_shot.py --config omniglot_5way_1shot --queries 15
"""

import resource
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from torch.func import functional_call

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import load, of_kind
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.machine.device import set_up
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


def plain_loop(learner: FewShotLearner, theta: Params, batch: TaskBatch) -> Params:
    """One task after the other, the inner gradient with create_graph, one backward pass at the end of each."""
    inner, tasks = learner.config.inner, len(batch.query.targets)
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    for k in range(tasks):
        params = leaves
        for _ in range(inner.steps):
            outputs = functional_call(learner.module, params, (batch.support.inputs[k],))
            loss = loss_of(outputs, batch.support.targets[k])
            slope = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {name: x - inner.lr * g for (name, x), g in zip(params.items(), slope, strict=True)}
        outputs = functional_call(learner.module, params, (batch.query.inputs[k],))
        (loss_of(outputs, batch.query.targets[k]) / tasks).backward()
    return {name: value.grad for name, value in leaves.items()}


def main() -> None:
    """Time both in turn, and print medians."""
    chosen = tyro.cli(Arguments, description=__doc__)
    changes = {"threads": chosen.threads} | ({"queries": chosen.queries} if chosen.queries else {})
    set_up("auto", chosen.threads)
    learner = build(of_kind(load(chosen.config, **changes), FewShotConfig, chosen.config))
    theta = learner.initial_params()
    batches = [learner.training_tasks(k) for k in range(chosen.repeats + 1)]
    stacked = of_one_seed(theta)
    ours = {name: value[0] for name, value in gradient(learner, stacked, batches[0])[1].items()}
    plain = plain_loop(learner, theta, batches[0])
    off = max(float((ours[name] - plain[name]).abs().max() / plain[name].abs().max()) for name in ours)
    ours_of, plain_of = partial(gradient, learner, stacked), partial(plain_loop, learner, theta)
    times: dict[str, list[float]] = {"maml_rl": [], "plain loop": []}
    for batch in batches[1:]:
        for name, run in (("maml_rl", ours_of), ("plain loop", plain_of)):
            began = time.perf_counter()
            run(batch)
            times[name].append(time.perf_counter() - began)
    median = {name: float(np.median(values)) for name, values in times.items()}
    print(
        f"{chosen.config}: {learner.config.tasks} tasks, {torch.get_num_threads()} threads, gradients {off:.1e} apart"
    )
    for name, value in median.items():
        print(f"{name:<12} {1000 * value:8.2f} ms an iteration")
    ratio = median["plain loop"] / median["maml_rl"]
    print(
        f"{ratio:.2f} times as fast; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
