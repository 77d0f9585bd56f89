"""Hypothesis strategies of usage events and reports: every field, within the limits of PostgreSQL and the wire."""

from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from billing.pricing import Usage
from billing.tests.strategies import rates, usage_details
from codexflow.lib.ids import new_id
from logs.pipeline.events import AttemptFact, UsageEvent
from logs.pipeline.merge import ReportedUsage
from logs.pipeline.rollups import NO_KEY

# PostgreSQL's text has no NUL and no half surrogates; the gateway lets neither in.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
small, ints, bigs = st.integers(-(2**15), 2**15 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)
ids = st.uuids()
usages = st.builds(Usage, **{**dict.fromkeys(Usage.__struct_fields__, ints), "details": usage_details})
times_ms = st.integers(0, 4_000_000_000_000)
addresses = st.ip_addresses().map(lambda address: str(ip_address(address)))
EVENTS: dict[str, st.SearchStrategy[Any]] = {
    "organization_id": ids,
    "key_id": st.just(NO_KEY) | ids,
    "user_id": st.none() | bigs,
    "day": st.integers(0, 40_000),
    "started_ms": times_ms,
    "surface": texts,
    "endpoint": texts,
    "stage": texts,
    "stage_reason": texts,
    "requested_model": texts,
    "model": texts,
    "status": small,
    "error_code": texts,
    "usage": usages,
    "rank": small,
    "rates": rates,
    "cost_nanos": bigs,
    "upstream_cost_nanos": st.none() | bigs,
    "hold_nanos": bigs,
    "catalogue_version": texts,
    "latency_ms": ints,
    "ttft_ms": st.none() | ints,
    "is_stream": st.booleans(),
    "is_disconnected": st.booleans(),
    "is_degraded": st.booleans(),
    "source": texts,
    "client_address": st.none() | addresses,
    "user_agent": texts,
    "tag": texts,
    "planner": texts,
}
attempts = st.lists(
    st.builds(
        AttemptFact,
        n=st.integers(1, 9),
        model=texts,
        status=small,
        error_code=texts,
        started_offset_ms=ints,
        first_byte_ms=st.none() | ints,
        duration_ms=ints,
        response_id=texts,
    ),
    max_size=3,
    unique_by=lambda fact: fact.n,
).map(tuple)
reports = st.builds(ReportedUsage, usage=usages, cost_nanos=st.none() | bigs, is_success=st.booleans(), ended_ms=bigs)


@st.composite
def events(draw: st.DrawFn) -> UsageEvent:
    """Any event; its id is of today, where there is a partition."""
    facts = {name: draw(strategy) for name, strategy in EVENTS.items()}
    return UsageEvent(request_id=new_id(), attempts=draw(attempts), **facts)
