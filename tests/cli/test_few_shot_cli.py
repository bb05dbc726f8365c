"""The command line on few-shot learning: what is printed, what is on disk, and what is refused."""

import hashlib
import importlib
import json
import math
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from few_shot import tiny, write_omniglot
from tiny import Command, files, finish, maml_rl

from maml_rl.config.toml import to_toml
from maml_rl.evaluate import load_learner
from maml_rl.runs import checkpoint
from maml_rl.runs.evaluation import read_evaluation
from maml_rl.runs.folder import read_config
from maml_rl.runs.measures import shown

OWN = """
import torch
from maml_rl.supervised import Examples
from maml_rl.supervised import FewShotTasks
from maml_rl.supervised import TaskBatch

class Lines(FewShotTasks):
    def sample_tasks(self, count, generator):
        x = torch.randn(count, 8, 2, generator=generator)
        y = x @ torch.randn(count, 2, 1, generator=generator)
        return TaskBatch(Examples(x[:, :4], y[:, :4]), Examples(x[:, 4:], y[:, 4:]))

    def held_out_tasks(self, count, split="test"):
        return self.sample_tasks(count, torch.Generator().manual_seed({"validation": 1, "test": 2}[split]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: it holds a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMNIGLOT_ROOT", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "small.toml").write_text(to_toml(tiny()))
    return tmp_path


def test_train_as_a_process(folder: Path) -> None:
    code, out, err = finish(maml_rl("train", "small.toml", "--out", "run", "--inner.lr", "0.02", cwd=folder))
    assert code == 0, err
    assert out == "trained: run\nnext:    maml-rl evaluate run; maml-rl plot run; tensorboard --logdir run\n"
    assert re.search(r"^sinusoid 4/4  loss \d+\.\d+  left 0:00:00$", err, re.MULTILINE)
    assert read_config(folder / "run") == tiny(inner={"lr": 0.02})


def test_one_task_and_plot(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    code, out, _ = command("evaluate", "run", "--tasks", "1", "--steps", "1")
    assert code == 0
    assert "±" not in out
    assert "nan" not in out
    code, out, _ = command("plot", "run")
    assert code == 0
    assert out.splitlines() == [f"run/figures/{name}.png" for name in ("learning_curve", "adaptation_error", "fits")]


def test_evaluate_prints_what_it_wrote(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    code, out, _ = command("evaluate", "run", "--tasks", "4", "--steps", "1", "--shots", "3")
    assert code == 0
    found = read_evaluation(folder / "run/evaluation.json")
    assert "run: 4 held-out tasks, shots 3, rate 0.01" in out
    shown = re.findall(r"│ +(\d) │ +([\d.]+) │ +± ([\d.]+) │ +([\d.]+) │ +([\d.]+) │", out)
    columns = [found.mean, found.ci95, found.median, found.trimmed_mean]
    assert shown == [(str(k), *(f"{column[k]:.3f}" for column in columns)) for k in range(2)]
    assert "share of tasks that diverged: 0.00 %" in out
    for name, value in found.references.items():
        assert f"{name}: {value:.3f}\n" in out
    assert out.endswith("written: run/evaluation.json\n")


def test_evaluated_runs_are_compared_in_a_table(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    assert command("train", "small.toml", "--method", "random", "--out", "scratch")[0] == 0
    assert command("compare", "run") == (2, "", "error: nothing is evaluated yet: maml-rl evaluate run\n")
    for run in ("run", "scratch"):
        assert command("evaluate", run, "--tasks", "4", "--steps", "1")[0] == 0
    code, out, _ = command("compare", "run", "scratch", "--markdown")
    assert code == 0
    header, _, *rows = (line.strip("|")[1:-1].split(" | ") for line in out.splitlines())
    assert header == [
        "mean squared error", "seeds", "before", "after 1 step", "median, after 1 step", "trimmed mean", "diverged",
        "iterations", "wall clock",
    ]  # fmt: skip
    costs = (["4", "0.0 min"], ["0", ""])
    for run, method, cells, cost in zip(("run", "scratch"), ("MAML", "random"), rows, costs, strict=True):
        found = read_evaluation(folder / run / "evaluation.json")
        assert (found.iteration, cells[:2]) == (int(cost[0]), [method, "1"])
        for cell, mean in zip(cells[2:4], found.mean, strict=True):
            value, low, high = map(float, re.fullmatch(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", cell).groups())
            assert low < value < high
            assert value == pytest.approx(mean, abs=6e-4)
        assert cells[4:] == [f"{found.median[1]:.3f}", f"{found.trimmed_mean[1]:.3f}", "0.0 %", *cost]


def test_evaluate_takes_its_flags_before_and_after_the_run(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    flags = ["--tasks", "3", "--steps", "2", "--shots", "6", "--which", "initial", "--tune-lr", "true"]
    assert command("evaluate", "run", *flags)[0] == 0
    assert command("evaluate", *flags, "run")[0] == 0
    one, other = (json.loads((folder / f"run/{n}.json").read_text()) for n in ("evaluation", "evaluation_2"))
    assert one == other
    values = one["values"]["error"]
    assert (len(values), len(values[0]), one["shots"], one["which"], one["tuned"]) == (3, 3, 6, "initial", True)
    code, out, _ = command("evaluate", "run", "--help")
    assert code == 0
    assert "--shots" in out


def test_omniglot_from_the_command_line(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIGLOT_ROOT", str(write_omniglot(folder / "omniglot", 30, 20)))
    model = ["--model.name", "convolutional", "--model.hidden", "4", "--model.batch-norm", "true"]
    few = ["--data", "omniglot", "--ways", "2", "--shots", "1", "--queries", "2"]
    with pytest.warns(UserWarning, match="does not hold all of Omniglot"):
        assert command("train", "small.toml", "--out", "run", *model, *few)[0] == 0
    code, out, _ = command("evaluate", "run", "--tasks", "3")  # now from the cache, without a warning
    assert code == 0
    found = read_evaluation(folder / "run/evaluation.json")
    assert list(found.values) == ["accuracy", "accuracy_one_by_one"]
    assert f"nearest neighbour: {100 * found.references['nearest neighbour']:.2f} %" in out
    assert f"{100 * found.mean[2]:.2f} %" in out
    assert "diverged" not in out


def test_data_of_ones_own(command: Command, folder: Path) -> None:
    (folder / "my_lines.py").write_text(OWN)
    assert command("train", "small.toml", "--out", "run", "--data", "my_lines:Lines")[0] == 0
    assert checkpoint.load(folder / "run/checkpoint.pt").theta["1.weight"].shape == (8, 2)
    code, out, _ = command("evaluate", "run", "--tasks", "3")
    assert code == 0
    assert "predicting 0" not in out
    assert "run: 3 held-out tasks, rate 0.01" in out  # how many shots is not known
    assert json.loads((folder / "run/evaluation.json").read_text())["shots"] is None
    code, _, err = command("evaluate", "run", "--shots", "3")
    assert code == 2
    assert "--shots 3 has no effect: data = 'my_lines:Lines' takes no argument `shots`" in err
    assert [Path(line).name for line in command("plot", "run")[1].splitlines()] == [
        "learning_curve.png", "adaptation_error.png"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "small.toml", "--iterations", "5"],
            "iterations = 5 with log_every = 2: give .* such as 6",
        ),
        (["train", "small.toml", "--evaluation.every", "3"], r"evaluation\.every = 3 with log_every = 2"),
        (["train", "small.toml", "--outer.name", "reptile", "--outer.lr", "2"], r"outer\.lr = 2\.0 .* give at most 1"),
        (["train", "small.toml", "--shots", "0"], r"shots: .*greater than or equal to 1 \(given: 0\)"),
        (["train", "small.toml", "--data", "sinusiod"], "data = 'sinusiod' is neither sinusoid, omniglot, images nor"),
        (["train", "small.toml", "--data", "omniglot"], "give root = .* or set OMNIGLOT_ROOT"),
        (["train", "small.toml", "--data", "omniglot", "--root", "."], r"images_background\.zip does not exist"),
        (["train", "small.toml", "--data", "nowhere:Tasks"], "no module 'nowhere'"),
        (["train", "small.toml", "--episodes", "2"], r"--episodes"),
        (["train", "small.toml", "--model.name", "convolutional"], r"it takes images \(channels"),
        (["train", "small.toml", "--device", "tpu"], "device = 'tpu' is not a device"),
        (["check-gradients", "small.toml"], r"small\.toml is of few-shot learning; this is for meta-reinforcement"),
        (["train", "both.toml"], "env: there is no such key"),
        (["download-omniglot"], "Where they go. .required"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_exits_with_2_and_writes_nothing(
    arguments: list[str], said: str, command: Command, folder: Path
) -> None:
    (folder / "both.toml").write_text('data = "sinusoid"\nenv = "navigation"\n')
    before = files(folder)
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    plain = re.sub(r"[│╭╮╰╯─]", "", err)
    assert re.search(said, "\n".join(line.strip() for line in plain.splitlines())), err
    assert "Traceback" not in err
    assert files(folder) == before
    assert {path.name for path in folder.iterdir()} == {"small.toml", "both.toml"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "run", "--tasks", "0"], r"evaluation\.tasks"),
        (["evaluate", "run", "--episodes", "3"], "--episodes"),
        (["evaluate", "run", "--split", "out"], "--split"),
        (["evaluate", "run", "--which", "last"], "--which"),
        (["train", "small.toml", "--out", "run"], "run already holds a run: continue it with --resume"),
        (["train", "small.toml", "--out", "run", "--resume", "--seed", "2"], "seed: 1 there, 2 now"),
        (["train", "navigation", "--out", "run", "--resume"], "run holds a run of another kind of learning"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_that_is_there_is_left_alone(arguments: list[str], said: str, command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    before = files(folder)
    code, _, err = command(*arguments)
    assert code == 2
    assert re.search(said, err), err
    assert "Traceback" not in err
    assert files(folder) == before


def test_nothing_is_downloaded_unless_asked(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlretrieve", refuse)
    monkeypatch.setenv("OMNIGLOT_ROOT", str(folder / "nothing"))
    code, _, err = command("train", "omniglot_5way_1shot")
    assert code == 2
    assert "or both files with `maml-rl download-omniglot" in err
    code, _, err = command("download-omniglot", "images")
    assert (code, err) == (2, "error: no network\n")


def test_download(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module("maml_rl.supervised.omniglot")
    source = write_omniglot(folder / "published", 1, 1)
    monkeypatch.setattr(module, "HOME", f"{source.as_uri()}/")
    digests = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in sorted(source.iterdir())}
    monkeypatch.setattr(module, "ZIPS", digests)
    code, out, _ = command("download-omniglot", "images")
    assert (code, out) == (0, "images/images_background.zip\nimages/images_evaluation.zip\n")


def test_help(command: Command) -> None:
    code, out, _ = command("train", "small.toml", "--help")
    assert code == 0
    for flag in (
        "--data",
        "--ways",
        "--log-every INT",
        "--inner.first-order",
        "--model.batch-norm",
        "--evaluation.shots",
    ):
        assert flag in out
    assert "--episodes" not in out
    assert "download-omniglot" in command("--help")[1]


def test_the_error_of_a_task_that_diverged_is_short() -> None:
    assert [shown(x, "error") for x in (0.3754, 9999.4, 6413650.262, math.inf)] == [
        "0.375",
        "9999.400",
        "6e+06",
        "infinite",
    ]


SIZED = """
import torch
from maml_rl.supervised import LabelledTasks

def made(shots, ways):
    labels = torch.arange(30).repeat_interleave(8)
    examples = torch.nn.functional.one_hot(labels, 30).float()
    return LabelledTasks(examples, labels, ways, shots, queries=1)
"""


def test_own_data_go_by_the_sizes_that_they_take(command: Command, folder: Path) -> None:
    (folder / "sized.py").write_text(SIZED)
    few = ["--data", "sized:made", "--ways", "3", "--shots", "2", "--queries", "4"]
    assert command("train", "small.toml", "--out", "run", *few)[0] == 0
    assert checkpoint.load(folder / "run/checkpoint.pt").theta["3.bias"].shape == (3,)
    code, out, err = command("evaluate", "run", "--tasks", "3", "--shots", "5")
    assert code == 0, err
    assert "3 held-out tasks, shots 5" in out
    learner, _ = load_learner(folder / "run", changes={"shots": 5})
    batch = learner.training_tasks(0)
    assert (batch.support.targets.shape[1], batch.query.targets.shape[1]) == (15, 3)


def test_several_runs_are_evaluated_and_compared(command: Command, folder: Path) -> None:
    for name, seed in (("one", "1"), ("two", "2"), ("again", "2")):
        assert command("train", "small.toml", "--out", name, "--seed", seed)[0] == 0
    code, out, _ = command("evaluate", "one", "two", "--tasks", "4", "--steps", "1")
    assert code == 0
    assert out.count("written: ") == 2
    table = re.sub(r"\s+", " ", out[out.index("sinusoid: mean squared error") :])
    assert table.startswith("sinusoid: mean squared error on 4 held-out tasks, 95 % intervals")
    assert " MAML 2 0 " in table  # both seeds together
    assert "- MAML: one gradient step on a held-out task " in table
    code, out, err = command("evaluate", "two", "again", "--tasks", "4", "--steps", "1")
    assert out.count("written: ") == 2
    assert (code, err) == (2, "error: two and again are of the same configuration and seed, 2: leave one out\n")
    code, _, err = command("evaluate", "--steps", "1")
    assert code == 2
    assert "which run?" in err
