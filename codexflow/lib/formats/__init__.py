"""Formats of dates and times where a language's own do not suit; Django reads them (FORMAT_MODULE_PATH)."""
