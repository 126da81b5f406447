from django.apps import AppConfig


class OrderbookConfig(AppConfig):
    name = "orderbook"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have live clients told of who signs out."""
        from django.contrib.auth.signals import user_logged_out  # here: models are there by now

        from orderbook.signing_out import tell_signed_out

        user_logged_out.connect(tell_signed_out)
