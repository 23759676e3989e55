"""The smallest app of Starlette."""

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def index(request):
    return PlainTextResponse("ok\n")


app = Starlette(routes=[Route("/{path:path}", index)])
