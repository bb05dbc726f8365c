"""Few-shot regression and classification with the same inner loop."""

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.supervised.from_dataset import from_dataset
from maml_rl.supervised.images import images, read_image
from maml_rl.supervised.labelled import LabelledTasks
from maml_rl.supervised.omniglot import omniglot
from maml_rl.supervised.sinusoid import Sinusoid
from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch

__all__ = [
    "Examples",
    "FewShotConfig",
    "FewShotTasks",
    "LabelledTasks",
    "Sinusoid",
    "TaskBatch",
    "from_dataset",
    "images",
    "omniglot",
    "read_image",
]
