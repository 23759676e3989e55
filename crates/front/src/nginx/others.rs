//! Other fronts of the node: at a handover the one before serves until this one does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::master::Nginx;

/// What the names of the sockets end with on which nginx answers its own front.
const END: &str = ".nginx.socket";
/// nginx has so long to answer its own front.
const PATIENCE: Duration = Duration::from_secs(1);

impl Nginx {
    /// True if the nginx of another front of this node serves.
    pub(super) async fn another_serves(&self) -> bool {
        let own = &self.site.own_socket;
        let entries = own.parent().and_then(|dir| fs::read_dir(dir).ok());
        for entry in entries.into_iter().flatten().flatten() {
            let is_nginx = entry.file_name().to_string_lossy().ends_with(END);
            if is_nginx && entry.path() != *own && revision(&entry.path()).await.is_some() {
                return true;
            }
        }
        false
    }
}

/// The revision of the configuration by which the nginx behind this socket serves.
pub async fn revision(socket: &Path) -> Option<u64> {
    tokio::time::timeout(PATIENCE, asked(socket)).await.ok().flatten()
}

/// The same, however long it takes.
pub async fn asked(socket: &Path) -> Option<u64> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    stream.write_all(b"GET /revision HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.rsplit_once("\r\n\r\n")?.1.parse().ok()
}
