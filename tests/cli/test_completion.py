"""Tab completion: the script that is printed is one that bash takes, and it knows the commands and their flags."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tiny import finish, maml_rl

from maml_rl.cli.main import commands


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("bash"):
        pytest.skip("there is no bash here")
    folder = tmp_path_factory.mktemp("completion")
    code, out, err = finish(maml_rl("--tyro-print-completion", "bash", cwd=folder))
    assert (code, err) == (0, "")
    file = folder / "maml-rl.bash"
    file.write_text(out)
    return file


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    typed = " ".join(f"'{word}'" for word in ("maml-rl", *words))
    code = f'source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _tyro_maml_rl; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_takes_it(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_knows_commands_flags_and_choices(script: Path) -> None:
    assert set(commands()) <= set(completed(script, ""))
    assert completed(script, "check-g") == ["check-gradients"]
    assert completed(script, "train", "navigation", "--inner.est") == ["--inner.estimator"]
    assert completed(script, "train", "navigation", "--inner.estimator", "") == ["log_prob", "lvc", "dice"]
    assert completed(script, "evaluate", "run", "--spl") == ["--split"]


@pytest.mark.parametrize("shells", [["cmd.exe"], [], ["bash", "zsh"]])
def test_what_is_no_shell_is_refused(shells: list[str], tmp_path: Path) -> None:
    code, _, err = finish(maml_rl("--tyro-print-completion", *shells, cwd=tmp_path))
    assert code == 2
    assert err.startswith(f"error: --tyro-print-completion {' '.join(shells)}: name one shell, bash, zsh, fish")
