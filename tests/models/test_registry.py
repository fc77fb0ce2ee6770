"""The registry of methods, and the texts that must agree with it."""

import inspect
import pathlib
import tomllib

import keras
import pytest
from utils import encoder, make_of, only_on

from keras_mla import core, models
from keras_mla.models.registry import METHODS, NEEDS, Method

ROOT = pathlib.Path(models.__file__).parents[2]
BASES = {"MultimodalModel"}

pytestmark = only_on("torch")  # It depends on no backend.


def test_it_holds_every_exported_method():
    exported = {
        name
        for name in models.__all__
        if inspect.isclass(getattr(models, name))
        and issubclass(getattr(models, name), keras.Model)
    }
    assert set(METHODS) == exported - BASES
    assert all(METHODS[name].cls is getattr(models, name) for name in METHODS)


def test_titles_differ_and_families_are_folders():
    titles = [method.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)
    for method in METHODS.values():
        *_, family, _ = method.cls.__module__.split(".")
        assert family == method.family


def test_the_documents_have_every_method():
    evidence = (ROOT / "docs" / "evidence.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(evidence)) == set(METHODS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f" has {len(METHODS)} methods," in readme


@pytest.mark.parametrize("name", METHODS)
def test_a_grid_s_settings_make_a_model(name):
    method = METHODS[name]
    for setting, values in method.grid.items():
        for value in values:
            model = make_of(
                name,
                lambda: {m: encoder(3) for m in ("b", "a")},
                3,
                settings={setting: value},
            )
            assert type(model) is method.cls


@pytest.mark.parametrize("name", METHODS)
def test_too_few_modalities_are_refused(name):
    fewest = METHODS[name].fewest_modalities
    if fewest == 1:
        assert make_of(name, lambda: {"a": encoder(3)}, 3).built
        return
    with pytest.raises(ValueError, match="at least two"):
        METHODS[name].make({"a": encoder(3)}, 3, 5)


def test_what_a_method_needs_is_asked_for():
    with pytest.raises(ValueError, match="pass `num_samples`"):
        METHODS["QMF"].make({"a": encoder(3)}, 3)
    with pytest.raises(ValueError, match="ids"):
        Method(models.MLA, "A", "late", "B", needs=("ids",))
    assert "sample_id" in NEEDS
    assert set(METHODS["MLA"].tasks) == set(core.tasks.TASKS)


def test_the_base_class_is_found_under_its_old_name():
    with pytest.warns(DeprecationWarning, match="now called"):
        assert models.MultimodalClassifier is models.MultimodalModel
