"""Report: one call as LiteLLM's webhook or log describes it. Pure.

Webhook and sync make the same structure (mapping.py), the worker ingests it (ingest.py). It never holds a prompt, a
response or a key: keys are digests from the moment they arrive.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from billing.pricing import Usage
from codexflow.lib.ids import parse_id

Source = Literal["webhook", "sync"]
_HASH = re.compile(r"[0-9a-f]{64}")
# A row with an id but without a time makes another report with every post; not all are needed.
MAX_REPORTS_PER_CALL = 8


class Owner(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Candidates for the owner of a call."""

    # LiteLLM's key id: the hash of a virtual key, or the master key's name.
    litellm_key: str = ""
    # Names that LiteLLM may have for a key of ours: texts and digests of texts.
    names: tuple[str, ...] = ()
    # A key of ours as (public id, digests under the salts).
    public_id: str = ""
    digests: tuple[bytes, ...] = ()
    user_id: int | None = None  # metadata.laravel_user_id


def named_users(owner: Owner) -> list[str]:
    """List what a report named its user, for operators: `names` has each text and its digest, or the digest alone."""
    texts = [name for name in owner.names if not _HASH.fullmatch(name)]
    known = {sha256(text.encode()).hexdigest() for text in texts} | {owner.litellm_key}
    digests = [name for name in owner.names if _HASH.fullmatch(name) and name not in known]
    user = [str(owner.user_id)] if owner.user_id is not None else []
    return [*texts, *user, *(f"sha256:{digest}" for digest in digests)]


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call as LiteLLM reports it. `identities` name it, the most stable first; none is ever empty."""

    identities: tuple[str, ...]
    source: Source
    call_id: str = ""
    response_id: str = ""
    model: str = ""
    usage: Usage = Usage()
    cost_nanos: int | None = None
    started_ms: int
    ended_ms: int
    ttft_ms: int | None = None
    latency_ms: int = 0
    status: int = 200
    error_code: str = ""
    is_stream: bool = False
    surface: str = "chat"
    endpoint: str = ""
    owner: Owner = Owner()
    client_address: str | None = None
    user_agent: str = ""

    @property
    def is_success(self) -> bool:
        return self.status < 400

    @property
    def digest(self) -> UUID:
        """Digest of the first identity: the same in every delivery."""
        return digest_of(self.identities[0])


class Delivery(Struct, frozen=True, kw_only=True):
    """Reports of one post, or the stored reports of one call."""

    reports: tuple[Report, ...]


class BadReport(ValueError):
    """The bytes are not a delivery."""


_delivery = msgspec.msgpack.Decoder(Delivery)
_encoder = msgspec.msgpack.Encoder()


def encode(delivery: Delivery) -> bytes:
    return _encoder.encode(delivery)


def decode_delivery(payload: bytes) -> Delivery:
    """Raises BadReport."""
    try:
        return _delivery.decode(payload)
    except msgspec.MsgspecError as exc:
        raise BadReport(str(exc)) from exc


def attempt_of(call_id: str) -> tuple[UUID, int] | None:
    """Request id and number of the attempt with this call id; None for a call id that is not the gateway's."""
    text, dot, number = call_id.partition(".")
    request_id = parse_id(text) if dot else None
    if request_id is None or request_id.version != 7 or not (number.isascii() and number.isdecimal()):
        return None
    return (request_id, int(number)) if len(number) <= 4 and 1 <= int(number) <= 9999 else None


def digest_of(identity: str) -> UUID:
    return UUID(bytes=sha256(identity.encode()).digest()[:16])


def id_of(identity: str, started_ms: int) -> UUID:
    """UUIDv7 of a call without an id of ours: its time, and a hash of its identity in place of random bits."""
    bits = sha256(identity.encode()).digest()[:10]
    value = (started_ms << 80) | int.from_bytes(bits, "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=value & ~(0x3 << 62) | (0x2 << 62))


def distinct(reports: Iterable[Report]) -> tuple[Report, ...]:
    """Reports of one call without duplicates, the most informative first, in an order independent of their arrival.

    A success is more informative than a failure, and the webhook has more details than the spend logs.
    """
    return tuple(sorted(set(reports), key=_order, reverse=True)[:MAX_REPORTS_PER_CALL])


def _order(report: Report) -> tuple[bool, bool, bool, bool, int, bytes]:
    return (
        bool(report.call_id),
        report.is_success,
        report.usage.total_tokens > 0,
        report.source == "webhook",
        report.ended_ms,
        _encoder.encode(report),
    )
