"""Pages of the profile and of organization settings."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import translation
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import check_for_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from accounts import deletion, mail, services
from accounts.audit import acting
from accounts.errors import Refused
from accounts.forms import ConfirmationForm, ContentForm, OrganizationForm, ProfileForm
from accounts.invitations import token_of
from accounts.models import User
from accounts.permissions import Action
from accounts.reauthentication import recently_authenticated
from accounts.selectors import invitations_to, memberships_of
from accounts.tenancy import LAST_ORGANIZATION, PageRequest, Tenant, organization_page, signed_in

THEME_COOKIE = "theme"
THEMES = ("light", "dark")
YEAR_S = 365 * 24 * 3600


@signed_in
def home(request: PageRequest) -> HttpResponseBase:
    """Redirect to the overview of the organization visited last. Open invitations are announced there."""
    for invitation in invitations_to(request.user):
        link = reverse("invitation", args=[token_of(invitation)])
        text = _("You are invited to %(organization)s.") % {"organization": invitation.organization.name}
        invited = format_html('{} <a class="link-plain underline" href="{}">{}</a>', text, link, _("Show invitation"))
        messages.info(request, invited)
    slugs = [membership.organization.slug for membership in memberships_of(request.user)]
    if not slugs:
        slugs = [services.create_personal_organization(request.user).slug]
    last = request.session.get(LAST_ORGANIZATION)
    return redirect("overview", slug=last if last in slugs else slugs[0])


@signed_in
@require_http_methods(["GET", "POST"])
def profile(request: PageRequest) -> HttpResponseBase:
    """Edit name, language and time zone. The theme is stored in the browser, not here."""
    form = ProfileForm(request.POST or None, instance=User.objects.get(pk=request.user.pk))
    if request.method == "POST" and form.is_valid():
        user = form.save()
        translation.activate(user.language)
        messages.success(request, _("Settings saved."))
        response = redirect("profile")
        _remember_language(response, user.language)
        return response
    return render(request, "accounts/profile.html", {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_ORGANIZATION, section="team")
@require_http_methods(["GET", "POST"])
def organization_settings(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Rename the organization."""
    form = OrganizationForm(request.POST or None, instance=tenant.organization)
    if request.method == "POST" and form.is_valid():
        services.rename_organization(
            tenant.organization,
            name=form.cleaned_data["name"],
            **acting(request),
        )
        messages.success(request, _("Organization renamed."))
        return redirect("organization-settings", slug=tenant.organization.slug)
    return _settings_page(request, tenant, form=form)


@organization_page(Action.MANAGE_ORGANIZATION, section="team")
@require_POST
def organization_content(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Set how long prompts and responses are kept."""
    form = ContentForm(request.POST)
    if not form.is_valid():
        return _settings_page(request, tenant, content_form=form)
    days = form.cleaned_data["days"]
    services.set_content_retention(tenant.organization, days=days, **acting(request))
    if days:
        messages.success(request, _("Prompts and answers are kept from now on."))
    else:
        messages.success(request, _("Prompts and answers are no longer kept. What was kept is being deleted."))
    return redirect("organization-settings", slug=tenant.organization.slug)


def _settings_page(
    request: PageRequest,
    tenant: Tenant,
    *,
    form: OrganizationForm | None = None,
    content_form: ContentForm | None = None,
) -> HttpResponseBase:
    days = tenant.organization.content_retention_days
    forms = {
        "form": form or OrganizationForm(instance=tenant.organization),
        "content_form": content_form or ContentForm(initial={"days": days}),
    }
    is_wrong = any(each.errors for each in forms.values())
    facts = {**forms, "content_days": days}
    return render(request, "accounts/organization.html", facts, status=422 if is_wrong else 200)


@signed_in
@require_http_methods(["GET", "POST"])
def organization_create(request: PageRequest) -> HttpResponseBase:
    """Create another organization."""
    form = OrganizationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = services.create_extra_organization(
                name=form.cleaned_data["name"], owner=request.user, address=acting(request)["address"]
            )
        except Refused as exc:
            form.add_error(None, str(exc))
        else:
            messages.success(request, _("Organization created."))
            return redirect("overview", slug=made.slug)
    return render(request, "accounts/organization_create.html", {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_ORGANIZATION, section="team")
@require_http_methods(["GET", "POST"])
@recently_authenticated
def organization_delete(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Delete the organization, confirmed by typing its name."""
    form = ConfirmationForm(request.POST or None, word=tenant.organization.name, label=_("The organization's name"))
    if request.method == "POST" and form.is_valid():
        deletion.delete_organization(tenant.organization, **acting(request))
        messages.success(request, _("%(name)s has been deleted.") % {"name": tenant.organization.name})
        return redirect("home")
    return render(request, "accounts/organization_delete.html", {"form": form}, status=422 if form.errors else 200)


@signed_in
@require_http_methods(["GET", "POST"])
@recently_authenticated
def account_delete(request: PageRequest) -> HttpResponseBase:
    """Delete the user's account, confirmed by typing its address."""
    user = User.objects.get(pk=request.user.pk)
    form = ConfirmationForm(request.POST or None, word=user.email, label=_("Your e-mail address"))
    if request.method == "POST" and form.is_valid():
        email, language = user.email, user.language
        try:
            deletion.delete_account(user, address=acting(request)["address"])
        except Refused as exc:
            form.add_error(None, str(exc))
        else:
            mail.send("account_deleted", email, language=language)
            logout(request)
            messages.success(request, _("Your account has been deleted."))
            return redirect("landing")
    facts = {"form": form, "in_the_way": deletion.organizations_blocking_deletion(user), "word": user.email}
    return render(request, "accounts/account_delete.html", facts, status=422 if form.errors else 200)


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Switch the language of this browser, and of the profile when signed in."""
    code = request.POST.get("language", "")
    response = redirect(_return_path(request))
    if code in dict(settings.LANGUAGES) and check_for_language(code):
        if request.user.is_authenticated:
            User.objects.filter(pk=request.user.pk).update(language=code)
        _remember_language(response, code)
    return response


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Switch the theme without JavaScript; with it no request is needed."""
    chosen = request.POST.get("theme", "")
    response = redirect(_return_path(request))
    if chosen in THEMES:
        response.set_cookie(THEME_COOKIE, chosen, max_age=YEAR_S, samesite="Lax")
    else:
        response.delete_cookie(THEME_COOKIE, samesite="Lax")
    return response


def _remember_language(response: HttpResponse, code: str) -> None:
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        code,
        max_age=settings.LANGUAGE_COOKIE_AGE,
        samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )


def _return_path(request: HttpRequest) -> str:
    """Path to return to, from the form's `next` if it is on this site, otherwise `/`."""
    target = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(target, allowed_hosts=None) and target.startswith("/")
    return target if is_ours else "/"
