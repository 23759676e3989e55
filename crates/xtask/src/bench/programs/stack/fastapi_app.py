"""The smallest app of FastAPI: a parameter that is checked, an answer that is JSON."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/{path:path}")
async def index(path: str, page: int = 1):
    return {"page": page}
