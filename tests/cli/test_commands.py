"""Every command is a class of its group: it is in the list, it has its help, and nothing else has to know of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import Command as Run
from tiny import tiny

from maml_envs import InputError
from maml_rl.cli import checks, main, results, train
from maml_rl.cli.parse import Command
from maml_rl.config.toml import to_toml

NAMES = [
    "train", "download-omniglot", "evaluate", "compare", "plot", "report", "render", "export",
    "envs", "doctor", "check-env", "check-gradients", "check-estimators", "new",
]  # fmt: skip
CLASSES = [
    kind
    for group in main.GROUPS
    for kind in vars(group).values()
    if isinstance(kind, type) and issubclass(kind, Command) and kind.__module__ == group.__name__
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: a run of each kind of learning, as far as its configuration."""
    monkeypatch.chdir(tmp_path)
    for name, config in (("rl", to_toml(tiny())), ("few_shot", '[config]\ndata = "sinusoid"')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(config)
    return tmp_path


def test_the_list_has_a_line_for_every_command(command: Run, folder: Path) -> None:
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    lines = [re.fullmatch(r"  (\S+)((?: \S+)*)  +(\S.*)", line) for line in out.splitlines()]
    listed = {line[1]: (line[2].strip(), line[3]) for line in lines if line}
    assert list(listed) == NAMES
    assert len({summary for _, summary in listed.values()}) == len(NAMES)
    assert {name: usage for name, (usage, _) in listed.items() if usage} == {
        "train": "CONFIG",
        "download-omniglot": "FOLDER",
        "evaluate": "RUN [RUN ...]",
        "compare": "RUN [RUN ...]",
        "plot": "RUN [RUN ...]",
        "render": "RUN",
        "export": "RUN",
        "new": "KIND NAME",
        "report": "RUN [RUN ...]",
        "check-env": "ENV",
        "check-gradients": "CONFIG",
    }
    assert max(map(len, out.splitlines())) <= 80


def entries(out: str) -> dict[str, str]:
    """The arguments and flags in the help of a command, each with its text, which may begin on the next line."""
    texts: dict[str, str] = {}
    for line in re.sub("[│╭╮╰╯─]", " ", out).splitlines():
        start = re.match(r" {1,2}(--?\w\S*|[A-Z]{2,}\b)(?:\S| (?! ))*", line)
        if start:
            name = start[1]
            texts[name] = line[start.end() :].strip()
        elif texts and line.startswith(" " * 6):
            texts[name] += f" {line.strip()}"
    return texts


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_class_says_what_it_does(kind: type[Command]) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # what a dataclass says of itself without a docstring
    assert kind.__doc__.split("\n")[0].endswith(".")


@pytest.mark.parametrize(
    "arguments",
    [*([name] for name in NAMES), ["train", "sinusoid"], ["evaluate", "few_shot"], ["check-gradients", "navigation"]],
    ids=" ".join,
)
def test_every_flag_has_a_help(
    arguments: list[str], command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # wider, boxes would lie beside each other
    code, out, err = command(*arguments, "--help")
    assert (code, err) == (0, "")
    texts = entries(out)
    assert "-h," in texts
    # one word alone is what tyro writes of an argument without a help: its name
    silent = [name for name, text in texts.items() if not re.match(r"[^(]*\w[^\w(]+\w", text)]
    assert not silent
    flags = {name for name in texts if name.startswith("--")}
    assert flags == set(re.findall(r"^\W{1,4}(--\w\S*)", out, re.MULTILINE))
    if arguments[0] == "evaluate":
        assert flags & {"--shots", "--episodes", "--split"} == (
            {"--shots"} if arguments[1:] else {"--episodes", "--split"}
        )


class CountWords(Command):
    """Count words: those of one line.

    It has no other use.
    """

    words: tuple[str, ...]
    """The words."""
    times: int = 1
    """How often each counts."""

    def run(self) -> None:
        if self.times < 1:
            raise InputError(f"--times {self.times}: give at least 1")
        print(self.times * len(self.words))


@pytest.mark.parametrize("group", [train, results, checks])
def test_a_class_in_a_group_is_a_command(
    group: object, command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "CountWords", CountWords, raising=False)
    assert re.search(r"^  count-words +Count words$", command("--help")[1], re.MULTILINE)
    code, out, _ = command("count-words", "--help")
    assert code == 0
    assert "How often each counts." in out
    assert "It has no other use." in out
    assert command("count-words", "--words", "a", "b", "--times", "3") == (0, "6\n", "")
    assert command("count-words", "--words", "a", "--times", "0") == (2, "", "error: --times 0: give at least 1\n")
    assert command("count-words", "--letters", "a")[0] == 2


def test_the_list_imports_nothing_for_the_commands() -> None:
    code = """
import sys
import maml_rl
before = set(sys.modules)
sys.argv = ["maml-rl", "--help"]
from maml_rl.cli.main import main
main()
print(*sorted(set(sys.modules) - before), sep="\\n", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stderr.split()
    files = Path(str(main.__file__)).parent.glob("*.py")
    expected = {"maml_rl.cli", *(f"maml_rl.cli.{file.stem}" for file in files)}
    assert {name for name in loaded if name.startswith("maml_rl")} <= expected
    assert not {name.split(".")[0] for name in loaded} & {"torch", "matplotlib", "PIL", "mujoco", "jinja2", "maml_envs"}
