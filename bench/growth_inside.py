"""Fills an installation for `bench.growth`: run inside its stack."""

import sys
from pathlib import Path

import django

BATCH = 1_000


def make_keys(path: Path, count: int) -> None:
    """Write keys of the quickstart's organization, whose limits never refuse, one a line."""
    # Models can be imported only once Django is set up.
    from codexflow.settings import ENV
    from keys import secret
    from keys.models import ApiKey

    first = ApiKey.objects.earliest("created_at")
    minted = [secret.mint() for _ in range(count)]
    rows = [
        ApiKey(
            organization=first.organization,
            created_by=first.created_by,
            name="bench",
            public_id=each.public_id,
            digest=secret.digest(each.key, ENV.salts[0]),
            last_four=each.key[-4:],
        )
        for each in minted
    ]
    ApiKey.objects.bulk_create(rows, batch_size=BATCH)
    path.write_text("".join(f"{each.key}\n" for each in minted))


def make_rows(count: int) -> None:
    """Fill the log of the quickstart's organization."""
    from bench.fill_logs import fill
    from keys.models import ApiKey

    key = ApiKey.objects.earliest("created_at")
    fill(key.organization_id, [key.pk], key.created_by_id, rows=count, report=lambda _line: None)


if __name__ == "__main__":
    django.setup()
    if sys.argv[1] == "keys":
        make_keys(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        make_rows(int(sys.argv[2]))
