"""URLs of the profile, organizations, members and the audit log."""

from django.urls import path

from accounts import team_views, views
from accounts.webhooks import views as webhooks

urlpatterns = [
    path("home/", views.home, name="home"),
    path("settings/", views.profile, name="profile"),
    path("settings/delete/", views.account_delete, name="account-delete"),
    path("preferences/language/", views.language, name="language"),
    path("preferences/theme/", views.theme, name="theme"),
    path("organizations/create/", views.organization_create, name="organization-create"),
    path("invitations/<str:token>/", team_views.invitation, name="invitation"),
    path("o/<slug:slug>/settings/", views.organization_settings, name="organization-settings"),
    path("o/<slug:slug>/settings/webhooks/", webhooks.webhooks, name="webhooks"),
    path("o/<slug:slug>/settings/webhooks/new/", webhooks.webhook_new, name="webhook-new"),
    path("o/<slug:slug>/settings/webhooks/<uuid:endpoint_id>/", webhooks.webhook, name="webhook"),
    path("o/<slug:slug>/settings/webhooks/<uuid:endpoint_id>/edit/", webhooks.webhook_edit, name="webhook-edit"),
    path("o/<slug:slug>/settings/webhooks/<uuid:endpoint_id>/secret/", webhooks.webhook_rotate, name="webhook-rotate"),
    path("o/<slug:slug>/settings/webhooks/<uuid:endpoint_id>/test/", webhooks.webhook_test, name="webhook-test"),
    path("o/<slug:slug>/settings/webhooks/<uuid:endpoint_id>/remove/", webhooks.webhook_remove, name="webhook-remove"),
    path(
        "o/<slug:slug>/settings/webhooks/<uuid:endpoint_id>/deliveries/<uuid:delivery_id>/",
        webhooks.webhook_replay,
        name="webhook-replay",
    ),
    path("o/<slug:slug>/settings/content/", views.organization_content, name="organization-content"),
    path("o/<slug:slug>/settings/delete/", views.organization_delete, name="organization-delete"),
    path("o/<slug:slug>/settings/transfer/", team_views.transfer, name="ownership-transfer"),
    path("o/<slug:slug>/members/", team_views.member_list, name="members"),
    path("o/<slug:slug>/members/invite/", team_views.invite, name="invite"),
    path("o/<slug:slug>/members/leave/", team_views.leave, name="leave"),
    path("o/<slug:slug>/members/<int:membership_id>/role/", team_views.role, name="member-role"),
    path("o/<slug:slug>/members/<int:membership_id>/remove/", team_views.remove, name="member-remove"),
    path(
        "o/<slug:slug>/invitations/<uuid:invitation_id>/resend/",
        team_views.invitation_resend,
        name="invitation-resend",
    ),
    path(
        "o/<slug:slug>/invitations/<uuid:invitation_id>/withdraw/",
        team_views.invitation_withdraw,
        name="invitation-withdraw",
    ),
    path("o/<slug:slug>/audit/", team_views.audit_log, name="audit"),
]
