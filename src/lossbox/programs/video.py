"""Videos for ``lossbox predict``, by PyAV: frame by frame in, and out again with boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
"""Endings of files that are videos."""


def is_video(path: Path) -> bool:
    """Whether a file is a video, by the end of its name."""
    return path.suffix.lower() in VIDEOS


def read_frames(path: Path) -> Iterator[tuple[int, float, Tensor]]:
    """The frames of a video: number from 0, time in seconds, and pixels (3, h, w), uint8, RGB, as they are stored: not rotated.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: it cannot be decoded, or has no frame.
    """
    import torch

    number = -1
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            time = number / frame_rate_of(stream) if frame.time is None else frame.time
            yield number, float(time), torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    if number < 0:
        raise ValueError(f"IMAGES: {path} is not a video that can be decoded: it has no frame")


def look_at(path: Path) -> tuple[int, tuple[int, int], Fraction]:
    """The number of frames of a video, their (height, width), and how many a second has, without decoding them.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: it is no video.
    """
    with _opened(path) as (container, stream):
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        return frames, (stream.height, stream.width), frame_rate_of(stream)


def frame_rate_of(stream: Any) -> Fraction:
    """Frames per second of a stream, 25 where it does not say."""
    return Fraction(stream.average_rate or 25)


@contextmanager
def video_writer(path: Path, rate: Fraction) -> Iterator[Callable[[Image], None]]:
    """Writes the images that the function it gives is called with to an MP4 file; an odd width or height gets one black pixel more."""
    av = _av()
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        started = False

        def add(image: Image) -> None:
            nonlocal started
            if not started:
                stream.width, stream.height = image.width + image.width % 2, image.height + image.height % 2
                started = True
            container.mux(stream.encode(av.VideoFrame.from_image(image.crop((0, 0, stream.width, stream.height)))))

        yield add
        if started:
            container.mux(stream.encode())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"IMAGES: {path} is not a video that can be decoded: it has no video stream")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise ValueError(f"IMAGES: {path} is not a video that can be decoded: {error}") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install 'lossbox[video]'") from error
    return av
