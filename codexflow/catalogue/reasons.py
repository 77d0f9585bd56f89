"""Reasons for a request's stage, stored with it and sent as `X-CFX-Stage-Reason`. Permanent."""

from codexflow.catalogue.schema import STAGES

HEADER = "header"
STAGE_ALIAS = "stage-alias"
MODEL = "model"
ALIAS = "alias"
SUCCESSOR = "successor"
AGENT = {stage: f"agent-{stage}" for stage in STAGES}
DIFF = "diff"
INTENT = "intent"
KEYWORD = "keyword"
DEFAULT = "default"

# Reasons of inference.
INFERRED = (*AGENT.values(), DIFF, INTENT, KEYWORD, DEFAULT)
# All reasons of the gateway.
REASONS = (HEADER, STAGE_ALIAS, MODEL, ALIAS, SUCCESSOR, *INFERRED)
# A call that LiteLLM reported and that did not pass the gateway.
PAST_GATEWAY = "past_gateway"
