"""Labels of what has a price each (`billing.pricing.price_lines`), and of what pays."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

PRICE_CLASSES: dict[str, Promise] = {
    "input": _("Input"),
    "cached": _("Cache read"),
    "cache_write": _("Cache write"),
    "cache_write_1h": _("Cache write (1 h)"),
    "audio_input": _("Input, audio"),
    "image_input": _("Input, images"),
    "output": _("Output"),
    "audio_output": _("Output, audio"),
    "image_output": _("Output, images"),
    "web_search": _("Web searches"),
    "web_fetch": _("Pages fetched"),
    "code_execution": _("Code executions"),
    "file_search": _("File searches"),
    "image_generation": _("Images generated"),
    "mcp_call": _("Calls of MCP tools"),
    "search_unit": _("Search units"),
    "request": _("Requests"),
}

SOURCES: dict[str, Promise] = {
    "plan": _("from the plan"),
    "promotional": _("from promotional credit"),
    "paid": _("from paid credit"),
    "debt": _("as debt"),
}

# Calls of a planned request.
PART_KINDS: dict[str, Promise] = {
    "planner": _("Plan"),
    "chunk": _("Part"),
    "summary": _("Summary"),
    "one-pass": _("One pass"),
}
