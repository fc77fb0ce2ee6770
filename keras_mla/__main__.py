"""The command `keras-mla`: `compare` methods, or `predict` with a model."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        from keras_mla.comparison import command
    except ImportError as error:
        print(
            f"keras-mla needs the package {error.name}: "
            'pip install "keras-mla[compare]"',
            file=sys.stderr,
        )
        return 1
    return command.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
