"""Reasons for which a request has its stage. They are stored with it and sent as `X-CFX-Stage-Reason`; permanent."""

from codexflow.catalogue.schema import STAGES

HEADER = "header"
STAGE_ALIAS = "stage-alias"
MODEL = "model"
ALIAS = "alias"
AGENT = {stage: f"agent-{stage}" for stage in STAGES}
DIFF = "diff"
INTENT = "intent"
KEYWORD = "keyword"
DEFAULT = "default"

# What inference goes by.
INFERRED = (*AGENT.values(), DIFF, INTENT, KEYWORD, DEFAULT)
# What the gateway says.
REASONS = (HEADER, STAGE_ALIAS, MODEL, ALIAS, *INFERRED)
# Of a call that LiteLLM reported and no gateway saw.
PAST_GATEWAY = "past_gateway"
