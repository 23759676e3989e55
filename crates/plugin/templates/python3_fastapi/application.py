"""The app: a FastAPI application."""

import logging

from fastapi import APIRouter, FastAPI

# what is logged goes to the log of the app
logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("{{ name }}")

# the address of a request is the whole one: the plugin's name is a part of it
app = FastAPI(
    title="{{ name }}",
    version="{{ version }}",
    docs_url="/{{ name }}/docs",
    redoc_url=None,
    openapi_url="/{{ name }}/openapi.json",
)
router = APIRouter(prefix="/{{ name }}")


@router.get("")
@router.get("/", include_in_schema=False)
async def hello_world():
    logger.info("this is an info message")
    return {"message": "Hello World from {{ name }}!"}


app.include_router(router)
