"""`make doc-dates`: record in docs/dates.json when each customer document last changed, for the date on its page.

File times do not tell: a clone or an image sets them anew.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import date

from codexflow.lib.clock import now
from codexflow.pages.library import DATES, FILES, FOLDER, TRANSLATIONS

Recorded = dict[str, dict[str, str]]


def texts() -> dict[str, str]:
    """Text of each customer document in each language, by its file below docs/."""
    files = [*FILES.values(), *(folder + file for folder in TRANSLATIONS.values() for file in FILES.values())]
    return {file: (FOLDER / file).read_text() for file in sorted(files) if (FOLDER / file).is_file()}


def recorded() -> Recorded:
    """Content of docs/dates.json."""
    found: Recorded = json.loads(DATES.read_text())
    return found


def renewed(known: Mapping[str, Mapping[str, str]], found: Mapping[str, str], today: date) -> Recorded:
    """Dates by file: unchanged texts keep theirs, others get today's. Pure."""
    dates: Recorded = {}
    for file, text in found.items():
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        before = known.get(file, {})
        changed_on = before["changed_on"] if before.get("digest") == digest else today.isoformat()
        dates[file] = {"changed_on": changed_on, "digest": digest}
    return dates


def main() -> None:
    lines = [f'  "{file}": {json.dumps(each)}' for file, each in renewed(recorded(), texts(), now().date()).items()]
    DATES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stdout.write(f"{DATES.name}: {len(lines)} documents\n")


if __name__ == "__main__":
    main()
