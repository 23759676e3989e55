"""A Litestar app with a typed answer."""

from litestar import Litestar, get


@get("/version")
async def version() -> str:
    return "one"


@get("/sum/{first:int}/{second:int}")
async def add(first: int, second: int) -> dict[str, int]:
    return {"sum": first + second}


app = Litestar([version, add])
