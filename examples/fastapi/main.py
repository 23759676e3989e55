"""An API with a model, a WebSocket, and its documentation at /docs."""

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel

app = FastAPI(title="Prices")


class Item(BaseModel):
    name: str
    price: float


@app.get("/version")
async def version() -> str:
    return "one"


@app.post("/total")
async def total(items: list[Item]) -> dict[str, float]:
    return {"total": sum(item.price for item in items)}


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text("heard " + text)
