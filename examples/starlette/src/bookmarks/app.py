"""A Starlette app as a package below src."""

from bookmarks.text import VERSION
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def home(request):
    return PlainTextResponse("Bookmarks: %s\n" % request.url_for("version"))


async def version(request):
    return PlainTextResponse(VERSION)


app = Starlette(routes=[Route("/", home), Route("/version", version)])
