"""The catalogue in force in this process.

A *server* (the web process, by `serve`) follows its file: a change of the file is recorded as a version, and the newest
version, from a file or from an operator, is in force everywhere. Any other process (a command, a worker, a shell, by
`load` or `in_force`) only reads: the newest version in PostgreSQL or, without a version or without PostgreSQL, its own
file in memory. So a command with another file, or a worker with the file of an older image, cannot replace the servers'
configuration. Workers and beat have no timer: they read the newest version when a task needs it.

An invalid text never replaces a valid one.
"""

import logging
from pathlib import Path
from threading import Lock

from django.conf import settings
from django.db import Error as DatabaseFailure

from codexflow.catalogue import services
from codexflow.catalogue.lineup import Lineup, lineup_of
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import (
    Catalogue,
    CatalogueError,
    PlannerConfig,
    parse,
    parse_planner,
    shown_of,
    with_planner,
)
from codexflow.lib import clock

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class Directory:
    """One process's state of the file and of the versions."""

    def __init__(self) -> None:
        self._current: Catalogue | None = None
        self._path = Path()
        self._is_server = False
        self._stamp: _Stamp | None = None  # of the file when it was last read
        self._file_text = ""
        self._file: Catalogue | None = None  # the last valid one
        self._has_unrecorded_file = False  # servers: the file changed and is not in PostgreSQL yet
        self._row_id: int | None = None  # of the version last read from PostgreSQL
        self._base: Catalogue | None = None  # what is in force, without the planner of another file
        self._planner_stamps: tuple[_Stamp | None, ...] = ()
        self._planner: PlannerConfig | None = None  # of another file, named here
        self._planner_file = ""
        self._problems: dict[str, list[str]] = {}  # origin (file or version) -> its current problems
        self._lock = Lock()

    def current(self) -> Catalogue:
        """Return the catalogue in force, without I/O. Raises CatalogueError before the first load."""
        if self._current is None:
            raise CatalogueError(["no configuration has been loaded yet"])
        return self._current

    def in_force(self, path: Path) -> Catalogue:
        """Return `current`, after a `load` when nothing was loaded yet. Raises CatalogueError."""
        if self._current is None:
            self.load(path)
        return self.current()

    def planner_file(self) -> str:
        """Name of the file that the planner's settings are from; empty: the catalogue's own."""
        return self._planner_file

    def problems(self) -> list[str]:
        """List problems of the file or of the newest version; the catalogue in force is an earlier, valid one."""
        return [problem for found in self._problems.values() for problem in found]

    def load(self, path: Path) -> None:
        """Read the newest version, or the file at `path` where there is none. Never writes a version.

        Raises CatalogueError when neither is valid.
        """
        self._begin(path, is_server=False)

    def serve(self, path: Path) -> None:
        """Load for a server: later changes of the file at `path` are put in force. Raises CatalogueError.

        With an invalid file the server still starts, as long as PostgreSQL has a valid version.
        """
        self._begin(path, is_server=True)

    def _begin(self, path: Path, *, is_server: bool) -> None:
        self._path, self._is_server = path, is_server
        self._stamp = self._row_id = None
        self._planner_stamps = ()
        self.refresh()
        if self._current is None:
            raise CatalogueError(self.problems())

    def refresh(self) -> None:
        """Notice new versions and, in a server, changes of the file. Blocks for a round trip to PostgreSQL.

        Does not raise when PostgreSQL is away. A timer of the web process calls it every two seconds on a thread that
        `lib.db.in_database` provides with a connection. Swapping one reference needs no lock; concurrent refreshes
        would interfere, so they are serialized.
        """
        with self._lock:
            if self._is_server:
                self._refresh_server()
            else:
                self._refresh_reader()
            self._read_planner()

    def _refresh_server(self) -> None:
        self._read_file()
        try:
            self._record_file()
            self._read_newest_version()
        except DatabaseFailure:
            if self._has_unrecorded_file:
                self._put_in_force(self._file)
                self._row_id = None  # once PostgreSQL is back, its newest version takes precedence again

    def _refresh_reader(self) -> None:
        try:
            has_version = self._read_newest_version()
        except DatabaseFailure:
            has_version = self._row_id is not None
        if not has_version or self._current is None:
            self._read_file()
            self._put_in_force(self._file or self._base)

    def _read_file(self) -> None:
        try:
            # Before reading, so that a change in between is noticed the next time.
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            text = self._path.read_text(encoding="utf-8")
            known = self._file if text == self._file_text else None
            catalogue = known or parse(text, source=self._path.name)
        except OSError as exc:
            self._stamp = None
            self._report("file", [f"{self._path.name}: cannot be read ({exc.strerror})"])
        except UnicodeDecodeError:
            self._stamp = stamp
            self._report("file", [f"{self._path.name}: is not UTF-8 text"])
        except CatalogueError as exc:
            self._stamp = stamp
            self._report("file", exc.problems)
        else:
            self._stamp = stamp
            self._report("file", [])
            if text != self._file_text:
                self._file_text, self._file, self._has_unrecorded_file = text, catalogue, True

    def _record_file(self) -> None:
        """Write the changed file as a version. Only servers do."""
        if self._has_unrecorded_file and self._file is not None:
            services.record_file(self._file_text, version=self._file.version)
            self._has_unrecorded_file = False

    def _read_newest_version(self) -> bool:
        """Put the newest version in force if it changed. Returns True when a version exists."""
        newest_id = ConfigVersion.objects.values_list("pk", flat=True).first()
        if newest_id is None or newest_id == self._row_id:
            return newest_id is not None
        try:
            catalogue = parse(ConfigVersion.objects.get(pk=newest_id).text, source=f"version {newest_id}")
        except CatalogueError as exc:
            # It was valid when written; this release validates more strictly.
            self._report("version", exc.problems)
            self._put_in_force(self._base or self._file)
        else:
            self._report("version", [])
            self._put_in_force(catalogue)
        self._row_id = newest_id
        return True

    def _put_in_force(self, catalogue: Catalogue | None) -> None:
        if catalogue is not self._base:
            self._base, self._planner_stamps = catalogue, ()  # its aliases may be other ones
        self._put_together()

    def _put_together(self) -> None:
        catalogue = self._base
        if catalogue is not None and self._planner is not None:
            catalogue = with_planner(catalogue, self._planner)
        if catalogue is not None and (self._current is None or catalogue.version != self._current.version):
            logger.info("catalogue.in_force", extra={"version": catalogue.version})
            if catalogue.planner is not None:
                logger.info("planner.in_force", extra=shown_of(catalogue.planner))
            self._current = catalogue

    def _read_planner(self) -> None:
        """Read the planner's section of the first file that has one, when one of them has changed."""
        paths = settings.ENV.planner_paths
        stamps = tuple(map(_stamp_of, paths))
        if self._base is None or stamps == self._planner_stamps:
            return
        self._planner_stamps = stamps
        found, name = None, ""
        try:
            for path, stamp in zip(paths, stamps, strict=True):
                if stamp is not None and found is None:
                    found, name = parse_planner(path.read_text("utf-8"), self._base, source=path.name), path.name
        except (OSError, UnicodeDecodeError) as exc:
            self._report("planner", [f"the planner's file cannot be read ({exc})"])
            return
        except CatalogueError as exc:
            self._report("planner", exc.problems)
            return
        self._report("planner", [])
        self._planner_file = name if found is not None else ""
        if found != self._planner:
            self._planner = found
            self._put_together()

    def _report(self, origin: str, problems: list[str]) -> None:
        """Store the problems of one origin; log them once, not every two seconds."""
        if problems and problems != self._problems.get(origin):
            logger.error("catalogue.refused", extra={"problems": problems})
        self._problems = {**self._problems, origin: problems}


def _stamp_of(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


_directory = Directory()


def in_force() -> Catalogue:
    """Return the catalogue in any process: a command, a worker, a shell. Never writes."""
    return _directory.in_force(settings.ENV.config_path)


def todays_lineup() -> Lineup:
    """Return which models serve today, as far as the catalogue alone decides; in any process."""
    return lineup_of(in_force(), clock.now().date())


current = _directory.current
problems = _directory.problems
planner_file = _directory.planner_file
load = _directory.load
serve = _directory.serve
refresh = _directory.refresh
