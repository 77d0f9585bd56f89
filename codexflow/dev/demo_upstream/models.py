"""Models of the demo upstream: those of `config/litellm.yaml`, at the same prices."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """One model. Prices are US dollars a token, as in LiteLLM's model_info."""

    name: str
    input_cost_per_token: float
    output_cost_per_token: float
    max_input_tokens: int
    max_output_tokens: int | None
    mode: str = "chat"
    refuses: tuple[str, ...] = ()  # parameters that its provider answers with 400
    cost_per_search_unit: float = 0.0

    @property
    def id(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return prompt_tokens * self.input_cost_per_token + completion_tokens * self.output_cost_per_token


# Providers refuse these of models that always think, and so does the demo.
SAMPLING = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty")

MODELS = {
    model.name: model
    for model in (
        Model("claude-sonnet-5.5", 2e-06, 1e-05, 1_000_000, 128_000, refuses=SAMPLING),
        Model("deepseek-v4.1-flash", 3e-07, 1.2e-06, 1_000_000, 393_216),
        Model("gpt-6-luna", 1e-07, 5e-07, 922_000, 128_000, refuses=SAMPLING),
        Model("gpt-6.1-sol", 2e-06, 1e-05, 922_000, 128_000, refuses=SAMPLING),
        Model("gemini-3.8-flash", 1.5e-06, 7.5e-06, 1_048_576, 65_536, refuses=SAMPLING),
        Model("gemini-3.5-flash-lite", 3e-07, 2.5e-06, 1_048_576, 65_536, refuses=SAMPLING),
        Model("claude-haiku-5.5", 1e-07, 5e-07, 1_000_000, 128_000, refuses=SAMPLING),
        Model("claude-haiku-4.5", 1e-06, 5e-06, 200_000, 64_000),
        Model("text-embedding-3-small", 2e-08, 0.0, 8_191, None, "embedding"),
    )
}


# Those of `config/examples/`, which are not shipped.
EXAMPLES = {
    model.name: model
    for model in (
        Model("rerank-v3.5", 0.0, 0.0, 4_096, None, "rerank", cost_per_search_unit=0.002),
        Model("rerank-2.5", 5e-08, 0.0, 32_000, None, "rerank"),
        Model("omni-moderation-latest", 0.0, 0.0, 32_768, None, "moderation"),
    )
}


def unpriced(name: str) -> Model:
    """A model we know nothing of: a provider behind a proxy takes whatever name the proxy uses."""
    return Model(name, 0.0, 0.0, 128_000, 16_384)
