"""A server of aiohttp that listens on PORT, as platforms say it."""

import os

from aiohttp import web


async def version(request):
    return web.Response(text="one\n")


async def echo(request):
    """A WebSocket that says again what it hears."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str("heard " + message.data)
    return socket


app = web.Application()
app.add_routes([web.get("/version", version), web.get("/echo", echo)])

if __name__ == "__main__":
    web.run_app(app, host=os.environ.get("HOST"), port=int(os.environ.get("PORT", "8080")))
