"""Middlewares of the aiohttp apps: a time limit per request, and a logger that knows the request."""

import asyncio

from aiohttp import web
from mflog import get_logger


def timeout_middleware_factory(timeout):
    """A middleware that answers 504 when a request takes longer than `timeout` seconds (0 or less = no limit)."""

    @web.middleware
    async def timeout_middleware(request, handler):
        if timeout <= 0:
            return await handler(request)
        try:
            return await asyncio.wait_for(handler(request), timeout)
        except asyncio.TimeoutError:
            return web.Response(status=504, text="504: Gateway Time-out")

    return timeout_middleware


@web.middleware
async def mflog_middleware(request, handler):
    """Puts a logger bound to the request id in request["mflog_logger"]; logs what the app does not catch."""
    logger = get_logger("aiohttp")
    request_id = request.headers.get("X-Request-Id")
    if request_id:
        logger = logger.bind(request_id=request_id)
    request["mflog_logger"] = logger
    try:
        return await handler(request)
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except Exception:
        logger.exception("exception raised during the processing of the request")
        return web.Response(status=500, text="500: Internal Server Error")
