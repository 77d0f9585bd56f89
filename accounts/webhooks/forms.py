"""Form of a webhook."""

from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import WebhookEndpoint
from accounts.webhooks.messages import EVENTS
from accounts.webhooks.services import WebhookRefused, check_url

# Text of each event.
TEXTS: dict[str, str | Promise] = {
    "budget.reached": _("50, 80 or 100% of a budget is used"),
    "credit.low": _("50, 80 or 100% of the credit is used"),
    "invoice.ready": _("An invoice or a credit note was issued"),
    "key.created": _("An API key was created or rotated"),
    "key.leaked": _("An API key was found in public and is revoked"),
    "model.ending": _("A model that was used ends soon"),
}


class EndpointForm(forms.Form):
    """Address and events of a webhook."""

    url = forms.CharField(label=_("Address"), max_length=500, help_text=_("https:// on the public internet"))
    events = forms.MultipleChoiceField(label=_("Events"), choices=[(each, each) for each in EVENTS])
    is_active = forms.BooleanField(label=_("Active"), required=False)

    def __init__(self, posted: QueryDict | None, *, endpoint: WebhookEndpoint | None = None) -> None:
        initial: dict[str, Any] = {"events": list(EVENTS), "is_active": True}
        if endpoint is not None:
            initial = {"url": endpoint.url, "events": endpoint.events, "is_active": endpoint.is_active}
        super().__init__(posted, initial=initial)
        self.described = {each: TEXTS[each] for each in EVENTS}

    def clean_url(self) -> str:
        url = str(self.cleaned_data["url"]).strip()
        try:
            check_url(url)
        except WebhookRefused as refused:
            raise forms.ValidationError(str(refused)) from refused
        return url
