"""What mflog adds to each message: the plugin and the request it belongs to.

Used through the environment: MFLOG_EXTRA_CONTEXT_FUNC=mfext.mflog_addon.extra_context
"""

import os
import sys

_NAMES = (
    ("plugin", "MFSERV_CURRENT_PLUGIN_NAME"),
    ("request_id", "MFSERV_CURRENT_REQUEST_ID"),
)


def extra_context():
    """The context as a dictionary; unknown values are left out."""
    context = {}
    for key, variable in _NAMES:
        value = os.environ.get(variable)
        if value:
            context[key] = value
    worker = sys.modules.get("mfserv_worker")
    request_id = worker.request_id.get() if worker else ""
    if request_id:
        context["request_id"] = request_id
    return context
