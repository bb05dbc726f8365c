"""The reader of Omniglot: the official zips, what is wrong with them, cache and download; the real ones if there."""

import hashlib
import importlib
import io
import os
import shutil
import urllib.request
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_shot import BACKGROUND, EVALUATION, drawing, entries, write_omniglot, write_zip
from PIL import Image

from maml_envs import InputError
from maml_rl.supervised import omniglot

MODULE: Any = importlib.import_module("maml_rl.supervised.omniglot")
PART = "does not hold all of Omniglot as published, but 5 characters"
REAL = os.environ.get("OMNIGLOT_ROOT")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder; nothing is fetched from the network."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"download of {arguments}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(urllib.request, "urlretrieve", refuse)
    return tmp_path / "cache/maml_rl"


@pytest.fixture(scope="module")
def content() -> dict[str, dict[str, bytes]]:
    """Five characters of three alphabets, by zip and entry."""
    return {
        BACKGROUND: entries({"Latin": 2, "Korean": 1}, BACKGROUND),
        EVALUATION: entries({"Greek": 2}, EVALUATION, 1),
    }


@pytest.fixture
def root(content: dict[str, dict[str, bytes]], tmp_path: Path) -> Path:
    (tmp_path / "omniglot").mkdir()
    for name, found in content.items():
        write_zip(tmp_path / f"omniglot/{name}.zip", found)
    return tmp_path / "omniglot"


def load(root: Path) -> np.ndarray:
    """The images of a part of Omniglot, which is said to be one."""
    with pytest.warns(UserWarning, match=PART):
        found: np.ndarray = MODULE.load(root)
    return found


def test_every_drawing_is_in_its_place(root: Path, content: dict[str, dict[str, bytes]]) -> None:
    """Characters by alphabet and number, whichever zip they are in, and drawings by their number."""
    images = load(root)
    assert (images.shape, images.dtype) == ((5, 20, 28, 28), np.uint8)
    order = [(EVALUATION, "Greek", 1), (EVALUATION, "Greek", 2), (BACKGROUND, "Korean", 1), (BACKGROUND, "Latin", 1)]
    for place, (folder, alphabet, number) in enumerate([*order, (BACKGROUND, "Latin", 2)]):
        for k in (0, 19):
            name = f"{folder}/{alphabet}/character{number:02}/{number:04}_{k + 1:02}.png"
            (place_of,) = [data for found in content.values() for entry, data in found.items() if entry == name]
            assert np.array_equal(images[place, k], MODULE._shrink(Image.open(io.BytesIO(place_of)))), name
            assert images[place, k].mean() / 255 == pytest.approx(ink(place_of), abs=0.02), name


def ink(png: bytes) -> float:
    """The share of black pixels."""
    return float(1 - np.asarray(Image.open(io.BytesIO(png))).mean())


def test_a_drawing_is_shrunk_to_the_mean_of_the_pixels_in_each_place() -> None:
    """105 / 28 = 3.75: the centres of four pixels lie in the first place, those of the next in the second."""
    paper = np.ones((105, 105), bool)
    paper[0, 0] = paper[3, 3] = paper[5, 2] = False
    small = MODULE._shrink(Image.fromarray(paper))
    assert small[0, 0] == round(255 * 2 / 16)
    assert small[1, 0] in (round(255 / 12), round(255 / 16))
    assert small.sum() == int(small[0, 0]) + int(small[1, 0])
    full = MODULE._shrink(Image.fromarray(np.zeros((105, 105), bool)))
    assert (full == 255).all()  # ink


def test_tasks_are_of_images_with_ink_one_on_zero(tmp_path: Path) -> None:
    root = write_omniglot(tmp_path / "small", 30, 20)
    with pytest.warns(UserWarning, match="but 50 characters"):
        tasks = omniglot(root, 2, 1, 3)
    assert [len(tasks.split[name]) for name in ("training", "validation", "test")] == [50 - 3 - 13, 3, 13]
    batch = tasks.sample_tasks(10, torch.Generator().manual_seed(0))
    assert batch.query.inputs.shape == (10, 6, 1, 28, 28)
    assert 0 < batch.query.inputs.mean() < 0.4
    assert (batch.query.inputs.min(), batch.query.inputs.max()) == (0, 1)
    assert tasks.rotate


def test_the_order_in_the_zips_and_other_entries_do_not_matter(
    root: Path, content: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    strange = {
        "../evil.png": b"evil", "/evil.png": b"", f"{BACKGROUND}/": b"", f"{BACKGROUND}/Latin/": b"",
        f"{BACKGROUND}/../../character01/0001_01.png.txt": b"", f"{BACKGROUND}/Latin/character01/notes.txt": b"x",
        f"{BACKGROUND}/Latin/character01/._0001_01.png": b"x", f"__MACOSX/{BACKGROUND}/a/character1/1_1.png": b"",
        "strokes/Latin/character01/0001_01.png": b"x", "README": b"x", f"{BACKGROUND}/a/b/character01/0001_01.png": b"",
    }  # fmt: skip
    for name, found in content.items():
        names = list(found)
        np.random.default_rng(0).shuffle(names)
        write_zip(other / f"{name}.zip", {**strange, **{entry: found[entry] for entry in names}})
    before = set(tmp_path.rglob("*"))
    np.testing.assert_array_equal(load(other), load(root))
    assert {path.parent for path in set(tmp_path.rglob("*")) - before} == {other, root}  # the two caches


@pytest.mark.parametrize("names", [[BACKGROUND], [BACKGROUND, EVALUATION]])
def test_unpacked_folders_hold_the_same_drawings(names: list[str], root: Path, tmp_path: Path) -> None:
    expected = load(root)
    other = tmp_path / "unpacked"
    shutil.copytree(root, other, ignore=shutil.ignore_patterns("*.npy"))
    for name in names:
        shutil.unpack_archive(other / f"{name}.zip", other)
        (other / f"{name}.zip").unlink()
    if len(names) == 2:  # unpacked into a folder of its own
        (other / names[1]).rename(other / "inner")
        (other / names[1]).mkdir()
        (other / "inner").rename(other / names[1] / names[1])
    np.testing.assert_array_equal(load(other), expected)
    (cache,) = other.glob("*.npy")
    np.testing.assert_array_equal(MODULE.load(other), expected)  # from the cache
    drawing = next((other / BACKGROUND).rglob("*.png"))
    drawing.write_bytes(next((other / BACKGROUND / "Latin/character02").glob("*.png")).read_bytes())
    load(other)
    assert len(list(other.glob("*.npy"))) == 2, f"{cache} is of other files"
    drawing.write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"{BACKGROUND} is damaged, or only a part of it: cannot identify"):
        MODULE.load(other)


@pytest.mark.parametrize("name", [BACKGROUND, EVALUATION])
def test_a_missing_zip_says_how_to_get_it(name: str, root: Path) -> None:
    (root / f"{name}.zip").unlink()
    with pytest.raises(
        InputError,
        match=rf"{name}\.zip does not exist, nor the folder {name} beside it, .*; get https://.*, or both .*omniglot`",
    ):
        omniglot(root)


def test_a_zip_that_is_cut_off(root: Path) -> None:
    path = root / f"{BACKGROUND}.zip"
    whole = path.read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(
            InputError, match=r"images_background\.zip is damaged, or only a part of it: .*get it again"
        ):
            MODULE.load(root)
    assert sorted(file.name for file in root.iterdir()) == [f"{BACKGROUND}.zip", f"{EVALUATION}.zip"]


def test_changed_bytes_are_named_or_change_nothing(root: Path, content: dict[str, dict[str, bytes]]) -> None:
    path, random = root / f"{BACKGROUND}.zip", np.random.default_rng(0)
    write_zip(path, entries({"Latin": 1}, BACKGROUND))
    with pytest.warns(UserWarning, match="but 3 characters"):
        images = MODULE._read(root)
    whole, refused = path.read_bytes(), 0
    assert len(whole) < 20_000
    for place in (6, 8, *random.integers(len(whole), size=40)):  # version, compression method
        changed = bytearray(whole)
        changed[place] ^= int(random.integers(1, 256))
        path.write_bytes(changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.testing.assert_array_equal(MODULE._read(root), images)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("kind", [zlib.error, NotImplementedError, EOFError, zipfile.BadZipFile, OSError, ValueError])
def test_whatever_a_reader_raises_is_named(kind: type[Exception], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise kind("nonsense")

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(InputError, match=r"images_background\.zip is damaged, .*nonsense; remove it and get it again"):
        MODULE.load(root)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({f"{EVALUATION}/Greek/character01/0001_07.png": drawing(np.random.default_rng(0), 50)},
         r"0001_07\.png is 50 x 50 pixels, not 105 x 105"),
        ({f"{EVALUATION}/Greek/character01/0001_07.png": b"no image"}, r"is damaged.*cannot identify image"),
        ({f"{EVALUATION}/Greek/character01/0001_07.png": None},
         r"every character has 20 drawings, but Greek/character01 has 19; remove the zips and get them again"),
        ({f"{EVALUATION}/Greek/character02/0002_21.png": drawing(np.random.default_rng(0))},
         r"every character has 20 drawings, but Greek/character02 has 21"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_zip_is_named(
    change: dict[str, bytes | None], problem: str, root: Path, content: dict[str, dict[str, bytes]]
) -> None:
    found = {name: data for name, data in (content[EVALUATION] | change).items() if data is not None}
    write_zip(root / f"{EVALUATION}.zip", found)
    with pytest.raises(InputError, match=problem):
        omniglot(root)
    assert not list(root.glob("*.npy"))


def test_zips_without_characters(root: Path) -> None:
    for name in (BACKGROUND, EVALUATION):
        write_zip(root / f"{name}.zip", {"README": b"nothing"})
    with pytest.raises(InputError, match="20 drawings, but there is no character; remove the zips"):
        omniglot(root)


def test_the_images_are_kept_beside_the_zips(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load(root)
    (kept,) = root.glob("*.npy")
    assert not home.exists()
    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "_read", None)  # not read again
        np.testing.assert_array_equal(MODULE.load(root), images)
    for size in (0, 40, len(kept.read_bytes()) - 1):
        kept.write_bytes(kept.read_bytes()[:size])
        np.testing.assert_array_equal(load(root), images)
        assert np.load(kept).shape == (5, 20, 28, 28)
    assert sorted(file.suffix for file in root.iterdir()) == [".npy", ".zip", ".zip"]


def test_other_zips_have_a_cache_of_their_own(root: Path) -> None:
    images = load(root)
    write_zip(root / f"{EVALUATION}.zip", entries({"Greek": 2}, EVALUATION, seed=5))
    assert not np.array_equal(load(root), images)
    assert len(list(root.glob("*.npy"))) == 2


def test_a_folder_that_cannot_be_written_uses_the_users_cache(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def read_only(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if path.parent == root and "w" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", read_only)
    images = load(root)
    assert [file.suffix for file in home.iterdir()] == [".npy"]
    assert sorted(file.suffix for file in root.iterdir()) == [".zip", ".zip"]
    np.testing.assert_array_equal(MODULE.load(root), images)  # without a warning: from the cache


def test_without_any_place_for_a_cache_it_still_reads(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for _ in range(2):
        assert load(root).shape == (5, 20, 28, 28)
    assert not list(root.glob("*.npy"))


@pytest.fixture
def published(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Zips that are published at a file:// address, their MD5 known."""
    monkeypatch.undo()  # the network stays out of reach: the address is a file
    monkeypatch.setattr(MODULE, "HOME", f"{root.as_uri()}/")
    digests = {f"{n}.zip": hashlib.md5((root / f"{n}.zip").read_bytes()).hexdigest() for n in (BACKGROUND, EVALUATION)}
    monkeypatch.setattr(MODULE, "ZIPS", digests)
    return root


def test_download_fetches_what_is_missing_and_keeps_what_is_there(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new/folder"
    paths = MODULE.download(target)
    assert paths == [target / f"{BACKGROUND}.zip", target / f"{EVALUATION}.zip"]
    for path in paths:
        assert path.read_bytes() == (published / path.name).read_bytes()
    assert sorted(target.iterdir()) == paths  # no part is left
    monkeypatch.setattr(urllib.request, "urlretrieve", None)
    assert MODULE.download(target) == paths


def test_download_checks_what_it_has(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    path = MODULE.download(target)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"images_background\.zip is not the file as published, or only a part of it"):
        MODULE.download(target)
    path.unlink()
    (published / path.name).write_bytes(b"another file")
    with pytest.raises(InputError, match="is not the file as published"):
        MODULE.download(target)
    path.unlink()
    (published / path.name).unlink()
    with pytest.raises(OSError, match=path.name):
        MODULE.download(target)


@pytest.mark.skipif(not REAL, reason="OMNIGLOT_ROOT is not set")
def test_the_published_data_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "real"
    root.mkdir()
    for name in (BACKGROUND, EVALUATION):
        (root / f"{name}.zip").symlink_to(Path(str(REAL)).resolve() / f"{name}.zip")
    tasks = omniglot(root, 20, 1, 1)  # a warning is an error
    assert [len(tasks.split[name]) for name in ("training", "validation", "test")] == [1100, 100, 423]
    images = MODULE.load(root)
    assert images.shape == (1623, 20, 28, 28)
    assert images.mean() / 255 == pytest.approx(0.08, abs=0.005)
    per_character = images.mean((2, 3)) / 255
    assert per_character.min() > 0.001
    assert per_character.max() < 0.3
    assert len({image.tobytes() for image in images.reshape(-1, 784)}) > 32_400
    reference = tasks.references(tasks.held_out_tasks(50))["nearest neighbour"]
    assert 0.1 < reference < 0.6
