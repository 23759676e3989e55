"""What an app may use of the server that runs it."""

from contextvars import ContextVar

#: The id of the running request (X-Request-Id); empty if it has none, or if none runs.
request_id = ContextVar("mfserv_worker.request_id", default="")
