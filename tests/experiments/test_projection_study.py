"""The study of the projection: its measures, and a tiny run of it."""

import pathlib
import sys

import keras
import numpy as np
import pytest
from utils import in_process, mainly_on

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
sys.path.append(str(EXPERIMENTS))

if keras.backend.backend() != "jax":
    pytest.skip("The study runs on JAX alone.", allow_module_level=True)

from comparison import study_tables, trial  # noqa: E402

from keras_mla import MLA  # noqa: E402
from keras_mla.comparison import sources  # noqa: E402


def toy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 3, 2))
    return trial.Arrays(
        x={"train": {"a": x, "b": x}, "test": {"a": x, "b": x}},
        y={"train": rng.integers(0, 3, 128), "test": rng.integers(0, 3, 128)},
        classes=3,
    )


@mainly_on("torch")
def test_a_twin_is_changed_as_much_and_nothing_is_left_changed():
    factor = {"pretrained": 0.0, "optimizer": "SGD"}
    starts = [(0, 0.1), (1, 0.3)]
    weights = trial.Trial(MLA, toy(), factor, starts).encoders()["a"]
    twins = trial.Trial(
        MLA, toy(), factor, starts, {"a": weights, "b": weights}
    )
    twins.fit(1)
    before = [np.asarray(v) for v in twins.state[0]]
    # The head alone moves, and both modalities are the same to it.
    for ratio in twins.interference(batches=1).values():
        np.testing.assert_allclose(ratio, [1, 1], atol=1e-3)
    for old, new in zip(before, twins.state[0], strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(weights, twins.encoders()["b"], strict=True):
        np.testing.assert_array_equal(old, new)


@mainly_on("torch")
def test_starts_side_by_side_train_as_each_alone():
    data = toy()
    starts = [(3, 1e-2), (4, 1e-2), (3, 1e-3)]
    many = trial.Trial(MLA, data, {"width": 4}, starts)
    many.fit(1)
    many.fit(1)
    for index, (seed, rate) in enumerate(starts):
        keras.utils.set_random_seed(seed)
        arrays = {m: a.reshape(128, -1) for m, a in data.x["train"].items()}
        arrays = {m: a.astype("float32") for m, a in arrays.items()}
        encoders = {
            m: trial.make_encoder(a.shape[1], 4) for m, a in arrays.items()
        }
        model = MLA(encoders, 3)
        model.compile(
            optimizer=keras.optimizers.AdamW(rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        for epoch in range(2):
            order = np.random.default_rng([seed, epoch]).permutation(128)
            for rows in np.split(order, 2):
                model.train_on_batch(
                    {m: a[rows] for m, a in arrays.items()},
                    data.y["train"][rows],
                )
        for variable, value in zip(
            model.trainable_variables, many.state[0], strict=True
        ):
            np.testing.assert_allclose(value[index], variable, atol=1e-5)
        logits = model.predict(arrays, verbose=0)
        right = np.mean(logits.argmax(1) == data.y["test"])
        assert many.accuracy("test")[index] == pytest.approx(right)


def test_data_are_scaled_by_training_samples():
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    x = {"a": rng.normal(3, 5, (30, 4)), "b": 9 * rng.random((30, 6, 6))}
    split = np.arange(30) // 10
    x["a"][25] = 1e4
    found = trial.scaled(sources.load(({**x, "split": split}, y)))
    assert found.classes == 3 and found.modalities == ("a", "b")
    np.testing.assert_array_equal(found.y["test"], y[20:])
    train = found.x["train"]
    np.testing.assert_allclose(train["a"].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(train["a"].mean(0), 0, atol=1e-5)
    assert train["b"].std() == pytest.approx(1, abs=1e-5)
    assert found.x["test"]["a"].max() == 5


def test_factors_change_inputs():
    plain = trial.changed(toy(), {})["train"]
    assert plain["a"].shape == (128, 6)
    mixed = trial.changed(toy(), {"mixed": True})["train"]
    assert mixed["a"].shape == (128, 12)
    noisy = trial.changed(toy(), {"noise": 2.0})["train"]
    np.testing.assert_array_equal(noisy["a"], plain["a"])
    assert (noisy["b"] - plain["b"]).std() == pytest.approx(2, rel=0.1)


def test_rates_are_chosen_on_validation_and_seeds_paired():
    def record(projector, starts, validation, test):
        what = {"factor": "base", "projector": projector, "starts": starts}
        return {"run": what, "validation": validation, "test": test}

    chosen = study_tables.choose(
        [
            record(
                "none",
                [(1, 0.1), (0, 0.1), (0, 0.3), (1, 0.3)],
                [0.5, 0.5, 0.4, 0.4],
                [0.4, 0.2, 0.9, 0.9],
            ),
            record("alpha 1", [(0, 0.1), (1, 0.1)], [0.5, 0.5], [0.3, 0.7]),
        ]
    )
    without = chosen["base", "none"]
    assert [r["test"] for r in without] == [0.2, 0.4]
    mean, error = study_tables.difference(chosen["base", "alpha 1"], without)
    # Differences of 10 and 30 points.
    assert (mean, error) == pytest.approx((20, 10))
    table = study_tables.markdown({"digits": chosen})
    assert "| base | none | 30.0 |" in table
    assert "| base | alpha 1 | +20.0 ± 10.0 |" in table


@mainly_on("torch")
def test_a_tiny_study(tmp_path):
    command = [
        EXPERIMENTS / "projection_study.py",
        "--factors=8 features",
        "--seeds=0",
        "--epochs=2",
        f"--out={tmp_path}",
    ]
    first = in_process(*command)
    assert first.returncode == 0, first.stderr
    lines = (tmp_path / "digits.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 3
    assert "| 8 features | alpha 100 |" in first.stdout
    assert (tmp_path / "figure.png").stat().st_size > 1000
    again = in_process(*command)
    assert again.stdout == first.stdout
    assert (tmp_path / "digits.jsonl").read_text().splitlines() == lines
