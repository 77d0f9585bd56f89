"""What a call is taken to have used when its provider does not say."""

from routing.meter import Meter


def event(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


def test_a_text_that_speaks_of_data_is_no_further_event() -> None:
    plain, tricky = Meter(), Meter()
    for _ in range(3):
        plain.delivered(event("xxxxx xxxxx"))
        tricky.delivered(event("data: data:"))
    assert plain.delivered_tokens() == tricky.delivered_tokens() == 3


def test_several_events_in_one_piece_are_counted() -> None:
    meter = Meter()
    meter.delivered(event("a") * 4)
    assert meter.delivered_tokens() == 4


def test_the_envelope_of_an_answer_is_not_taken_for_text() -> None:
    short, long = Meter(), Meter()
    body = '{"id":"x","object":"chat.completion","system_fingerprint":"%s","choices":[{"message":{"content":"%s"}}]}'
    assert short.answered((body % ("f" * 400, "12345678")).encode(), None)
    assert long.answered((body % ("f", "word " * 100)).encode(), None)
    assert short.delivered_tokens() <= 3
    assert 100 <= long.delivered_tokens() <= 130


def test_an_answer_of_another_form_counts_whole() -> None:
    meter = Meter()
    assert meter.answered(b'{"choices":[{"message":"a text where an object should be"}]}', None)
    assert meter.delivered_tokens() == 15
