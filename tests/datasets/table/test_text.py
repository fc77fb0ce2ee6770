import concurrent.futures
import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mla.datasets.table import Table, Text

ROWS = {"title": ["Red shoes", "blue Shirt", "red shirt", None, "ein Über☃"]}


def adapted(field, rows=ROWS):
    return Table({"text": field, "n": "n"}).adapt(
        {**rows, "n": list(range(len(rows["title"])))}, verbose=0
    )


def inputs(table, titles):
    rows = {"title": titles, "n": [0] * len(titles)}
    return table.inputs(rows)


def test_ids_spell_the_texts():
    table = adapted(Text("title", length=40))
    x = inputs(table, ["Red ÜBER", "", "日本"])
    ids, mask = x["text"]["token_ids"], x["text"]["padding_mask"]
    assert ids.dtype == np.int32 and mask.dtype == bool
    assert ids.shape == mask.shape == (3, 40)
    assert x["presence"]["text"].tolist() == [True, False, True]
    # Another copy of the library reads the JSON, and spells the ids.
    other = tokenizers.Tokenizer.from_str(
        table.fields["text"].learned["tokenizer"]
    )
    spelt = [
        other.decode(list(row[m])) for row, m in zip(ids, mask, strict=True)
    ]
    assert spelt == [" red über", "", " 日本"]
    assert not ids[~mask].any()


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1).map(str.strip).filter(bool))
def test_every_text_can_be_written(text):
    table = _TABLE
    x = inputs(table, [text])["text"]
    row = x["token_ids"][0][x["padding_mask"][0]]
    other = tokenizers.Tokenizer.from_str(
        table.fields["text"].learned["tokenizer"]
    )
    if len(row) < 400:
        expected = other.normalizer.normalize_str(text)
        assert other.decode(list(row)).strip() == expected.strip()


_TABLE = adapted(Text("title", length=400))


def test_length_is_what_most_texts_need():
    titles = ["a"] * 96 + ["a b c d e f"] * 4
    table = adapted(Text("title"), {"title": titles})
    tokenizer = tokenizers.Tokenizer.from_str(
        table.fields["text"].learned["tokenizer"]
    )
    assert table.fields["text"].learned["length"] == len(
        tokenizer.encode("a").ids
    )


def test_the_same_rows_teach_the_same_vocabulary():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdef"), 4)) for _ in range(300)]
    titles = [" ".join(rng.choice(words, 8)) for _ in range(400)]
    learned = [
        adapted(Text("title", vocabulary=400), {"title": titles})
        .fields["text"]
        .learned
        for _ in range(3)
    ]
    assert learned[0] == learned[1] == learned[2]
    assert json.loads(json.dumps(learned[0])) == learned[0]


def test_several_columns_are_joined():
    table = Table({"text": Text(["a", "b"], length=20)})
    rows = {"a": ["one", None, "one two"], "b": ["two", "two", " "]}
    x = table.adapt(rows, verbose=0).inputs(rows)["text"]
    np.testing.assert_array_equal(x["token_ids"][0], x["token_ids"][2])


def test_a_tokenizer_of_the_user(tmp_path):
    words = ["[PAD]", "[UNK]", "red", "shoe", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    table = adapted(Text("title", length=4, tokenizer=tmp_path / "vocab.txt"))
    (tmp_path / "vocab.txt").unlink()  # Its content is a part of the table.
    table = Table.from_config(json.loads(json.dumps(table.get_config())))
    x = inputs(table, ["Red shoes !"])["text"]
    assert x["token_ids"].tolist() == [[2, 3, 4, 1]]

    lib = tokenizers
    own = lib.Tokenizer(
        lib.models.WordLevel({"<pad>": 9, "x": 1, "?": 2}, unk_token="?")
    )
    own.pre_tokenizer = lib.pre_tokenizers.Whitespace()
    own.save(str(tmp_path / "tokenizer.json"))
    table = adapted(
        Text("title", length=3, tokenizer=tmp_path / "tokenizer.json")
    )
    x = inputs(table, ["x y"])["text"]
    assert x["token_ids"].tolist() == [[1, 2, 9]]
    assert x["padding_mask"].tolist() == [[True, True, False]]
    # An embedding needs a row for each id, though three words have one.
    assert table.fields["text"].vocabulary_size == 10


def test_a_tokenizer_of_the_user_is_never_replaced(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nred")
    table = adapted(Text("title", tokenizer=tmp_path / "vocab.txt"))
    (tmp_path / "vocab.txt").unlink()
    again = Table.from_config(json.loads(json.dumps(table.get_config())))
    rows = {"title": ["red", "blue"], "n": [1, 2]}
    for one in (table, again):
        one.adapt(rows, verbose=0)
        assert inputs(one, ["red x"])["text"]["token_ids"].tolist() == [[2]]


def test_special_tokens(tmp_path):
    lib = tokenizers
    own = lib.Tokenizer(
        lib.models.WordLevel({"[PAD]": 0, "x": 1, "?": 2}, unk_token="?")
    )
    own.post_processor = lib.processors.TemplateProcessing(
        single="? $A ?", special_tokens=[("?", 2)]
    )
    own.save(str(tmp_path / "own.json"))
    field = Text("title", length=4, tokenizer=tmp_path / "own.json")
    x = inputs(adapted(field), ["x", None])["text"]
    # An absent text is padding, without the special tokens.
    assert x["token_ids"].tolist() == [[2, 1, 2, 0], [0] * 4]
    assert not x["padding_mask"][1].any()
    field = Text("title", length=2, tokenizer=tmp_path / "own.json")
    with pytest.raises(ValueError, match="adds 2 tokens.*at least 3"):
        adapted(field)


def test_threads_share_no_length():
    lengths = {"a": 3, "b": 9}
    table = Table({n: Text("title", length=k) for n, k in lengths.items()})
    rows = {"title": ["a pinch of salt and more", "oil"] * 100}
    expected = table.adapt(rows, verbose=0).inputs(rows)

    def read(_):
        x = table.inputs(rows)
        return all(
            np.array_equal(x[n]["token_ids"], expected[n]["token_ids"])
            for n in lengths
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(100)))


def test_a_tokenizer_without_padding_gets_it(tmp_path):
    lib = tokenizers
    own = lib.Tokenizer(lib.models.WordLevel({"x": 0, "?": 1}, unk_token="?"))
    own.pre_tokenizer = lib.pre_tokenizers.Whitespace()
    own.save(str(tmp_path / "tokenizer.json"))
    table = adapted(
        Text("title", length=3, tokenizer=tmp_path / "tokenizer.json")
    )
    x = inputs(table, ["x y"])["text"]
    assert x["token_ids"].tolist() == [[0, 1, 2]]
    assert x["padding_mask"].tolist() == [[True, True, False]]
    assert table.fields["text"].vocabulary_size == 3


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="vocabulary"):
        Text("a", vocabulary=10)
    with pytest.raises(ValueError, match="length"):
        Text("a", length=0)
    with pytest.raises(ValueError, match="no tokenizer at"):
        adapted(Text("title", tokenizer=tmp_path / "none.json"))
    with pytest.raises(ValueError, match="empty in all training rows"):
        adapted(Text("title"), {"title": ["", None]})
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="a.json"):
        adapted(Text("title", tokenizer=tmp_path / "a.json"))
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="lacks"):
        adapted(Text("title", tokenizer=tmp_path / "vocab.txt"))
