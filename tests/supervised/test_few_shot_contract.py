"""Few-shot data of one's own is right, or refused with what was found, before anything is trained or written."""

import sys
from pathlib import Path
from typing import Any

import few_shot
import numpy as np
import pytest
import torch
from few_shot import blobs, tiny
from PIL import Image

from maml_envs import InputError
from maml_rl import evaluate, meta_train
from maml_rl.runs.folder import read_config
from maml_rl.supervised import Examples, FewShotTasks, LabelledTasks, TaskBatch, images, read_image
from maml_rl.supervised.learner import build

EXAMPLES, LABELS = blobs((1, 6, 6), 30, 6)


class Lines(FewShotTasks):
    """y = a x; what the tests change is in the class below."""

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        slope, x = torch.randn(count, 1, 1, generator=generator), torch.randn(count, 10, 1, generator=generator)
        return self.changed(x, slope * x)

    def changed(self, x: Any, y: Any) -> Any:
        return TaskBatch(Examples(x[:, :5], y[:, :5]), Examples(x[:, 5:], y[:, 5:]))

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        return self.sample_tasks(count, torch.Generator().manual_seed(1))


class Doubles(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        return super().changed(x.double(), y.double())


class FlatTargets(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        return super().changed(x, y[..., 0])


class WideQueries(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        support, query = super().changed(x, y)
        return TaskBatch(support, Examples(query.inputs, query.targets.expand(-1, -1, 2)))


class Whole(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        return super().changed(x.long(), y)


class NotTensors(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        return TaskBatch(Examples(x.numpy(), y.numpy()), Examples(x, y))


class NoBatch(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        return x, y


class NaNs(Lines):
    def changed(self, x: Any, y: Any) -> Any:
        return super().changed(x / 0.0, y)


class Ignores(Lines):
    """The generator."""

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        return super().sample_tasks(count, torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31))))


class NewEachTime(Lines):
    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        return self.sample_tasks(count, torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31))))


class OtherHeldOut(Lines):
    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        x = torch.ones(count, 5, 2)
        return TaskBatch(Examples(x, x[..., :1]), Examples(x, x[..., :1]))


class Classes(FewShotTasks):
    """Three of ten classes, whose labels are those of all."""

    labels = torch.tensor([7, 2, 9])

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        targets = self.labels.expand(count, 3)
        return TaskBatch(Examples(torch.ones(count, 3, 2), targets), Examples(torch.ones(count, 3, 2), targets))

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        return self.sample_tasks(count, torch.Generator())


class UnknownQuery(Classes):
    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        support, query = torch.tensor([0, 1]).expand(count, 2), torch.tensor([0, 2]).expand(count, 2)
        return TaskBatch(Examples(torch.ones(count, 2, 2), support), Examples(torch.ones(count, 2, 2), query))


class ColumnOfClasses(Classes):
    labels = torch.tensor([0, 1, 2])

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        support, query = super().sample_tasks(count, generator)
        return TaskBatch(support._replace(targets=support.targets.unsqueeze(-1)), query)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "FlatTargets",
            r"support set has targets float32 \(3, 5\): give values as .*, for one output ",
        ),
        ("WideQueries", r"targets are float32 \(3, 5, 1\) in the support set and float32 \(3, 5, 2\) in the query set"),
        ("Whole", r"support set has inputs int64 \(3, 5, 1\): give floating-point numbers, such as bytes / 255"),
        ("NotTensors", "support set has inputs of type ndarray: give a tensor"),
        ("NoBatch", r"(?s)sample_tasks returned \(tensor.*: return TaskBatch"),
        ("NaNs", "support set has inputs of NaN or infinity"),
        ("Ignores", "sample_tasks gives other tasks for the same generator: draw every random number from it"),
        ("NewEachTime", "held_out_tasks gives other tasks each time: draw them from a generator with a fixed seed"),
        (
            "OtherHeldOut",
            r"inputs of held-out tasks are float32 \(3, 5, 2\), and those of training float32",
        ),
        ("Classes", r"the labels of a support set are \[2, 7, 9\]: number the classes of each task 0 ... ways - 1"),
        ("UnknownQuery", r"a query has the label \[2\], which its support set lacks"),
        ("ColumnOfClasses", r"support set has targets int64 \(3, 3, 1\): give classes as int64 \(tasks, examples\)"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_before_training(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        meta_train(tiny(data=f"test_few_shot_contract:{name}"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_doubles_are_cast(tmp_path: Path) -> None:
    runs = [
        meta_train(tiny(data=f"test_few_shot_contract:{name}"), tmp_path / name, quiet=True)
        for name in ("Lines", "Doubles")
    ]
    one, other = (evaluate(run).mean for run in runs)
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("examples", "labels"),
    [
        (EXAMPLES.numpy(), LABELS.numpy()),
        (EXAMPLES.double(), LABELS.tolist()),
        (EXAMPLES.numpy().tolist(), [f"class {label:02d}" for label in LABELS.tolist()]),
        (EXAMPLES, LABELS.unsqueeze(-1)),
        (EXAMPLES.numpy()[..., ::-1][..., ::-1], np.array([f"class {k:02d}" for k in LABELS.tolist()], dtype=object)),
        (EXAMPLES.numpy().astype(">f4"), LABELS.numpy().astype(">i4")),
    ],
)
def test_arrays_lists_and_words_are_taken(examples: Any, labels: Any) -> None:
    expected = LabelledTasks(EXAMPLES, LABELS, 3, 2, 3).held_out_tasks(4)
    found = LabelledTasks(examples, labels, 3, 2, 3).held_out_tasks(4)
    assert torch.equal(found.query.targets, expected.query.targets)
    torch.testing.assert_close(found.query.inputs, expected.query.inputs)
    assert found.query.inputs.dtype == torch.float32


def test_flags_are_zeros_and_ones() -> None:
    batch = LabelledTasks(EXAMPLES > 0.7, LABELS, 3, 2, 3).held_out_tasks(4)
    assert set(batch.query.inputs.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("examples", "labels", "options", "said"),
    [
        ((EXAMPLES * 200).long(), LABELS, {}, "examples are int64, whose largest value is not a pixel's: give bytes"),
        (EXAMPLES / 0, LABELS, {}, "examples hold NaN or infinity"),
        (
            EXAMPLES,
            LABELS.float(),
            {},
            r"labels are float32 \(180,\): give one for each example, a whole number",
        ),
        (EXAMPLES, LABELS[:-1], {}, "180 examples with 179 labels"),
        (EXAMPLES[..., :4], LABELS, {"rotate": True}, r"rotate with examples of shape \(1, 6, 4\): give square images"),
        (
            EXAMPLES,
            LABELS,
            {"ways": 3, "shots": 5, "queries": 5},
            "30 classes, such as 0, have fewer than the 10",
        ),
        (np.array(["a", "b"]), [0, 1], {}, "examples are array.*, which is not an array of numbers"),
        (
            EXAMPLES,
            LABELS,
            {"queries": 2, "classes": (20, 10)},
            r"classes = \(20, 10\): give three numbers",
        ),
    ],
)
def test_labelled_examples_that_cannot_be_used_are_named(
    examples: Any, labels: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        LabelledTasks(examples, labels, **options)


def test_images_with_channels_last_are_refused() -> None:
    few_shot.Last = lambda ways=3: LabelledTasks(EXAMPLES.permute(0, 2, 3, 1), LABELS, ways, 2, 3)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"images of shape \(6, 6, 1\) have their channels last: .*permute\(0"):
        build(tiny(data="few_shot:Last", ways=3, model={"name": "convolutional", "hidden": [4]}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve classes of 5 to 8 images: grey, RGB, transparent; and what is none."""
    random = np.random.default_rng(0)
    for k in range(12):
        (tmp_path / f"pictures/class {k}").mkdir(parents=True)
        for n in range(5 + k % 4):
            pixels = random.integers(0, 255, (12, 10, 4), dtype=np.uint8)
            pixels[..., 3] = 0 if k == 3 else 255
            mode = ("L", "RGB", "RGBA")[n % 3] if k != 3 else "RGBA"
            Image.fromarray(pixels).convert(mode).save(tmp_path / f"pictures/class {k}/{n}.png")
        (tmp_path / f"pictures/class {k}/notes.txt").write_text("no image")
    (tmp_path / "pictures/empty").mkdir()
    return tmp_path / "pictures"


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 6)])
def test_a_folder_of_images_is_taken(channels: int, side: int, folder: Path) -> None:
    tasks = images(folder, 4, 1, 3, side, channels, (4, 4, 4))
    batch = tasks.sample_tasks(2, torch.Generator().manual_seed(0))
    assert batch.query.inputs.shape == (2, 12, channels, side, side)
    assert float(batch.query.inputs.min()) >= 0.0 < float(batch.query.inputs.max()) <= 1.0
    whole = images(folder, 4, 1, 3, side, channels, (4, 4, 4))._examples
    before = 5 + 6 + 7 + 8 + 7  # of classes 0, 1, 10, 11 and 2
    assert (whole[before : before + 8] == 255).all()  # class 3 is transparent


def test_a_grey_image_of_16_bits_keeps_its_shades_and_a_turned_one_is_turned_back(tmp_path: Path) -> None:
    shades = np.linspace(0, 65535, 28 * 28).reshape(28, 28)
    Image.fromarray(shades.astype(np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "deep.png")[0], (shades.astype(np.uint16) >> 8).astype(np.uint8)
    )
    Image.fromarray(shades.astype(np.int32)).save(tmp_path / "deeper.tiff")
    with pytest.raises(InputError, match="its pixels are of mode I: save it with 8 or 16 bits"):
        read_image(tmp_path / "deeper.tiff")
    upright = Image.fromarray((shades / 257).astype(np.uint8))
    turned, exif = upright.rotate(90), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png")[0], np.asarray(upright))


def test_images_are_trained_on_from_a_configuration(folder: Path, tmp_path: Path) -> None:
    config = tiny(
        data="images", root=str(folder), ways=4, shots=1, queries=3,
        data_options={"side": 8, "classes": [4, 4, 4]}, model={"name": "convolutional", "hidden": [4]},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    assert evaluate(run).measure == "accuracy"
    for changes, said in (
        ({"root": None}, "data = 'images' needs root"),
        ({"root": str(folder / "nowhere")}, "is no folder: give one with a folder of images for each class"),
        ({"root": str(folder / "class 0")}, "has no folders with images"),
        ({"data_options": {"size": 8}}, "data_options: images takes no 'size'; did you mean side"),
        ({"data_options": {"channels": 2}}, "channels = 2: give 1 for grey, or 3 for RGB"),
    ):
        with pytest.raises(InputError, match=said):
            build(tiny(**config.model_dump(exclude={"data_options", "root"}) | {"root": str(folder)} | changes))
    (folder / "class 1/0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"class 1/0\.png cannot be read as an image"):
        build(config)


def test_classes_of_a_file_are_kept_with_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lists = [[f"class {k}" for k in part] for part in (range(4), range(4, 8), range(8, 12))]
    text = "".join(f"{name} = {part}\n" for name, part in zip(("training", "validation", "test"), lists, strict=True))
    Path("split.toml").write_text(text)
    config = tiny(
        data="images", root=str(folder), ways=4, shots=1, queries=3, model={"hidden": [4]},
        data_options={"side": 8, "classes": "split.toml"},
    )  # fmt: skip
    run = meta_train(config, tmp_path / "run", quiet=True)
    Path("split.toml").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_config(run).data_options["classes"] == lists
    assert evaluate(run).measure == "accuracy"


def test_a_root_and_options_reach_a_function_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def own(ways: int, root: str, noise: float = 0.0) -> LabelledTasks:
        seen.append((ways, root, noise))
        return LabelledTasks(EXAMPLES, LABELS, ways, 2, 3)

    monkeypatch.setattr(sys.modules[__name__], "own", own, raising=False)
    build(tiny(data=f"{__name__}:own", ways=3, root="/here", data_options={"noise": 0.5}))
    assert seen == [(3, "/here", 0.5)]
    with pytest.raises(InputError, match="data_options: own takes no 'nose'; did you mean noise"):
        build(tiny(data=f"{__name__}:own", ways=3, root="/here", data_options={"nose": 0.5}))
    with pytest.raises(InputError, match="root = '/here' does nothing: data = 'test_few_shot_contract:Lines'"):
        build(tiny(data="test_few_shot_contract:Lines", root="/here"))
