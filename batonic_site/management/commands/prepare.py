"""Everything that must be there before the processes start; each step does nothing when it was done before. Floor 5."""

import shutil
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand

from batonic_site.services.secrets import private_folder, stored_secret
from replay.datasets import files, scan

SAMPLE_RECORDS: Final = 300_000
SAMPLE_SYMBOLS: Final = "CLX5,ESZ5"
SAMPLE_SEED: Final = 5


class Command(BaseCommand):
    help = "Make the tables, the static files, the admin account and, when DATA_DIR is empty, a sample dataset."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write("tables")
        call_command("migrate", interactive=False, verbosity=0)
        self.stdout.write("static files")
        call_command("collectstatic", interactive=False, verbosity=0)
        self.stdout.write(f"admin account: {self.make_admin()}")
        self.stdout.write("datasets")
        if not any(files()):
            self.make_sample()
        for dataset in scan():
            said = f"{dataset.records:,} records" if dataset.state == "ready" else f"{dataset.state}: {dataset.error}"
            self.stdout.write(f"  {dataset.name}: {said}")

    def make_admin(self) -> str:
        """Make the account on first use, and follow ADMIN_PASSWORD when it changes; return what was done."""
        users = get_user_model()
        password = settings.ADMIN_PASSWORD or stored_secret(settings.DATA_FOLDER / "admin_password", length=16)
        user = users.objects.filter(username=settings.ADMIN_USER).first()
        if user is None:
            users.objects.create_superuser(username=settings.ADMIN_USER, password=password)
            return f"{settings.ADMIN_USER} made"
        if settings.ADMIN_PASSWORD and not user.check_password(password):
            user.set_password(password)
            user.save(update_fields=["password"])
            return f"{settings.ADMIN_USER} has the password of ADMIN_PASSWORD now"
        return f"{settings.ADMIN_USER} is there"

    def make_sample(self) -> None:
        """Make a dataset beside its place and move it there when complete."""
        self.stdout.write(f"{settings.DATA_DIR} holds no recording: a sample is made")
        draft = private_folder(settings.DATA_FOLDER) / "sample.dbn"
        call_command(
            "makedataset", str(draft), records=SAMPLE_RECORDS, symbols=SAMPLE_SYMBOLS, seed=SAMPLE_SEED, force=True
        )
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        shutil.move(draft, settings.DATA_DIR / "sample.dbn")
