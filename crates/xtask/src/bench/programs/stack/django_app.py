"""The smallest app of Django with the two middlewares that nearly every project has."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import re_path

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a bench",
)


def index(request):
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [re_path("", index)]
app = get_wsgi_application()
