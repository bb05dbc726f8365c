"""The command that writes the beginning of an environment, a robot or few-shot data of one's own."""

import importlib.util
import keyword
import shlex
from pathlib import Path

from maml_envs import InputError
from maml_rl.cli.parse import Command, Positional, TemplateKind

TEMPLATES = Path(__file__).parents[1] / "templates"

ENVIRONMENT = """\
# {module}.toml
env = "{module}:{name}"
tasks = 20
episodes = 20
iterations = 100
"""

DATA = """\
# {module}.toml
data = "{module}:{name}"
ways = 5
shots = 1
queries = 5
iterations = 1000

[model]
hidden = [64, 64]

[inner]
lr = 0.1
"""

TEST_OF_ENVIRONMENT = '''\
"""What has to hold before {name} is trained on; run with pytest."""

from maml_envs import make
from maml_envs.check_env import examine


def test_nothing_would_break_training():
    findings = list(examine(lambda: make("{module}:{name}")))
    assert not [finding for finding in findings if finding.level == "error"]


def test_a_task_is_what_was_drawn():
    env = make("{module}:{name}")
    assert env.held_out_tasks(3).shape == (3, 1)
    env.close()
'''

TEST_OF_DATA = '''\
"""What has to hold before {name} is trained on; run with pytest."""

from maml_rl.supervised.contract import check_tasks
from {module} import {name}


def test_a_model_can_adapt_to_it():
    tasks = check_tasks({name}(ways=5, shots=1, queries=5), convolutional=False)
    assert tasks.support.inputs.shape[:2] == (3, 5)
'''


class New(Command):
    """Begin an environment, a robot or few-shot data: write a module, its configuration and a test."""

    kind: TemplateKind
    name: Positional[str]
    """Name of the class or function, such as Reach; files are named after it."""
    folder: Path = Path()
    """Where the files go."""

    def run(self) -> None:
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise InputError(f"name = {self.name!r} is not a class's name: give letters, digits and _, such as Reach")
        module = "".join(f"_{c.lower()}" if c.isupper() and k else c.lower() for k, c in enumerate(self.name))
        few_shot = self.kind == "few_shot"
        name = module if few_shot else self.name
        module = f"{module}_data" if few_shot else module
        if importlib.util.find_spec(module) is not None and not (self.folder / f"{module}.py").exists():
            raise InputError(f"name = {self.name!r}: a module {module} is installed already; give another name")
        words = {"module": module, "name": name}
        files = {
            f"{module}.py": (TEMPLATES / f"{self.kind}.txt").read_text().replace("NAME", name),
            f"{module}.toml": (DATA if few_shot else ENVIRONMENT).format(**words),
            f"test_{module}.py": (TEST_OF_DATA if few_shot else TEST_OF_ENVIRONMENT).format(**words),
        }
        if there := [file for file in files if (self.folder / file).exists()]:
            raise InputError(f"{self.folder / there[0]} is there already: give another name, or another --folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (self.folder / file).write_text(text)
            print(f"written: {self.folder / file}")
        inside = "" if self.folder == Path() else f"cd {shlex.quote(str(self.folder))}; "
        test = f"pip install pytest; pytest test_{module}.py; "
        check = test if few_shot else f"maml-rl check-env {module}.toml; {test}"
        print(f"next:    {inside}{check}maml-rl train {module}.toml --out runs/{module}")
