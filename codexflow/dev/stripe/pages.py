"""The hosted checkout page. It says on every page that no money moves. Pure."""

from html import escape
from typing import Any

# Cards to choose from, by their last digits, and what charges do that are made later without the customer.
_CARDS = (
    ("4242", "Visa 4242"),
    ("4444", "Mastercard 4444"),
    ("0341", "Visa 0341: later charges are declined"),
    ("3184", "Visa 3184: later charges need confirmation"),
)

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Demo checkout</title><link rel="icon" href="data:,"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0; background: #f4f5f7; color: #16181d }}
main {{ max-width: 26rem; margin: 3rem auto; padding: 1.5rem; background: #fff; border: 1px solid #d5d8de; border-radius: 8px }}
.label {{ background: #fff3c4; border: 1px solid #8a6d00; color: #4d3d00; padding: .5rem .75rem; border-radius: 6px; font-weight: 600 }}
.error {{ color: #a4161a }}
dl {{ display: grid; grid-template-columns: 1fr auto; gap: .25rem 1rem }} dd {{ margin: 0; text-align: right }}
label {{ display: block; margin: .75rem 0 }} input, select {{ width: 100%; box-sizing: border-box; padding: .5rem; font: inherit }}
button {{ width: 100%; margin-top: .5rem; padding: .6rem; font: inherit; border-radius: 6px; border: 1px solid #16181d; background: #fff; color: #16181d; cursor: pointer }}
button.main {{ background: #16181d; color: #fff }}
</style></head><body><main>
<p class="label">Demo checkout – no money moves</p>
{body}
</main></body></html>
"""  # noqa: E501, RUF001 - styles in one line each; the dash is that of the order page


def checkout(session: dict[str, Any], *, is_declined: bool = False) -> str:
    """Write the page at which an open session is paid or saves a card, or say that it is not open."""
    if session["status"] != "open":
        return _FRAME.format(body=f"<h1>Checkout</h1><p>This checkout is {escape(session['status'])}.</p>")
    lines = "".join(
        f"<dt>{escape(line['description'])}</dt><dd>{amount(line['amount_total'], line['currency'])}</dd>"
        for line in session["line_items"]["data"]
    )
    is_setup = session["mode"] == "setup"
    title = "Save a card" if is_setup else f"Pay {amount(session['amount_total'], session['currency'])}"
    verb = "Save" if is_setup else "Pay"
    cards = "".join(f'<option value="{digits}">{label}</option>' for digits, label in _CARDS)
    error = '<p class="error" role="alert">Your card was declined.</p>' if is_declined else ""
    tax_id = '<label>Tax ID<input name="tax_id" autocomplete="off"></label>' if session["tax_id_collection"] else ""
    return _FRAME.format(
        body=f"<h1>{title}</h1><dl>{lines}</dl>{error}"
        '<form method="post"><label>Name on the card<input name="name" autocomplete="off"></label>'
        f'<label>Card<select name="card">{cards}</select></label>{tax_id}'
        f'<button class="main" name="choice" value="pay">{verb}</button>'
        f'<button name="choice" value="confirm">{verb} with a card that needs confirmation</button>'
        f'<button name="choice" value="decline">{verb} with a card that is declined</button>'
        '<button name="choice" value="back">Back</button></form>'
    )


def confirmation(session: dict[str, Any]) -> str:
    """Write the page at which the customer's bank asks (3-D Secure)."""
    is_setup = session["mode"] == "setup"
    total = "your card" if is_setup else amount(session["amount_total"], session["currency"])
    return _FRAME.format(
        body=f"<h1>Confirm {total}</h1><p>Your bank asks whether it is you who pays.</p>"
        '<form method="post"><button class="main" name="choice" value="pay">Confirm</button>'
        '<button name="choice" value="decline">Refuse</button></form>'
    )


def amount(minor_units: int, currency: str) -> str:
    """Write an amount of the demo, whose currencies have cents."""
    return f"{minor_units // 100}.{minor_units % 100:02d} {escape(currency.upper())}"
