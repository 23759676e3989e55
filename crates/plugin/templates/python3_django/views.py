"""The views of the app."""

import logging

from django.http import HttpResponse

logger = logging.getLogger(__name__)


def index(request):
    logger.info("this is an info message")
    return HttpResponse("Hello World from django main app")
