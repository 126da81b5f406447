"""Addresses of the live page. Floor 4."""

from django.urls import path

from orderbook import views

urlpatterns = [path("", views.live, name="live")]
