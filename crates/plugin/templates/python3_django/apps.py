"""The app "main"."""

from django.apps import AppConfig


class MainConfig(AppConfig):
    name = "main"
