"""Turns audio-video files into wav files and folders of frames.

```shell
python -m keras_mla.datasets.prepare --dataset=crema_d \
    --data_dir=CREMA-D --output_dir=CREMA-D --jobs=8
```

Files of a finished clip are left alone, so a killed run continues at its next
call. A file appears under its name only when it is whole. Files that cannot be
decoded are named at the end, and the exit status is then 1.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets import extras, listing
from keras_mla.datasets.readers import audio, video
from keras_mla.datasets.sets import iemocap as release
from keras_mla.datasets.sets.audio_video import FRAMES

_VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".flv", ".mov")


@dataclasses.dataclass(frozen=True)
class Clip:
    """What to make out of one video, or out of one part of it.

    Attributes:
        source: str. The video file.
        wav: str. The file to write the sound to, or `None` to write none.
        frames: str. The folder to write the frames to.
        span: pair of floats. Start and end in seconds, or `None` for the
            whole.
    """

    source: str
    wav: str | None
    frames: str
    span: tuple[float, float] | None = None


def _folder(data_dir: str, output_dir: str, inside: str, wav: str) -> list:
    root = os.path.join(data_dir, inside)
    if not os.path.isdir(root):
        raise ValueError(f"There is no folder {inside!r} in {data_dir!r}.")
    clips = []
    for name in sorted(os.listdir(root)):
        key, extension = os.path.splitext(name)
        if extension.lower() in _VIDEOS and not name.startswith("."):
            clips.append(
                Clip(
                    listing.safe_path(data_dir, f"{inside}/{name}"),
                    os.path.join(output_dir, wav, key + ".wav"),
                    os.path.join(output_dir, FRAMES, key),
                )
            )
    return clips


def crema_d(data_dir: str, output_dir: str) -> list[Clip]:
    """Lists the videos of `VideoFlash`, such as `<clip>.flv`.

    Args:
        data_dir: str. The folder that holds `VideoFlash`.
        output_dir: str. The folder to write to: sounds to `AudioWAV`, frames
            to `Image-01-FPS`.

    Returns:
        list of `Clip`, one for each video, sorted by name.
    """
    return _folder(data_dir, output_dir, "VideoFlash", "AudioWAV")


def kinetics_sounds(data_dir: str, output_dir: str) -> list[Clip]:
    """Lists `videos/<clip>.mp4` and other containers.

    Args:
        data_dir: str. The folder that holds `videos`.
        output_dir: str. The folder to write to: sounds to `audio`, frames to
            `Image-01-FPS`.

    Returns:
        list of `Clip`, one for each video, sorted by name.
    """
    return _folder(data_dir, output_dir, "videos", "audio")


def iemocap(data_dir: str, output_dir: str) -> list[Clip]:
    """Lists the utterances of six classes; their sound needs no cutting.

    Args:
        data_dir: str. The folder that holds the sessions.
        output_dir: str. The folder to write to: frames to `Image-01-FPS`.

    Returns:
        list of `Clip`, one for each utterance, sorted by name.
    """
    clips = []
    for split in ("train", "validation", "test"):
        for sample in release.files(
            data_dir, split, classes=6, on_error="skip"
        ):
            number = int(sample.id[4])
            dialog = sample.id.rsplit("_", 1)[0]
            source = f"Session{number}/dialog/avi/DivX/{dialog}.avi"
            clips.append(
                Clip(
                    listing.safe_path(data_dir, source),
                    None,
                    os.path.join(output_dir, FRAMES, sample.id),
                    sample.span,
                )
            )
    return sorted(clips, key=lambda clip: clip.frames)


DATASETS: dict[str, Callable[[str, str], list[Clip]]] = {
    "crema_d": crema_d,
    "kinetics_sounds": kinetics_sounds,
    "iemocap": iemocap,
}


def _partial(final: str) -> str:
    """Makes a temporary folder beside a file or folder that is to be made."""
    parent, name = os.path.split(final)
    os.makedirs(parent, exist_ok=True)
    return tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=parent)


def prepare_clip(clip: Clip, rate: int = 16000) -> bool:
    """Writes the sound (16 bit mono) and one frame per second of a clip.

    Args:
        clip: `Clip`.
        rate: int. Samples per second of the sound. Defaults to `16000`.

    Returns:
        bool. Whether anything was left to do.

    Raises:
        ValueError: If the video cannot be decoded. No half-written file is
            left.
    """
    soundfile = extras.need("soundfile", "write sounds")
    Image = extras.need("PIL.Image", "write pictures")
    needs_wav = clip.wav is not None and not os.path.exists(clip.wav)
    if not needs_wav and os.path.isdir(clip.frames):
        return False
    if needs_wav:
        assert clip.wav is not None
        folder = _partial(clip.wav)
        try:
            part = os.path.join(folder, "sound.wav")
            wave = np.clip(audio.decode(clip.source, rate), -1, 1)
            soundfile.write(part, wave, rate, subtype="PCM_16")
            os.replace(part, clip.wav)
        finally:
            shutil.rmtree(folder)
    if not os.path.isdir(clip.frames):
        folder = _partial(clip.frames)
        try:
            pictures = video.frames_per_second(clip.source, 1.0, clip.span)
            for i, pixels in enumerate(pictures):
                name = os.path.join(folder, f"frame_{i + 1:05d}.jpg")
                Image.fromarray(pixels).save(name, quality=95)
            os.chmod(folder, 0o755)
            os.rename(folder, clip.frames)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return True


def _clean(output_dir: str) -> None:
    """Removes what a killed run left unfinished."""
    for inside in ("AudioWAV", "audio", FRAMES):
        path = os.path.join(output_dir, inside)
        for name in os.listdir(path) if os.path.isdir(path) else ():
            if re.fullmatch(r"\..*\.partial", name):
                shutil.rmtree(os.path.join(path, name))


def run(
    clips: Sequence[Clip], jobs: int, bar: Callable[[int], Any]
) -> list[str]:
    """Prepares clips in threads, because decoding releases Python's lock.

    Args:
        clips: list of `Clip`.
        jobs: int. Number of clips at a time.
        bar: callable. Gets the number of clips done so far.

    Returns:
        A message for each clip that failed, in the order of the clips.
    """
    failed: dict[int, str] = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(prepare_clip, clip): i for i, clip in enumerate(clips)
        }
        try:
            finished = concurrent.futures.as_completed(futures)
            for done, future in enumerate(finished, 1):
                error = future.exception()
                if isinstance(error, ValueError | OSError | MemoryError):
                    failed[futures[future]] = str(error)
                elif error is not None:
                    raise error
                bar(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [failed[i] for i in sorted(failed)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: list of str. Arguments of the command line. Defaults to
            the arguments of the process.

    Returns:
        The exit status: 0 if all clips are ready, 1 if files failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_mla.datasets.prepare",
        description="Turns audio-video files into wav files and frames.",
    )
    parser.add_argument("--dataset", required=True, choices=sorted(DATASETS))
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    if given.jobs < 1:
        parser.error(f"--jobs must be positive. Received: {given.jobs}")
    try:
        root = listing.data_folder(given.data_dir)
        output = os.path.abspath(os.path.expanduser(given.output_dir))
        clips = DATASETS[given.dataset](root, output)
    except ValueError as error:
        parser.error(str(error))
    if not clips:
        parser.error(f"Found no videos in {root!r}.")
    _clean(output)

    import keras

    bar = keras.utils.Progbar(len(clips), unit_name="clip")
    failed = run(clips, given.jobs, bar.update)
    print(f"{len(clips) - len(failed)} of {len(clips)} clips are ready.")
    for message in failed:
        print(f"Failed: {message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

__all__ = [
    "Clip",
    "crema_d",
    "iemocap",
    "kinetics_sounds",
    "main",
    "prepare_clip",
    "run",
]
