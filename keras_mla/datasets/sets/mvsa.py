"""MVSA-Single: the sentiment of tweets, from their picture and text."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.listing import Problems, Sample
from keras_mla.datasets.readers.image import RESNET, ImageSettings
from keras_mla.datasets.sets import image_text, loading

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "class_names",
    "files",
    "load",
    "reconcile",
]

class_names = ("negative", "neutral", "positive")
"""Label i is name i."""

_PUBLISHED = {"train": 1555, "validation": 518, "test": 519}
_LABELLED = 4869


def reconcile(text: str, image: str) -> str | None:
    """Returns the one label of a pair whose text and image were labelled.

    Equal labels are kept. Beside `"neutral"` the other label counts.
    `"positive"` and `"negative"` contradict each other, and the pair is left
    out.

    Args:
        text: str. Label of the text.
        image: str. Label of the image.

    Returns:
        A class name, or `None` for a contradiction.

    Raises:
        ValueError: If a label is not one of `class_names`.

    Example:
    >>> from keras_mla.datasets import mvsa
    >>> mvsa.reconcile("neutral", "positive")
    'positive'

    Reference:
        Xu and Mao, "MultiSentiNet: A Deep Semantic Network for Multimodal
        Sentiment Analysis", CIKM 2017.
    """
    for label in (text, image):
        if label not in class_names:
            raise ValueError(
                f"a label must be one of {', '.join(class_names)}. "
                f"Received: label={label!r}"
            )
    if text == image:
        return text
    if "neutral" in (text, image):
        return image if text == "neutral" else text
    return None


def files(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    protocol: str = "jsonl",
    list_file: str | os.PathLike | None = None,
    seed: int = 0,
    on_error: str = "raise",
) -> list[Sample]:
    """Lists the pairs of a split; decodes no picture.

    The folder holds `data/<id>.jpg` and `data/<id>.txt`, and one or more of
    these lists, which are told apart by what they hold:

    - `train.jsonl`, `dev.jsonl` and `test.jsonl` of QMF and others, with
      lines `{"id", "label", "text", "img"}`;
    - `my_train_mvsa.txt` and `my_test_mvsa.txt` of MLA, or `<split>.txt`, with
      lines `<id>.jpg <label>`, the texts in `data/<id>.txt`;
    - `labelResultAll.txt`, the owners', with lines `<id><tab><label of the
      text>,<label of the image>`.

    The owners' texts are in a Chinese encoding. They are read as
    Windows-1252, and so nearly as the authors of the jsonl lists read them.

    Args:
        data_dir: str or path. The folder.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        protocol: `"jsonl"`, the customary split with 1555, 518 and 519 pairs
            in the authors' lists, jsonl or not; or `"random"`, 80, 10 and
            10 % of all pairs of `labelResultAll.txt` that `reconcile` gives a
            label. Defaults to `"jsonl"`.
        list_file: str or path. The list of the split, or the
            `labelResultAll.txt`. Defaults to the file in `data_dir`.
        seed: int. Seed of the random split. Defaults to `0`.
        on_error: `"raise"`; `"skip"` to leave out wrong lines and empty
            texts, and warn; or `"absent"`: a modality whose file is missing
            is absent. Defaults to `"raise"`.

    Returns:
        list of `Sample` with the inputs `"image"` and `"text"`.

    Raises:
        ValueError: If the folder, the list or all its files are missing, a
            line is wrong or a text is empty. The message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of pairs is not the
            published one.

    Example:
    >>> import json, pathlib
    >>> from keras_mla.datasets import mvsa
    >>> pathlib.Path("7.jpg").touch()
    >>> record = {"id": "7", "label": "positive", "text": "Sun!"}
    >>> with open("mine.jsonl", "w") as file:
    ...     json.dump({**record, "img": "7.jpg"}, file)
    >>> [sample] = mvsa.files(".", list_file="mine.jsonl")
    >>> sample.inputs["text"], mvsa.class_names[sample.label]
    ('Sun!', 'positive')

    Reference:
        Niu et al., "Sentiment Analysis on Multi-view Social Data", MMM 2016.
    """
    listing.check_split(split)
    root = listing.data_folder(data_dir)
    problems = Problems(on_error)
    if protocol == "jsonl":
        name = "dev" if split == "validation" else split
        lists = [f"my_{name}_mvsa.txt", f"{name}.txt"]
        if split == "validation":
            lists += ["my_val_mvsa.txt", "val.txt"]
        path = listing.find_list(root, name, list_file, "jsonl", lists)
        if _is_json(path):
            found = _from_json(root, path, problems)
        else:
            found = _from_lines(root, path, problems)
        samples = listing.keep_existing(found, f"MVSA-Single {split}", problems)
        if list_file is None:
            count = _PUBLISHED[split]
            listing.check_count(f"MVSA-Single {split}", len(samples), count)
    elif protocol == "random":
        path = listing.find_list(root, "labelResultAll", list_file, "txt")
        found = _from_labels(root, path, problems)
        kept = listing.keep_existing(found, "MVSA-Single", problems)
        shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
        samples = listing.partition(kept, shares, seed)[split]
    else:
        raise ValueError(
            '`protocol` must be "jsonl" or "random". '
            f"Received: protocol={protocol!r}"
        )
    problems.warn(f"MVSA-Single {split}")
    return samples


def _is_json(path: str) -> bool:
    _, first = next(listing.read_lines(path), ("", ""))
    return path.endswith(".jsonl") or first.lstrip().startswith("{")


def _from_lines(root: str, path: str, problems: Problems) -> list[Sample]:
    def make(source: str, line: str) -> Sample:
        picture, _, label = line.strip().rpartition(" ")
        key, extension = os.path.splitext(os.path.basename(picture.strip()))
        if label not in class_names or not key.isalnum() or not extension:
            owners = "\t" in line and "," in line
            cure = ' Pass `protocol="random"` for this list.' if owners else ""
            raise ValueError(
                f"{source}: expected '<id>.jpg <label>', the label one of "
                f"{', '.join(class_names)}.{cure} "
                f"Received: line={line[:200]!r}"
            )
        return _pair(root, key, extension, label, source, problems)

    return listing.make_samples(listing.read_lines(path), make, problems)


def _pair(
    root: str,
    key: str,
    extension: str,
    label: str,
    source: str,
    problems: Problems,
) -> Sample:
    """Returns a sample of a list without texts."""
    image = listing.safe_path(root, f"data/{key}{extension}", source)
    file = listing.safe_path(root, f"data/{key}.txt", source)
    # `keep_existing` reports a missing pair by its picture.
    text = "-"
    if problems.absent or os.path.exists(file):
        text = image_text.read_text(file, problems)
    elif os.path.exists(image):
        raise ValueError(f"{source}: there is no text {file!r}.")
    number = class_names.index(label)
    return image_text.make_sample(key, number, image, text, source, problems)


def _from_json(root: str, path: str, problems: Problems) -> list[Sample]:
    def make(source: str, record: dict[str, str]) -> Sample:
        if record["label"] not in class_names:
            raise ValueError(
                f"{source}: a label must be one of {', '.join(class_names)}. "
                f"Received: label={record['label']!r}"
            )
        image = listing.safe_path(root, record["img"], source)
        label = class_names.index(record["label"])
        return image_text.make_sample(
            record["id"], label, image, record["text"], source, problems
        )

    records = image_text.read_records(path, problems)
    return listing.make_samples(records, make, problems)


def _from_labels(root: str, path: str, problems: Problems) -> list[Sample]:
    def make(source: str, line: str) -> Sample | None:
        key, _, pair = line.strip().partition("\t")
        labels = [label.strip() for label in pair.split(",")]
        if not key.isalnum() or len(labels) != 2:
            raise ValueError(
                f"{source}: expected '<id><tab><text label>,<image label>'. "
                f"Received: line={line[:200]!r}"
            )
        try:
            label = reconcile(*labels)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        if label is None:
            return None
        return _pair(root, key, ".jpg", label, source, problems)

    lines = [
        (source, line)
        for source, line in listing.read_lines(path)
        if line.split() != ["ID", "text,image"]
    ]
    samples = listing.make_samples(lines, make, problems)
    listing.check_count("MVSA-Single labels", len(lines), _LABELLED)
    return samples


def load(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    modalities: Sequence[str] | None = None,
    image: ImageSettings = RESNET,
    tokenizer: Callable[[Any], Any] | None = None,
    training: bool | None = None,
    seed: int = 0,
    on_error: str = "raise",
    protocol: str = "jsonl",
    list_file: str | os.PathLike | None = None,
    **options: Any,
) -> "tf.data.Dataset | pipeline.Batches":
    """Loads a split as batches of `({"image", "text"}, label)`.

    Args:
        data_dir: str or path. The folder, see `files`.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        modalities: Some of `"image"` and `"text"`. Defaults to both.
        image: `ImageSettings`, such as `RESNET`, `M3AE` or `CLIP` of
            `keras_mla.datasets.image`. Defaults to `RESNET`.
        tokenizer: callable. Maps strings to arrays, such as `text.bert(...)`
            and `text.clip(...)`. `None` leaves strings, which only models on
            TensorFlow take.
        training: bool. Whether to shuffle, crop and flip at random. Defaults
            to whether the split is `"train"`.
        seed: int. Seed of every random choice. Defaults to `0`.
        on_error: `"raise"`, `"skip"` or `"absent"`, for lines and for files,
            see `files` and `pipeline.build`. Defaults to `"raise"`.
        protocol: See `files`.
        list_file: See `files`.
        **options: `batch_size`, `workers`, `cache_dir`, `presence`,
            `shuffle`, `augment`, `engine` and `use_multiprocessing` of
            `pipeline.build`.

    Returns:
        A `tf.data.Dataset`, or a `keras.utils.PyDataset` (see `engine`), of
        `"image"`: float32 `(batch, 224, 224, 3)`, `"text"`: what the tokenizer
        gives, or strings `(batch,)`, label: int32.

    Raises:
        ValueError: See `files` and `pipeline.build`.

    Example:
    >>> import json, pathlib
    >>> from keras_mla.datasets import mvsa
    >>> pathlib.Path("7.jpg").touch()
    >>> record = {"id": "7", "label": "positive", "text": "Sun!"}
    >>> with open("mine.jsonl", "w") as file:
    ...     json.dump({**record, "img": "7.jpg"}, file)
    >>> data = mvsa.load(".", list_file="mine.jsonl", batch_size=8)
    >>> {name: tuple(x.shape) for name, x in data.element_spec[0].items()}
    {'image': (None, 224, 224, 3), 'text': (None,)}
    """
    samples = files(
        data_dir,
        split,
        protocol=protocol,
        list_file=list_file,
        seed=seed,
        on_error=on_error,
    )
    return loading.load_split(
        samples,
        image_text.readers(image, tokenizer),
        split,
        modalities,
        training,
        seed=seed,
        on_error=on_error,
        **options,
    )
