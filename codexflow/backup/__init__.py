"""Backups of the database: one file that says what is in it, and a restore that proves it.

`manifest` is pure; `dump` writes a file, `load` reads one into an empty database and compares what was loaded with what
the file says. COPY through the driver, because the image has no PostgreSQL client.
"""
