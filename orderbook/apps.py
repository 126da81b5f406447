from django.apps import AppConfig


class OrderbookConfig(AppConfig):
    name = "orderbook"
    default_auto_field = "django.db.models.BigAutoField"
