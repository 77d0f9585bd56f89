"""Ends of models as operators see them: the page of configuration versions, and `catalogue check`."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from django.core.management import call_command
from django.test import Client

from accounts.models import User
from billing.models import Plan
from codexflow.catalogue import directory, services
from codexflow.env import REPOSITORY
from keys.models import ApiKey
from keys.selectors import policies_naming_models
from keys.tests.factories import a_key

SHIPPED = REPOSITORY / "config" / "models.yaml"
pytestmark = pytest.mark.django_db


@pytest.fixture
def ending(tmp_path: Path) -> str:
    """The shipped file, whose plan model ends on a day long past and has no successor."""
    content = yaml.safe_load(SHIPPED.read_text())
    content["models"][content["stages"]["plan"]["model"]] |= {"retires": "2020-02-29"}
    return yaml.safe_dump(content)


def first_model() -> str:
    return str(yaml.safe_load(SHIPPED.read_text())["stages"]["plan"]["model"])


def test_the_page_of_versions_names_models_that_end(
    client: Client, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = services.apply(ending, author="test")
    own = directory.Directory()
    monkeypatch.setattr(directory, "_directory", own)
    a_key(allowed_models=[first_model()])
    client.force_login(User.objects.create_superuser("root@example.org"))
    for path in ("", f"{version.pk}/change/"):
        page = client.get(f"/ops/codexflow/configversion/{path}").content.decode()
        assert "2020-02-29" in page
        assert f"stages.plan.model: {first_model()} ended on 2020-02-29 and has no successor" in page
        assert "stage plan, direct" in page
        assert "1 key" in page


def test_check_names_keys_and_plans(ending: str, tmp_path: Path) -> None:
    a_key(allowed_models=[first_model()])
    a_key(allowed_models=[first_model(), "text-embedding-3-small"])
    ApiKey.objects.update(expires_at=None)
    Plan.objects.filter(slug="pro").update(allowed_models=[first_model()])
    path = tmp_path / "models.yaml"
    path.write_text(ending.replace("2020-02-29'", "2020-02-29'\n    successor: text-embedding-3-small"))
    out = io.StringIO()
    call_command("catalogue", "check", str(path), stdout=out)
    assert "2 keys, plan pro." in out.getvalue()


def test_keys_that_no_longer_work_are_not_counted() -> None:
    for name in ("revoked_at", "expires_at", "rotation_ends_at"):
        key = a_key(allowed_models=["gpt-6.1-sol"])
        ApiKey.objects.filter(public_id=key.row.public_id).update(**{name: datetime(2020, 1, 1, tzinfo=UTC)})
    assert policies_naming_models() == {}
