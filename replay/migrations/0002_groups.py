"""The groups viewer (reads, as every login does) and operator (also starts and stops replays)."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def make_groups(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Make both groups. The permission is made here too: Django makes it only after the last migration."""
    content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
        app_label="replay", model="replay"
    )
    control, _ = apps.get_model("auth", "Permission").objects.get_or_create(
        content_type=content_type, codename="control_replay", defaults={"name": "Can start and stop replays"}
    )
    groups = apps.get_model("auth", "Group").objects
    groups.get_or_create(name="viewer")
    operator, _ = groups.get_or_create(name="operator")
    operator.permissions.add(control)


class Migration(migrations.Migration):
    dependencies = [
        ("replay", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(make_groups, migrations.RunPython.noop)]
