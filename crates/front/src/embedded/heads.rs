//! The heads that this front writes, without a connection: for tests that compare them
//! with what they were made of (`fuzz/`).

use mfserv_core::route::ServerSettings;
use mfserv_h1::{RequestHead, ResponseHead};

use super::clients::http1::{self, Frame};
use super::io::buffer::Pooled;
use super::workers::heads;

pub use super::clients::trace::Trace;
pub use super::workers::heads::Forwarded;

/// The head of a request as a worker gets it.
pub fn request_for_worker(
    head: &RequestHead,
    settings: &ServerSettings,
    with: Forwarded<'_>,
) -> Vec<u8> {
    let mut out = Pooled::default();
    heads::put_request(&mut out, head, settings, with);
    out.filled().to_vec()
}

/// The head of a worker's answer as the client gets it.
pub fn answer_for_client(
    reply: &ResponseHead,
    request: &RequestHead,
    settings: &ServerSettings,
) -> Vec<u8> {
    let mut out = Pooled::default();
    let (id, timing, strict_transport, extra_field, cookie) = (None, None, None, None, None);
    let keep_alive = request.keep_alive;
    let frame = Frame { request, keep_alive, id, timing, strict_transport, extra_field, cookie };
    let fields = |head: &mut http1::HeadWriter<'_>| heads::put_fields(head, reply, settings);
    http1::put_head(&mut out, heads::start(reply), frame, fields);
    out.filled().to_vec()
}
