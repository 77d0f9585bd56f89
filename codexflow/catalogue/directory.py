"""The catalogue in force, in this process: read from anywhere, kept up to date by one timer.

The latest change wins, be it the file or an operator's edit, and it wins in every process: a changed file is recorded
as a version, and the newest version is in force. A text with a mistake never replaces a good one. While PostgreSQL
is away the file alone is followed.
"""

import logging
from pathlib import Path
from threading import Lock

from django.conf import settings
from django.db import Error as DatabaseFailure

from codexflow.catalogue import services
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import Catalogue, CatalogueError, parse

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class Directory:
    """What one process knows of the file and of the versions."""

    def __init__(self) -> None:
        self._current: Catalogue | None = None
        self._path = Path()
        self._stamp: _Stamp | None = None  # of the file when it was last read
        self._file_text = ""
        self._file: Catalogue | None = None  # the last good one
        self._is_file_news = False  # the file changed and PostgreSQL has not been told yet
        self._row_id: int | None = None  # of the version last taken from PostgreSQL
        self._problems: dict[str, list[str]] = {}  # where from -> what is wrong there now
        self._lock = Lock()

    def current(self) -> Catalogue:
        """The catalogue in force. Instant. Raises CatalogueError before the first load."""
        if self._current is None:
            raise CatalogueError(["no configuration has been loaded yet"])
        return self._current

    def in_force(self, path: Path) -> Catalogue:
        """As `current`, where nothing may be loaded yet: then the file at `path` is followed. Raises CatalogueError."""
        if self._current is None:
            self.load(path)
        return self.current()

    def problems(self) -> list[str]:
        """What is wrong with the file or the newest version now; the catalogue in force is another, good one."""
        return [problem for found in self._problems.values() for problem in found]

    def load(self, path: Path) -> None:
        """Follow the file at `path` from now on. Raises CatalogueError when there is nothing good to start with.

        A bad file is no reason not to start as long as PostgreSQL has a good version.
        """
        self._path, self._stamp = path, None
        self.refresh()
        if self._current is None:
            raise CatalogueError(self.problems())

    def refresh(self) -> None:
        """Notice changes of the file and new versions. Blocks for a round trip to PostgreSQL; never raises for it.

        A timer of the process calls it every two seconds on a thread whose connection is looked after
        (`lib.db.in_database`, a Celery task). Swapping one reference needs no lock; two refreshes at once
        would confuse each other, so they take turns.
        """
        with self._lock:
            self._look_at_file()
            try:
                self._look_at_versions()
            except DatabaseFailure:
                self._follow_file_alone()

    def _look_at_file(self) -> None:
        try:
            # Before reading: a change in between is then noticed the next time.
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            text = self._path.read_text(encoding="utf-8")
            catalogue = parse(text, source=self._path.name)
        except OSError as exc:
            self._stamp = None
            self._note("file", [f"{self._path.name}: cannot be read ({exc.strerror})"])
        except UnicodeDecodeError:
            self._stamp = stamp
            self._note("file", [f"{self._path.name}: is not UTF-8 text"])
        except CatalogueError as exc:
            self._stamp = stamp
            self._note("file", exc.problems)
        else:
            self._stamp = stamp
            self._note("file", [])
            if text != self._file_text:
                self._file_text, self._file, self._is_file_news = text, catalogue, True

    def _look_at_versions(self) -> None:
        if self._is_file_news and self._file is not None:
            services.record_file(self._file_text, version=self._file.version)
            self._is_file_news = False
        newest_id = ConfigVersion.objects.values_list("pk", flat=True).first()
        if newest_id is None or newest_id == self._row_id:
            return
        try:
            catalogue = parse(ConfigVersion.objects.get(pk=newest_id).text, source=f"version {newest_id}")
        except CatalogueError as exc:
            # It was good when it was written: a newer CodexFlow asks for more.
            self._note("version", exc.problems)
            self._follow(self._current or self._file)
        else:
            self._note("version", [])
            self._follow(catalogue)
        self._row_id = newest_id

    def _follow_file_alone(self) -> None:
        if self._is_file_news:
            self._follow(self._file)
            self._row_id = None  # when PostgreSQL is back, its newest version decides again, whatever it is

    def _follow(self, catalogue: Catalogue | None) -> None:
        if catalogue is not None and (self._current is None or catalogue.version != self._current.version):
            logger.info("catalogue.in_force", extra={"version": catalogue.version})
        self._current = catalogue

    def _note(self, where: str, problems: list[str]) -> None:
        """Remember what is wrong; say it once, not every two seconds."""
        if problems and problems != self._problems.get(where):
            logger.error("catalogue.refused", extra={"problems": problems})
        self._problems = {**self._problems, where: problems}


_directory = Directory()


def in_force() -> Catalogue:
    """The catalogue for whoever may run outside the gateway's process: commands, workers, the shell."""
    return _directory.in_force(settings.ENV.config_path)


current = _directory.current
problems = _directory.problems
load = _directory.load
refresh = _directory.refresh
