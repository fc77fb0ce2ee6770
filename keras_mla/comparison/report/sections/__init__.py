"""The sections that every report has, in their order."""

import importlib

for _name in (
    "answer",
    "methods",
    "differences",
    "alone",
    "curves",
    "errors",
    "reliability",
    "missing",
    "worth",
    "hardest",
    "weights",
    "fusion",
    "circumstances",
):
    importlib.import_module(f"{__name__}.{_name}")
