"""The command line as its users meet it: processes, signals, exit codes, what is printed and what is on disk."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY, Command, files, finish, maml_rl, rows, same_checkpoint, tiny

from maml_envs import InputError
from maml_rl import evaluate, meta_train
from maml_rl.checks import gradients
from maml_rl.config.toml import load, to_toml
from maml_rl.runs import checkpoint
from maml_rl.runs.evaluation import read_evaluation
from maml_rl.runs.folder import read_config

BROKEN = """
import gymnasium
import numpy
import torch
from maml_envs import Step, TaskEnv

class Broken(TaskEnv):
    horizon = 4
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), numpy.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), numpy.float32)
    resets = 0

    def sample_tasks(self, count, generator):
        return torch.rand(count, 1, generator=generator)

    def reset(self, tasks, seeds):
        self.resets, self.now = self.resets + 1, 0
        return torch.ones(len(seeds), 1)

    def step(self, action):
        reward = -(action[:, 0] ** 2)
        if self.resets == 5 and self.now >= 2:  # the contract's check, two in each iteration
            reward[1 * 3 + 2] = float("nan")
        self.now += 1
        return Step.ongoing(torch.ones(len(action), 1), reward)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: it holds a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(to_toml(tiny()))
    return tmp_path


def test_train_and_evaluate(folder: Path) -> None:
    code, out, err = finish(maml_rl("train", "small.toml", "--out", "run", "--outer.max-kl", "0.02", cwd=folder))
    assert code == 0, err
    assert out == "trained: run\nnext:    maml-rl evaluate run; maml-rl plot run; tensorboard --logdir run\n"
    assert re.search(r"^navigation 2/2  return -?\d+\.\d -> -?\d+\.\d  left 0:00:00$", err, re.MULTILINE)
    assert read_config(folder / "run") == tiny(preset="finn2017", outer={"max_kl": 0.02}, policy={"action_scale": 1.0})

    code, out, err = finish(maml_rl("evaluate", "run", "--tasks", "4", "--steps", "1", cwd=folder))
    assert (code, err) == (0, "")
    found = read_evaluation(folder / "run/evaluation.json")
    assert "run: return on 4 held-out tasks" in out
    shown = re.findall(r"│ +(\d) │ +(-?[\d.]+) │ +± ([\d.]+) │ +(\d+ %) │", out)
    expected = zip(range(2), found.mean, found.ci95, strict=True)
    assert shown == [(str(k), f"{mean:.2f}", f"{half:.2f}", "0 %") for k, mean, half in expected]
    assert "success" in out
    assert out.endswith("written: run/evaluation.json\n")


def test_evaluating_twice_says_so(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    assert "the same numbers" not in command("evaluate", "run")[1]
    assert "the same numbers" not in command("evaluate", "run", "--tasks", "5")[1]
    assert command("evaluate", "run")[1].endswith(
        "written: run/evaluation_3.json\n"
        "the same numbers as run/evaluation.json: held-out tasks, their starts and their noise are fixed for a run\n"
    )


def test_a_pipe_that_is_closed_is_no_error(folder: Path) -> None:
    for arguments in (("check-env", "bandit"), ("--help",)):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as closed:
            process = maml_rl(*arguments, cwd=folder, stdout=closed)
            assert finish(process)[::2] == (128 + signal.SIGPIPE, "")


def test_a_terminal_without_utf_8_gets_its_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert finish(maml_rl("train", "small.toml", "--out", "run", cwd=folder))[0] == 0
    code, out, err = finish(maml_rl("evaluate", "run", "--tasks", "4", cwd=folder))
    assert (code, err) == (0, "")
    assert f"? {read_evaluation(folder / 'run/evaluation.json').ci95[0]:.2f}" in out  # type: ignore[index]


def test_evaluate_passes_its_flags_on(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    state = checkpoint.load(folder / "run/best.pt")
    shifted = {name: value + 1 for name, value in state.theta.items()}
    checkpoint.save(folder / "run/best.pt", state._replace(theta=shifted))
    flags = ["--tasks", "5", "--steps", "1", "--episodes", "4", "--split", "out", "--which", "best"]
    assert command("evaluate", "run", *flags)[0] == 0
    content = json.loads((folder / "run/evaluation.json").read_text())
    result = evaluate("run", tasks=5, steps=1, episodes=4, split="out", which="best")
    assert content == json.loads(result.to_json())


def test_tune_lr_is_true_or_false(command: Command, folder: Path) -> None:
    """Also where the run is called like a truth."""
    assert command("train", "small.toml", "--method", "pretrained", "--out", "./true")[0] == 0
    for flags in (["--tune-lr", "false"], ["--tune-lr=true"], []):
        assert command("evaluate", "true", "--steps", "1", *flags)[0] == 0
    files = ("evaluation", "evaluation_2", "evaluation_3")
    (first,), (second,), (third,) = (json.loads((folder / f"true/{name}.json").read_text())["lr"] for name in files)
    assert first == 0.1
    assert second == third == evaluate("true", steps=1, tune_lr=True).lr[0]
    code, _, err = command("evaluate", "true", "--tune-lr", "maybe")
    assert code == 2
    assert "--tune-lr" in err


def test_plot_prints_what_it_drew(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    code, out, _ = command("plot", "run", "--out", "pictures")
    assert code == 0
    assert out.splitlines() == [f"pictures/{name}.png" for name in ("learning_curve", "optimisation", "paths")]
    assert all((folder / line).is_file() for line in out.splitlines())


def wait_for(condition: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_signals_save_and_set_the_exit_code(folder: Path) -> None:
    run = folder / "run"
    done = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = maml_rl("train", "small.toml", "--out", "run", "--resume", "--iterations", "1000000", cwd=folder)
        try:
            wait_for(lambda: process.poll() is not None or (run / "checkpoint.pt").exists())  # noqa: B023
            wait_for(lambda: process.poll() is not None or len(rows(run)) >= done + 3)  # noqa: B023
            with pytest.raises(
                InputError, match="run is in use by another process: wait for it, or give another --out"
            ):
                meta_train(tiny(), run, resume=True, quiet=True)
            process.send_signal(number)
        finally:
            found, out, err = finish(process)
        assert found == code, err
        assert out == ""
        assert f"stopped by {number.name}; continue with --resume --out run" in err
        assert "Traceback" not in err
        done = checkpoint.load(run / "checkpoint.pt").iteration
        assert len(rows(run)) == done
    whole = meta_train(tiny(iterations=done), folder / "whole", quiet=True)
    assert rows(whole) == rows(run)
    for name in ("checkpoint.pt", "checkpoint_previous.pt", "best.pt"):
        assert same_checkpoint(whole / name, run / name)


def test_an_environment_that_diverges(folder: Path) -> None:
    (folder / "mine.py").write_text(BROKEN)
    changes = ["--env", "mine:Broken", "--episodes", "3", "--horizon", "4", "--iterations", "5"]
    code, out, err = finish(maml_rl("train", "small.toml", "--out", "run", *changes, cwd=folder))
    assert (code, out) == (2, "")
    assert "rewards of task 1, episode 2, step 2 (all counted from 0) hold [nan]" in err
    assert "Traceback" not in err
    assert checkpoint.load(folder / "run/checkpoint.pt").iteration == 1
    assert same_checkpoint(folder / "run/failed.pt", folder / "run/checkpoint.pt")
    assert [row["iteration"] for row in rows(folder / "run")] == [0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "there is no command 'fly'"),
        (["train"], r"which configuration\? A TOML file, or one of: .*navigation"),
        (["train", "--seed", "3"], r"which configuration\?"),
        (["train", "smal.toml"], r"no configuration file 'smal\.toml', and no experiment of that name: .*navigation"),
        (["train", "wrong.toml"], r"wrong\.toml is not a valid configuration:\ntasks: .*greater than or equal to 1"),
        (["train", "torn.toml"], r"torn\.toml is not a TOML file: Invalid value \(at "),
        (["train", "small.toml", "--inner.lrr", "1"], r"--inner\.lrr[\s\S]*--inner\.lr FLOAT"),
        (["train", "small.toml", "navigation"], "Unrecognized options: navigation"),
        (["envs", "navigation"], "Unrecognized options: navigation"),
        (["train", "small.toml", "--tasks", "many"], "Error parsing --tasks"),
        (["train", "small.toml", "--inner.lr", "-1"], r"inner[\s\S]*lr\n.*greater than 0[\s\S]*-1\.0"),
        (
            ["train", "small.toml", "--tasks", "0"],
            r"command line is not .*\ntasks: .*greater than or equal to 1 \(given: 0\)",
        ),
        (["train", "small.toml", "--policy.hidden", "8", "0"], r"hidden\.1\n.*greater than 0"),
        (["train", "small.toml", "--inner.estimator", "lcv"], r"--inner\.estimator[\s\S]*log_prob"),
        (["train", "small.toml", "--env", "navigatoin"], "env = 'navigatoin' .* did you mean navigation"),
        (["train", "small.toml", "--preset", "promp"], "preset = 'promp' does not exist for navigation"),
        (["train", "small.toml", "--device", "tpu"], "device = 'tpu' is not a device: use auto, cpu or cuda"),
        (["train", "small.toml", "--out", "small.toml"], r"--out small\.toml is a file: give the name of a folder"),
        (["train", "small.toml", "--out", "small.toml/run"], r"--out small\.toml is a file: give the name of a folder"),
        (["train", "small.toml", "--out", "."], r"\. is not empty and not a run folder"),
        (["evaluate"], "which run\\? maml-rl evaluate RUN"),
        (
            ["evaluate", "nothing"],
            "there is no run folder nothing: train first, with `maml-rl train CONFIG --out nothing`",
        ),
        (["evaluate", "."], r"\. is not a run folder: it has no config\.toml"),
        (["evaluate", "nothing", "--split", "side"], "--split"),
        (["plot"], "nothing to plot: give one or more run folders"),
        (["plot", "."], r"\. is not a run folder: it has no config\.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_exits_with_2_and_writes_nothing(
    arguments: list[str], said: str, command: Command, folder: Path
) -> None:
    (folder / "wrong.toml").write_text('env = "navigation"\ntasks = 0\n')
    (folder / "torn.toml").write_text("env = ")
    before = files(folder)
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    plain = re.sub(r"[│╭╮╰╯─]", "", err)
    assert re.search(said, "\n".join(line.strip() for line in plain.splitlines())), err
    assert "Traceback" not in err
    assert files(folder) == before
    assert {path.name for path in folder.iterdir()} == {"small.toml", "wrong.toml", "torn.toml"}


def test_the_exit_code_of_a_real_process(folder: Path) -> None:
    code, out, err = finish(maml_rl("train", "small.toml", "--env", "navigatoin", cwd=folder))
    assert (code, out) == (2, "")
    assert err == (
        "error: env = 'navigatoin' is not an environment; did you mean navigation? Your own class is 'module:Class'\n"
    )
    assert [path.name for path in folder.iterdir()] == ["small.toml"]


def test_an_existing_run(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    before = files(folder)
    code, _, err = command("train", "small.toml", "--out", "run")
    assert code == 2
    assert "error: run already holds a run: continue it with --resume, or give another --out\n" in err
    code, _, err = command("train", "small.toml", "--out", "run", "--resume", "--seed", "2", "--outer.max-kl", "0.5")
    assert code == 2
    assert err.splitlines() == [
        "error: run was trained with another configuration; give another --out, or mend",
        "  seed: 1 there, 2 now",
        "  outer.max_kl: 0.1 there, 0.5 now",
    ]
    assert files(folder) == before
    longer = ["--iterations", "3", "--threads", "2", "--device", "cpu", "--evaluation.tasks", "4"]
    assert command("train", "small.toml", "--out", "run", "--resume", *longer)[0] == 0
    assert len(rows(folder / "run")) == 3


def test_a_damaged_checkpoint_offers_the_one_before(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    shutil.copytree(folder / "run", folder / "whole")
    file = folder / "run/checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1])
    before = files(folder)
    for arguments in (("train", "small.toml", "--out", "run", "--resume"), ("evaluate", "run"), ("plot", "run")):
        code, _, err = command(*arguments)
        assert code == 2
        assert "error: run/checkpoint.pt is damaged: its content does not match its checksum" in err
        assert "the one before is run/checkpoint_previous.pt: rename it to checkpoint.pt" in err
        if arguments[0] != "plot":
            assert files(folder) == before
    file.with_stem("checkpoint_previous").replace(file)
    assert command("train", "small.toml", "--out", "run", "--resume")[0] == 0
    assert same_checkpoint(file, folder / "whole/checkpoint.pt")
    assert rows(folder / "run") == rows(folder / "whole")


def test_without_out_the_run_is_named_after_configuration_and_seed(command: Command, folder: Path) -> None:
    code, out, _ = command("train", "small.toml", "--seed", "7", "--iterations", "1")
    assert code == 0
    assert out.startswith("trained: runs/small-s7\n")
    assert checkpoint.load(folder / "runs/small-s7/checkpoint.pt").iteration == 1
    assert [path.name for path in (folder / "runs").iterdir()] == ["small-s7"]


def test_an_experiment_is_trained_by_its_name(command: Command, folder: Path) -> None:
    smaller = ["--tasks", "2", "--episodes", "2", "--horizon", "3", "--iterations", "1", "--threads", "1"]
    code, out, _ = command("train", "navigation", *smaller)
    assert code == 0
    assert out.startswith("trained: runs/navigation-s1\n")
    config = read_config(folder / "runs/navigation-s1")
    assert config.policy == load("navigation").policy.model_copy(update={"action_scale": 1.0})
    assert config.evaluation == load("navigation").evaluation


def test_a_full_disk_names_the_file(command: Command, folder: Path) -> None:
    assert command("train", "small.toml", "--out", "run")[0] == 0
    whole = (folder / "run/checkpoint.pt").read_bytes()
    (folder / "run/checkpoint.pt.tmp").symlink_to("/dev/full")
    code, _, err = command("train", "small.toml", "--out", "run", "--resume", "--iterations", "3")
    assert code == 2
    assert re.search(r"cannot write \d+ bytes: No space left on device: 'run/checkpoint\.pt'", err)
    assert (folder / "run/checkpoint.pt").read_bytes() == whole


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_a_folder_that_cannot_be_written(command: Command, folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    code, _, err = command("train", "small.toml", "--out", "locked/run")
    assert code == 2
    assert "Permission denied: 'locked/run'" in err


def test_check_gradients(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = command("check-gradients", "small.toml", "--inner.estimator", "lvc", "--tasks", "1")
    assert (code, err) == (0, "")
    assert "meta-gradient" in out
    assert "Fisher product" in out
    assert "differs" not in out
    monkeypatch.setattr(gradients, "TOLERANCE", 0.0)
    code, out, err = command("check-gradients", "small.toml")
    assert code == 1
    assert "differs" in out
    assert "meta-gradient along all" in err
    assert not (folder / "runs").exists()


def test_check_estimators(command: Command) -> None:
    code, out, err = command("check-estimators", "--horizon", "2", "--episodes", "500", "--repetitions", "100")
    assert (code, err, out.count("agrees")) == (0, "", 4)
    for name in ("log_prob", "lvc", "dice", "first_order"):
        assert name in out
    code, out, err = command("check-estimators", "--episodes", "5", "--repetitions", "3")
    assert (code, "too noisy" in out, "more --repetitions" in err) == (3, True, True)
    for rate in ("nan", "inf", "1e6"):
        code, _, err = command("check-estimators", "--lr", rate, "--episodes", "50", "--horizon", "2")
        assert (code, err.startswith("error: ")) == (2, True)
    code, _, err = command("check-estimators", "--repetitions", "1")
    assert (code, err.startswith("error: repetitions = 1")) == (2, True)


def test_help(command: Command) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        code, out, _ = command(*arguments)
        assert code == 0
        for name in ("train CONFIG", "evaluate RUN", "plot RUN", "half_cheetah_dir"):
            assert name in out
    for arguments in (["train", "--help"], ["train", "small.toml", "--help"]):
        code, out, _ = command(*arguments)
        assert code == 0
        for flag in (
            "--out",
            "--resume",
            "--iterations INT",
            "--inner.lr FLOAT",
            "--outer.max-kl",
            "--evaluation.every",
        ):
            assert flag in out
    assert f"(default: {TINY['tasks']})" in out  # the file's value, not the class's
    for name, flag in (("evaluate", "--which"), ("plot", "--out")):
        code, out, _ = command(name, "--help")
        assert code == 0
        assert flag in out


def test_an_interrupt_outside_training(command: Command, folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import signal\nfrom probes import Target\nclass Slow(Target):\n"
        "    def sample_tasks(self, count, generator):\n        signal.raise_signal(signal.SIGINT)\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        code, _, err = command("train", "small.toml", "--out", "run", "--env", "slow:Slow")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert err == ""
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    "flags", [["--inner.learn_lr", "true"], ["--inner.learn-lr=TRUE"], ["--inner.learn-lr", "True"]]
)
def test_a_key_that_is_true_or_false(command: Command, folder: Path, flags: list[str]) -> None:
    assert command("train", "small.toml", "--out", "run", *flags)[0] == 0
    assert "learn_lr = true" in (folder / "run/config.toml").read_text()
