//! The socket on which a front of either kind listens for daemons.

use std::cell::Cell;
use std::future::Future;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_platform::socket::PrivateSocket;
use tokio::net::UnixStream;

use crate::embedded::ErrorLog;

/// The most control connections at the same time; there may be a second daemon during an
/// upgrade, and somebody who watches.
const CONNECTIONS_MAX: usize = 8;
/// A daemon that does not read for so long is disconnected.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// So often it is looked whether the socket is still there: a cleaner of old files may remove it.
const LOOK: Duration = Duration::from_secs(2);

/// Listens at the path where the daemon looks for this front. What an earlier process has
/// left there is replaced.
pub fn listen(path: &Path) -> Result<PrivateSocket, Diagnostic> {
    PrivateSocket::listen(path).map_err(|why| {
        Diagnostic::error(format!("the front cannot listen on {}", path.display())).because(why)
    })
}

/// Serves daemons: `converse` is the whole conversation with one, and may say why it ended.
/// Never returns.
pub async fn serve<C>(
    mut listener: PrivateSocket,
    errors: impl Deref<Target = ErrorLog> + Clone + 'static,
    converse: impl Fn(UnixStream) -> C,
) where
    C: Future<Output = Result<(), String>> + 'static,
{
    let open = Rc::new(Cell::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(LOOK) => {
                listener.look_after();
                continue;
            }
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (conversation, errors, open) = (converse(stream), errors.clone(), open.clone());
        tokio::task::spawn_local(async move {
            if let Err(why) = conversation.await {
                errors.report(&format!("daemon: {why}"));
            }
            open.set(open.get() - 1);
        });
    }
}
