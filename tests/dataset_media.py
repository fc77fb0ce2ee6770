"""Writes small real WAV, JPEG and video files for the tests."""

import av
import numpy as np
import soundfile
from PIL import Image


def write_wav(path, seconds=0.5, rate=16000, frequency=440.0, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * frequency * t).astype("float32")
    wave = np.stack([wave] * channels, axis=1) if channels > 1 else wave
    soundfile.write(path, wave, rate)
    return path


def write_jpeg(path, color=(200, 30, 60), size=(48, 40)):
    """Writes a picture of one colour, except for a horizontal ramp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:] = color
    pixels[..., 2] = np.linspace(0, 255, size[0]).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


CODECS = {
    ".mp4": ("mpeg4", "aac"),
    ".flv": ("flv1", "libmp3lame"),
    ".avi": ("mpeg4", "libmp3lame"),
}


def write_video(path, frames=12, rate=4, sound=True, size=(48, 32), gop=12):
    """Writes a video whose i-th frame is grey of level 20 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video_codec, audio_codec = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        video = container.add_stream(video_codec, rate=rate)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.bit_rate = 2_000_000
        video.gop_size = gop
        audio = None
        if sound:
            audio = container.add_stream(audio_codec, rate=44100)
            audio.layout = "mono"
        for i in range(frames):
            pixels = np.full((size[1], size[0], 3), 20 * i % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            n = 44100 * frames // rate
            t = np.arange(n) / 44100
            wave = 0.5 * np.sin(2 * np.pi * 440 * t).astype("float32")
            for start in range(0, n - 1151, 1152):
                block = av.AudioFrame.from_ndarray(
                    wave[None, start : start + 1152],
                    format="fltp",
                    layout="mono",
                )
                block.sample_rate = 44100
                block.pts = start
                container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def write_frames(folder, count=3, size=(48, 40)):
    for i in range(count):
        write_jpeg(folder / f"frame_{i + 1:05d}.jpg", (60 * i, 90, 0), size)
    return folder
