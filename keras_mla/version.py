"""The version of the library, which `.keras` files record."""

__version__ = "0.2.0.dev0"
