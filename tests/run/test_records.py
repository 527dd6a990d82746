"""Records are as they were written, or refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.run import records

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), JSON).filter(lambda content: records.CHECKSUM not in content))
def test_what_is_sealed_is_opened(content):
    assert records.parsed(json.dumps(records.sealed(content))) == content
    assert records.parsed(json.dumps(content)) == content  # of an older run


@given(st.data())
def test_a_flipped_bit_is_found(data):
    content = {"config": {"epochs": 30, "name": "digits", "levels": [1, 2]}, "data": {"mean": 0.5}}
    text = bytearray(json.dumps(records.sealed(content)).encode())
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = records.parsed(bytes(text))
    except ValueError:
        return
    # The name of the checksum is another one, which its reader does not know.
    assert found == content or found.keys() - content.keys()


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "[" * 100_000, b"\xff"], ids=str)
def test_what_is_no_record(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of json, or of records
        records.parsed(text)


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, True), (-2.5, True), (10**300, True)]
    + [
        (each, False)
        for each in (10**400, -(10**400), float("nan"), float("inf"), True, "1", None, [])
    ],
    ids=lambda value: str(value)[:9],
)
def test_numbers(value, number):
    assert records.is_number(value) == number


def test_a_line_with_a_huge_number_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "a": 1{"0" * 400}}}\n{{"step": 2}}\n')
    found, damaged = records.scalars_in(tmp_path / "metrics.jsonl")
    assert [scalars for _, scalars in found] == [{"step": 2}]
    assert damaged == 1
