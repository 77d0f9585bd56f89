"""GET /v1/models: models that a key may use, in one format that OpenAI's, Anthropic's and Codex's clients read.

Anthropic's clients, known by the header that all of them send, get Anthropic's format alone, and the stages also under
the names that Claude Code's model picker shows.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from codexflow.catalogue.entries import ABILITIES
from codexflow.catalogue.lineup import Lineup
from codexflow.catalogue.schema import PICKER_MODELS
from keys.policy import KeyPolicy
from routing.context import GatewayContext
from routing.errors import UnknownRoute
from routing.incoming import Incoming
from routing.stages import STAGE_NAMES, permitted_names, picker_names
from routing.surfaces.table import is_anthropic_client

PATH = "/v1/models"
JSON = (b"content-type", b"application/json")
# Unix time returned as every model's creation: the real one is not known.
CREATED_S = 1_735_689_600
CREATED_AT = datetime.fromtimestamp(CREATED_S, UTC).isoformat().replace("+00:00", "Z")

# Shown beside the stages in Claude Code's model picker.
DESCRIPTIONS = {
    "plan": "Architecture, specifications, planning",
    "code": "Writing and changing code",
    "review": "Code review, security, finding bugs",
}
# Codex compacts a conversation before it reaches the context, so it needs a number.
UNKNOWN_CONTEXT_TOKENS = 128_000

# Codex uses these for a model that it does not know itself.
CODEX_INSTRUCTIONS = """\
You are a coding agent in the user's terminal. Work in their repository with the tools you are given.
Read the code that matters before you change it, and keep changes small and in the style of what is there.
Prefer `rg` for searching. Run the project's own tests and checks after a change, and say what you ran.
Never undo work that is not yours, never commit or push unless asked, and ask before anything that cannot be undone.
Say briefly what you are doing while you work; at the end say what changed, where, and what is left."""


async def list_models(context: GatewayContext, incoming: Incoming) -> None:
    """List the stages, inference and models that the key may use, in the format of the client that asks."""
    policy, lineup = await _asked_by(context, incoming)
    names = permitted_names(lineup, policy)
    if b"client_version=" in incoming.scope.get("query_string", b""):
        content: dict[str, Any] = {"models": [_codex_model(name, lineup, order) for order, name in enumerate(names)]}
    elif is_anthropic_client(incoming.headers):
        names = picker_names(lineup, policy) + names
        content = {"data": [_anthropic_model(name, lineup) for name in names], **_page_of(names)}
    else:
        content = {"object": "list", "data": [_model(name, lineup) for name in names], **_page_of(names)}
    await incoming.respond(200, [JSON], msgspec.json.encode(content))


async def show_model(context: GatewayContext, incoming: Incoming) -> None:
    """GET /v1/models/{id}."""
    name = incoming.scope["path"].removeprefix(PATH + "/")
    policy, lineup = await _asked_by(context, incoming)
    if name not in permitted_names(lineup, policy) and name not in picker_names(lineup, policy):
        raise UnknownRoute(f"There is no model {name[:100]!r}.", param="model")
    model = _anthropic_model(name, lineup) if is_anthropic_client(incoming.headers) else _model(name, lineup)
    await incoming.respond(200, [JSON], msgspec.json.encode(model))


async def _asked_by(context: GatewayContext, incoming: Incoming) -> tuple[KeyPolicy, Lineup]:
    """Return what the presented key may use, and today's models."""
    principal = await incoming.principal(context.keys)
    return principal.policy, context.listing.lineup()


def _page_of(names: Sequence[str]) -> dict[str, Any]:
    """Fields of Anthropic's pages: everything is on the first one."""
    return {"first_id": names[0] if names else None, "last_id": names[-1] if names else None, "has_more": False}


def _bounds(name: str, lineup: Lineup) -> dict[str, Any]:
    """Context, output and abilities of a name, as far as they are known: what every model of its chain has."""
    catalogue = lineup.catalogue
    stage = STAGE_NAMES.get(name)
    chain = lineup.stages[stage] if stage else lineup.direct.get(name) or lineup.own_models().get(name, ())
    found = [catalogue.entries[model] for model in chain]
    bounds: dict[str, Any] = {}
    contexts = [entry.context_tokens for entry in found if entry.context_tokens is not None]
    if contexts and len(contexts) == len(found):
        bounds["context_window"] = min(contexts)
    if found and name not in lineup.own_models():
        cap = catalogue.stages[stage].max_tokens if stage else catalogue.direct.max_tokens_cap
        bounds["max_output_tokens"] = min([cap, *(entry.max_output_tokens or cap for entry in found)])
        bounds["takes"] = [ability for ability in ABILITIES if all(ability in entry.takes for entry in found)]
    return bounds


def _model(name: str, lineup: Lineup) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": CREATED_S,
        "owned_by": "codexflow",
        **_anthropic_model(name, lineup),
    }


def _anthropic_model(name: str, lineup: Lineup) -> dict[str, Any]:
    stage = PICKER_MODELS.get(name)
    shown = {"display_name": f"CodexFlow {stage}", "description": DESCRIPTIONS[stage]} if stage else {}
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": CREATED_AT,
        **shown,
        **_bounds(name, lineup),
    }


def _codex_model(name: str, lineup: Lineup, order: int) -> dict[str, Any]:
    """Describe a model in the format of Codex's catalogue. It claims no ability that only some models have."""
    return {
        "slug": name,
        "display_name": name,
        "description": None,
        "default_reasoning_level": None,
        "supported_reasoning_levels": [],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": order,
        "upgrade": None,
        "base_instructions": CODEX_INSTRUCTIONS,
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "supports_parallel_tool_calls": False,
        "context_window": _bounds(name, lineup).get("context_window", UNKNOWN_CONTEXT_TOKENS),
        "experimental_supported_tools": [],
    }
