"""Runs the tests on every backend: `python tests/run.py [pytest arguments]`.

A backend that is not installed fails the run. `--backends=jax,torch` chooses.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import time

BACKENDS = ("tensorflow", "jax", "torch")
OPTIONS = ("-q", "-n", "2", "--dist=worksteal", "--durations=15")


def main(arguments):
    """Returns the exit status: 0 if all tests pass on all backends."""
    backends = BACKENDS
    if arguments and arguments[0].startswith("--backends="):
        backends = arguments.pop(0).partition("=")[2].split(",")
    root = pathlib.Path(__file__).resolve().parents[1]
    failed = []
    for backend in backends:
        print(f"=== {backend} ===", flush=True)
        start = time.monotonic()
        if importlib.util.find_spec(backend) is None:
            print(f"{backend} is not installed.")
            failed.append(backend)
            continue
        with tempfile.TemporaryDirectory() as cache:
            status = subprocess.call(
                [sys.executable, "-m", "pytest", *OPTIONS, *arguments],
                cwd=root,
                env={
                    **os.environ,
                    "KERAS_BACKEND": backend,
                    # Tests compile the same small functions over and over.
                    "JAX_COMPILATION_CACHE_DIR": cache,
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                },
            )
        print(f"{backend}: {time.monotonic() - start:.0f} s", flush=True)
        if status:
            failed.append(backend)
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
