"""Stage routing: choose the stage and models of a call. Pure."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

from codexflow.catalogue import reasons
from codexflow.catalogue.lineup import Lineup
from codexflow.catalogue.schema import ALL_STAGES, AUTO_MODELS, DIRECT, PICKER_MODELS, STAGE_MODELS, STAGES
from codexflow.catalogue.surfaces import COUNTED_UNITS
from keys.policy import KeyPolicy
from routing.errors import InvalidStage, ModelNotAllowed, ModelNotPriced, ModelRetired
from routing.inference.infer import Prompt, infer

# Every name that means a stage in a body's `model`.
STAGE_NAMES = {**STAGE_MODELS, **PICKER_MODELS, **{stage: stage for stage in STAGES}}


class Route(Struct, frozen=True, kw_only=True):
    """Stage, models and limits of a call. Defaults replace only missing fields; the cap always applies."""

    stage: str  # plan, code, review or direct
    reason: str  # header, model, stage-alias, alias, successor, or what inference went by
    models: tuple[str, ...]  # in the order in which they are tried
    max_tokens_cap: int
    default_max_tokens: int
    default_temperature: float | None  # None: the model's own
    timeout_s: float  # to the first byte
    exact_model: str | None = None  # named by the caller and tried first: it gets the caller's parameters as they are


def route(*, stage_header: str | None, model: str | None, prompt: Callable[[], Prompt], lineup: Lineup) -> Route:
    """Route by the header, then the body's model, then the text. The prompt is read only for the last.

    Exact names win over aliases, so an alias can never shadow a model that callers may ask for. Names of models that
    have been replaced count as such. Raises InvalidStage and ModelNotAllowed, which list the allowed values, and
    ModelRetired.
    """
    catalogue = lineup.catalogue
    header = (stage_header or "").strip().lower()
    if header in STAGES:
        return _staged(header, reasons.HEADER, lineup)
    if header == DIRECT:
        if model is None or model not in lineup.direct:
            raise _unknown(model, lineup, lineup.living())
        return _direct(model, model, reasons.HEADER, lineup)
    if header:
        raise InvalidStage.named(header, ALL_STAGES)

    if not model or model in AUTO_MODELS or catalogue.model_field == "ignore":
        return _staged(*infer(prompt(), catalogue.inference), lineup)
    if model in STAGE_NAMES:
        return _staged(STAGE_NAMES[model], reasons.STAGE_ALIAS, lineup)
    if model in lineup.direct:
        return _direct(model, model, reasons.MODEL, lineup)
    target = catalogue.alias_target(model)
    if target is None:
        raise _unknown(model, lineup, allowed_names(lineup))
    return _staged(target, reasons.ALIAS, lineup) if target in STAGES else _direct(model, target, reasons.ALIAS, lineup)


def route_own(surface: str, *, stage_header: str | None, model: str | None, lineup: Lineup) -> Route:
    """Route on a surface with models of its own. It has no stages: the model must be on its allow-list.

    Raises as `route`, and ModelNotPriced for a model whose price has no line for what the surface counts.
    """
    header = (stage_header or "").strip().lower()
    if header not in ("", DIRECT):
        raise InvalidStage.named(header, (DIRECT,))
    chains, config, prices = lineup.own[surface], lineup.catalogue.own[surface], lineup.catalogue.prices
    living = tuple(dict.fromkeys(chains[name][0] for name in config.allowed_models if chains[name]))
    if model is None or model not in chains:
        raise _unknown(model, lineup, living)
    models = chains[model]
    if not models:
        raise ModelRetired.named(model, lineup.end_of(model), living)
    units = COUNTED_UNITS.get(surface, ())
    if not all(prices[each].sells(units) for each in models):
        raise ModelNotPriced(param="model")
    reason = reasons.HEADER if header else reasons.MODEL
    return Route(
        stage=DIRECT,
        reason=reason if models[0] == model else reasons.SUCCESSOR,
        models=models,
        max_tokens_cap=0,
        default_max_tokens=0,
        default_temperature=None,
        timeout_s=config.timeout_s,
        exact_model=model,
    )


def allowed_names(lineup: Lineup) -> tuple[str, ...]:
    """Return the values of a body's `model`: stages, inference, and the models that serve."""
    return (*_stage_names(lineup), AUTO_MODELS[0], *lineup.living())


def permitted_names(lineup: Lineup, policy: KeyPolicy, surface: str = "") -> list[str]:
    """Return the values of a body's `model` that this key may use: stages, inference, and the names that are served.

    With a surface that has models of its own, only these.
    """
    if surface in lineup.own:
        chains = lineup.own[surface] if policy.permits_stage(DIRECT) else {}
        return [name for name, chain in chains.items() if chain and policy.permits_model(chain[0])]
    stages = _permitted_stages(STAGE_MODELS, lineup, policy)
    chains = {**lineup.direct, **lineup.own_models()} if policy.permits_stage(DIRECT) else {}
    models = [name for name, chain in chains.items() if chain and policy.permits_model(chain[0])]
    return [*stages, *(AUTO_MODELS[:1] if stages else ()), *models]


def picker_names(lineup: Lineup, policy: KeyPolicy) -> list[str]:
    """Return the names of the stages that this key may use, as Claude Code's model picker shows them."""
    return _permitted_stages(PICKER_MODELS, lineup, policy)


def _permitted_stages(names: Mapping[str, str], lineup: Lineup, policy: KeyPolicy) -> list[str]:
    return [
        name
        for name, stage in names.items()
        if policy.permits_stage(stage) and (chain := lineup.stages[stage]) and policy.permits_model(chain[0])
    ]


def _stage_names(lineup: Lineup) -> tuple[str, ...]:
    return tuple(name for name, stage in STAGE_MODELS.items() if lineup.stages[stage])


def _unknown(model: str | None, lineup: Lineup, allowed: Iterable[str]) -> ModelNotAllowed | ModelRetired:
    """Return the refusal of a name that is on no list: there may have been such a model."""
    if model is not None and model in lineup.retired:
        return ModelRetired.named(model, lineup.end_of(model), allowed)
    return ModelNotAllowed.named(model, allowed)


@lru_cache(maxsize=1024)  # routes of one lineup are few, and every call has one
def _staged(stage: str, reason: str, lineup: Lineup) -> Route:
    config, models = lineup.catalogue.stages[stage], lineup.stages[stage]
    if not models:
        raise ModelRetired.of_stage(stage, (*_stage_names(lineup), *lineup.living()))
    return Route(
        stage=stage,
        reason=reason,
        models=models,
        max_tokens_cap=config.max_tokens,
        default_max_tokens=config.max_tokens,
        default_temperature=config.temperature,
        timeout_s=config.timeout_s,
    )


@lru_cache(maxsize=1024)
def _direct(named: str, model: str, reason: str, lineup: Lineup) -> Route:
    """Route to a model of the allow-list; the caller named it as `named`."""
    config, models = lineup.catalogue.direct, lineup.direct[model]
    if not models:
        raise ModelRetired.named(model, lineup.end_of(model), lineup.living() or _stage_names(lineup))
    return Route(
        stage=DIRECT,
        reason=reason if models[0] == model else reasons.SUCCESSOR,
        models=models,
        max_tokens_cap=config.max_tokens_cap,
        default_max_tokens=config.default_max_tokens,
        default_temperature=None,
        timeout_s=config.timeout_s,
        exact_model=named if named == models[0] else None,
    )
