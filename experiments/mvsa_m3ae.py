"""MVSA-Single with M3AE encoders: the sentiment of tweets (paper, Table 1).

The folder holds the data set as `keras_mla.datasets.mvsa` describes it:
`data/<id>.jpg`, and `train.jsonl`, `dev.jsonl` and `test.jsonl`.

Without further flags, two small M3AE encoders learn from scratch, with a
vocabulary made from the training texts. The paper's encoders have base size and
are pretrained. `python -m keras_mla.encoders.convert` makes them from the
published checkpoint:

```shell
KERAS_BACKEND=jax python experiments/mvsa_m3ae.py --data_dir=MVSA_Single \
    --image_encoder=m3ae_image.keras --text_encoder=m3ae_text.keras \
    --vocabulary=bert-base-uncased/vocab.txt --image_size=256 \
    --text_length=256 --learning_rate=1e-5,1e-4 --batch_size=32
```
"""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import common  # noqa: E402
import keras  # noqa: E402
import m3ae  # noqa: E402
import runs  # noqa: E402
from absl import app, flags  # noqa: E402

from keras_mla.datasets import mvsa, pipeline  # noqa: E402

FLAGS = flags.FLAGS
MODALITIES = ("image", "text")
common.define_flags("out/mvsa", epochs=20, batch_size=32, learning_rate="3e-4")
common.define_stream_flags()
m3ae.define_flags(MODALITIES)
flags.DEFINE_float("weight_decay", 0.05, "Weight decay of AdamW.")


def main(_: Any) -> None:
    """Trains, prints and saves."""
    output = common.prepare()
    samples = {
        split: mvsa.files(FLAGS.data_dir, split, on_error=FLAGS.on_error)
        for split in common.SPLITS
    }
    words = m3ae.vocabulary(output, samples["train"])
    readers = {
        "image": pipeline.image_reader(m3ae.image_settings()),
        "text": m3ae.text_reader(words),
    }

    def model(method: str) -> Any:
        encoders = m3ae.image_and_text(words)
        return common.make_method(method, encoders, len(mvsa.class_names))

    results = runs.compare(
        output,
        common.method_names(),
        model,
        lambda seed: common.streams(samples, readers, seed),
        lambda rate: keras.optimizers.AdamW(
            rate, weight_decay=FLAGS.weight_decay
        ),
    )
    values = {
        method: common.accuracies(records, MODALITIES)
        for method, records in results.items()
    }
    # The paper's Table 1 has methods side by side.
    common.report(output, values, "MVSA-Single", transposed=True)


if __name__ == "__main__":
    app.run(main)
