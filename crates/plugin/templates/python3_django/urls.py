"""The addresses of the project: all of them are below the plugin's name."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("{{ name }}/admin/", admin.site.urls),
    path("{{ name }}/main/", include("main.urls")),
    path("{{ name }}/", include("main.urls")),
]
