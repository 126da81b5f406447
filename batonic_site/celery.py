"""The Celery application. Tasks are found by `@shared_task`, so nothing below imports this. Floor 5."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batonic_site.settings")

app = Celery("batonic")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()  # in every thread: a request that sends a task has a thread of its own
app.autodiscover_tasks()
