"""UPMC Food-101: dishes, as a picture and the text of its web page."""

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
]

_CLASSES = 101
_PUBLISHED = {"train": 62970, "dev": 5000, "test": 22714}
_COLUMNS = ("picture", "text", "class")


def class_names(data_dir: str | os.PathLike) -> tuple[str, ...]:
    """Returns the 101 classes' names, sorted: label i is name i.

    The names are the folders in `images/train`, or in `images`, or else the
    labels in the training list.

    Args:
        data_dir: str or path. The folder, see `files`.

    Example:
    >>> import os
    >>> from keras_mla.datasets import food101
    >>> os.makedirs("images/apple_pie")
    >>> food101.class_names(".")
    ('apple_pie',)
    """
    root = listing.data_folder(data_dir)
    for folder in ("images/train", "images"):
        path = os.path.join(root, folder)
        if os.path.isdir(path):
            names = [entry.name for entry in os.scandir(path) if entry.is_dir()]
            if names and not set(names) <= {"train", "test"}:
                return tuple(sorted(names))
    path = _list(root, "train", None)
    ignore = Problems("skip")
    if path.endswith(".jsonl"):
        records = listing.read_json_lines(path, ("label",), ignore)
        return tuple(sorted({record["label"] for _, record in records}))
    if path.endswith(".csv"):
        rows = listing.read_rows(path, _COLUMNS, ignore)
        return tuple(sorted({row[2] for _, row in rows if _is_row(row)}))
    lines = (line.rsplit(maxsplit=1) for _, line in listing.read_lines(path))
    return tuple(sorted({parts[1] for parts in lines if len(parts) == 2}))


def files(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    list_file: str | os.PathLike | None = None,
    validation_share: float = 0.0,
    seed: int = 0,
    on_error: str = "raise",
) -> list[Sample]:
    """Lists the pictures and texts of a split; decodes no picture.

    These lists are read, and told apart by their names:

    - `<split>.jsonl` of MMBT, QMF and others, with lines `{"id": "x_833",
      "label": "x", "text": "...", "img": "images/train/x/x_833.jpg"}`, `img`
      relative to the folder;
    - `texts/<split>_titles.csv`, the owners': rows of picture, text, class;
    - `my_<split>_food.txt` of MLA or `<split>.txt`, with lines `x_833.jpg x`.
      Each text is in `texts_txt/x/x_833.txt`, or, without that folder, in one
      of the other lists.

    The pictures of the last two are in `images/<split>/<class>/` or
    `images/<class>/`.

    Args:
        data_dir: str or path. The folder.
        split: `"train"`, `"validation"` or `"test"`. If there is a
            `dev.jsonl`, it is the validation split; else see
            `validation_share`. Defaults to `"train"`.
        list_file: str or path. The list of the split (for validation, the
            list of training). Defaults to the first of these layouts found.
        validation_share: float. Share of the training list that is
            `"validation"` instead of `"train"`. Earlier work took 5000
            samples. Defaults to `0.0`.
        seed: int. Seed of the choice of that share. Defaults to `0`.
        on_error: `"raise"`; `"skip"` to leave out wrong lines and empty
            texts, and warn; or `"absent"`: a modality whose file is missing
            is absent. Defaults to `"raise"`.

    Returns:
        list of `Sample` with the inputs `"image"` and `"text"`.

    Raises:
        ValueError: If the folder, the list or all its files are missing, a
            line is wrong or a text is empty. The message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of samples or classes
            is not the one of the authors' lists: 62970, 5000 and 22714
            (22715 in the jsonl list, one with an empty text); 101 classes.

    Example:
    >>> import json, pathlib
    >>> from keras_mla.datasets import food101
    >>> for i in range(101):
    ...     pathlib.Path(f"images/dish_{i:03d}").mkdir(parents=True)
    >>> pathlib.Path("images/dish_042/a.jpg").touch()
    >>> record = {"id": "a", "label": "dish_042", "text": "A pinch of salt"}
    >>> with open("mine.jsonl", "w") as file:
    ...     json.dump({**record, "img": "images/dish_042/a.jpg"}, file)
    >>> [sample] = food101.files(".", list_file="mine.jsonl")
    >>> sample.label, sample.inputs["text"]
    (42, 'A pinch of salt')

    Reference:
        Wang et al., "Recipe recognition with large multimodal food dataset",
        ICME Workshops 2015.
    """
    listing.check_split(split)
    root = listing.data_folder(data_dir)
    problems = Problems(on_error)
    names = class_names(root)
    listing.check_count("Food-101 classes", len(names), _CLASSES)
    labels = {name: i for i, name in enumerate(names)}
    dev = list_file is None and os.path.isfile(os.path.join(root, "dev.jsonl"))

    def listed(part: str) -> list[Sample]:
        path = _list(root, part, list_file)
        samples = listing.make_samples(
            _rows(root, path, part, problems),
            lambda source, row: _sample(root, labels, source, problems, *row),
            problems,
        )
        kept = listing.keep_existing(samples, f"Food-101 {part}", problems)
        if list_file is None:
            # The owners' table is not the authors' selection of it.
            owners = path.endswith(".csv")
            published = None if owners else _PUBLISHED[part]
            listing.check_count(f"Food-101 {part}", len(kept), published)
        return kept

    if dev and validation_share == 0:
        samples = listed("dev" if split == "validation" else split)
    else:
        samples = listing.carve_validation(
            split, listed, validation_share, seed
        )
    problems.warn(f"Food-101 {split}")
    return samples


def _list(root: str, part: str, list_file: str | os.PathLike | None) -> str:
    titles = os.path.join(root, "texts", f"{part}_titles.csv")
    plain = os.path.join(root, f"{part}.jsonl")
    if list_file is None and os.path.isfile(titles):
        if not os.path.isfile(plain):
            return titles
    names = [f"my_{part}_food.txt", f"{part}_titles.csv"]
    return listing.find_list(root, part, list_file, "jsonl txt", names)


def _is_row(row: Sequence[str]) -> bool:
    """Returns whether a row of the owners' table is none of titles."""
    return bool(os.path.splitext(row[0])[1])


def _other_texts(root: str) -> dict[str, str]:
    """Returns the texts that the lists in a folder hold, by picture."""
    ignore = Problems("skip")
    texts: dict[str, str] = {}
    for part in ("train", "dev", "test"):
        for folder in (root, os.path.join(root, "texts")):
            path = os.path.join(folder, f"{part}_titles.csv")
            if os.path.isfile(path):
                for _, row in listing.read_rows(path, _COLUMNS, ignore):
                    texts[row[0]] = row[1]
        path = os.path.join(root, f"{part}.jsonl")
        if os.path.isfile(path):
            for _, record in image_text.read_records(path, ignore):
                texts[os.path.basename(record["img"])] = record["text"]
    return texts


def _rows(root: str, path: str, part: str, problems: Problems) -> Any:
    """Yields `(source, (picture, class, text or None))`."""
    if path.endswith(".jsonl"):
        for source, record in image_text.read_records(path, problems):
            yield source, (record["img"], record["label"], record["text"])
        return
    if path.endswith(".csv"):
        rows = listing.read_rows(path, _COLUMNS, problems)
        for index, (source, row) in enumerate(rows):
            picture, text, name = row
            if index == 0 and not _is_row(row):
                continue
            yield source, (_picture(root, part, picture, name), name, text)
        return
    texts: dict[str, str] | None = None
    if not os.path.isdir(os.path.join(root, "texts_txt")):
        texts = _other_texts(root) or None
    for source, line in listing.read_lines(path):
        fields = line.rsplit(maxsplit=1)
        if len(fields) != 2:
            problems.add(
                f"{source}: expected '<picture>.jpg <class>'. "
                f"Received: line={line[:200]!r}"
            )
            continue
        other = texts.get(fields[0], "") if texts is not None else None
        yield source, (_picture(root, part, *fields), fields[1], other)


def _picture(root: str, part: str, picture: str, name: str) -> str:
    nested = f"images/{part}/{name}/{picture}"
    if os.path.exists(os.path.join(root, nested)):
        return nested
    return f"images/{name}/{picture}"


def _sample(
    root: str,
    labels: dict[str, int],
    source: str,
    problems: Problems,
    picture: str,
    name: str,
    text: str | None,
) -> Sample:
    if name not in labels:
        raise ValueError(
            f"{source}: the class is not one of the {len(labels)} of the "
            f"training split. Received: class={name!r}"
        )
    image = listing.safe_path(root, picture, source)
    key = os.path.splitext(os.path.basename(picture))[0]
    if text is None:
        file = listing.safe_path(root, f"texts_txt/{name}/{key}.txt", source)
        text = image_text.read_text(file, problems)
    return image_text.make_sample(
        key, labels[name], image, text, source, problems
    )


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
    list_file: str | os.PathLike | None = None,
    validation_share: float = 0.0,
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
        list_file: See `files`.
        validation_share: See `files`.
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
    >>> from keras_mla.datasets import food101
    >>> for i in range(101):
    ...     pathlib.Path(f"images/dish_{i:03d}").mkdir(parents=True)
    >>> pathlib.Path("images/dish_042/a.jpg").touch()
    >>> record = {"id": "a", "label": "dish_042", "text": "A pinch of salt"}
    >>> with open("mine.jsonl", "w") as file:
    ...     json.dump({**record, "img": "images/dish_042/a.jpg"}, file)
    >>> data = food101.load(".", list_file="mine.jsonl", batch_size=8)
    >>> {name: tuple(x.shape) for name, x in data.element_spec[0].items()}
    {'image': (None, 224, 224, 3), 'text': (None,)}
    """
    samples = files(
        data_dir,
        split,
        list_file=list_file,
        validation_share=validation_share,
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
