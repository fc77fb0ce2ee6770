import json

import numpy as np
import pytest

from keras_mla.datasets import text

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "pin", "##ch"]
WORDS += ["salt", ","]


@pytest.fixture
def bert_folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


@pytest.fixture
def clip_folder(tmp_path):
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    pieces = letters + [letter + "</w>" for letter in letters]
    pieces += ["fo", "fox</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nf o\nfo x</w>\n")
    return tmp_path


def test_bert_word_pieces(bert_folder):
    texts = ["A pinch, salt", "", "zebra a a a a a"]
    ids = [[5, 6, 7, 9, 8], [0] * 5, [1, 5, 5, 5, 5]]
    for source in (bert_folder, bert_folder / "vocab.txt"):
        found = text.bert(source, length=5)(texts)
        np.testing.assert_array_equal(found["token_ids"], ids)
        np.testing.assert_array_equal(
            found["padding_mask"], np.array([[1] * 5, [0] * 5, [1] * 5], bool)
        )
        assert found["token_ids"].dtype == np.int32
    ends = text.bert(bert_folder, 5, special_tokens=True)(texts)
    np.testing.assert_array_equal(
        ends["token_ids"], [[2, 5, 6, 7, 3], [2, 3, 0, 0, 0], [2, 1, 5, 5, 3]]
    )
    np.testing.assert_array_equal(ends["padding_mask"].sum(axis=1), [5, 2, 5])


def test_bert_keeps_case_and_marks_in_texts_are_no_special_tokens(bert_folder):
    found = text.bert(bert_folder, 5, lowercase=False)(["A a"])
    np.testing.assert_array_equal(found["token_ids"], [[1, 5, 0, 0, 0]])
    marks = text.bert(bert_folder, 5)(["[PAD] [CLS]"])["token_ids"]
    assert 2 not in marks


def test_clip_byte_pairs(clip_folder):
    found = text.clip(clip_folder, length=5)(["Fox", "", "fox fox fox fox"])
    fox, start, end = 189, 190, 191
    expected = [
        [start, fox, end, 0, 0],
        [start, end, 0, 0, 0],
        [start, fox, fox, fox, end],
    ]
    np.testing.assert_array_equal(found["token_ids"], expected)
    np.testing.assert_array_equal(found["padding_mask"].sum(axis=1), [3, 2, 5])


def test_in_a_pipeline(bert_folder, clip_folder):
    import tensorflow as tf

    texts = ["a pinch", "salt", "fox"]
    for tokenize in (text.bert(bert_folder, 4), text.clip(clip_folder, 6)):
        dataset = tf.data.Dataset.from_tensor_slices(texts).batch(3)
        dataset = dataset.map(tokenize)
        found = next(iter(dataset))
        expected = tokenize(texts)
        length = expected["token_ids"].shape[1]
        assert dataset.element_spec["token_ids"].shape[1] == length
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)


def test_what_is_wrong_with_a_vocabulary(tmp_path):
    with pytest.raises(ValueError, match="no vocabulary file and no preset"):
        text.bert(tmp_path / "none")
    (tmp_path / "words.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"lacks \[CLS\]"):
        text.bert(tmp_path / "words.txt")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ValueError, match="merges.txt"):
        text.clip(tmp_path)


def test_a_length_without_room(bert_folder):
    with pytest.raises(ValueError, match="length=2"):
        text.bert(bert_folder, 2, special_tokens=True)


def test_word_pieces_spell_what_they_do_not_know(tmp_path):
    train = ["A rainy day, a Café: #rainy_day", "rainy"]
    pieces = text.word_pieces(train, size=100)
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(pieces)) == len(pieces)
    # By frequency: "rainy" stands there three times, "day" twice.
    assert pieces[-6:] == ["rainy", "##rainy", "day", "##day", "cafe", "##cafe"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenize = text.bert(tmp_path, length=8)
    found = tokenize(["#rainyday CAFÉ, zoo?", *train])
    words = [
        [piece for piece in np.array(pieces)[row] if piece != "[PAD]"]
        for row in found["token_ids"]
    ]
    # "zoo" has a letter that is unknown, and so is "?".
    expected = ["#", "rainy", "##day", "cafe", ",", "[UNK]", "[UNK]"]
    assert words[0] == expected
    assert "[UNK]" not in words[1] + words[2]
    few = text.word_pieces(train, size=1)
    assert set(few) == {p for p in pieces if p in few} and len(few) < 40
    assert all(len(p.removeprefix("##")) == 1 for p in few[5:])
