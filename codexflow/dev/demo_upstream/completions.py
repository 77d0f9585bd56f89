"""A text completion in the bytes of LiteLLM, which makes it of a chat response. Pure."""

import json
from typing import Any

import msgspec

from codexflow.dev.demo_upstream.chat import wants_usage
from codexflow.dev.demo_upstream.streams import DONE, Dress, Event, Turn

DRESS = Dress(
    closing=DONE,
    malformed=b'data: {"id":"chatcmpl-broken","choices":[{"text":\n\n',
    text_event=(b'data: {"id":"chatcmpl-huge","object":"text_completion","choices":[{"index":0,"text":"', b'"}]}\n\n'),
)
_NOTHING_YET = b',"usage":{"completion_tokens":0,"prompt_tokens":0,"total_tokens":0}'


def whole(turn: Turn) -> dict[str, Any]:
    """The response to a request without streaming."""
    generated, identity = turn.generated, turn.identity
    body: dict[str, Any] = {
        "id": identity.id,
        "object": "text_completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [
            {"finish_reason": generated.finish_reason, "index": i, "text": generated.text, "logprobs": None}
            for i in range(generated.choices)
        ],
    }
    if turn.usage is not None:
        body["usage"] = turn.usage.as_json(cost=None)
    return body


def events(turn: Turn) -> list[Event]:
    """The stream of the same response, without [DONE].

    As LiteLLM has it: each event says that nothing was used unless the usage was asked for, the usage stands beside
    an empty choice, and of several choices only the first one ends.
    """
    generated, identity = turn.generated, turn.identity
    prefix = (
        f'data: {{"id":"{identity.id}","object":"text_completion","created":{identity.created},'
        f'"model":{json.dumps(identity.model)},"choices":'
    ).encode()
    after = b"" if wants_usage(turn.asked) else _NOTHING_YET

    def text(index: int, piece: str, tokens: int) -> Event:
        choice = b'[{"index":%d,"text":%b}]' % (index, msgspec.json.encode(piece))
        return Event(b"%b%b%b}\n\n" % (prefix, choice, after), tokens, len(piece))

    made = [text(0, "", 0)]
    made += [text(i, *burst) for burst in generated.bursts for i in range(generated.choices)]
    made.append(
        Event(b'%b[{"finish_reason":"%b","index":0}]%b}\n\n' % (prefix, generated.finish_reason.encode(), after))
    )
    if turn.usage is not None and wants_usage(turn.asked):
        shown = msgspec.json.encode(turn.usage.as_json(cost=turn.cost))
        made.append(Event(b'%b[{"index":0}],"usage":%b}\n\n' % (prefix, shown)))
    return made
