"""The server of `examples/serve.py`, in a process of its own."""

import concurrent.futures
import http.client
import json
import pathlib
import socket
import subprocess
import time

import keras
import numpy as np
import pytest
from utils import in_process, long, words_encoder

import keras_mla
from keras_mla.datasets import Table

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("pandas")

SERVE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "serve.py"
MOST_ROWS, MOST_BYTES, MOST_SECONDS = 50, 20_000, 5.0
ROWS = [
    {"title": title, "price": price, "kind": kind}
    for title, price, kind in [
        ("red shoes", 20.0, "shoes"),
        ("blue shirt", 15.0, "shirt"),
        ("red shirt", None, "shirt"),
        (None, 9.0, "shoes"),
    ]
    * 5
]


class Server:
    """A server in another process, and the answers that are right."""

    def __init__(self, folder):
        table = Table(
            {"text": "title", "facts": "price"},
            label="kind",
            kinds={"title": "text"},
        ).adapt(ROWS, verbose=0)
        facts = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
        encoders = {"text": words_encoder(table, "text"), "facts": facts}
        model = keras_mla.MLA(encoders, head=2, table=table)
        model.save(folder / "model.keras")
        self.model, self.file = model, folder / "model.keras"
        self.serve = model.serving_function()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = None

    def start(self):
        self.process = in_process(
            SERVE,
            f"--model={self.file}",
            f"--port={self.port}",
            f"--max_rows={MOST_ROWS}",
            f"--max_bytes={MOST_BYTES}",
            f"--max_seconds={MOST_SECONDS}",
            start=subprocess.Popen,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            try:
                return self.ask("GET", "/")
            except OSError:
                assert self.process.poll() is None, "The server has ended."
                time.sleep(0.1)
        raise AssertionError("The server did not start.")

    def stop(self):
        self.process.kill()
        self.process.wait()

    def ask(self, method="POST", path="/predict", body=b""):
        """Returns the status and the JSON of an answer."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, body)
            answer = line.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            line.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    keras.utils.set_random_seed(0)
    server = Server(tmp_path_factory.mktemp("serve"))
    server.description = server.start()
    yield server
    server.stop()


def numbers(rng, rows):
    return rng.normal(size=(rows, 2)).round(3).tolist()


def good(server, seed):
    """A request, and what is right."""
    rng = np.random.default_rng(seed)
    some = [ROWS[i] for i in rng.integers(0, 20, rng.integers(1, 9))]
    cells = [{k: v for k, v in row.items() if k != "kind"} for row in some]
    if seed % 2:
        return {"rows": cells}, server.serve(server.model.table.inputs(cells))
    x = {"facts": numbers(rng, 1 + seed % 7)}
    return {"inputs": x}, server.serve(x)


TOO_MANY = {"facts": [[0.0, 1.0]] * (MOST_ROWS + 1)}
BAD = [
    (b"{", 422, "not JSON"),
    (b"\xff\xfe", 422, "not JSON"),
    # Python 3.13 finds that it ends before it is too deep.
    (b"[" * 5000, 422, "re"),
    (b"[]", 422, "either 'inputs' or 'rows'"),
    (b'{"inputs": {}, "rows": []}', 422, "either 'inputs' or 'rows'"),
    (b'{"inputs": {"facts": [[NaN, 1]]}}', 422, "NaN"),
    ({"inputs": {"facts": [[1e300, 1]]}}, 422, "'facts'"),
    ({"inputs": {"facts": [[1, 2, 3]]}}, 422, "'facts'"),
    ({"inputs": {"facts": [["a", "b"]]}}, 422, "'facts'"),
    ({"inputs": {"facts": [[1, 2], [1]]}}, 422, "'facts'"),
    ({"inputs": {"fact": [[1, 2]]}}, 422, "['fact']"),
    ({"inputs": {"facts": None}}, 422, "no modality"),
    ({"inputs": {"facts": [[1, 2]], "text": [1]}}, 422, "'text'"),
    (
        {"inputs": {"facts": [[1, 2]], "presence": [[True, True]] * 2}},
        422,
        "'presence'",
    ),
    ({"rows": [{"price": "dear"}]}, 422, "dear"),
    ({"rows": [{}]}, 422, ""),
    ({"rows": ["red shoes"]}, 422, "list of objects"),
    ({"inputs": {"text": {"token_ids": [[10**6] * 8]}}}, 422, "'text'"),
    ({"inputs": {"facts": ["x" * 11_000, ""] * 2}}, 413, "bytes"),
    ({"inputs": {"facts": ["x" * 900, ""] * 9}}, 422, "texts"),
    ({"rows": []}, 422, ""),
    ({"inputs": TOO_MANY}, 413, f"{MOST_ROWS} rows"),
    ({"rows": [{"price": 1}] * (MOST_ROWS + 1)}, 413, f"{MOST_ROWS} rows"),
    (b" " * (MOST_BYTES + 1), 413, f"{MOST_BYTES} bytes"),
]


def check_good(server, seed):
    request, expected = good(server, seed)
    status, found = server.ask(body=request)
    assert status == 200, found
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
    labels = server.model.table.decode_predictions(expected["logits"])
    assert found["label"] == list(labels)


def check_bad(server, index):
    request, expected, words = BAD[index % len(BAD)]
    status, found = server.ask(body=request)
    assert status == expected, (request, found)
    assert words in found["detail"]


@pytest.mark.every_case
def test_two_hundred_requests_at_once(server):
    def ask(index):
        check = check_bad if index % 3 == 0 else check_good
        check(server, index // 3)

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(ask, range(200)))
    for index in range(len(BAD)):
        check_bad(server, index)
    check_good(server, 0)


def chunks(body, size=7):
    return [body[i : i + size] for i in range(0, len(body), size)]


def sent_in_chunks(server, body):
    """Sends a body whose length the header does not tell."""
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        line.request(
            "POST", "/predict", iter(chunks(body)), encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )  # fmt: skip
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        line.close()


def test_bodies_in_chunks_and_slow_clients(server):
    request, expected = good(server, 0)
    status, found = sent_in_chunks(server, json.dumps(request).encode())
    assert status == 200
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)
    status, found = sent_in_chunks(server, b" " * (MOST_BYTES + 100))
    assert status == 413 and "bytes" in found["detail"]
    # One client stops in the middle, another one leaves; others are served.
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as leaving:
        leaving.sendall(head + b'{"inputs"')
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(head + b'{"inputs"')
        check_good(server, 1)
        slow.settimeout(60)
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    check_good(server, 2)


def test_the_server_says_what_it_takes(server):
    status, found = server.description
    assert status == 200
    assert found["inputs"]["facts"] == {"shape": [None, 2], "dtype": "float32"}
    assert found["outputs"][:2] == ["logits", "probabilities"]
    assert found["columns"] == {"text": ["title"], "facts": ["price"]}


def test_a_server_that_was_killed_starts_again(server):
    server.stop()
    with pytest.raises(OSError):
        server.ask("GET", "/")
    server.start()
    for seed in range(4):
        check_good(server, seed)


def resident(process):
    """Returns the resident memory of a process in kB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@long()
def test_memory_does_not_grow(server):
    requests = [
        json.dumps(good(server, seed)[0]).encode() for seed in range(20)
    ]

    def ask(index):
        assert server.ask(body=requests[index % 20])[0] == 200

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(1000)))
        before = resident(server.process)
        list(pool.map(ask, range(9000)))
    assert resident(server.process) < 1.05 * before
