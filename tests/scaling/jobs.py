"""`python -m tests.scaling.jobs`: run every task of the schedule once, in this process; exit code 1 if one fails."""

import sys
import traceback

import django


def main() -> int:
    django.setup()
    from codexflow.celery import app
    from codexflow.schedule import SCHEDULE

    failed = []
    for name, (task, _, _) in SCHEDULE.items():
        try:
            app.loader.import_default_modules()
            app.tasks[task]()
        except Exception:  # noqa: BLE001 - the next one runs as well
            failed.append(name)
            traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
