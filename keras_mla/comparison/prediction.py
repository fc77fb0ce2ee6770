"""What a model predicts for rows of a table, in words."""

from typing import Any

from keras import ops

from keras_mla.datasets.extras import need


def predictions(
    model: Any, rows: Any, root: str | None = None, batch_size: int = 64
) -> Any:
    """Predicts rows of a table with a model that has a table.

    Args:
        model: A model of the library with a `table`.
        rows: DataFrame, or what `Table.inputs` takes.
        root: str. The folder of the files that rows name.
        batch_size: int. Defaults to `64`.

    Returns:
        DataFrame with a row for each row: `label`; `probability <class>` for
        each class or label; and `weight <modality>`, if the method has
        weights.

    Raises:
        ValueError: If the model has no table.
    """
    pd = need("pandas", "predict rows of a table")
    table = getattr(model, "table", None)
    if table is None:
        raise ValueError(
            "The model was not trained on a table, so that it cannot read "
            "rows. Call model.predict with arrays."
        )
    if root is not None:
        table.root = root
    found = model.predict_modalities(table.inputs(rows), batch_size)
    fused = found["fused"]
    label = table.decode_predictions(fused)
    columns: dict[str, Any] = {}
    if table.task == "regression":
        label = label.reshape(len(fused), -1)
        for index in range(label.shape[1]):
            key = "label" if label.shape[1] == 1 else f"label {index}"
            columns[key] = label[:, index]
    else:
        single = table.task == "single_label"
        columns["label"] = (
            label if single else ["|".join(map(str, w)) for w in label]
        )
        share = ops.softmax(fused) if single else ops.sigmoid(fused)
        share = ops.convert_to_numpy(share)
        for index, name in enumerate(table.classes):
            columns[f"probability {name}"] = share[:, index]
    for name in model.modalities:
        if "weight" in found[name]:
            columns[f"weight {name}"] = found[name]["weight"]
    return pd.DataFrame(columns)
