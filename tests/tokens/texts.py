"""Texts of many kinds, to find out how many tokens a byte can be. Seeded: the same texts every time."""

import json
import random
import string
import unicodedata
from collections.abc import Callable, Sequence

# Words and sentences that are ordinary, so that a table can set the worst beside them.
ENGLISH = (
    "Please review the function below and tell me whether it handles an empty list. The tests pass, but the customer "
    "reports that the total is wrong when two orders arrive at the same time. "
)
TURKISH = (
    "Aşağıdaki işlevi incele ve boş listeyi doğru işleyip işlemediğini söyle. Testler geçiyor, ama müşteri iki sipariş "
    "aynı anda geldiğinde toplamın yanlış olduğunu bildiriyor. "
)
CODE = '''\
def total_of(orders: Sequence[Order], *, currency: str = "USD") -> int:
    """Sum the open orders in one currency."""
    return sum(order.amount_nanos for order in orders if order.is_open and order.currency == currency)


class OrderRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cache: dict[UUID, Order] = {}

'''
# First and last code points of scripts.
SCRIPTS = {
    "Latin extended": (0x100, 0x24F),
    "Greek": (0x391, 0x3C9),
    "Cyrillic": (0x410, 0x44F),
    "Armenian": (0x561, 0x586),
    "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x620, 0x64A),
    "Devanagari": (0x904, 0x939),
    "Thai": (0xE01, 0xE2E),
    "Georgian": (0x10D0, 0x10FF),
    "Ethiopic": (0x1200, 0x137F),
    "Japanese kana": (0x3041, 0x30FE),
    "Chinese, usual": (0x4E00, 0x5200),
    "Chinese, all": (0x4E00, 0x9FFF),
    "Chinese, rare (extension B)": (0x20000, 0x2A6DF),
    "Korean": (0xAC00, 0xD7A3),
    "emoji": (0x1F300, 0x1FAFF),
    "cuneiform": (0x12000, 0x12399),
    "private use": (0xE000, 0xF8FF),
    "variation selectors": (0xE0100, 0xE01EF),
    "musical symbols": (0x1D15E, 0x1D164),
    "Arabic presentation forms": (0xFB50, 0xFDFB),
    "squared words": (0x3300, 0x33FF),
    "compatibility ideographs": (0x2F800, 0x2FA1D),
    "any character": (0x80, 0x2FFFF),
}
_PUNCTUATION = "!#$%&()*+,-./:;<=>?@[]^_`{|}~"


def texts(seed: int, characters: int) -> dict[str, str]:
    """Return a text of each kind, by its name."""
    draw = random.Random(seed)  # noqa: S311 - no secret

    def of(alphabet: Sequence[str], share: float = 1.0) -> str:
        return "".join(draw.choices(alphabet, k=max(1, int(characters * share))))

    found = {
        "English": _repeated(ENGLISH, characters),
        "Turkish": _repeated(TURKISH, characters),
        "code": _repeated(CODE, characters),
        "code as JSON": json.dumps(_repeated(CODE, characters)),
        "lower-case letters": of(string.ascii_lowercase),
        "upper-case letters": of(string.ascii_uppercase),
        "letters and digits in turn": "".join(
            draw.choice("QXZJKVW") + draw.choice(string.digits) for _ in range(characters // 2)
        ),
        "digits": of(string.digits),
        "base64": of(string.ascii_letters + string.digits + "+/"),
        "hexadecimal": of("0123456789abcdef"),
        "percent-encoded": "".join(f"%{draw.randrange(256):02X}" for _ in range(characters // 3)),
        "JSON escapes": "".join(f"\\u{draw.randrange(0x10000):04x}" for _ in range(characters // 6)),
        "punctuation": of(_PUNCTUATION),
        "one rare sign again and again": "\x01" * characters,
        "control characters": of([chr(code) for code in range(0x80, 0xA0)]),
        "white space": of(" \t\n\r"),
        "spaces": " " * characters,
        "words of one letter": of([f"{letter} " for letter in string.ascii_letters], 0.5),
        "combining marks": of([chr(code) for code in range(0x300, 0x370)]),
        "one ligature again and again": "\ufdfa" * (characters // 4),
        "one note again and again": "\U0001d160" * (characters // 4),
        "special tokens": of(["<|endoftext|>", "<|im_start|>", "[INST]", "</s>", "<start_of_turn>"], 0.1),
        "bytes as Latin-1": "".join(chr(draw.randrange(0x20, 0x100)) for _ in range(characters)),
    }
    for name, (first, last) in SCRIPTS.items():
        found[name] = of([chr(code) for code in range(first, last + 1) if unicodedata.category(chr(code)) != "Cs"], 0.4)
    return found


def _repeated(text: str, characters: int) -> str:
    return (text * (characters // len(text) + 1))[:characters]


def search(count: Callable[[str], int], *, seed: int, rounds: int, characters: int) -> str:
    """Look for the text with the most tokens a byte: change the best one in one place, and keep what is no worse."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    rare = ["\ufdfa", "\U0001d160", "\ue000", "\u3300", "\u0344"]
    alphabet = [*string.printable, *map(chr, range(0xA1, 0x180)), *rare]

    def score(text: str) -> float:
        return count(text) / len(text.encode())

    best = "".join(draw.choices(alphabet, k=characters))
    best_score = score(best)
    for _ in range(rounds):
        at, length = draw.randrange(len(best)), draw.randrange(1, 5)
        tried = best[:at] + "".join(draw.choices(alphabet, k=length)) + best[at + length :]
        if (found := score(tried)) >= best_score:
            best, best_score = tried, found
    return best
