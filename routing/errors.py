"""What the gateway answers when it cannot serve a call."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Self

from codexflow.lib.errors import AppError, BadRequest


class InvalidStage(BadRequest):
    """The stage header names no stage."""

    code = "invalid_stage"
    default_message = "There is no such stage."

    @classmethod
    def named(cls, stage: str, allowed: Iterable[str]) -> Self:
        return cls(f"There is no stage {_quoted(stage)}. Allowed: {', '.join(allowed)}.", param="X-CFX-Stage")


class ModelNotAllowed(BadRequest):
    """The body's model is not one that callers may ask for."""

    code = "model_not_allowed"
    default_message = "The model is not allowed."

    @classmethod
    def named(cls, model: str | None, allowed: Iterable[str]) -> Self:
        what = f"The model {_quoted(model)} is not allowed" if model else "The request names no model"
        return cls(f"{what}. Allowed: {', '.join(allowed)}.", param="model")


class ModelNotPriced(BadRequest):
    """The model has no price, and what has no price is not sold."""

    code = "model_not_priced"
    default_message = "The model has no price and cannot be used yet."


class StageNotAllowedForKey(AppError):
    """The stage exists, but this key may not use it."""

    code = "stage_not_allowed"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This key may not use this stage."


class ModelNotAllowedForKey(AppError):
    """The model exists, but this key may not use it."""

    code = "model_not_allowed_for_key"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This key may not use this model."


class UpstreamUnavailable(AppError):
    """Every attempt failed, or every model of the chain is resting."""

    code = "upstream_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "The models behind this request are not available right now. Try again in a moment."
    may_retry = True


class UpstreamTimeout(AppError):
    """No attempt answered in time."""

    code = "upstream_timeout"
    status = HTTPStatus.GATEWAY_TIMEOUT
    default_message = "The models behind this request did not answer in time."
    may_retry = True


def _quoted(name: str) -> str:
    """The caller's own word, cut short: it may be as long as a body."""
    return repr(name if len(name) <= 100 else name[:100] + "…")
