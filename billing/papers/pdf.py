"""Papers as PDF (PDF/A-2), A4, with the fonts that come in Typst's wheel. Imported by the worker's task only."""

from datetime import datetime
from pathlib import Path

import msgspec
import typst

from billing.papers.documents import Document

TEMPLATE = Path(__file__).parent / "typst" / "paper.typ"


def render(document: Document, *, language: str, page_label: str, at: datetime) -> bytes:
    """Return the document as PDF. The same document gives the same bytes.

    `page_label` is text with {page} and {pages}; `at` is the time in the file's metadata. Letters that Typst's fonts do
    not have, such as Chinese ones, are taken from fonts of the system; PDF/A, which allows no missing letter, is then
    not promised.
    """
    inputs = inputs_of(document, language=language, page_label=page_label)
    template, timestamp = TEMPLATE.read_bytes(), int(at.timestamp())
    try:
        return typst.compile(
            template, sys_inputs=inputs, timestamp=timestamp, ignore_system_fonts=True, pdf_standards="a-2u"
        )
    except typst.TypstError:
        return typst.compile(template, sys_inputs=inputs, timestamp=timestamp)


def inputs_of(document: Document, *, language: str, page_label: str) -> dict[str, str]:
    """Inputs of the template: finished texts as JSON, so that nothing in them is markup."""
    facts = {**msgspec.to_builtins(document), "language": language, "page_label": page_label}
    return {"document": msgspec.json.encode(facts).decode()}
