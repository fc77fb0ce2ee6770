"""The command `keras-mla`: `compare` methods, or `predict` with a model."""

import sys

from keras_mla.comparison import command


def main() -> int:
    """Runs a command; returns the exit status."""
    return command.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
