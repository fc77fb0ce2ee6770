"""A model card: what a trained model is, in Markdown, as the model says it."""

import inspect
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mla.core import MultimodalModel
from keras_mla.core.heads import number_of_units
from keras_mla.layers import Fusion
from keras_mla.models import registry
from keras_mla.version import __version__

_HUB = "hf://"
_TASKS = {
    "single_label": "one class of several",
    "multi_label": "any number of labels",
    "regression": "numbers",
}
# More class names than these are counted only.
_LISTED = 50


def model_card(
    model: MultimodalModel,
    scores: Mapping[str, float] | None = None,
    title: str | None = None,
    about: str = "",
    license: str | None = None,
    classes: Sequence[Any] | None = None,
) -> str:
    """Returns a model card, in Markdown with a header in YAML.

    It says what the model can say of itself: its method, modalities, shapes
    and dtypes of inputs, classes, fusion and calibration, and versions. Data,
    use and limits are yours to describe in `about`. The header is that of the
    Hugging Face Hub.

    Args:
        model: A built model of `keras_mla`.
        scores: dict of metric to value on test data, as
            `model.evaluate(..., return_dict=True)` returns it. Defaults to
            `None`: the card has no scores.
        title: str. Defaults to the model's name.
        about: str. Markdown: what the model is for, on which data it was
            trained and tested, and where it fails. Defaults to `""`.
        license: str. An identifier of the Hub, such as `"apache-2.0"`.
            Defaults to `None`.
        classes: Sequence of the names of classes, labels or targets, in the
            model's order. Defaults to those of the model's table, if it has
            one.

    Returns:
        str.

    Raises:
        TypeError: If `model` is no model of `keras_mla`.
        ValueError: If the model is not built, a score is no number, or there
            are more or fewer names than the model has outputs.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.MLA(encoders, 2)
    >>> card = keras_mla.saving.model_card(
    ...     model, {"accuracy": 0.93, "text_accuracy": 0.81}, title="Dishes"
    ... )
    >>> print(card.partition("## Scores")[2].partition("##")[0].strip())
    | | accuracy |
    |---|---|
    | all modalities | 0.9300 |
    | text | 0.8100 |
    """
    if not isinstance(model, MultimodalModel):
        raise TypeError(
            "`model` must be a model of `keras_mla`. "
            f"Received: {type(model).__name__}"
        )
    config = model.get_build_config()
    if config is None:
        raise ValueError(
            "The model is not built, so that it does not know its inputs. Call "
            "it on a batch first."
        )
    outputs = number_of_units(model.head)
    names = _names(model, classes, outputs)
    parts = [
        _header(model, license),
        f"# {_line(title or model.name)}",
        about.strip(),
        _method(model),
        _modalities(model, config["signature"]),
        _prediction(model, names, outputs),
        _scores(model, scores or {}),
        _use(model),
        _versions(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def save_card(
    model: MultimodalModel, path: str | os.PathLike, **kwargs: Any
) -> str:
    """Writes a model card beside a saved model.

    Args:
        model: A built model of `keras_mla`.
        path: str or path: where the model was saved. Beside `name.keras` the
            card is `name.md`, in a folder `README.md`. `"hf://user/name"`
            uploads it to the Hugging Face Hub, in the place of Keras's card,
            which `model.save("hf://user/name")` has uploaded before.
        **kwargs: Arguments of `model_card`.

    Returns:
        str. Where the card is.

    Raises:
        ImportError: If `path` is on the Hub and `huggingface_hub` is not
            installed (the extra `hub` brings it).
        TypeError: As `model_card` does.
        ValueError: As `model_card` does; or if `path` is neither a `.keras`
            file nor a folder.

    Example:
    >>> text = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model = keras_mla.MLA({"text": text}, 2)
    >>> model.save("dishes.keras")
    >>> keras_mla.saving.save_card(model, "dishes.keras", title="Dishes")
    'dishes.md'
    """
    text = model_card(model, **kwargs)
    if str(path).startswith(_HUB):
        return _upload(text, str(path))
    found = Path(path)
    if found.suffix == ".keras":
        found = found.with_suffix(".md")
    elif found.is_dir():
        found = found / "README.md"
    else:
        raise ValueError(
            "`path` must be a `.keras` file, a folder, or 'hf://user/name'. "
            f"Received: path={str(path)!r}"
        )
    found.write_text(text, encoding="utf-8")
    return str(found)


def _upload(text: str, path: str) -> str:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "To upload a card, install the extra `hub`: "
            "pip install 'keras-mla[hub]'."
        ) from error
    huggingface_hub.HfApi(
        library_name="keras_mla", library_version=__version__
    ).upload_file(
        path_or_fileobj=text.encode(),
        path_in_repo="README.md",
        repo_id=path.removeprefix(_HUB),
        commit_message="Write the model card",
    )
    return path


def _header(model: MultimodalModel, license: str | None) -> str:
    # What JSON writes is YAML too.
    tags = json.dumps(["keras_mla", "multimodal", *model.modalities])
    lines = ["library_name: keras", f"tags: {tags}"]
    if license is not None:
        lines.insert(1, f"license: {json.dumps(license)}")
    return "\n".join(["---", *lines, "---"])


def _method(model: MultimodalModel) -> str:
    cls = type(model)
    known = registry.METHODS.get(cls.__name__)
    source = f" ({known.paper})" if known and known.cls is cls else ""
    first = (inspect.getdoc(cls) or "").partition("\n")[0]
    return (
        f"A Keras model for several modalities, any of which may be missing: "
        f"`{cls.__name__}`{source}. {first}"
    ).strip()


def _modalities(model: MultimodalModel, signature: Mapping[str, Any]) -> str:
    rows = []
    for name in model.modalities:
        encoder = model.encoders[name]
        still = encoder.weights and not encoder.trainable_variables
        frozen = ", frozen" if still else ""
        rows.append(
            [
                name,
                _inputs(signature[name]),
                f"{type(encoder).__name__}{frozen}",
                f"{encoder.count_params():,}",
            ]
        )
    table = _table(["modality", "input", "encoder", "parameters"], rows)
    return (
        f"## Modalities\n\n{table}\n\n{model.count_params():,} parameters in "
        "all. `?` is any size."
    )


def _inputs(signature: Any) -> str:
    """Returns shapes and dtypes, without the batch."""
    if "shape" in signature and "dtype" in signature:
        sizes = ["?" if n is None else str(n) for n in signature["shape"][1:]]
        return f"{signature['dtype']} ({', '.join(sizes)})"
    items: Iterable = (
        signature.items()
        if isinstance(signature, Mapping)
        else enumerate(signature)
    )
    return "; ".join(f"{key}: {_inputs(part)}" for key, part in items)


def _names(
    model: MultimodalModel, classes: Sequence[Any] | None, outputs: int
) -> list[str]:
    if classes is None:
        table = getattr(model, "table", None)
        classes = (table.classes if table is not None else None) or ()
    if len(classes) not in (0, outputs):
        raise ValueError(
            f"`classes` must have a name for each of the {outputs} outputs. "
            f"Received: {len(classes)} names"
        )
    return [_line(name) for name in classes]


def _prediction(
    model: MultimodalModel, names: Sequence[str], outputs: int
) -> str:
    task = model.task.name
    what = "values" if task == "regression" else "logits"
    text = (
        f"## Prediction\n\n`predict` returns {what}, float32 of shape "
        f"`(samples, {outputs})`: {_TASKS.get(task, task)}"
    )
    if names and len(names) <= _LISTED:
        text += ", in the order " + ", ".join(names)
    return f"{text}.\n\n{_fusion(model)}"


def _fusion(model: MultimodalModel) -> str:
    fusion = getattr(model, "fusion", None)
    if fusion is None:
        return "The modalities are joined before the head: there is no fusion."
    new = type(fusion).from_config(fusion.get_config())
    new.build((None, len(model.experts), number_of_units(model.head)))
    first, values = _values(new), _values(fusion)
    text = f"The modalities' predictions are fused by `{type(fusion).__name__}`"
    fitted = {
        name: value
        for name, value in values.items()
        if not np.allclose(value, first[name], rtol=1e-5)
    }
    if not fitted:
        return f"{text}, which is not calibrated."
    shown = "; ".join(
        f"{name}: {_numbers(model, name, value)}"
        for name, value in fitted.items()
    )
    return f"{text}, fitted to validation data ({shown})."


def _values(fusion: Fusion) -> dict[str, np.ndarray]:
    """Returns the weights of a fusion by name."""
    return {w.name: keras.ops.convert_to_numpy(w) for w in fusion.weights}


def _numbers(model: MultimodalModel, name: str, value: np.ndarray) -> str:
    flat = [f"{number:.3g}" for number in np.ravel(value)]
    # There may be as many classes as modalities.
    of_classes = name in ("bias", "prior")
    if value.shape == (len(model.experts),) and not of_classes:
        return ", ".join(
            f"{name} {number}"
            for name, number in zip(model.experts, flat, strict=True)
        )
    return ", ".join(flat[:_LISTED])


def _scores(model: MultimodalModel, scores: Mapping[str, float]) -> str:
    """Returns the scores, a row for each modality."""
    found: dict[str, dict[str, float]] = {}
    # The longest name first: one may begin as another does.
    experts = sorted(model.experts, key=len, reverse=True)
    for key, value in scores.items():
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`scores` must be numbers, keyed by metric. "
                f"Received: scores[{key!r}]={value!r}"
            ) from error
        owner = next((n for n in experts if key.startswith(f"{n}_")), "")
        metric = key.removeprefix(f"{owner}_") if owner else key
        found.setdefault(owner, {})[metric] = number
    if not found:
        return ""
    metrics = list(dict.fromkeys(m for row in found.values() for m in row))
    order = [owner for owner in ("", *model.experts) if owner in found]
    rows = [
        [
            owner or "all modalities",
            *(
                f"{found[owner][m]:.4f}" if m in found[owner] else ""
                for m in metrics
            ),
        ]
        for owner in order
    ]
    return f"## Scores\n\n{_table(['', *metrics], rows)}"


def _use(model: MultimodalModel) -> str:
    inputs = ", ".join(f'"{name}": {_word(name)}' for name in model.modalities)
    missing = f'"{model.modalities[0]}": None, '
    rest = ", ".join(
        f'"{name}": {_word(name)}' for name in model.modalities[1:]
    )
    lines = [
        "import keras",
        "import keras_mla  # Registers the model's classes.",
        "",
        'model = keras.saving.load_model("model.keras")  # or "hf://user/name"',
        f"model.predict({{{inputs}}})",
    ]
    if rest:
        lines += [
            "# A modality may be missing.",
            f"model.predict({{{missing}{rest}}})",
        ]
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```"


def _word(name: str) -> str:
    """Returns a name for an array in an example."""
    word = "".join(c if c.isalnum() else "_" for c in name)
    return word if word.isidentifier() else "x"


def _versions() -> str:
    backend = keras.backend.backend()
    rows = [
        ["keras_mla", __version__],
        ["keras", keras.__version__],
        [backend, metadata.version(backend)],
        ["Python", platform.python_version()],
    ]
    return f"## Versions\n\n{_table(['package', 'version'], rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_line(c) for c in r] for r in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text.replace("| --- ", "|---").replace("|  |", "| |", 1)


def _line(text: Any) -> str:
    """Returns text in one line that breaks no table."""
    return " ".join(str(text).split()).replace("|", "\\|")
