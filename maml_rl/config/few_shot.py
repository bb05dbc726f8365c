"""The configuration of few-shot regression and classification. A hyper-parameter is one line, as in maml_rl.config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt

from maml_rl.config.base import (
    LOGGER,
    METHODS,
    NO_STEPS,
    NOT_EVALUATED,
    LoggerNames,
    Section,
    Stop,
    Whole,
    resumable,
    stands_in,
)


def _absolute(path: str | None) -> str | None:
    """Return where a path is, wherever it is read from."""
    return None if path is None else str(Path(path).expanduser().absolute())


class Model(Section):
    """The model that adapts."""

    name: Literal["perceptron", "convolutional"] = Field("perceptron", description="Kind of network")
    network: str | None = Field(
        None,
        description="A torch.nn.Module of yours instead, as module:Class, which is made as Class(shape, outputs); its "
        "own layers, initial weights and norms",
    )
    hidden: tuple[PositiveInt, ...] = Field(
        (40, 40),
        strict=False,
        description="Widths of the hidden layers, or filters of each 3x3 convolution of stride 2",
    )
    shared_head: bool = Field(
        False,
        description="Every class starts from the same, learned, weights in the last layer (UNICORN): labels may be "
        "permuted, and any number of ways adapted to",
    )
    batch_norm: bool = Field(False, description="Normalise each hidden layer by the statistics of its batch, always")
    norm_per_step: bool = Field(
        False,
        description="batch_norm's scale and shift are learned for each of inner.steps, and do not adapt (MAML++)",
    )
    init: Literal["glorot", "truncated_normal"] = Field(
        "glorot", description="Initial weights: Glorot uniform, or normal with deviation 0.01 cut at two deviations"
    )


class FewShotInner(Section):
    """The inner loop: adaptation to one task."""

    lr: float = Field(0.01, gt=0, description="Step size on the mean loss")
    steps: int = Field(1, ge=0, description="Gradient steps in training, at least 1")
    first_order: bool = Field(False, description="Treat the inner gradient as a constant in the outer step")
    adapt: Literal["all", "last"] = Field("all", description="What adapts: all parameters, or the last layer (ANIL)")
    first_order_until: int = Field(
        0, ge=0, description="Treat the inner gradient as a constant in the first n iterations (MAML++)"
    )
    learn_lr: bool = Field(
        False, description="Learn a step size for every number that adapts, of either sign (Meta-SGD); lr is the start"
    )
    lr_of: Literal["number", "layer"] = Field(
        "number", description="With learn_lr: a step size for every number, or for a layer's weights and its biases"
    )
    lr_per_step: bool = Field(
        False, description="With learn_lr: other step sizes at each of inner.steps (MAML++, with lr_of = 'layer')"
    )


class FewShotOuter(Section):
    """The outer step on the initial parameters."""

    name: Literal["adam", "reptile"] = Field(
        "adam", description="adam: up the meta-gradient; reptile: a part of the way to the adapted parameters"
    )
    lr: float = Field(1e-3, gt=0, description="adam: step size; reptile: that part")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Of lr: the same, or down a cosine to final_lr at the last of iterations (MAML++)"
    )
    final_lr: float = Field(
        0.0, ge=0, description="cosine: lr at the last of iterations, of which a resumed run may have more"
    )
    multi_step: int = Field(
        0,
        ge=0,
        description="Iterations in which the query losses after earlier inner steps count, and fade (MAML++); 0: never",
    )


class FewShotEvaluation(Section):
    """Adaptation to held-out tasks."""

    tasks: int = Field(600, ge=1, description="Held-out tasks")
    steps: int = Field(10, ge=0, description="Gradient steps")
    shots: int | None = Field(None, ge=1, description="Support examples (of each class); None: as in training")
    seed: int = Field(0, ge=0, lt=2**31, description="Another one draws other held-out tasks of the test split")
    permutations: int = Field(
        1, ge=1, description="Classes: adapt to each task with its labels permuted in so many ways, and show the spread"
    )
    backtracks: int = Field(
        0,
        ge=0,
        le=30,
        description="Halve a step up to n times, then leave it out, until it lowers the support loss",
    )
    every: int = Field(0, ge=0, description="Also evaluate on validation tasks every n iterations; 0: never")


class FewShotConfig(Whole):
    """Few-shot learning with MAML."""

    method: Literal["maml", "pretrained", "random"] = Field(
        "maml",
        description="maml, or a baseline: pretrained, one model trained on all tasks alike, of classes on all training "
        "classes at once; random, one that is not trained",
    )
    data: str = Field(
        description="Task distribution: sinusoid, omniglot, images (a folder of them), or module:Class for your own "
        "FewShotTasks"
    )
    data_options: dict[str, Any] = Field({}, description="Arguments of what makes the tasks, such as side of images")
    root: Annotated[str | None, AfterValidator(_absolute)] = resumable(
        None,
        description="omniglot: folder of its zips, or of what they hold; None: the variable OMNIGLOT_ROOT. images: a "
        "folder with a folder for each class. Your own: its argument root",
    )
    ways: int = Field(5, ge=2, description="Classes in a task, where there are classes")
    shots: int = Field(10, ge=1, description="Support examples of a task, of each class where there are classes")
    queries: int = Field(10, ge=1, description="Query examples of a task, of each class where there are classes")
    tasks: int = Field(25, ge=1, description="Tasks in an iteration")
    tasks_at_once: int = resumable(
        0,
        ge=0,
        description="Tasks worked on at once by a thread or GPU, which bounds memory; 0: as suits the machine",
    )
    iterations: int = resumable(60_000, ge=1, description="Outer steps")
    log_every: int = Field(100, ge=1, description="Iterations in a row of metrics, and between two checkpoints")
    seed: int = Field(1, ge=0, lt=2**62, description="Every random number follows from it")
    device: str = resumable("auto", description="auto, cpu or cuda; auto is a GPU where all of the run works on it")
    threads: int = resumable(0, ge=0, description="CPU threads; 0: the physical cores, or a rank's share of them")
    logger: LoggerNames = LOGGER
    model: Model = Field(Model(), description="The model that adapts")
    inner: FewShotInner = Field(FewShotInner(), description="The inner loop: adaptation to one task")
    outer: FewShotOuter = Field(FewShotOuter(), description="The outer step on the initial parameters")
    evaluation: FewShotEvaluation = resumable(FewShotEvaluation(), description="Adaptation to held-out tasks")
    stop: Stop = resumable(Stop(), description="What ends training before its iterations")

    @property
    def trained_steps(self) -> int:
        """Inner steps in training: the baselines take none."""
        return self.inner.steps if METHODS[self.method].adapts else 0

    @property
    def judge(self) -> dict[str, Any]:
        """See ``Whole``."""
        evaluation = self.evaluation
        return evaluation.model_dump(exclude={"every", "permutations"}) if evaluation.every else {}

    def contradictions(self) -> Iterator[tuple[bool, str, str]]:
        """See ``Whole``."""
        return _contradictions(self)


def _contradictions_of_maml_plus_plus(config: FewShotConfig) -> Iterator[tuple[bool, str, str]]:
    inner, outer, model = config.inner, config.outer, config.model
    yield (
        inner.first_order and inner.first_order_until > 0,
        "inner.first_order_until with inner.first_order = true",
        "it is of first order in all iterations; leave one of them out",
    )
    yield (
        (inner.lr_per_step or inner.lr_of != "number") and not inner.learn_lr,
        f"inner.{'lr_per_step' if inner.lr_per_step else 'lr_of'} with inner.learn_lr = false",
        "no rate is learned; use inner.learn_lr = true, or leave it out",
    )
    yield (
        outer.multi_step > 0 and inner.steps < 2,
        f"outer.multi_step with inner.steps = {inner.steps}",
        "there is no earlier step; give inner.steps = 2 or more, or leave it out",
    )
    yield (
        outer.final_lr > 0 and outer.schedule == "constant",
        "outer.final_lr with outer.schedule = 'constant'",
        "the rate stays as it is; use outer.schedule = 'cosine', or leave it out",
    )
    yield (
        model.norm_per_step and not model.batch_norm and model.network is None,
        "model.norm_per_step with model.batch_norm = false",
        "there is no scale and shift; use model.batch_norm = true, or leave it out",
    )
    yield (
        model.norm_per_step and outer.name == "reptile",
        "model.norm_per_step with outer.name = 'reptile'",
        "what does not adapt would never be trained; leave it out, or use outer.name = 'adam'",
    )
    yield (
        model.shared_head and (outer.name == "reptile" or METHODS[config.method].tunes),
        f"model.shared_head with outer.name = {outer.name!r} and method = {config.method!r}",
        "its last layer is not one that tasks share a start of; leave it out",
    )


def _contradictions(config: FewShotConfig) -> Iterator[tuple[bool, str, str]]:
    inner, outer, model = config.inner, config.outer, config.model
    yield inner.steps == 0, *NO_STEPS
    yield config.stop.at is not None and not config.evaluation.every, *NOT_EVALUATED
    reptile = outer.name == "reptile"
    yield (
        reptile and METHODS[config.method].tunes,
        f"outer.name = 'reptile' with method = {config.method!r}",
        "Reptile learns to adapt, which the baseline does not; use outer.name = 'adam'",
    )
    yield (
        reptile and inner.adapt == "last",
        "inner.adapt = 'last' with outer.name = 'reptile'",
        "what does not adapt would never be trained; use inner.adapt = 'all', or outer.name = 'adam'",
    )
    for key, section, table in (
        ("first_order", inner, "inner"),
        ("first_order_until", inner, "inner"),
        ("learn_lr", inner, "inner"),
        ("multi_step", outer, "outer"),
    ):
        yield (
            reptile and bool(getattr(section, key)),
            f"{table}.{key} with outer.name = 'reptile'",
            "Reptile takes no gradient through the inner loop; leave it out, or use outer.name = 'adam'",
        )
    yield from _contradictions_of_maml_plus_plus(config)
    yield (
        reptile and outer.lr > 1,
        f"outer.lr = {outer.lr!r} with outer.name = 'reptile'",
        "it is the part of the way to the adapted parameters; give at most 1",
    )
    yield (
        model.name == "convolutional" and not model.hidden,
        "model.hidden = [] with model.name = 'convolutional'",
        "give the filters of each convolution, such as [64, 64, 64, 64]",
    )
    yield (
        inner.adapt == "last" and not model.hidden,
        "inner.adapt = 'last' with model.hidden = []",
        "the last layer is the whole model; use inner.adapt = 'all', or add a hidden layer",
    )
    theirs = ("name", "hidden", "batch_norm", "init")
    yield from stands_in(model, "model", "network", theirs, "it is of the network that comes with the package")
    for name, count in (("iterations", config.iterations), ("evaluation.every", config.evaluation.every)):
        yield (
            count % config.log_every != 0,
            f"{name} = {count} with log_every = {config.log_every}",
            f"give a multiple of log_every, such as {config.log_every * (count // config.log_every + 1)}",
        )
