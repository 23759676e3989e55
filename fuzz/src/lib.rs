//! What the fuzz targets share.

use std::ffi::c_char;
use std::sync::OnceLock;

use mfserv_core::route::ServerSettings;

/// The settings that requests and answers are written with.
pub fn settings() -> &'static ServerSettings {
    static SETTINGS: OnceLock<ServerSettings> = OnceLock::new();
    SETTINGS.get_or_init(|| ServerSettings {
        max_body_bytes: 1000,
        health_path: None,
        server_tokens: false,
        max_connections: 1,
        ..ServerSettings::default()
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
