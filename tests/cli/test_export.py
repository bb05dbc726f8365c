"""`maml-rl export` writes the policy that an agent adapts to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Command, tiny

import maml_rl
from maml_rl import meta_train


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it will change in itself
def test_the_command_writes_what_act_does(tmp_path: Path, command: Command) -> None:
    run = meta_train(tiny(), tmp_path / "run", quiet=True)
    file = tmp_path / "new" / "policy.pt2"
    code, out, err = command("export", str(run), "--task", "0.3", "-0.2", "--out", str(file))
    assert (code, out.strip()) == (0, str(file)), err
    with maml_rl.load(run) as trained:
        expected = trained.adapt([0.3, -0.2]).act(np.ones((4, 2), np.float32), deterministic=True)
    found = torch.export.load(file).module()(torch.ones(4, 2)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    code, _, err = command("export", str(run), "--task", "0.3", "--out", str(tmp_path / "other.pt2"))
    assert code == 2
    assert "a task of navigation has shape (2,), not (1,)" in err
    code, _, err = command("export", str(run), "--task", "0.3", "-0.2", "--out", str(file))
    assert code == 2
    assert "is there already" in err
