"""Stage routing: choose the stage and models of a call. Pure."""

from collections.abc import Callable

from msgspec import Struct

from codexflow.catalogue import reasons
from codexflow.catalogue.schema import ALL_STAGES, AUTO_MODELS, DIRECT, STAGES, Catalogue
from routing.errors import InvalidStage, ModelNotAllowed
from routing.inference.infer import Prompt, infer

# Names of stages in a body's `model`.
STAGE_MODELS = {name: stage for stage in STAGES for name in (f"cfx-{stage}", stage)}


class Route(Struct, frozen=True, kw_only=True):
    """Stage, models and limits of a call. Defaults replace only missing fields; the cap always applies."""

    stage: str  # plan, code, review or direct
    reason: str  # header, model, stage-alias, alias, or what inference went by
    models: tuple[str, ...]  # in the order in which they are tried
    max_tokens_cap: int
    default_max_tokens: int
    default_temperature: float | None  # None: the model's own
    timeout_s: float  # to the first byte


def route(*, stage_header: str | None, model: str | None, prompt: Callable[[], Prompt], catalogue: Catalogue) -> Route:
    """Route by the header, then the body's model, then the text. The prompt is read only for the last.

    Exact names win over aliases, so an alias can never shadow a model that callers may ask for.
    Raises InvalidStage and ModelNotAllowed, which list the allowed values.
    """
    header = (stage_header or "").strip().lower()
    if header in STAGES:
        return _staged(header, reasons.HEADER, catalogue)
    if header == DIRECT:
        if model not in catalogue.direct.allowed_models:
            raise ModelNotAllowed.named(model, catalogue.direct.allowed_models)
        return _direct(model, reasons.HEADER, catalogue)
    if header:
        raise InvalidStage.named(header, ALL_STAGES)

    if not model or model in AUTO_MODELS or catalogue.model_field == "ignore":
        return _staged(*infer(prompt(), catalogue.inference), catalogue)
    if model in STAGE_MODELS:
        return _staged(STAGE_MODELS[model], reasons.STAGE_ALIAS, catalogue)
    if model in catalogue.direct.allowed_models:
        return _direct(model, reasons.MODEL, catalogue)
    target = catalogue.alias_target(model)
    if target is None:
        raise ModelNotAllowed.named(model, allowed_names(catalogue))
    return (_staged if target in STAGES else _direct)(target, reasons.ALIAS, catalogue)


def route_embeddings(*, stage_header: str | None, model: str | None, catalogue: Catalogue) -> Route:
    """Route embeddings. They have no stages: the model must be on their own allow-list. Raises as `route`."""
    header = (stage_header or "").strip().lower()
    if header not in ("", DIRECT):
        raise InvalidStage.named(header, (DIRECT,))
    if model not in catalogue.embeddings.allowed_models:
        raise ModelNotAllowed.named(model, catalogue.embeddings.allowed_models)
    return Route(
        stage=DIRECT,
        reason=reasons.HEADER if header else reasons.MODEL,
        models=(model,),
        max_tokens_cap=0,
        default_max_tokens=0,
        default_temperature=None,
        timeout_s=catalogue.embeddings.timeout_s,
    )


def allowed_names(catalogue: Catalogue) -> tuple[str, ...]:
    """Return the values of a body's `model`: stages, inference, and the allow-list."""
    return (*(f"cfx-{stage}" for stage in STAGES), AUTO_MODELS[0], *catalogue.direct.allowed_models)


def _staged(stage: str, reason: str, catalogue: Catalogue) -> Route:
    config = catalogue.stages[stage]
    return Route(
        stage=stage,
        reason=reason,
        models=tuple(dict.fromkeys((config.model, *config.fallback))),
        max_tokens_cap=config.max_tokens,
        default_max_tokens=config.max_tokens,
        default_temperature=config.temperature,
        timeout_s=config.timeout_s,
    )


def _direct(model: str, reason: str, catalogue: Catalogue) -> Route:
    config = catalogue.direct
    return Route(
        stage=DIRECT,
        reason=reason,
        models=tuple(dict.fromkeys((model, *config.fallback))),
        max_tokens_cap=config.max_tokens_cap,
        default_max_tokens=config.default_max_tokens,
        default_temperature=None,
        timeout_s=config.timeout_s,
    )
