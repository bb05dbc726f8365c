"""The commands that look at several runs: evaluate, compare; what all of them refuse."""

from pathlib import Path

import pytest
from tiny import Command, files, tiny

from maml_rl import meta_train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of three methods, none evaluated."""
    folder = tmp_path_factory.mktemp("results")
    for method in ("maml", "oracle", "random"):
        meta_train(tiny(method=method, iterations=1), folder / method, quiet=True)
    return folder


@pytest.fixture
def folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs)
    return runs


def test_several_runs_are_evaluated_and_compared(folder: Path, command: Command) -> None:
    code, _, err = command("compare", "maml", "oracle")
    assert (code, err) == (2, "error: nothing is evaluated yet: maml-rl evaluate maml\n")
    code, out, err = command("evaluate", "maml", "oracle", "random", "--tasks", "2")
    assert code == 0, err
    for name in ("maml", "oracle", "random"):
        assert f"{name}: return on 2 held-out tasks" in out
        assert f"written: {name}/evaluation.json" in out
    comparison = out.partition("navigation: return on 2 held-out tasks, 95 % intervals")[2]
    assert comparison
    assert "- MAML: one gradient step on a held-out task " in comparison
    before = files(folder)
    code, again, err = command("compare", "maml", "oracle", "random")
    assert (code, again.partition("intervals")[2]) == (0, comparison), err
    code, table, err = command("compare", "maml", "oracle", "random", "--markdown")
    assert code == 0, err
    lines = table.splitlines()
    assert lines[0].startswith("|  | seeds | before | after 1 step | after 2 steps | ")
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| MAML", "| oracle", "| random"]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert files(folder) == before
    code, alone, err = command("evaluate", "maml", "--tasks", "2")
    assert code == 0, err
    assert "95 % intervals" not in alone  # one run has nothing beside it
    assert "written: maml/evaluation_2.json" in alone


@pytest.mark.parametrize("name", ["evaluate", "compare", "report"])
def test_no_run_is_a_question(name: str, folder: Path, command: Command) -> None:
    code, _, err = command(name)
    assert code == 2
    assert err == f"error: which run? maml-rl {name} RUN [RUN ...], the folders that training wrote\n"


@pytest.mark.parametrize("name", ["evaluate", "compare", "report", "plot", "render"])
def test_what_is_no_run_is_named(name: str, folder: Path, command: Command) -> None:
    before = files(folder)
    code, out, err = command(name, "nowhere")
    assert (code, out) == (2, "")
    assert err.startswith("error: there is no run folder nowhere: train first")
    assert files(folder) == before


def test_few_shot_learning_is_not_filmed(folder: Path, command: Command) -> None:
    name, said = "render", "is few-shot learning, which has no episodes to film: use maml-rl plot"
    run = folder / "few_shot"
    run.mkdir(exist_ok=True)
    (run / "config.toml").write_text('[config]\ndata = "sinusoid"\n')
    code, out, err = command(name, "few_shot")
    assert (code, out, err) == (2, "", f"error: few_shot {said}\n")


def test_options_that_are_out_of_range(folder: Path, command: Command) -> None:
    for option, said in (("--fps", "fps = 0"), ("--tasks", "evaluation.tasks"), ("--episodes", "evaluation.episodes")):
        code, _, err = command("render", "maml", option, "0")
        assert (code, said in err) == (2, True), err
    assert not (folder / "maml" / "videos").exists()
