"""manage.py createapikey: make a key for a program, and show it this once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from replay.keys import SCOPES, KeyFormError, create_key


class Command(BaseCommand):
    help = "Make an API key. It is printed once and cannot be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="the account that the key belongs to")
        parser.add_argument("name", help="what the key is for")
        parser.add_argument("--scope", action="append", choices=SCOPES, help="may be repeated; default: read")
        parser.add_argument("--days", type=int, help="days until it expires; default: never")

    def handle(self, *args: Any, **options: Any) -> None:
        owner = User.objects.filter(username=options["username"]).first()
        if owner is None:
            raise CommandError(f"No account {options['username']!r}.")
        days = options["days"]
        if days is not None and not 1 <= days <= 36500:
            raise CommandError(f"--days: expected 1 to 36500, found {days}.")
        expires_at = None if days is None else timezone.now() + timedelta(days=days)
        try:
            _, text = create_key(owner, options["name"], options["scope"] or ["read"], expires_at)
        except KeyFormError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(text)
