"""Error codes of the gateway in words: what happened, what to do, and on which page."""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Advice:
    """Words about one error code. `page` is the route of an organization's page where it can be changed, or empty."""

    title: Promise
    to_do: Promise
    page: str = ""


_CORRECT = _("Correct the request. The message names the field.")
_RETRY = _("Nothing is wrong with the request. Try again in a moment.")
_ALLOW = _("Use what the message lists, or change the key's permissions.")

ADVICE: dict[str, Advice] = {
    # Limits and money
    "rate_limit_exceeded": Advice(
        _("Requests per minute used up"),
        _("Wait until the next minute, send fewer at once, or switch to a larger plan."),
        "billing",
    ),
    "token_rate_exceeded": Advice(
        _("Tokens per minute used up"),
        _("Wait until the next minute, lower max_tokens, or switch to a larger plan."),
        "billing",
    ),
    "daily_quota_exceeded": Advice(
        _("Requests of the day used up"), _("Wait until midnight UTC, or switch to a larger plan."), "billing"
    ),
    "concurrency_limit_exceeded": Advice(
        _("Too many streams at once"), _("Wait until one has ended, or run fewer agents in parallel."), "billing"
    ),
    "insufficient_quota": Advice(
        _("Credit or budget does not cover the request"),
        _("Add credit, raise the budget that the message names, or lower max_tokens."),
        "billing",
    ),
    "max_cost_exceeded": Advice(
        _("The request could cost more than its own limit"), _("Send less text, lower max_tokens, or raise x-max-cost.")
    ),
    "limiter_unavailable": Advice(_("Limits could not be checked"), _RETRY),
    # Models, stages and permissions
    "model_not_allowed": Advice(_("There is no such model here"), _("Use one of the models in the message.")),
    "model_retired": Advice(_("The model is no longer served"), _("Use one of the models in the message.")),
    "model_not_priced": Advice(_("The model has no price yet"), _("Use another model, or ask us for this one.")),
    "model_not_allowed_for_key": Advice(_("The key may not use this model"), _ALLOW, "keys"),
    "stage_not_allowed": Advice(_("The key may not use this stage"), _ALLOW, "keys"),
    "surface_not_allowed": Advice(_("The key may not use this endpoint"), _ALLOW, "keys"),
    "account_suspended": Advice(_("The account is suspended"), _("Contact support.")),
    "tool_not_sold": Advice(
        _("The tool isn't available with this model"), _("Leave the tool out, or run it in your own program.")
    ),
    "invalid_stage": Advice(_("There is no such stage"), _("Use one of the stages in the message.")),
    # The request itself
    "invalid_json": Advice(_("The body is not valid JSON"), _("Check how your program builds the body.")),
    "invalid_request": Advice(_("The request is not valid"), _CORRECT),
    "invalid_header": Advice(_("A header was sent twice, or cannot be read"), _("Send the header once.")),
    "invalid_max_cost": Advice(_("x-max-cost is not an amount"), _("Send US dollars, such as 0.25.")),
    "invalid_tag": Advice(_("The tag isn't valid"), _CORRECT),
    "planner_disabled": Advice(_("The planner isn't available here"), _("Leave x-decompose out, or send 0.")),
    "invalid_planner_header": Advice(
        _("A planner header isn't valid"),
        _("Send 1, 0 or dry-run as x-decompose, fast or deep as x-quality."),
    ),
    "plan_not_found": Advice(
        _("There is no such plan for the conversation"),
        _("Quote again with x-decompose: dry-run; plans live for an hour."),
    ),
    "thread_unsupported_request": Advice(
        _("No conversations are stored on the server"), _("Send the whole conversation with each request.")
    ),
    "compaction_unreadable": Advice(
        _("The compacted conversation was not made here"),
        _("Send the conversation itself, or begin a new one."),
    ),
    "request_too_large": Advice(_("The request is too large"), _("Send a smaller body: the message has the limit.")),
    "request_timeout": Advice(_("The request did not arrive in time"), _("Check the connection of your program.")),
    "unsupported_content_encoding": Advice(
        _("The body's compression is not supported"), _("Use gzip, deflate or zstd, or none.")
    ),
    "upload_limit_exceeded": Advice(
        _("Too many bytes are being sent at once"), _("Send fewer large requests in parallel.")
    ),
    "uploads_full": Advice(_("The server is receiving too much at once"), _RETRY),
    "unknown_route": Advice(_("There is no such endpoint"), _("Check the base URL: it ends in /v1.")),
    "method_not_allowed": Advice(_("The endpoint doesn't support this method"), _("Use a method from the message.")),
    "websockets_unsupported": Advice(_("There are no WebSockets here"), _("Send the request over HTTP.")),
    # Models that fail
    "upstream_refused": Advice(
        _("The model refused the request"),
        _("The provider's message was sent to your program. It is not stored here, because it may quote the prompt."),
    ),
    "context_length_exceeded": Advice(
        _("The conversation is too long for the model"),
        _("Shorten or compact it, or use a model with a longer context."),
    ),
    "content_policy_violation": Advice(
        _("The provider's content policy refused the request"), _("Change the prompt, or use another model.")
    ),
    "upstream_rate_limited": Advice(_("The model is over the provider's rate limit"), _RETRY),
    "upstream_unavailable": Advice(_("No model was available"), _RETRY),
    "upstream_timeout": Advice(_("No model responded in time"), _RETRY),
    "upstream_stream_broken": Advice(
        _("The stream broke off"), _("Try again. What arrived before is charged.")
    ),
    "client_disconnected": Advice(
        _("Your program closed the connection"),
        _("Raise its timeout if this was not wanted. What was delivered is charged."),
    ),
    "gateway_lost": Advice(_("The gateway stopped during the request"), _RETRY),
    "shutting_down": Advice(_("The server was restarting"), _RETRY),
    "internal_error": Advice(_("Something went wrong on our side"), _("Send us the request id.")),
}  # fmt: skip


def advice_on(code: str) -> Advice | None:
    """Return the words about a code; None for codes of providers, which have none here."""
    return ADVICE.get(code)
