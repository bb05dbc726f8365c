"""TensorBoard's own reader finds what a run wrote: scalars, hyper-parameters, pictures that are pictures."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tiny import files, tiny

from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.runs.loggers.logger import LoggedRun
from maml_rl.runs.loggers.tensorboard import TensorBoard


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"images": 0})
    found.Reload()
    return found


def hyper_parameters(found: EventAccumulator) -> tuple[dict[str, Any], set[str]]:
    """Values of the keys, and the metrics that the tab shows."""
    content = found.PluginTagToContent("hparams")
    start, about = (
        plugin_data_pb2.HParamsPluginData.FromString(content[f"_hparams_/{name}"])
        for name in ("session_start_info", "experiment")
    )
    values = {k: getattr(v, v.WhichOneof("kind")) for k, v in start.session_start_info.hparams.items()}
    return values, {metric.name.tag for metric in about.experiment.metric_infos}


def encoded(size: tuple[int, int], kind: str) -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("RGB", size, colour) for colour in ("red", "blue")]
    frames[0].save(stream, kind, **({"save_all": True, "append_images": frames[1:]} if kind == "gif" else {}))
    return stream.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluation = {"every": 1, "film": True}
    return meta_train(tiny(evaluation=evaluation), tmp_path_factory.mktemp("events") / "run", quiet=True)


def test_a_picture_keeps_its_bytes_and_says_its_size(tmp_path: Path) -> None:
    logger = TensorBoard(LoggedRun(tmp_path, "id", tiny(), 0, []))
    for iteration, (name, size, kind) in enumerate((("still", (30, 20), "png"), ("moving", (12, 34), "gif"))):
        logger.log({"iteration": iteration}, {name: encoded(size, kind)})
    logger.close()
    (still,), (moving,) = (read(tmp_path).Images(name) for name in ("still", "moving"))
    assert (still.step, still.width, still.height) == (0, 30, 20)
    assert (moving.step, moving.width, moving.height) == (1, 12, 34)
    assert moving.encoded_image_string == encoded((12, 34), "gif")
    assert Image.open(io.BytesIO(moving.encoded_image_string)).n_frames == 2


def test_the_tab_of_hyper_parameters_has_every_key(run: Path) -> None:
    values, metrics = hyper_parameters(read(run))
    config = tiny(evaluation={"every": 1, "film": True}, preset="finn2017")
    tables = {key: value if isinstance(value, dict) else {"": value} for key, value in config.model_dump().items()}
    expected = {f"{key}.{name}".rstrip("."): each for key, table in tables.items() for name, each in table.items()}
    named = {name for name, value in expected.items() if value is not None and value != {}}
    assert named <= set(values)
    assert set(values) <= set(expected)
    assert (values["inner.lr"], values["evaluation.film"], values["env"]) == (0.1, True, "navigation")
    assert values["policy.hidden"] == "[8]"
    assert {"return/0", "return/1", "evaluation/0", "evaluation/2"} <= metrics
    assert not {name for name in metrics if name.startswith(("seconds/", "kl/"))}


def test_a_run_that_is_evaluated_in_training_shows_how_it_adapts(run: Path) -> None:
    found = read(run)
    assert set(found.Tags()["images"]) == {"evaluation/adaptation", "evaluation/film"}
    for name, kind in (("evaluation/adaptation", "PNG"), ("evaluation/film", "GIF")):
        shown = found.Images(name)
        assert [each.step for each in shown] == [0, 1]
        for each in shown:
            with Image.open(io.BytesIO(each.encoded_image_string)) as picture:
                assert (picture.format, *picture.size) == (kind, each.width, each.height)
                picture.load()
        assert shown[0].encoded_image_string != shown[1].encoded_image_string
    with Image.open(io.BytesIO(found.Images("evaluation/film")[0].encoded_image_string)) as film:
        assert film.n_frames == 3  # 6 moments at 20 frames a second, 10 in a gif
    assert not list(run.glob("videos*"))


def test_scalars_are_the_rows_of_the_metrics(run: Path) -> None:
    found = read(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in rows[0].keys() - {"iteration"}:
        assert [scalar.value for scalar in found.Scalars(name)] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_an_environment_without_a_picture_is_refused_before_training(tmp_path: Path) -> None:
    config = tiny(env="bandit", evaluation={"every": 1, "film": True})
    with pytest.raises(InputError, match=r"Bandit cannot draw itself: define render\(index\)"):
        meta_train(config, tmp_path / "run", quiet=True)
    assert not files(tmp_path)
    assert not list(tmp_path.iterdir())
