"""A checkpoint comes back as it went in, or is refused: never half, never changed, never as code."""

import errno
import io
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import saved, sealed

from maml_envs import InputError
from maml_rl.runs.checkpoint import Checkpoint, load, save

STATE = Checkpoint(
    {"0.weight": torch.arange(6.0).reshape(2, 3) / 7, "log_std": torch.tensor([-0.5]), "flag": torch.tensor(3)},
    iteration=7,
    env_steps=2**40,
    best_return=-float("inf"),
    config='env = "navigation"\n',
    outer={"step.0.weight": torch.tensor(3.0), "exp_avg.0.weight": torch.ones(2, 3)},
)
HEADER = len(b"maml_rl checkpoint 2 ") + 64 + 1


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    if a[1:-1] != b[1:-1] or list(a.theta) != list(b.theta) or list(a.outer) != list(b.outer):
        return False
    pairs = zip([*a.theta.values(), *a.outer.values()], [*b.theta.values(), *b.outer.values()], strict=True)
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def refusal(file: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


def test_it_comes_back_as_it_went_in(file: Path) -> None:
    assert equal(load(file), STATE)
    assert file.read_bytes()[:HEADER].endswith(b"\n")
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.pt"]


def test_it_does_not_hold_the_graph_of_its_tensors(file: Path) -> None:
    leaf = torch.ones(3, requires_grad=True)
    save(file, STATE._replace(theta={"w": (2 * leaf).detach()}))
    assert torch.equal(load(file).theta["w"], torch.full((3,), 2.0))


def test_a_missing_one_says_what_to_do(tmp_path: Path) -> None:
    said = refusal(tmp_path / "run" / "checkpoint.pt")
    assert f"train first, with `maml-rl train CONFIG --out {tmp_path}/run`" in said


@pytest.mark.parametrize("previous", [False, True])
def test_a_truncated_one_is_refused_and_the_one_before_offered(previous: bool, file: Path) -> None:
    whole = file.read_bytes()
    offer = f"the one before is {file.parent}/checkpoint_previous.pt: rename it to checkpoint.pt"
    if previous:
        save(file, STATE._replace(iteration=8), keep_previous=True)
        whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert (offer in refusal(file)) == previous, length
    if previous:
        file.with_stem("checkpoint_previous").replace(file)
        assert equal(load(file), STATE)


def test_a_flipped_bit_is_found(file: Path) -> None:
    whole = file.read_bytes()
    digit = whole.index(b" 2 ") + 1
    pick = random.Random(0)
    for position in [*range(HEADER), *pick.sample(range(HEADER, len(whole)), 200), len(whole) - 1]:
        changed = bytearray(whole)
        changed[position] ^= 1 << pick.randrange(8)
        file.write_bytes(changed)
        if position != digit:  # there it is another version
            refusal(file)


@pytest.mark.parametrize("extra", [b"\0", b"\n", b"x" * 5000])
def test_something_appended_is_found(extra: bytes, file: Path) -> None:
    file.write_bytes(file.read_bytes() + extra)
    assert "damaged" in refusal(file)


def test_a_newer_version_asks_for_a_newer_package(file: Path) -> None:
    file.write_bytes(sealed(file.read_bytes()[HEADER:], b"3"))
    assert "has format version 3, newer than this package's 2: update maml_rl" in refusal(file)


def test_the_first_version_had_no_outer_optimiser(file: Path) -> None:
    fields = {key: value for key, value in STATE._asdict().items() if key != "outer"}
    file.write_bytes(sealed(saved(fields), version=b"1"))
    assert equal(load(file), STATE._replace(outer={}))


def foreign() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "text": b"hello\n",
        "torch's own": saved(STATE._asdict()),
        "pickle": pickle.dumps({"theta": 1}),
        "another header": b"maml_rl checkpoints 1 abc\n",
        "no version": b"maml_rl checkpoint one abc\n",
    }


@pytest.mark.parametrize("content", foreign().values(), ids=foreign().keys())
def test_a_foreign_file_is_refused(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    assert "is not a checkpoint of this package" in refusal(file)


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("plain", [False, True])
def test_reading_runs_no_code(plain: bool, file: Path) -> None:
    folder = file.parent / "attacked"
    content = STATE._asdict() | {"iteration": Attack(folder)}
    payload = pickle.dumps(content) if plain else saved(content)
    file.write_bytes(sealed(payload))
    assert "does not hold the tensors, numbers and strings of a checkpoint" in refusal(file)
    assert not folder.exists()
    if plain:
        pickle.loads(payload)
    else:
        torch.load(io.BytesIO(payload), weights_only=False)
    assert folder.exists()  # the attack is a real one


@pytest.mark.parametrize("content", [{"theta": {}}, {}, [1], STATE._asdict() | {"more": 1}])
def test_the_right_checksum_over_the_wrong_content_is_refused(content: Any, file: Path) -> None:
    file.write_bytes(sealed(saved(content)))
    assert "does not hold" in refusal(file)


def test_the_one_before_is_kept(file: Path) -> None:
    previous = file.with_stem("checkpoint_previous")
    for iteration in (8, 9, 10):
        save(file, STATE._replace(iteration=iteration), keep_previous=True)
        assert (load(previous).iteration, load(file).iteration) == (iteration - 1, iteration)
    assert {path.name for path in file.parent.iterdir()} == {"checkpoint.pt", "checkpoint_previous.pt"}


def test_what_a_killed_save_left_behind_is_in_nobodys_way(file: Path) -> None:
    for name in ("checkpoint.pt.tmp", "checkpoint_previous.pt.tmp"):
        file.with_name(name).write_bytes(b"half of a")
    assert equal(load(file), STATE)
    save(file, STATE._replace(iteration=8), keep_previous=True)
    assert load(file).iteration == 8
    assert equal(load(file.with_stem("checkpoint_previous")), STATE)
    assert len(list(file.parent.iterdir())) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, where every write finds the disk full")
@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint_previous.pt"])
def test_a_full_disk_leaves_the_old_one(name: str, file: Path) -> None:
    file.with_name(f"{name}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write \d+ bytes: No space left") as caught:
        save(file, STATE._replace(iteration=8), keep_previous=True)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(file.with_name(name))
    assert equal(load(file), STATE)
    assert not list(file.parent.glob("*.tmp"))
