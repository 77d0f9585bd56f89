"""Names and paths of the metered surfaces. Names are stored with keys and requests; permanent."""

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
}
SURFACES = tuple(PATHS)
