//! The link of a tokio task.

use mfserv_core::wire::frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Incoming, LinkError};

/// A connection that sends and receives messages; the thread does other things meanwhile.
#[derive(Debug)]
pub struct AsyncLink {
    stream: UnixStream,
    incoming: Incoming,
}

impl AsyncLink {
    /// A link over a connected socket.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Incoming::default() }
    }

    /// Sends a message; waits while the peer does not read. Given up halfway (a timeout, a
    /// branch of `select!`), the link is of no use any more.
    pub async fn send<M: Serialize>(&mut self, message: &M) -> Result<(), LinkError> {
        Ok(self.stream.write_all(&frame::encode(message)?).await?)
    }

    /// Sends several messages with one write; nothing for none. As [`AsyncLink::send`].
    pub async fn send_all<M: Serialize>(&mut self, messages: &[M]) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(frame::encode(message)?);
        }
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// The next message among the bytes that were read already.
    pub fn buffered<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        self.incoming.take()
    }

    /// Waits for the next message. Given up, nothing is lost: the next call goes on.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> Result<M, LinkError> {
        loop {
            if let Some(message) = self.incoming.take()? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.incoming.0).await? == 0 {
                return Err(self.incoming.end());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use mfserv_core::wire::frame::{FrameError, MAX_FRAME};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    fn pair() -> (AsyncLink, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (AsyncLink::new(ours), theirs)
    }

    #[test]
    fn a_message_arrives_whole_however_its_bytes_are_split() {
        run(async {
            let (mut link, mut peer) = pair();
            let bytes = [frame::encode(&"one").unwrap(), frame::encode(&"two").unwrap()].concat();
            for cut in 0..=bytes.len() {
                let send = async {
                    peer.write_all(&bytes[..cut]).await.unwrap();
                    tokio::task::yield_now().await;
                    peer.write_all(&bytes[cut..]).await.unwrap();
                };
                let receive =
                    async { (link.receive().await.unwrap(), link.receive().await.unwrap()) };
                let ((), got) = tokio::join!(send, receive);
                assert_eq!(got, ("one".to_string(), "two".to_string()), "cut at {cut}");
            }
        });
    }

    #[test]
    fn a_wait_that_is_given_up_loses_nothing() {
        run(async {
            let (mut link, mut peer) = pair();
            let frame = frame::encode(&"in two parts").unwrap();
            peer.write_all(&frame[..6]).await.unwrap();
            tokio::select! {
                biased;
                other = link.receive::<String>() => panic!("half a message was taken: {other:?}"),
                () = tokio::task::yield_now() => {}
            }
            peer.write_all(&frame[6..]).await.unwrap();
            assert_eq!(link.receive::<String>().await.unwrap(), "in two parts");
        });
    }

    #[test]
    fn an_end_between_messages_is_told_from_an_end_within_one() {
        run(async {
            let frame = frame::encode(&"the last words").unwrap();
            for kept in 0..frame.len() {
                let (mut link, mut peer) = pair();
                peer.write_all(&[&frame, &frame[..kept]].concat()).await.unwrap();
                drop(peer);
                assert_eq!(link.receive::<String>().await.unwrap(), "the last words");
                let end = link.receive::<String>().await.unwrap_err();
                match kept {
                    0 => assert!(matches!(end, LinkError::Closed), "{end:?}"),
                    _ => assert!(matches!(end, LinkError::Cut), "{end:?} after {kept} bytes"),
                }
            }
        });
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_length() {
        run(async {
            let (mut link, mut peer) = pair();
            peer.write_all(&(MAX_FRAME as u32 + 1).to_be_bytes()).await.unwrap();
            let refused = link.receive::<String>().await.unwrap_err();
            assert!(matches!(refused, LinkError::Frame(FrameError::TooLong(_))), "{refused:?}");
            let too_large = link.send(&"x".repeat(MAX_FRAME)).await.unwrap_err();
            assert!(matches!(too_large, LinkError::Frame(FrameError::TooLong(_))), "{too_large:?}");
        });
    }

    #[test]
    fn several_messages_are_sent_at_once_and_taken_one_by_one() {
        run(async {
            let (mut link, peer) = pair();
            let mut other = AsyncLink::new(peer);
            link.send_all::<&str>(&[]).await.unwrap();
            link.send_all(&["one", "two"]).await.unwrap();
            assert_eq!(other.receive::<String>().await.unwrap(), "one");
            assert_eq!(other.buffered::<String>().unwrap(), Some("two".into()));
            assert_eq!(other.buffered::<String>().unwrap(), None);
        });
    }
}
