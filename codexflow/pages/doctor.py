"""The agent doctor: a script that tests from the reader's machine what a coding agent needs."""

import shlex
from functools import cache
from pathlib import Path

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from codexflow.lib.addresses import api_url, site_url
from codexflow.pages.docs import key_of, sections
from codexflow.settings import ENV

_FILE = Path(__file__).with_name("doctor.sh")


@cache
def text_of(base_url: str) -> str:
    """Script for one installation. `base_url` ends in /v1."""
    return _FILE.read_text().replace("__BASE_URL__", shlex.quote(base_url))


@require_safe
def script(request: HttpRequest) -> HttpResponse:
    """Serve the script, for `curl … | sh`. It contains the URL and no secret."""
    return HttpResponse(text_of(api_url(ENV)), content_type="text/x-shellscript; charset=utf-8")


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Describe the checks and how to run them, and show the script."""
    address = f"{site_url(ENV)}{reverse('doctor-script')}"
    facts = {
        "sections": sections(request.path),
        "command": f"export CODEXFLOW_API_KEY=cfx_…\ncurl -fsS {address} | sh",
        "script": text_of(api_url(ENV)),
        "key": key_of(request),
    }
    return render(request, "pages/docs/doctor.html", facts)
