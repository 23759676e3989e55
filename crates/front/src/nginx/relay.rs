//! The control socket: messages of the daemon go on to the front behind nginx, and its messages
//! to the daemon. A table counts as published once nginx obeys it too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use mfserv_core::route::{Amendment, ServerSettings};
use mfserv_core::tls::ClientCertificates;
use mfserv_core::wire::front::{FromFront, ToFront};
use mfserv_platform::link::{AsyncLink, LinkError};
use tokio::net::UnixStream;

use super::config::{ADDED_BYTES, ADDED_FIELDS, CERTIFICATE_BYTES};
use super::edge::Edge;
use super::ends::{Ends, Telling};
use crate::control_socket::WRITE_PATIENCE;

/// Daemons understand that nginx has ended from this version of the protocol on.
const HEARS_ENDS: u32 = 4;

/// What every conversation with a daemon needs.
pub struct Relay {
    /// nginx.
    pub edge: Rc<Edge>,
    /// The control socket of the front behind it.
    pub inner: PathBuf,
    /// Processes of nginx that have ended.
    pub ends: Rc<Ends>,
}

/// A table that the front behind nginx has not answered for yet.
type Asked = BTreeMap<u64, (Amendment, bool)>;

impl Relay {
    /// Serves one daemon, until it disconnects or the front behind nginx does.
    pub async fn converse(&self, stream: UnixStream) -> Result<(), String> {
        let mut daemon = AsyncLink::new(stream);
        let inner = UnixStream::connect(&self.inner).await.map_err(|why| why.to_string())?;
        let mut inner = AsyncLink::new(inner);
        let (mut asked, mut owed) = (Asked::new(), BTreeSet::new());
        let mut obeyed = self.edge.obeyed();
        let mut hears_ends = false;
        loop {
            let (mut answers, mut telling) = (Vec::new(), None);
            tokio::select! {
                message = daemon.receive::<ToFront>() => match message {
                    Ok(message) => {
                        if let ToFront::Hello { version } = &message {
                            hears_ends = *version >= HEARS_ENDS;
                        }
                        let message = for_inner(message, &mut asked);
                        patiently(inner.send(&message)).await?;
                    }
                    Err(LinkError::Closed | LinkError::Cut) => return Ok(()),
                    Err(why) => return Err(why.to_string()),
                },
                message = inner.receive::<FromFront>() => match message {
                    Ok(message) => self.heard(message, (&mut asked, &mut owed), &mut answers),
                    Err(LinkError::Closed | LinkError::Cut) => return Ok(()),
                    Err(why) => return Err(why.to_string()),
                },
                _ = obeyed.changed() => {}
                end = self.ends.next(), if hears_ends => {
                    answers.extend(end.end().map(FromFront::NginxEnded));
                    telling = Some(end);
                }
            }
            let now = *obeyed.borrow_and_update();
            let later = owed.split_off(&(now + 1));
            answers.extend(
                owed.iter().map(|generation| FromFront::Published { generation: *generation }),
            );
            owed = later;
            patiently(daemon.send_all(&answers)).await?;
            telling.into_iter().for_each(Telling::succeeded);
        }
    }

    /// What the daemon is told when the front behind nginx has said something.
    fn heard(
        &self,
        message: FromFront,
        (asked, owed): (&mut Asked, &mut BTreeSet<u64>),
        answers: &mut Vec<FromFront>,
    ) {
        match message {
            FromFront::Hello { version, generation, peers, .. } => {
                // Before nginx obeys the table, the daemon is to send it again.
                let is_obeyed = *self.edge.obeyed().borrow() == generation;
                let generation = if is_obeyed { generation } else { 0 };
                let pid = std::process::id();
                answers.push(FromFront::Hello { version, pid, generation, peers });
            }
            FromFront::Published { generation } => {
                if let Some((amendment, is_whole)) = asked.remove(&generation) {
                    self.edge.want(generation, amendment, is_whole);
                }
                owed.insert(generation);
            }
            FromFront::Refused { generation, reason } => {
                asked.remove(&generation);
                answers.push(FromFront::Refused { generation, reason });
            }
            FromFront::Stats(mut stats) => {
                stats.warnings.extend(self.edge.warnings());
                answers.push(FromFront::Stats(stats));
            }
            other => answers.push(other),
        }
    }
}

async fn patiently(send: impl Future<Output = Result<(), LinkError>>) -> Result<(), String> {
    match tokio::time::timeout(WRITE_PATIENCE, send).await {
        Ok(sent) => sent.map_err(|why| why.to_string()),
        Err(_) => Err("it does not read".into()),
    }
}

/// The message for the front behind nginx. A table is remembered until that has answered.
fn for_inner(message: ToFront, asked: &mut Asked) -> ToFront {
    match message {
        ToFront::Publish { generation, mut table, peers } => {
            asked.insert(generation, (Amendment::whole((*table).clone()), true));
            adapt(&mut table.server);
            ToFront::Publish { generation, table, peers }
        }
        ToFront::Amend { base, generation, mut amendment, peers } => {
            asked.insert(generation, ((*amendment).clone(), false));
            adapt(&mut amendment.server);
            ToFront::Amend { base, generation, amendment, peers }
        }
        other => other,
    }
}

/// The settings of a front that nginx stands before.
fn adapt(server: &mut ServerSettings) {
    server.request_head.bytes += ADDED_BYTES;
    server.request_head.fields += ADDED_FIELDS;
    let tls = server.tls.as_ref();
    if tls.is_some_and(|tls| tls.client_certificates != ClientCertificates::Off) {
        server.request_head.bytes += CERTIFICATE_BYTES;
    }
    // nginx has made the id, or has taken it over.
    server.accept_request_id |= server.add_request_id;
}
