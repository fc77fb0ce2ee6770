"""Times a served model against a plain Keras model behind the same server.

The server is that of `examples/serve.py`. Both models have the same encoders;
the plain one joins their features, knows no presence, checks nothing, and
answers by `predict_on_batch`, which threads call one after the other (Keras on
JAX needs that). Clients, in a process of their own, ask for one row at a time.
In one run, the two servers take turns at each number of clients:

    KERAS_BACKEND=torch python benchmarks/serve.py --clients=1,8,64 --repeats=7

Prints requests a second, and the ratio of the two: the median over turns.
"""

# ruff: noqa: E402
import importlib.util
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "torch")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import keras
import numpy as np
from absl import app, flags

import keras_mla

FLAGS = flags.FLAGS
flags.DEFINE_list("clients", ["1", "8", "64"], "Numbers of clients.")
flags.DEFINE_integer("requests", 400, "Requests of a turn.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Turns of each server.", lower_bound=1)
flags.DEFINE_integer("width", 128, "Features of a modality.", lower_bound=1)
flags.DEFINE_integer("units", 256, "Units of an encoder.", lower_bound=1)
flags.DEFINE_string("serve", "", "For the benchmark itself: whom to serve.")
flags.DEFINE_integer("port", 0, "For the benchmark itself.")
MODALITIES = ("video", "audio")

# The clients: threads of a process that imports no framework.
CLIENTS = """
import http.client, sys, threading, time
port, clients, requests = map(int, sys.argv[1:4])
body = sys.stdin.buffer.read()
def ask(count):
    line = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        line.request("POST", "/predict", body)
        answer = line.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
threads = [
    threading.Thread(target=ask, args=(requests // clients,))
    for _ in range(clients)
]
start = time.perf_counter()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(requests // clients * clients / (time.perf_counter() - start))
"""


def encoder():
    """Returns the encoder of a modality."""
    return keras.Sequential(
        [
            keras.Input((FLAGS.width,)),
            keras.layers.Dense(FLAGS.units, activation="relu"),
            keras.layers.Dense(FLAGS.units, activation="relu"),
        ]
    )


class Plain:
    """A plain Keras model, as `make_app` takes it."""

    table = None

    def __init__(self):
        inputs = {n: keras.Input((FLAGS.width,), name=n) for n in MODALITIES}
        features = [encoder()(inputs[name]) for name in MODALITIES]
        joined = keras.layers.Concatenate()(features)
        self.model = keras.Model(inputs, keras.layers.Dense(10)(joined))
        self.turn = threading.Lock()
        self.inputs, self.outputs = {}, ("logits",)

    def serving_function(self):
        """Returns the model, which is its own function."""
        return self

    def __call__(self, x):
        """Returns logits."""
        x = {name: np.asarray(v, "float32") for name, v in x.items()}
        with self.turn:
            logits = self.model.predict_on_batch(x)
        return {"logits": np.asarray(logits)}


def start(which):
    """Starts a server, and returns its process and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = (f"--width={FLAGS.width}", f"--units={FLAGS.units}")
    process = subprocess.Popen(
        [sys.executable, __file__, f"--serve={which}", f"--port={port}", *sizes]
    )
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            if process.poll() is not None:
                sys.exit(f"The server of {which} has ended.")
            time.sleep(0.1)
    sys.exit(f"The server of {which} did not start.")


def serve():
    """Serves one of the two models."""
    import uvicorn

    spec = importlib.util.spec_from_file_location(
        "serve_example", ROOT / "examples" / "serve.py"
    )
    example = importlib.util.module_from_spec(spec)
    # It defines flags of its own, `port` among them.
    flags.FLAGS.__delattr__("port")
    port = next(int(a[7:]) for a in sys.argv if a.startswith("--port="))
    spec.loader.exec_module(example)
    if FLAGS.serve == "plain":
        model = Plain()
    else:
        model = keras_mla.MLA({n: encoder() for n in MODALITIES}, head=10)
    server = example.make_app(model, 1 << 20, 100)
    uvicorn.run(server, host="127.0.0.1", port=port, log_level="warning")


def rate(port, clients, requests):
    """Returns requests a second."""
    row = [[0.5] * FLAGS.width]
    body = json.dumps({"inputs": dict.fromkeys(MODALITIES, row)}).encode()
    command = [sys.executable, "-c", CLIENTS, port, clients, requests]
    done = subprocess.run(
        list(map(str, command)), input=body, capture_output=True, check=True
    )
    return float(done.stdout)


def main(_):
    """Runs the benchmark, or a server of it."""
    if FLAGS.serve:
        serve()
        return
    servers = {which: start(which) for which in ("plain", "served")}
    try:
        for _, port in servers.values():
            rate(port, 8, 64)
        print("| clients | plain Keras (1/s) | served (1/s) | ratio |")
        print("| --: | --: | --: | --: |")
        for clients in map(int, FLAGS.clients):
            found = {which: [] for which in servers}
            for _ in range(FLAGS.repeats):
                for which, (_, port) in servers.items():
                    found[which].append(rate(port, clients, FLAGS.requests))
            plain, ours = found["plain"], found["served"]
            ratios = [b / a for a, b in zip(plain, ours, strict=True)]
            print(
                f"| {clients} | {statistics.median(plain):.0f} "
                f"| {statistics.median(ours):.0f} "
                f"| {statistics.median(ratios):.2f} |"
            )
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()


if __name__ == "__main__":
    app.run(main)
