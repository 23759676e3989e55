//! The status of the played node.

use serde_json::{Value, json};

/// What a daemon has answered since before the HTTP API; never to be changed.
pub fn status() -> Value {
    json!({
        "state": "RUNNING", "home": "/h", "address": "http://127.0.0.1:1", "generation": 7,
        "keeper": {"pid": 1, "version": "", "since_ms": 1},
        "daemon": {"pid": 2, "version": "0.1.0", "since_ms": 1},
        "notes": [],
        "plugins": [{"name": "p", "version": "1-1", "dir": "/p", "state": "active",
                     "paths": ["/p"]}],
        "watchers": [{"name": "app.p.main", "plugin": "p", "wanted": 1, "ready": 1,
                      "state": "ready", "crashes": 0, "last_end": null, "workers": []}],
        "problems": []
    })
}
