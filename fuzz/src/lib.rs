//! What the fuzz targets share.

use std::ffi::c_char;
use std::sync::OnceLock;

use mfserv_core::route::ServerSettings;

/// The settings that requests and answers are written with.
pub fn settings() -> &'static ServerSettings {
    static SETTINGS: OnceLock<ServerSettings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        serde_json::from_value(serde_json::json!({
            "max_body_bytes": 1000, "access_log": true, "add_request_id": true,
            "accept_request_id": false, "add_forwarded": true, "ignore_client_abort": false,
            "health_path": null, "health_access_log": false, "server_tokens": false,
            "port_in_redirect": true, "uuid": "", "uuid_allows": [], "body_temp_dir": "/tmp",
            "threads": 1, "max_connections": 1, "header_timeout_ms": 1,
            "keepalive_timeout_ms": 1, "client_timeout_ms": 1,
        }))
        .expect("the settings of this version")
    })
}

/// A part of what the other parser was given.
///
/// # Safety
/// `start` is null, or so many bytes are there.
pub unsafe fn bytes(start: *const c_char, length: usize) -> Vec<u8> {
    match start.is_null() {
        true => Vec::new(),
        // SAFETY: the parser points into the buffer that it was given.
        false => unsafe { std::slice::from_raw_parts(start.cast(), length) }.to_vec(),
    }
}
