"""The WSGI application of the project."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ name }}.settings")

application = get_wsgi_application()
