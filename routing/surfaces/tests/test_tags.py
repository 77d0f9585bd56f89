"""Tags: from the header or from metadata, in one form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from routing.errors import InvalidTag
from routing.surfaces.tags import header_tag, metadata_tag

ALLOWED = "ABCXYZabcxyz0189._:/@-"
tags = st.text(ALLOWED, min_size=1, max_size=64)
other_values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


def written(value: object, *, escaped: bool = True) -> Raw:
    return Raw(json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass"))


@given(tag=tags)
def test_a_tag_of_the_form_is_kept_as_it_is(tag: str) -> None:
    assert header_tag(tag.encode()) == tag
    assert header_tag(f"  {tag}\t".encode()) == tag
    assert metadata_tag(written({"user_id": "u", "tag": tag})) == tag


@given(tag=tags)
def test_a_name_with_escapes_is_the_same_name(tag: str) -> None:
    assert metadata_tag(Raw(b'{"\\u0074ag": %b}' % json.dumps(tag).encode())) == tag


def is_tag(text: str) -> bool:
    return 1 <= len(text) <= 64 and all(each.isascii() and (each.isalnum() or each in "._:/@-") for each in text)


@given(text=st.text().filter(lambda text: not is_tag(text)))
def test_any_other_text_is_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidTag) as refused:
        metadata_tag(written({"tag": text}))
    assert refused.value.param == "metadata.tag"


@pytest.mark.parametrize("value", [b"", b" ", b"a b", b"a,b", b"a" * 65, "şirket".encode(), b"a\xffb", b"a\nb"])
def test_a_header_of_another_form_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidTag) as refused:
        header_tag(value)
    assert refused.value.param == "X-CFX-Tag"


@pytest.mark.parametrize("value", [1, True, ["a"], {"tag": "a"}, "", "a b", "a" * 65])
def test_a_value_that_is_no_tag_is_refused(value: object) -> None:
    with pytest.raises(InvalidTag):
        metadata_tag(written({"tag": value}))


@given(metadata=st.dictionaries(st.text().filter(lambda name: name != "tag"), other_values))
def test_metadata_without_a_tag_has_none(metadata: dict[str, object]) -> None:
    assert metadata_tag(written(metadata)) == ""
    assert metadata_tag(written(metadata, escaped=False)) == ""


@pytest.mark.parametrize(
    "raw", [b"null", b"[]", b'["\\n", "tag"]', b'"tag"', b"5", b'{"tag": null}', b'{"a": {"tag": 5}}']
)
def test_other_shapes_have_no_tag(raw: bytes) -> None:
    assert metadata_tag(Raw(raw)) == ""
