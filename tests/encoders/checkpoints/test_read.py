import os
import pickle
import struct
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
from utils import mainly_on

from keras_mla import encoders

ARRAYS = {
    "a/b": np.arange(6, dtype="float32").reshape(2, 3),
    "c": np.float32([1.5]),
}
NESTED = {"a": {"b": ARRAYS["a/b"]}, "c": ARRAYS["c"]}


def check(path, expected=None):
    read = encoders.read_checkpoint(path)
    expected = expected or ARRAYS
    assert set(read) == set(expected)
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker, function=os.system):
        self.marker = marker
        self.function = function

    def __reduce__(self):
        return self.function, (f"touch {self.marker}",)


def test_npz_and_safetensors(tmp_path):
    np.savez(tmp_path / "x.npz", **ARRAYS)
    check(tmp_path / "x.npz")
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(ARRAYS, tmp_path / "x.safetensors")
    check(tmp_path / "x.safetensors")


@mainly_on("torch")
@pytest.mark.parametrize("wrap", ["plain", "model", "state_dict"])
def test_torch_files(tmp_path, wrap):
    torch = pytest.importorskip("torch")
    state = OrderedDict(
        (f"module.{k}", torch.from_numpy(v)) for k, v in ARRAYS.items()
    )
    content = state if wrap == "plain" else {wrap: state, "epoch": 3}
    torch.save(content, tmp_path / "x.pth")
    check(tmp_path / "x.pth")
    half = {"a": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(half, tmp_path / "half.pt")
    check(tmp_path / "half.pt", {"a": np.ones(2, "float32")})


def test_msgpack(tmp_path):
    msgpack = pytest.importorskip("msgpack")

    def extend(array):
        content = (array.shape, array.dtype.name, array.tobytes())
        return msgpack.ExtType(1, msgpack.packb(content))

    path = tmp_path / "x.msgpack"
    content = {"params": {"a": {"b": extend(NESTED["a"]["b"])}}}
    content["params"]["c"] = extend(NESTED["c"])
    path.write_bytes(msgpack.packb(content))
    check(path)


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays(tmp_path, protocol):
    path = tmp_path / "x.pkl"
    content = {"params": OrderedDict(NESTED), "step": np.int64(3)}
    path.write_bytes(pickle.dumps(content, protocol))
    check(path)


class TrainState:
    """Stands for a class of the program that wrote a checkpoint."""

    def __init__(self):
        self.step = 3
        self.params = {"params": NESTED}
        self.method = Program().run


class Program:
    def run(self):
        raise AssertionError("an inert record was called")


def test_a_whole_training_state_is_read_without_its_program(
    tmp_path, monkeypatch
):
    module = types.ModuleType("m3ae")
    for cls in (TrainState, Program):
        monkeypatch.setattr(cls, "__module__", "m3ae")
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "m3ae", module)
    content = pickle.dumps({"state": TrainState(), "epoch": 1})
    monkeypatch.delitem(sys.modules, "m3ae")
    (tmp_path / "x.pkl").write_bytes(content)
    check(tmp_path / "x.pkl")


@pytest.mark.parametrize("function", [os.system, eval, exec])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, function):
    marker = tmp_path / "marker"
    for protocol in (0, 2, 4):
        path = tmp_path / "x.pkl"
        content = {"params": NESTED, "x": Malicious(marker, function)}
        path.write_bytes(pickle.dumps(content, protocol))
        name = rf"{function.__module__}\.{function.__name__}"
        with pytest.raises(ValueError, match=f"x.pkl asks to run `{name}`"):
            encoders.read_checkpoint(path)
    assert not marker.exists()


def test_inert_records_cannot_be_made_to_act(tmp_path):
    # getattr(jax.x, "y")(...) by hand: every name is read, none is called.
    content = (
        b"\x80\x04cbuiltins\ngetattr\ncjax._src\nArray\nX\x06\x00\x00\x00system"
        b"\x86RX\x04\x00\x00\x00true\x85R."
    )
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="holds no arrays"):
        encoders.read_checkpoint(tmp_path / "x.pkl")


@mainly_on("torch")
def test_malicious_torch_and_npz_files_are_refused(tmp_path):
    marker = tmp_path / "marker"
    evil = np.array([Malicious(marker)], dtype=object)
    np.savez(tmp_path / "x.npz", a=evil)
    with pytest.raises(ValueError, match="x.npz asks to run"):
        encoders.read_checkpoint(tmp_path / "x.npz")
    torch = pytest.importorskip("torch")
    torch.save({"a": Malicious(marker)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"asks to run `\w+\.system`"):
        encoders.read_checkpoint(tmp_path / "x.pth")
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth", "pkl"])
def test_truncated_and_foreign_files(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, **ARRAYS)
    elif suffix == "pkl":
        path.write_bytes(pickle.dumps(ARRAYS))
    elif suffix == "pth":
        torch = pytest.importorskip("torch")
        torch.save({"a": torch.zeros(100)}, path)
    else:
        pytest.importorskip("safetensors.numpy").save_file(ARRAYS, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"no .{suffix} file"):
            encoders.read_checkpoint(path)


def test_other_errors(tmp_path):
    with pytest.raises(ValueError, match=r"Received: x\.h5"):
        encoders.read_checkpoint("x.h5")
    with pytest.raises(ValueError, match="no such file"):
        encoders.read_checkpoint(tmp_path / "x.npz")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="holds no arrays"):
        encoders.read_checkpoint(tmp_path / "x.pkl")
    twice = {"a": np.zeros(1), "module.a": np.ones(1), "module.b": np.ones(1)}
    np.savez(tmp_path / "x.npz", **twice)
    with pytest.raises(ValueError, match=r"`module.`, such as \['a'\]"):
        encoders.read_checkpoint(tmp_path / "x.npz")
    # A header that promises more than a file can hold.
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match="damaged"):
        encoders.read_checkpoint(tmp_path / "x.safetensors")
