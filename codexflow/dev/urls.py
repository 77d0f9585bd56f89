"""Pages below `/dev/`. Settings name this module in development; production neither has it nor asks for it."""

from django.urls import path

from codexflow.dev import components, mail

urlpatterns = [
    path("mail/", mail.page, name="dev-mail"),
    path("components/", components.page, name="dev-components"),
]
