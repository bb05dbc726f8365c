"""Whatever bytes a reader meets, it gives what they hold or an error that names their file: never another one."""

import io
import json
import math
import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import few_shot
import foreign
import numpy as np
import pytest
import torch
from few_shot import EVALUATION
from foreign import (
    CHECKPOINT,
    DRAWINGS,
    OMNIGLOT,
    READERS,
    read_checkpoint,
    read_config,
    read_drawings,
    read_evaluation,
    read_metrics,
    read_run_config,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import files, tiny

from maml_envs import InputError
from maml_rl.config import toml
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig, to_toml
from maml_rl.evaluate import load_learner
from maml_rl.runs import checkpoint, folder
from maml_rl.train import meta_train

BYTES_OF_A_READER = 2**25
"""What reading a file of some kilobytes may take, the modules that the first reading loads included."""

fuzz = settings(
    derandomize=True,
    deadline=5000,
    max_examples=120,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
seeds = st.integers(0, 2**32)


@contextmanager
def frugal() -> Iterator[None]:
    """Fail where more memory was taken, at once, than the reading of a small file needs."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < BYTES_OF_A_READER
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_read_or_their_file_is_named(name: str, tmp_path: Path) -> None:
    read, valid = READERS[name]
    assert not read(tmp_path, valid[0])
    refused = 0

    @fuzz
    @given(seeds)
    def changed(seed: int) -> None:
        nonlocal refused
        pick = random.Random(seed)
        refused += bool(read(tmp_path, foreign.mutated(pick.choice(valid), pick.choice(valid), pick)))

    changed()
    assert refused > 20


@pytest.mark.parametrize("name", READERS)
@settings(fuzz, max_examples=40)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_their_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    READERS[name][0](tmp_path, content)


def test_a_changed_payload_under_its_own_checksum(tmp_path: Path) -> None:
    """The checksum keeps random changes from torch; here they reach it."""
    payload = CHECKPOINT.partition(b"\n")[2]
    refused = 0

    @fuzz
    @given(seeds, st.booleans())
    def changed(seed: int, in_pickle: bool) -> None:
        nonlocal refused
        pick = random.Random(seed)
        if in_pickle:
            content = foreign.with_pickle(lambda pickled: foreign.mutated(pickled, payload, pick))
        else:
            content = foreign.sealed(foreign.mutated(payload, payload, pick))
        refused += bool(read_checkpoint(tmp_path, content))

    changed()
    assert refused > 50


def test_a_changed_drawing_in_a_whole_zip(tmp_path: Path) -> None:
    """The checksums of the zip keep random changes from Pillow; here they reach it."""
    refused = 0

    @settings(fuzz, max_examples=80)
    @given(seeds)
    def changed(seed: int) -> None:
        nonlocal refused
        pick = random.Random(seed)
        one = pick.randrange(1, 21)

        def change(name: str, data: bytes) -> bytes:
            return foreign.mutated(data, data, pick) if name.endswith(f"{one:02}.png") else data

        refused += bool(read_drawings(tmp_path, foreign.repacked(DRAWINGS, change)))

    changed()
    assert refused > 30


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
tensors = st.sampled_from([torch.zeros(2, 3), torch.tensor(1), torch.ones(2, dtype=torch.bool), torch.ones(1, 2).T])
FIELDS = ("theta", "iteration", "env_steps", "best_return", "config", "outer")


@fuzz
@given(fields=st.dictionaries(st.sampled_from([*FIELDS, "more"]), plain | st.dictionaries(st.text(), plain | tensors)))
def test_a_checkpoint_that_is_taken_has_fields_of_their_kinds(fields: dict[str, Any], tmp_path: Path) -> None:
    if not read_checkpoint(tmp_path, foreign.checkpoint_bytes(**fields)):
        found = checkpoint.load(tmp_path / "checkpoint.pt")
        values = [*found.theta.items(), *found.outer.items()]
        assert all(type(name) is str and type(value) is torch.Tensor for name, value in values)
        assert all(type(count) is int and 0 <= count < 2**63 for count in (found.iteration, found.env_steps))
        assert (type(found.best_return), type(found.config)) == (float, str)


@fuzz
@given(
    lines=st.lists(plain | st.dictionaries(st.text(max_size=5) | st.just("iteration"), plain, max_size=3), max_size=3)
)
def test_metrics_that_are_taken_are_numbers_with_an_iteration(lines: list[Any], tmp_path: Path) -> None:
    content = "".join(json.dumps(line, default=str) + "\n" for line in lines)
    if not read_metrics(tmp_path, content.encode()):
        rows = folder.read_metrics(tmp_path / "run")
        assert all("iteration" in row and all(type(value) is float for value in row.values()) for row in rows)
        assert len(rows) == sum(line != {} for line in lines)


keys = st.sampled_from([*Config.model_fields, "lr", "hidden", "data", "model", "shots", "x"])
values = st.integers(-2, 2**66) | st.floats() | st.booleans() | st.text(max_size=3) | st.just("trpo") | st.none()


@fuzz
@given(
    table=st.dictionaries(keys, values | st.lists(st.integers(0, 2**66), max_size=3) | st.dictionaries(keys, values))
)
def test_a_configuration_that_is_taken_goes_to_toml_and_back(table: dict[str, Any]) -> None:
    try:
        config = toml.parse({"env": "navigation"} | table, "here")
    except InputError as error:
        assert str(error).startswith("here is not a valid configuration:\n  ")  # noqa: PT017  others pass
        return
    assert toml.parse_toml(to_toml(config), "there") == config


ENV = b'env = "navigation"\n'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a = " + b"[" * 3000, "is not a TOML file: its values are nested too deep"),
        (b"a = " + b"{a = " * 3000, "is not a TOML file: its values are nested too deep"),
        (ENV + b"tasks = " + foreign.DIGITS, "is not a TOML file: Exceeds the limit (4300 digits)"),
        (ENV + b"a." * 60_000 + b"a = 1", "is not a TOML file: a line has over 1000 dots"),
        (ENV + b"tasks = 0x" + b"f" * 5000, "tasks: Input should be less than 2**63 (given: int, too large to show)"),
        (ENV + b"tasks = 9223372036854775808", "tasks: Input should be less than 2**63 (given: 9223372036854775808)"),
        (ENV + b"policy.hidden = [9223372036854775808]", "policy.hidden: Input should be less than 2**63"),
        (ENV + b"x = 0x" + b"f" * 5000, "x: there is no such key (given: int, too large to show)"),
        (ENV + b"x." + b"a." * 900 + b"a = 1", "x: there is no such key (given: {'a': {'a': "),
        (ENV + b"[x" + b".a" * 900 + b"]\n" + b"a." * 900 + b"a = 1", "x: there is no such key (given: dict, too"),
        (ENV + b"seed = '" + b"x" * 9000 + b"'", f"seed: Input should be a valid integer (given: '{'x' * 199}...)"),
    ],
)  # fmt: skip
def test_a_strange_configuration_is_refused_in_words(content: bytes, problem: str, tmp_path: Path) -> None:
    began = time.monotonic()
    assert problem in read_config(tmp_path, content)
    assert time.monotonic() - began < 5  # tomllib takes a minute for the key of 60,000 parts
    if "is not a TOML file" in problem:
        assert "run/config.toml is damaged: " in read_run_config(tmp_path, content)


def test_the_largest_integer_is_taken() -> None:
    assert toml.parse_toml("env = 'a'\nthreads = 9223372036854775807", "here").threads == 2**63 - 1


@pytest.mark.parametrize(
    "said",
    ["made_with = 3", "made_with = 'ab'", "made_with = [['a', 1]]", "made_with.machine = 3", "made_with.packages = []"],
)
def test_what_a_run_was_made_with_is_a_table(said: str, tmp_path: Path) -> None:
    problem = read_run_config(tmp_path, said.encode() + b"\n[config]\n" + ENV)
    assert "config.toml is damaged: made_with, made_with.packages and .machine are tables" in problem


@pytest.mark.parametrize(("number", "value"), [(b"1" + b"0" * 400, math.inf), (b"-" + foreign.DIGITS, -math.inf)])
def test_an_integer_beyond_the_floats_is_read_as_one_written_with_an_exponent(
    number: bytes, value: float, tmp_path: Path
) -> None:
    assert not read_metrics(tmp_path, b'{"iteration": 0, "a": ' + number + b', "b": 1e400}\n')
    assert folder.read_metrics(tmp_path / "run") == [{"iteration": 0.0, "a": value, "b": math.inf}]


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000])
def test_json_that_is_nested_too_deep_is_named(deep: bytes, tmp_path: Path) -> None:
    assert "metrics.jsonl, line 1 is not JSON: " in read_metrics(tmp_path, deep + b"\n")
    assert not read_metrics(tmp_path, deep)  # cut off while it was written
    assert "evaluation.json is damaged: " in read_evaluation(tmp_path, deep)


def test_a_row_without_its_iteration_is_named(tmp_path: Path) -> None:
    said = read_metrics(tmp_path, b'{"iteration": 0}\n{"return/0": 1}\n')
    assert 'metrics.jsonl, line 2 has no iteration: {"return/0": 1}' in said


class Call:
    """What calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def ones(count: int) -> torch.Tensor:
    return torch.ones(1).expand(count)


def header(version: bytes) -> bytes:
    return foreign.sealed(CHECKPOINT.partition(b"\n")[2], version)


@pytest.mark.parametrize("version", [foreign.DIGITS, b"\xb2", b"-1", b"+2", b" 2", "²".encode(), b"2.0", b""])
def test_a_version_that_is_no_small_number(version: bytes, tmp_path: Path) -> None:
    assert not read_checkpoint(tmp_path, header(b"2"))
    assert read_checkpoint(tmp_path, header(version)).endswith("checkpoint.pt is not a checkpoint of this package")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("theta", [], "theta is not tensors by name but []"),
        ("theta", {"w": 3.0}, "theta is not tensors by name but {'w': 3.0}"),
        ("theta", {3: torch.ones(1)}, "theta is not tensors by name but {3: tensor([1.])}"),
        ("theta", {"w": ones(10**12)}, "theta is not tensors by name but {'w': "),
        ("outer", {"w": {"w": torch.ones(1)}}, "outer is not tensors by name but {'w': {"),
        ("iteration", "7", "iteration is not a count but '7'"),
        ("iteration", True, "iteration is not a count but True"),
        ("iteration", -1, "iteration is not a count but -1"),
        ("iteration", 2**63, "iteration is not a count but 9223372036854775808"),
        ("env_steps", 1.5, "env_steps is not a count but 1.5"),
        ("best_return", 3, "best_return is not a float but 3"),
        ("config", None, "config is not a string but None"),
    ],
)
def test_a_field_of_another_kind_is_named(field: str, value: object, problem: str, tmp_path: Path) -> None:
    assert problem in read_checkpoint(tmp_path, foreign.checkpoint_bytes(**{field: value}))


SPARSE = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (10**6,), check_invariants=True)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (SPARSE, "torch._utils _rebuild_sparse_tensor"),
        (torch.empty(10**12, device="meta"), "torch._utils _rebuild_meta_tensor_no_storage"),
        (torch.nn.Parameter(torch.ones(1)), "torch._utils _rebuild_parameter"),
        (Call(bytearray, 2**40), "__builtin__ bytearray"),
        (Call(torch.FloatTensor, 2**40), "torch FloatTensor"),
        (Call(os.mkdir, "here"), "posix mkdir"),
    ],
)
def test_only_dense_tensors_are_made(value: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.load`` itself would make all of these but the last, of 2**40 bytes too."""
    content = foreign.checkpoint_bytes(theta={"w": value})
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it came to torch.load"))
    assert "does not hold the tensors, numbers and strings" in read_checkpoint(tmp_path, content)
    with pytest.raises(InputError) as caught:
        checkpoint.load(tmp_path / "checkpoint.pt")
    assert str(caught.value.__cause__) == f"it names {name}, which no tensor, number or string does"


def test_a_large_entry_in_a_small_payload_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = CHECKPOINT.partition(b"\n")[2]
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it came to torch.load"))
    for entry in ("data.pkl", "version", "data/0"):
        swollen = foreign.repacked(
            payload, lambda name, data, at=entry: data + bytes(2**26) * name.endswith(at), zipfile.ZIP_DEFLATED
        )
        assert len(swollen) < 2**20
        with frugal():
            assert "does not hold" in read_checkpoint(tmp_path, foreign.sealed(swollen))


@pytest.mark.parametrize("which", ["storage", "tensor"])
def test_a_tensor_of_more_numbers_than_it_has_bytes(which: str, tmp_path: Path) -> None:
    """Six numbers, said to be 2**30 in the storage or in the shape."""

    def change(pickled: bytes) -> bytes:
        said = b"K\6t" if which == "storage" else b"K\2K\3\x86"
        assert pickled.count(said) == 1
        more = b"J" + struct.pack("<i", 2**30)
        return pickled.replace(said, more + b"t" if which == "storage" else more + b"K\3\x86")

    assert not read_checkpoint(tmp_path, foreign.with_pickle(lambda pickled: pickled))
    assert "does not hold" in read_checkpoint(tmp_path, foreign.with_pickle(change))


def test_what_was_saved_on_a_gpu_is_read_without_one(tmp_path: Path) -> None:
    content = foreign.with_pickle(lambda pickled: pickled.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"))
    assert b"cuda:0" in content
    assert not read_checkpoint(tmp_path, content)
    assert checkpoint.load(tmp_path / "checkpoint.pt").theta["w"].device.type == "cpu"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind, with Adam's moments."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "rl": meta_train(tiny(iterations=1, outer={"name": "adam"}), folder / "rl", quiet=True),
        "few-shot": meta_train(few_shot.tiny(iterations=2), folder / "few", quiet=True),
    }


def resumed(run: Path) -> None:
    """The same command with --resume and more iterations."""
    config: AnyConfig = folder.read_config(run)
    more = config.model_copy(update={"iterations": 2 * config.iterations})
    meta_train(more, run, resume=True, quiet=True)


@pytest.mark.parametrize("kind", ["rl", "few-shot"])
@pytest.mark.parametrize("part", ["theta", "outer"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tensor: tensor.new_zeros(5, 7), r"\(5, 7\) torch.float32 there, \(.*\) torch.float32 now"),
        (lambda tensor: tensor.double(), r"torch.float64 there, .* torch.float32 now"),
        (lambda tensor: None, r"none there, \(.*\) torch.float32 now"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_in_words(
    kind: str, part: str, change: Callable[..., Any], problem: str, trained: dict[str, Path]
) -> None:
    run = trained[kind]
    file = run / "checkpoint.pt"
    whole, valid = file.read_bytes(), checkpoint.load(file)
    tensors_of = getattr(valid, part)
    name = next(iter(tensors_of))
    other = {key: change(value) if key == name else value for key, value in tensors_of.items()}
    checkpoint.save(file, valid._replace(**{part: {key: value for key, value in other.items() if value is not None}}))
    before = files(run)
    said = rf"(?s)checkpoint\.pt is of another model .*\n  {name}: .*{problem}"
    try:
        with pytest.raises(InputError, match=said):
            resumed(run)
        assert files(run) == before
        with pytest.raises(InputError, match=said):
            load_learner(run)
    finally:
        file.write_bytes(whole)
    load_learner(run)


def test_a_parameter_that_the_model_does_not_have_is_named() -> None:
    state = checkpoint.Checkpoint({"w": torch.ones(2), "more": torch.ones(1)}, 1, 1, 0.0, "", {})
    with pytest.raises(InputError, match=r"here is of another model .*\n  more: \(1,\) torch.float32 there, none now$"):
        checkpoint.refuse_another_model(Path("here"), state, {"w": torch.zeros(2)})
    checkpoint.refuse_another_model(Path("here"), state, {"more": torch.zeros(1), "w": torch.zeros(2)})


def test_a_resumed_run_keeps_the_rows_before_its_checkpoint_whatever_stands_between(trained: dict[str, Path]) -> None:
    run = trained["rl"]
    row = (run / "metrics.jsonl").read_text().strip()
    (run / "metrics.jsonl").write_text(f"\n{{}}\n{row}\n" + '{"iteration": 1, "return/0": 0}\n')
    with closing(folder.RunFolder(run, folder.read_config(run), True, {}).begin()):
        assert (run / "metrics.jsonl").read_text() == f"{row}\n"


def test_a_command_line_that_is_not_utf_8_can_be_kept(tmp_path: Path) -> None:
    about = {"command": os.fsdecode(b"maml-rl train --out \xff")}
    with closing(folder.RunFolder(tmp_path, tiny(), False, about).begin()):
        assert folder.read_made_with(tmp_path)["command"] == "maml-rl train --out ?"


PNG = few_shot.drawing(np.random.default_rng(0))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def in_zip(data: bytes) -> bytes:
    """A zip whose third drawing is of these bytes."""
    return foreign.repacked(DRAWINGS, lambda name, old: data if name.endswith("_03.png") else old, zipfile.ZIP_DEFLATED)


def picture(kind: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (105, 105)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (bytes(2**27), "0001_03.png has 134217728 bytes, and a drawing at most 50000; remove it and get it again"),
        (foreign.png_of_size(PNG, 2**31 - 1, 2**31 - 1), "decompression bomb"),
        (foreign.png_of_size(PNG, 9_000, 9_000), "0001_03.png is 9000 x 9000 pixels, not 105 x 105"),
        (PNG[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt" + PNG[33:], "is damaged"),
        (PNG[:-30] + PNG[-25:], "is damaged"),
        (PNG[:50] + PNG[52:], "is damaged"),
        (picture("tiff"), "cannot identify image file"),
        (picture("eps"), "cannot identify image file"),  # Pillow would start Ghostscript for it
    ],
)
def test_a_strange_drawing_is_refused_in_words(data: bytes, problem: str, tmp_path: Path) -> None:
    content = in_zip(data)
    with frugal():
        assert problem in read_drawings(tmp_path, content)


def test_a_comment_in_a_drawing_is_not_kept(tmp_path: Path) -> None:
    comment = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    assert len(comment) < 2000
    entry = f"{EVALUATION}/Greek/character01/0001_03.png"
    few_shot.write_zip(tmp_path / "a.zip", {entry: PNG[:33] + comment + PNG[33:]})
    for name, size, read in OMNIGLOT._files(tmp_path / "a.zip"):
        assert OMNIGLOT._drawing(name, size, read, tmp_path).info == {}


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    for name in (f"../{EVALUATION}/a/character01/0001_01.png", f"{EVALUATION}/../character01/0001_01.png"):
        few_shot.write_zip(tmp_path / "evil.zip", {name: PNG})
        assert read_drawings(tmp_path, (tmp_path / "evil.zip").read_bytes())
    assert {path.name for path in tmp_path.iterdir()} == {"evil.zip", "omniglot"}
    assert {path.suffix for path in (tmp_path / "omniglot").iterdir()} == {".zip"}


def array_file(header: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(20 * 28 * 28 - 1)


def described(kind: str, *shape: int) -> bytes:
    return array_file(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode())


@pytest.mark.parametrize(
    "content",
    [
        described("|u1", 10**5, 20, 28, 28), described("|u1", 3), described("<f4", 1, 20, 14, 7),
        described("|u1", 0, 20, 28, 28), described("|u1", 1, 20, 28, 28), described("|O", 1, 20, 28, 28),
        described("|i1", 1, 20, 28, 28) + b"\0", array_file(b"(" * 9000), array_file(b"'''"), DRAWINGS,
        pickle.dumps([1]),
    ],
)  # fmt: skip
def test_a_strange_cache_is_made_anew(content: bytes, tmp_path: Path) -> None:
    root = tmp_path / "omniglot"
    assert not read_drawings(tmp_path, DRAWINGS)
    with pytest.warns(UserWarning, match="but 1 characters"):
        images = OMNIGLOT.load(root)
    (kept,) = root.glob("*.npy")
    kept.write_bytes(content)
    with frugal(), pytest.warns(UserWarning, match="but 1 characters"):
        np.testing.assert_array_equal(OMNIGLOT.load(root), images)
    assert np.array_equal(np.load(kept), images)
