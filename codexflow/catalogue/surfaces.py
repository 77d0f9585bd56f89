"""Names and paths of the metered surfaces. Names are stored with keys and requests; permanent."""

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
    "moderations": "/v1/moderations",
}
SURFACES = tuple(PATHS)
# Surfaces with models of their own, which no other surface serves; each has a section of its name in models.yaml.
OWN_MODELS = ("embeddings", "rerank", "moderations")
# Units by which calls of a surface are counted besides tokens, and so may be sold.
COUNTED_UNITS: dict[str, tuple[str, ...]] = {"rerank": ("search_unit", "request"), "moderations": ("request",)}
