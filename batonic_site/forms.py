"""The login forms. Floor 5."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.core.validators import MaxLengthValidator

MAX_USERNAME = 150  # as long as an account's name can be


class LoginForm(AuthenticationForm):
    """Django's form, which bounds the name in the browser only; the lock-out's table has no room for any length."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["username"].validators.append(MaxLengthValidator(MAX_USERNAME))


class AdminLoginForm(LoginForm, AdminAuthenticationForm):
    """The same for the admin's own page."""
