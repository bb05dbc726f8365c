"""A video of frames that come one after another: encoded as they come, then made a gif and a poster."""

import subprocess
from pathlib import Path
from types import TracebackType

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from PIL import Image

MAX_GIF_BYTES = 5_000_000
GIF_SIZES = ((10, 800), (10, 640), (5, 640), (5, 480), (5, 320), (2, 320), (1, 240))
"""Frames a second and most pixels across, tried in turn until the gif is small enough."""


class Video:
    """``path`` as mp4 (H.264, yuv420p, which browsers play), with a gif and the last frame as a png beside it.

    Frames have even width and height, all the same. Where it ends with an error, nothing is left.

    Args:
        path: Ends with .mp4; its folder is made.
        fps: Frames a second.
    """

    def __init__(self, path: Path, fps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._fps = path, fps
        self._last: Image.Image | None = None
        self._writer = imageio.get_writer(
            path,
            format="FFMPEG",
            mode="I",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-crf", "23", "-movflags", "+faststart"],
        )

    def add(self, frame: Image.Image) -> None:
        """Encode a frame."""
        self._writer.append_data(np.asarray(frame))
        self._last = frame

    def __enter__(self) -> "Video":
        """Ready for frames."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the mp4, and make the others of it."""
        try:
            self._writer.close()
            if error is None and self._last is not None:
                self._last.save(self.poster)
                _write_gif(self._path, self.gif, self._fps)
        except BaseException as late:
            error = late
            raise
        finally:
            if error is not None:
                for path in (self._path, self.gif, self.poster):
                    path.unlink(missing_ok=True)

    @property
    def gif(self) -> Path:
        """The gif."""
        return self._path.with_suffix(".gif")

    @property
    def poster(self) -> Path:
        """The last frame."""
        return self._path.with_suffix(".png")


def _write_gif(video: Path, gif: Path, fps: int) -> None:
    """As large a gif as stays below ``MAX_GIF_BYTES``, in real time, with one palette for all frames."""
    for rate, width in GIF_SIZES:
        frames = f"fps={min(rate, fps)},scale='min({width},iw)':-1:flags=area"
        palette = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", str(video)]
        subprocess.run([*command, "-vf", f"{frames},{palette}", str(gif)], check=True, capture_output=True)
        if gif.stat().st_size <= MAX_GIF_BYTES:
            break
