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

    @property
    def id(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return prompt_tokens * self.input_cost_per_token + completion_tokens * self.output_cost_per_token


MODELS = {
    model.name: model
    for model in (
        Model("claude-sonnet-4.5", 3e-06, 1.5e-05, 200_000, 64_000),
        Model("deepseek-v3", 2.7e-07, 1.1e-06, 128_000, 8_192),
        Model("gpt-4o-mini", 1.5e-07, 6e-07, 128_000, 16_384),
        Model("gemini-2.5-pro", 1.25e-06, 1e-05, 1_048_576, 65_535),
        Model("gemini-2.0-flash", 1e-07, 4e-07, 1_048_576, 8_192),
        Model("gpt-4o", 2.5e-06, 1e-05, 128_000, 16_384),
        Model("claude-haiku-3.5", 8e-07, 4e-06, 200_000, 8_192),
        Model("text-embedding-3-small", 2e-08, 0.0, 8_191, None, "embedding"),
    )
}


def unpriced(name: str) -> Model:
    """A model we know nothing of: a provider behind a proxy takes whatever name the proxy uses."""
    return Model(name, 0.0, 0.0, 128_000, 16_384)
