"""Estimators for scikit-learn, after `keras.wrappers`."""

from typing import Any

from keras_mla.datasets.extras import need

__all__ = ["SKLearnMultimodalClassifier", "SKLearnMultimodalRegressor"]


def __getattr__(name: str) -> Any:
    # scikit-learn is imported by those who use it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    need("sklearn.model_selection", f"use `{name}`")
    from keras_mla.wrappers import sklearn_wrapper

    return getattr(sklearn_wrapper, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
