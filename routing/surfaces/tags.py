"""Tag of a request: the caller's own name for what it is spent on. Pure.

`X-CFX-Tag`, or `tag` in the body's `metadata`; the header wins. Neither goes upstream. Most calls have none, and of
those nothing is looked at here.
"""

import msgspec
from msgspec import Raw

from billing.plans import is_tag
from routing.errors import InvalidTag

HEADER = b"x-cfx-tag"
HEADER_NAME = "X-CFX-Tag"
FIELD = "metadata.tag"
_metadata = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)


def header_tag(value: bytes) -> str:
    """Return the tag of the header. Raises InvalidTag."""
    return _checked(value.decode("latin-1").strip(), HEADER_NAME)


def metadata_tag(raw: Raw) -> str:
    """Return the tag inside `metadata`; empty if there is none. Raises InvalidTag.

    Decoded only where it may have one: its name stands there, perhaps with escapes.
    """
    written = bytes(raw)
    if b'"tag"' not in written and b"\\" not in written:
        return ""
    try:
        tag = _metadata.decode(written).get("tag")
        if tag is None or bytes(tag) == b"null":
            return ""
        return _checked(_text.decode(tag), FIELD)
    except msgspec.ValidationError:
        # `metadata` that is no object has no tag; what else is wrong with it is found where it is written anew.
        if not written.lstrip().startswith(b"{"):
            return ""
        raise InvalidTag(param=FIELD) from None
    except (msgspec.MsgspecError, RecursionError):
        return ""


def _checked(tag: str, param: str) -> str:
    if not is_tag(tag):
        raise InvalidTag(param=param)
    return tag
