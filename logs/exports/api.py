"""Management API of exports."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

from django.http import HttpResponseBase, StreamingHttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import Action
from codexflow.lib.errors import NotFound
from keys.api_access import Caller, ManagementView, caller_of
from logs.exports import jobs
from logs.models import ExportJob
from logs.requests.queries import FilterQuery

LISTED = 100
CHUNK_BYTES = 256 * 1024


class NewExportSerializer(FilterQuery):
    """Format and filters of an export. The filters are those of the list of requests."""

    format = serializers.ChoiceField(ExportJob.Format.choices)


class ExportSerializer(serializers.Serializer[ExportJob]):
    """An export: its progress and, once it is done, the path of its file."""

    id = serializers.UUIDField()
    format = serializers.CharField()
    state = serializers.ChoiceField(ExportJob.State.choices)
    query = serializers.JSONField(help_text="The filters as requested.")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True, help_text="When the file is removed.")
    progress = serializers.SerializerMethodField()
    rows = serializers.IntegerField(help_text="Written so far.")
    size_bytes = serializers.IntegerField(help_text="Of the compressed file, so far.")
    error = serializers.CharField()
    download = serializers.SerializerMethodField()

    def get_progress(self, job: ExportJob) -> float:
        """Progress from 0 to 1, by the part of the time span that is done: rows are never counted ahead."""
        return jobs.progress_of(job)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_download(self, job: ExportJob) -> str | None:
        """Path of the file, which needs the same authentication as the rest of the API."""
        return reverse("api-export-download", args=[job.pk]) if job.state == ExportJob.State.DONE else None


class ExportPageSerializer(serializers.Serializer[Any]):
    """The newest exports first."""

    data = ExportSerializer(many=True)  # type: ignore[assignment] # a field that is named so


class ExportsView(ManagementView):
    """The organization's exports."""

    @extend_schema(operation_id="exports_list", responses=ExportPageSerializer)
    def get(self, request: Request) -> Response:
        caller = _exporter(request)
        newest = ExportJob.objects.filter(organization=caller.organization).order_by("-created_at")[:LISTED]
        return Response(ExportPageSerializer({"data": newest}).data)

    @extend_schema(operation_id="exports_create", request=NewExportSerializer, responses={202: ExportSerializer})
    def post(self, request: Request) -> Response:
        """Queues an export of the requests there are now. At most two run at a time, further ones wait."""
        caller = _exporter(request)
        wanted = NewExportSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        query = {name: str(value) for name, value in wanted.validated_data.items() if value is not None}
        file_format = query.pop("format")
        job = jobs.request_export(
            caller.organization,
            file_format=file_format,
            query=query,
            filters=wanted.filters(caller.organization),
            by=_requester(request, caller),
        )
        return Response(ExportSerializer(job).data, status=202)


class ExportView(ManagementView):
    """One export."""

    @extend_schema(operation_id="exports_show", responses=ExportSerializer)
    def get(self, request: Request, export_id: UUID) -> Response:
        return Response(ExportSerializer(_job(_exporter(request), export_id)).data)

    @extend_schema(operation_id="exports_delete", request=None, responses={204: None})
    def delete(self, request: Request, export_id: UUID) -> Response:
        """Removes the export and its file; one that runs is stopped."""
        caller = _exporter(request)
        jobs.delete_export(_job(caller, export_id), by=_requester(request, caller))
        return Response(status=204)


class ExportCancelView(ManagementView):
    """Cancellation of an export."""

    @extend_schema(operation_id="exports_cancel", request=None, responses=ExportSerializer)
    def post(self, request: Request, export_id: UUID) -> Response:
        """Stops an export that waits or runs; one that has ended stays as it is."""
        caller = _exporter(request)
        job = jobs.cancel_export(_job(caller, export_id), by=_requester(request, caller))
        return Response(ExportSerializer(job).data)


class ExportDownloadView(ManagementView):
    """The file of one export."""

    @extend_schema(
        operation_id="exports_download",
        responses={
            (200, "application/gzip"): OpenApiTypes.BINARY,
            409: OpenApiResponse(description="There is no file: not yet, or the export was stopped or failed."),
            410: OpenApiResponse(description="The file has expired."),
        },
    )
    def get(self, request: Request, export_id: UUID) -> HttpResponseBase:
        """The file, compressed with gzip."""
        caller = _exporter(request)
        job = _job(caller, export_id)
        path = jobs.open_export(job, by=_requester(request, caller))
        return StreamingHttpResponse(
            _chunks(path),
            content_type="application/gzip",
            headers={
                "Content-Length": str(job.size_bytes),
                "Content-Disposition": f'attachment; filename="{job.file_name}"',
                "Cache-Control": "private, no-store",
                # The file is compressed, the response is not: a proxy must neither compress it again nor unpack it.
                "Content-Encoding": "identity",
            },
        )


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    """Read the file in chunks, on a thread: under ASGI a plain iterator would be read to its end beforehand."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


def _exporter(request: Request) -> Caller:
    caller = caller_of(request)
    caller.require(Action.EXPORT_USAGE)
    return caller


def _job(caller: Caller, export_id: UUID) -> ExportJob:
    own = ExportJob.objects.select_related("organization").filter(organization=caller.organization)
    job = own.filter(pk=export_id).first()
    if job is None:
        raise NotFound
    return job


def _requester(request: Request, caller: Caller) -> jobs.Requester:
    return jobs.Requester(
        user=caller.user,
        responsible=caller.responsible,
        label=caller.label,
        address=request.META.get("REMOTE_ADDR") or None,
    )
