import pytest

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Sample


def test_partition_is_disjoint_complete_and_seeded():
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    items = list(range(5531))
    parts = listing.partition(items, shares, seed=1)
    assert [len(part) for part in parts.values()] == [1106, 1106, 3319]
    assert sorted(sum(parts.values(), [])) == items
    assert listing.partition(items, shares, seed=1) == parts
    assert listing.partition(items, shares, seed=2) != parts
    with pytest.raises(ValueError, match="sum to 1"):
        listing.partition(items, {"a": 0.5}, seed=0)


def test_validation_is_carved_out_of_training():
    def samples_of(split):
        return [Sample(f"{split}{i}", 0, {}, "") for i in range(10)]

    def ids(split, share):
        found = listing.carve_validation(split, samples_of, share, seed=0)
        return {sample.id for sample in found}

    train, held = ids("train", 0.3), ids("validation", 0.3)
    assert len(train) == 7 and len(held) == 3 and not train & held
    assert len(ids("train", 0)) == 10 and len(ids("test", 0.3)) == 10
    with pytest.raises(ValueError, match="give `validation_share`"):
        ids("validation", 0)
    with pytest.raises(ValueError, match="validation_share=1"):
        ids("train", 1)
