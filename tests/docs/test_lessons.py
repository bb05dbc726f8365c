"""The lessons and how-to pages: their commands and code run as they stand, and their links lead somewhere."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from documents import Block, blocks, write_files
from tiny import Command

import maml_rl

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([DOCS / "start.md", *DOCS.glob("lessons/*.md"), *DOCS.glob("how_to/*.md")])
RUN = [
    "start.md",
    "lessons/compare.md",
    "lessons/half_cheetah.md",
    "lessons/navigation.md",
    "lessons/scaling.md",
    "how_to/export.md",
    "how_to/memory_threads.md",
    "how_to/not_learning.md",
    "how_to/porting.md",
    "how_to/resume.md",
    "how_to/stop.md",
    "how_to/sweeps.md",
]
"""Pages whose commands run here; those of the others run in tests of their own, or need what is not here."""

LEFT_OUT = {"import optuna", "import onnxruntime", "(HalfCheetahVelEnv)"}
"""Code that wants more than is installed, or than its page has."""

DRAWN = {"plot": "lessons/navigation.md", "render": "lessons/navigation.md", "report": "lessons/compare.md"}
"""Commands that take seconds, and the one page that they run for."""

SHORT = [
    "--tasks", "2", "--episodes", "2", "--horizon", "5", "--threads", "1",
    "--evaluation.tasks", "2", "--evaluation.episodes", "2",
]  # fmt: skip
FEW = {
    "train": SHORT,
    "evaluate": ["--tasks", "2", "--episodes", "2", "--tune-lr", "false"],
    "render": ["--tasks", "1", "--steps", "1", "--episodes", "2"],
    "report": ["--films", "false"],
    "export": ["--episodes", "2"],
    "check-gradients": ["--tasks", "2", "--episodes", "2", "--horizon", "3"],
}


def of(page: str) -> list[Block]:
    return blocks((DOCS / page).read_text())


def words(line: str) -> list[str]:
    """A command's words, names of run folders with a star spelt out."""
    found = []
    for word in shlex.split(line, comments=True)[1:]:
        found += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    return found


def shortened(arguments: list[str]) -> list[str]:
    """The same with little to do."""
    kept = list(arguments)
    if "--iterations" in kept:
        at = kept.index("--iterations") + 1
        kept[at] = str(min(2, int(kept[at])))
    elif kept[0] == "train":
        kept += ["--iterations", "2"]
    for flag, _ in zip(FEW.get(kept[0], [])[::2], FEW.get(kept[0], [])[1::2], strict=True):
        if flag in kept:
            del kept[kept.index(flag) : kept.index(flag) + 2]
    return kept + FEW.get(kept[0], [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_its_commands_and_code_run_in_their_order(page: str, command: Command, folder: Path) -> None:
    write_files(of(page), folder)
    ran = 0
    for language, text in of(page):
        if language == "python" and not any(line in text for line in LEFT_OUT):
            exec(compile(text.replace("range(200)", "range(5)"), page, "exec"), {"__name__": "__main__"})
            ran += 1
        elif not language:
            for line in text.splitlines():
                arguments = shortened(words(line))
                if DRAWN.get(arguments[0], page) != page:
                    continue
                code, out, err = command(*arguments)
                assert code == 0, (line, out, err)
                ran += 1
    assert ran


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", prose):
        there = path.parent / target if target else path
        assert there.exists(), f"{path.name} -> {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, anchor


def test_the_estimator_of_one_s_own_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing has moved yet, it has the first gradient of the others: -mean(A grad log pi)."""
    import torch

    from maml_rl.rl import losses

    (code,) = [text for _, text in of("how_to/change_method.md") if "ESTIMATORS[" in text]
    monkeypatch.setattr(losses, "ESTIMATORS", dict(losses.ESTIMATORS))
    exec(compile(code, "change_method.md", "exec"), vars(losses))
    assert "clipped" in losses.ESTIMATORS

    class Batch:
        advantages, weights = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 0.25, 0.25])

    log_probs = torch.tensor([-1.0, -0.5, -2.0], requires_grad=True)
    value = losses.ESTIMATORS["clipped"].estimate(log_probs, log_probs.detach(), Batch)
    (slope,) = torch.autograd.grad(value, log_probs)
    torch.testing.assert_close(slope, -Batch.advantages * Batch.weights)
    far = losses.ESTIMATORS["clipped"].estimate(log_probs, log_probs.detach() - 1, Batch)
    expected = -(0.5 * 1.2 - 0.25 * 2 * torch.e + 0.25 * 3 * 1.2)
    torch.testing.assert_close(far.detach(), torch.tensor(expected))


def test_metrics_that_pages_speak_of_are_there(folder: Path) -> None:
    from tiny import rows, tiny

    run = maml_rl.meta_train(tiny(compare_gradients=1, iterations=1), folder / "run", quiet=True)
    (row,) = rows(run)
    text = (DOCS / "how_to/not_learning.md").read_text()
    named = set(re.findall(r"`((?:kl|linesearch|cg|grad|std|success|gradient|cosine)/\w+|share_worse)`", text))
    assert len(named) > 10
    assert named <= set(row)
