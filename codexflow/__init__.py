"""CodexFlow: metered, stage-aware access to LLMs."""

import sys

__version__ = "0.1.0"

# redis-py imports OpenTelemetry wherever it is installed, for metrics that nobody asks it for, at 3 MB a process. Here
# it finds none; what traces calls takes the entry away (routing/tracing.py).
OPENTELEMETRY = "opentelemetry"
if OPENTELEMETRY not in sys.modules:
    sys.modules[OPENTELEMETRY] = None  # type: ignore[assignment] # what Python takes for "there is none"
