"""Tokenizing a text for stage inference: folded words and clause ends. Pure.

Everything here is linear in the text and runs over bytes at C speed: it is on the path of every inferred request.
"""

import re
import unicodedata

# Separates clauses in the list of words; no word can equal it.
END = b"\x01"

_FULL_STOP = (b". ", b"! ")  # a dot ends a clause before a space, but not inside models.yaml
_ENDS = '!?;:,()[]{}<>="`\n'
_FOREIGN_ENDS = "…—\u2013“”„«»•\u2039\u203a"
_ASCII = bytes(range(128))


def _folded(char: str) -> int:
    if char.isalnum() or char == "_":
        return ord(char.lower())
    return END[0] if char in _ENDS else ord(" ")


# ASCII letters become small, ends of clauses become END, all but letters, digits and underscore a space. The bytes of
# other characters stay.
_FOLDED = bytes(code if code > 127 else _folded(chr(code)) for code in range(256))
# At most so many different characters are replaced one by one; with more of them that would no longer be linear.
_FEW_SWAPS = 32
_SPACED_END = b" %b " % END
_TWO_ENDS = END * 2
_SHORT_BYTES = 4 * 1024
# Letters with separate marks are composed first; other forms of one letter stay different.
_MARK = re.compile("[\u0300-\u036f]")
_MARK_LEADS = (b"\xcc", b"\xcd")  # the first bytes of marks in UTF-8
_CAPITALS = tuple(zip("ÇĞÖŞÜ", "çğöşü", strict=True))  # the usual ones; testing each letter costs far more
_DIACRITICS = str.maketrans("çğöşüâîû", "cgosuaiu")


def fold(text: str) -> str:
    """Fold case, the same for Turkish and English: İ, I, ı and i all become i.

    So "İNCELE", "INCELE" and "incele" are one word, as are "FIX" and "fix". Turkish words that differ only in the dot
    become one, too; no configured word does.
    """
    return one_i(text).casefold()


def one_i(text: str) -> str:
    """Replace İ and ı by i, before casefold makes two characters of the first and leaves the second alone.

    The dot may also be a separate mark: JavaScript and Python lower İ to that.
    """
    if text.isascii():
        return text
    text = text.replace("İ", "i").replace("ı", "i")
    if _MARK.search(text):
        text = unicodedata.normalize("NFC", text).replace("İ", "i").replace("i\u0307", "i")
    return text


def bare(word: str) -> str:
    """Return a folded word as typed on a keyboard without Turkish letters: olustur, gozden."""
    return word.translate(_DIACRITICS)


def word_set(text: str) -> frozenset[bytes]:
    """Return the words of a text as they occur in folded texts, with and without Turkish letters."""
    return frozenset(word.encode() for each in fold(text).split() for word in (each, bare(each)))


def clauses(text: str) -> list[bytes]:
    """Return the folded words of a text in UTF-8, in order, with END before, between and after clauses.

    ASCII is folded in one pass over the bytes. Of other characters a text has few different ones, so those that are
    capitals or no letters are replaced one after the other.
    """
    text = text.replace("İ", "i").replace("ı", "i")
    encoded = _utf8(text)
    if len(encoded) != len(text):
        encoded = _without_foreign_capitals(encoded)
    marked = b"%b%b%b" % (END, encoded.replace(*_FULL_STOP).translate(_FOLDED), END)
    if len(marked) > _SHORT_BYTES:
        # Code has many ends in a row, and each would be a word. In a short text they cost less than this.
        marked = marked.replace(_TWO_ENDS, END).replace(_TWO_ENDS, END)
    return marked.replace(END, _SPACED_END).split()


def _without_foreign_capitals(encoded: bytes) -> bytes:
    """Fold the characters beyond ASCII, and replace those that are no letters."""
    if _MARK_LEADS[0] in encoded or _MARK_LEADS[1] in encoded:
        encoded = _utf8(one_i(encoded.decode("utf-8", "surrogatepass")))
    foreign = encoded.translate(None, _ASCII).decode("utf-8", "surrogatepass")
    for capital, small in _CAPITALS:
        if capital in foreign:
            foreign = foreign.replace(capital, small)
            encoded = encoded.replace(_utf8(capital), _utf8(small))
    if foreign.isalnum() and foreign.casefold() == foreign:
        return encoded
    swaps = [(char, swap) for char in set(foreign) if (swap := _swap(char)) != char]
    if len(swaps) > _FEW_SWAPS:
        text = encoded.decode("utf-8", "surrogatepass")
        return _utf8("".join(char if char < "\x80" else _swap(char) for char in text))
    for char, swap in swaps:
        encoded = encoded.replace(_utf8(char), _utf8(swap))
    return encoded


def words(text: str) -> list[bytes]:
    r"""Return the folded words of a text, in order and in UTF-8, as `\w+` finds them."""
    return [word for word in clauses(text) if word != END]


def _swap(char: str) -> str:
    """Return the replacement of a character that is not ASCII. A newline becomes END."""
    if char.isalnum():
        return char.casefold()
    return "\n" if char in _FOREIGN_ENDS else " "


def _utf8(text: str) -> bytes:
    """Encode. JSON can carry a lone surrogate, which must not fail a request."""
    return text.encode("utf-8", "surrogatepass")
