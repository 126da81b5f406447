"""Addresses of the history pages. Floor 4."""

from django.urls import path

from history import views

urlpatterns = [
    path("history/", views.history, name="history"),
    path("history/csv", views.history_csv, name="history-csv"),
    path("history/jsonl", views.history_jsonl, name="history-jsonl"),
]
