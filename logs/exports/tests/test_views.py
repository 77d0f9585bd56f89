"""Pages of exports."""

from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import AuditEntry
from logs.exports import jobs
from logs.models import ExportJob
from tests.support.cast import Cast, an_event_of, happened

HTMX = {"hx-request": "true"}


@pytest.fixture
def page(client: Client, cast: Cast, settings: Any, tmp_path: Any) -> Client:
    settings.ENV = replace(settings.ENV, export_dir=tmp_path)
    client.force_login(cast.ben)
    return client


def test_the_dialog_shows_filters_and_an_estimate(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast), an_event_of(cast, stage="plan"), an_event_of(cast, stage="plan", status=503))
    where = reverse("export-new", args=[cast.slug])
    for query, estimate in (
        ({}, "about 3"),
        ({"stage": "plan"}, "about 2"),
        ({"stage": "plan", "status": "errors"}, "about 1"),
        ({"status": "ok"}, "about 2"),
        ({"status": "503"}, "at most 1"),
        ({"id": "0199"}, "at most 3"),
    ):
        text = page.get(where, query, headers=HTMX).content.decode()
        assert estimate in text, query
        for name, value in query.items():
            assert f'name="{name}" value="{value}"' in text


def test_an_export_from_the_dialog_to_the_file(page: Client, cast: Cast) -> None:
    happened(cast, *(an_event_of(cast, stage="plan") for _ in range(3)), an_event_of(cast))
    where = reverse("export-new", args=[cast.slug])
    asked = page.post(where, {"format": "jsonl", "stage": "plan"}, headers=HTMX).content.decode()
    job = ExportJob.objects.get()
    watched = reverse("export", args=[cast.slug, job.pk])
    assert f'hx-get="{watched}"' in asked
    assert "every 1s" in asked
    jobs.run_exports(within_s=5)
    done = page.get(watched, headers=HTMX).content.decode()
    assert "every 1s" not in done
    assert "Ready" in done
    assert "3 requests" in done
    download = f"{reverse('api-export-download', args=[job.pk])}?organization={cast.slug}"
    assert download in done
    assert download in page.get(reverse("exports", args=[cast.slug])).content.decode()
    assert page.get(download).status_code == 200
    assert job.query == {"stage": "plan"}
    assert AuditEntry.objects.filter(action="export.requested", actor=cast.ben).count() == 1


def test_a_waiting_export_is_cancelled(page: Client, cast: Cast) -> None:
    page.post(reverse("export-new", args=[cast.slug]), {"format": "csv"})
    job = ExportJob.objects.get()
    cancel = reverse("export-cancel", args=[cast.slug, job.pk])
    text = page.post(cancel, headers={**HTMX, "hx-target": "export-progress"}).content.decode()
    assert "Cancelled" in text
    assert "<html" not in text
    assert ExportJob.objects.get().state == "cancelled"
    assert page.post(cancel)["Location"] == reverse("exports", args=[cast.slug])


def test_too_many_exports_are_refused_with_a_message(page: Client, cast: Cast) -> None:
    where = reverse("export-new", args=[cast.slug])
    for _ in range(jobs.MAX_ACTIVE):
        page.post(where, {"format": "csv"})
    response = page.post(where, {"format": "csv"}, headers=HTMX)
    assert response.status_code == 422
    assert "ten exports in progress" in response.content.decode()


def test_the_number_of_queries_does_not_grow_with_the_exports(page: Client, cast: Cast) -> None:
    where = reverse("exports", args=[cast.slug])
    page.get(where)
    for _ in range(2):
        ExportJob.objects.create(organization=cast.organization, created_by=cast.ada, format="csv")
    with CaptureQueriesContext(connection) as few:
        page.get(where)
    for _ in range(20):
        ExportJob.objects.create(organization=cast.organization, created_by=cast.ben, format="csv")
    with CaptureQueriesContext(connection) as many:
        page.get(where)
    assert len(many) == len(few)


def test_swapped_fragments_keep_the_focus(page: Client, cast: Cast) -> None:
    """The script restores the focus by id, so every focusable element keeps its id."""
    happened(cast, an_event_of(cast))
    page.post(reverse("export-new", args=[cast.slug]), {"format": "csv"})
    job = ExportJob.objects.get()
    for name, args, ids in (
        ("export", [cast.slug, job.pk], ("export-act", "export-all")),
        ("exports", [cast.slug], (f"act-{job.pk}", f"export-{job.pk}")),
    ):
        for state in ("queued", "running", "done"):
            ExportJob.objects.update(state=state)
            text = page.get(reverse(name, args=args), headers=HTMX).content.decode()
            assert all(text.count(f'id="{each}"') == 1 for each in ids), (name, state)
