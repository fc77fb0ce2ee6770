"""Makes sound files byte by byte, beside the samples they hold."""

import struct

import numpy as np

PCM, FLOAT, A_LAW, MU_LAW = 1, 3, 6, 7
_GUID = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"


def integers(samples, bits):
    """Returns the bytes of little-endian integers, and their true values."""
    if bits == 8:  # The only unsigned ones.
        numbers = np.round(samples * 127) + 128
        return numbers.astype("u1").tobytes(), (numbers - 128) / 128
    numbers = np.round(samples * (2.0 ** (bits - 1) - 1)).astype("<i8")
    data = numbers[..., None].view("u1")[..., : bits // 8].tobytes()
    return data, numbers / 2.0 ** (bits - 1)


def mu_law(codes):
    """Returns the samples of mu-law codes, as G.711 defines them."""
    codes = ~codes.astype(np.uint8)
    steps = ((codes & 15).astype(int) << 3) + 132
    sizes = (steps << ((codes >> 4) & 7)) - 132
    return np.where(codes & 128, -sizes, sizes) / 2**15


def a_law(codes):
    """Returns the samples of A-law codes, as G.711 defines them."""
    codes = codes.astype(np.uint8) ^ 0x55
    segments = ((codes >> 4) & 7).astype(int)
    steps = ((codes & 15).astype(int) << 4) + 8
    sizes = np.where(
        segments > 0, (steps + 256) << np.maximum(segments - 1, 0), steps
    )
    return np.where(codes & 128, sizes, -sizes) / 2**15


def wav(data, code, bits, channels=1, extensible=False, rate=16000):
    """Returns a WAV file around the bytes of its samples."""
    block = channels * bits // 8
    fields = (0xFFFE if extensible else code, channels, rate, rate * block)
    head = struct.pack("<HHIIHH", *fields, block, bits)
    if extensible:
        head += struct.pack("<HHIH", 22, bits, 0, code) + _GUID
    body = (
        _chunk(b"fmt ", head) + _chunk(b"LIST", b"odd") + _chunk(b"data", data)
    )
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WAVE") + body


def rf64(data, bits, channels=1, rate=16000):
    """Returns a WAV file whose lengths have 64 bits."""
    block = channels * bits // 8
    head = struct.pack(
        "<HHIIHH", PCM, channels, rate, rate * block, block, bits
    )
    count = len(data) // block
    sizes = struct.pack("<QQQI", 72 + len(data), len(data), count, 0)
    body = _chunk(b"ds64", sizes) + _chunk(b"fmt ", head)
    body += struct.pack("<4sI", b"data", 0xFFFFFFFF) + data
    return struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + body


def aiff(data, bits, channels=1):
    """Returns an AIFF file, 16,000 samples per second, big-endian."""
    frames = len(data) // (channels * bits // 8)
    rate = struct.pack(">HQ", 16383 + 13, 16000 << 50)
    head = struct.pack(">HIH", channels, frames, bits) + rate
    body = _chunk(b"COMM", head, ">")
    body += _chunk(b"SSND", bytes(8) + data, ">")
    return struct.pack(">4sI4s", b"FORM", len(body) + 4, b"AIFF") + body


def _chunk(name, data, order="<"):
    size = struct.pack(f"{order}4sI", name, len(data))
    return size + data + b"\0" * (len(data) % 2)
