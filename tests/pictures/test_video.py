"""Videos read back: frames, codec, the gif below its limit, and nothing left of one that failed."""

from contextlib import suppress
from pathlib import Path

import films
import numpy as np
import pytest
from PIL import Image

from maml_rl.pictures import video
from maml_rl.pictures.video import Video

SIZE = (64, 48)


def flat(level: int) -> Image.Image:
    return Image.new("RGB", SIZE, (level, level, level))


def noisy(count: int) -> list[Image.Image]:
    values = np.random.default_rng(0).integers(0, 255, (count, SIZE[1], SIZE[0], 3), np.uint8)
    return [Image.fromarray(value) for value in values]


def test_frames_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "film.mp4"
    with Video(path, fps=10) as made:
        for level in (0, 80, 160, 240):
            made.add(flat(level))
    assert {file.name for file in path.parent.iterdir()} == {"film.mp4", "film.gif", "film.png"}
    frames, about = films.read(path)
    assert (about["codec"], about["pix_fmt"].split("(")[0], about["fps"]) == ("h264", "yuv420p", 10)
    assert (about["size"], about["duration"]) == (SIZE, pytest.approx(0.4))
    assert frames.mean((1, 2, 3)).tolist() == pytest.approx([0, 80, 160, 240], abs=4)
    assert np.array_equal(np.asarray(Image.open(made.poster)), np.asarray(flat(240)))
    with Image.open(made.gif) as gif:
        assert (gif.size, gif.n_frames, gif.info["duration"]) == (SIZE, 4, 100)


def test_a_gif_is_made_smaller_until_it_is_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for limit in (10_000_000, 40_000):
        monkeypatch.setattr(video, "MAX_GIF_BYTES", limit)
        with Video(tmp_path / f"{limit}.mp4", fps=20) as made:
            for frame in noisy(40):
                made.add(frame)
        sizes[limit] = made.gif.stat().st_size
        with Image.open(made.gif) as gif:
            gif.seek(1)  # the first may stand a little longer
            assert gif.n_frames * gif.info["duration"] == pytest.approx(2000, abs=300)  # still in real time
    assert sizes[40_000] < 40_000 < sizes[10_000_000]


def test_nothing_is_left_of_a_video_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(ValueError), Video(tmp_path / "film.mp4", fps=10) as made:
        made.add(flat(0))
        raise ValueError
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), Video(tmp_path / "film.mp4", fps=10):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(
        video, "GIF_SIZES", ((0, 64),)
    )  # no frames a second: ffmpeg fails after mp4 and poster are there
    with pytest.raises(video.subprocess.CalledProcessError), Video(tmp_path / "film.mp4", fps=10) as made:
        made.add(flat(0))
    assert not list(tmp_path.iterdir())
