"""Few-shot regression and classification with the same inner loop."""

from maml_rl.few_shot_config import FewShotConfig
from maml_rl.supervised.evaluate import FewShotEvaluation, evaluate, load_learner
from maml_rl.supervised.images import LabelledTasks
from maml_rl.supervised.omniglot import omniglot
from maml_rl.supervised.sinusoid import Sinusoid
from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch
from maml_rl.supervised.train import meta_train

__all__ = [
    "Examples",
    "FewShotConfig",
    "FewShotEvaluation",
    "FewShotTasks",
    "LabelledTasks",
    "Sinusoid",
    "TaskBatch",
    "evaluate",
    "load_learner",
    "meta_train",
    "omniglot",
]
