"""Serve a model over HTTP: arrays or raw rows in, probabilities out.

Without `--model` it trains a small model on handwritten digits first:

    pip install -e ".[examples,torch]"
    KERAS_BACKEND=torch python examples/serve.py --port=8000

    curl localhost:8000                     # what the model takes and returns
    curl localhost:8000/predict -d '{"inputs": {"profile": [[...16 numbers]]}}'

`POST /predict` takes a JSON object with either `inputs`, a dict from modality
to nested lists, in which modalities may be missing and `presence` may say which
rows lack them; or, if the model has a table, `rows`, a list of the table's rows
without labels. It returns a list for each output of `model.serving_function()`,
and `label`, if the table knows the names of the classes.

A request that is not as it should be is answered with status 422, one of too
many bytes or rows with 413, one that does not arrive in time with 408, and all
say why. Requests are computed by several
threads, on every backend.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import asyncio
import json

import keras
import numpy as np
import uvicorn
from absl import app, flags
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

import keras_mla

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Path of a .keras file.")
flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.")
flags.DEFINE_integer("port", 8000, "Port to listen at.")
flags.DEFINE_integer("max_bytes", 4 << 20, "Bytes of a request.")
flags.DEFINE_integer("max_rows", 1024, "Rows of a request.")
flags.DEFINE_float("max_seconds", 30.0, "Time in which a request must arrive.")


def make_app(model, max_bytes, max_rows, max_seconds=30.0):
    """Returns the server of a model.

    Args:
        model: A built model of the library.
        max_bytes: int. Largest number of bytes of a request.
        max_rows: int. Largest number of rows of a request.
        max_seconds: float. Time in which a request's body must arrive.
    """
    serve = model.serving_function()
    server = FastAPI(title=type(model).__name__)

    @server.get("/")
    async def describe():
        return {
            "inputs": serve.inputs,
            "outputs": list(serve.outputs),
            "columns": columns_of(model.table),
        }

    @server.post("/predict")
    async def predict(request: Request):
        # Other requests are read meanwhile; threads compute.
        try:
            async with asyncio.timeout(max_seconds):
                body = await read(request, max_bytes)
        except TimeoutError:
            told = f"The body did not arrive within {max_seconds:g} seconds."
            raise HTTPException(408, told) from None
        return await run_in_threadpool(answer, body)

    def answer(body):
        try:
            x = inputs_of(parsed(body), serve, model.table, max_rows)
            found = computed(serve, x)
            values = {name: array.tolist() for name, array in found.items()}
            if model.table is not None and model.table.label is not None:
                labels = model.table.decode_predictions(found["logits"])
                values["label"] = plain(labels)
            # FastAPI would look at each number.
            text = json.dumps(values, allow_nan=False)
            return Response(text, media_type="application/json")
        except (ValueError, TypeError, RecursionError) as error:
            raise HTTPException(422, str(error)) from error

    return server


def computed(serve, x):
    """Returns the prediction for checked inputs that an encoder may refuse."""
    try:
        return serve(x)
    except ValueError:
        raise
    except Exception as error:  # A token that is none, too short a sound.
        raise ValueError(
            f"The model cannot take this input: {type(error).__name__}"
        ) from error


def plain(value):
    """Returns labels as JSON has them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


async def read(request, max_bytes):
    """Returns the body of a request, unless it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"At most {max_bytes} bytes are taken.")
    return bytes(body)


def parsed(body):
    """Returns the JSON object of a request."""

    def refuse(name):
        raise ValueError(f"The request holds {name}, which is no number.")

    try:
        found = json.loads(body, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The request is not JSON: {error}") from error
    if not isinstance(found, dict) or len({"inputs", "rows"} & set(found)) != 1:
        raise ValueError(
            "The request must be a JSON object with either 'inputs' or 'rows'."
        )
    return found


def inputs_of(request, serve, table, max_rows):
    """Returns a request's inputs as the model takes them."""
    if "inputs" in request:
        x = request["inputs"]
        if isinstance(x, dict):
            for name, signature in serve.inputs.items():
                check_rows(rows_of(x.get(name), signature), max_rows)
        return x
    rows = request["rows"]
    if table is None:
        raise ValueError("The model has no table: send 'inputs'.")
    if any(not field.in_memory for field in table.fields.values()):
        # The paths would be those of this machine.
        raise ValueError("The table names files: send 'inputs'.")
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError("'rows' must be a list of objects.")
    check_rows(len(rows), max_rows)
    columns = [c for f in table.fields.values() for c in f.columns]
    return table.inputs([{c: r[c] for c in columns if c in r} for r in rows])


def rows_of(value, signature):
    """Returns the largest number of rows of a modality's arrays."""
    if isinstance(signature, list) and isinstance(value, list):
        pairs = list(zip(value, signature, strict=False))
    elif set(signature) == {"shape", "dtype"}:
        return len(value) if isinstance(value, list) else 0
    elif isinstance(value, dict):
        pairs = [(value.get(key), part) for key, part in signature.items()]
    else:
        return len(value) if isinstance(value, list) else 0
    return max((rows_of(*pair) for pair in pairs), default=0)


def check_rows(rows, max_rows):
    """Raises if there are too many rows."""
    if rows > max_rows:
        raise HTTPException(413, f"At most {max_rows} rows are taken.")


def columns_of(table):
    """Returns the names of the columns that `rows` may have."""
    if table is None:
        return None
    return {name: list(field.columns) for name, field in table.fields.items()}


def digits_model():
    """Returns a model of handwritten digits: pictures, and sums of pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype("float32") / 16
    profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
    x = {"image": pixels.reshape(-1, 64), "profile": profile}

    def encoder(width):
        return keras.Sequential(
            [keras.Input((width,)), keras.layers.Dense(64, activation="relu")]
        )

    encoders = {name: encoder(v.shape[1]) for name, v in x.items()}
    model = keras_mla.MLA(encoders, head=10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(x, digits.target, epochs=5, verbose=2)
    return model


def main(_):
    """Loads or trains a model, and serves it until it is interrupted."""
    if FLAGS.model:
        model = keras.saving.load_model(FLAGS.model)
    else:
        model = digits_model()
    server = make_app(model, FLAGS.max_bytes, FLAGS.max_rows, FLAGS.max_seconds)
    uvicorn.run(server, host=FLAGS.host, port=FLAGS.port, log_level="warning")


if __name__ == "__main__":
    app.run(main)
