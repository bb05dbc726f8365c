"""CUDA recordings: a function recorded once and replayed without Python, in few launches."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import local
from typing import ClassVar

import torch

NewSegment = Callable[[], AbstractContextManager[Callable[[], None]]]
"""Makes a context in which operations are recorded instead of run, and which gives a function that runs them."""


def cuda_segments(device: torch.device) -> NewSegment:
    """Return what records segments as CUDA graphs, one after the other on one stream and in one memory pool.

    The stream is of this recording alone: a graph that is freed takes with it the cuBLAS workspaces of its stream,
    which other graphs captured there would go on to use (pytorch#193402).
    """
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    @contextmanager
    def segment() -> Iterator[Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # The outer context: a capture that fails leaves its stream the current one.
        with (
            torch.cuda.stream(torch.cuda.current_stream(device)),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            yield graph.replay

    return segment


class Recording:
    """A replayable recording of a function: segments of torch operations, and other libraries' launches between them.

    The function must do the same operations on the same memory every time: nothing in it may look at a number on the
    device, or depend on one on the host that changes. Its memory has to live as long as the recording.

    Torch and warp capture apart, each its own graphs: warp's loops end the capture that they are in and go on in
    another one, for which torch's allocator would not hold back its memory.
    """

    _here: ClassVar[local] = local()  # what is being recorded in this thread

    def __init__(self, new_segment: NewSegment, function: Callable[[], None]) -> None:
        """Record the function without running its operations."""
        self._new_segment = new_segment
        self._actions: list[Callable[[], None]] = []
        Recording._here.recording = self
        try:
            with ExitStack() as self._open:
                self._begin()
                function()
        finally:
            Recording._here.recording = None

    def _begin(self) -> None:
        self._actions.append(self._open.enter_context(self._new_segment()))

    def replay(self) -> None:
        """Run the recorded operations."""
        for action in self._actions:
            action()

    @classmethod
    def between(cls, launch: Callable[[], None]) -> None:
        """Launch what torch cannot record: now or, during a recording, at this point of every replay."""
        recording: Recording | None = getattr(cls._here, "recording", None)
        if recording is None:
            launch()
            return
        recording._open.close()
        recording._actions.append(launch)
        recording._begin()
