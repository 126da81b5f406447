from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "batonic_site"

    def ready(self) -> None:
        """Register the checks, and make our Celery application the one that every process sends tasks with."""
        from batonic_site import celery, checks  # noqa: F401  (both need the settings)
