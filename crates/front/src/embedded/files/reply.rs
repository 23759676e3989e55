//! The answer to a request for a file that has been found.

use std::sync::Arc;

use super::asset::{Asset, Representation};
use super::preconditions::{Preconditions, Validators, Verdict};
use super::ranges::Asked;
use super::sendfile::OwnHead;
use super::{body, parts};
use crate::embedded::clients::answer::{self, Head};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::io::clock;

/// The answer to a request for a file.
pub(super) struct Reply<'a, 'x> {
    pub asset: &'a Asset,
    /// The form of the file that is sent.
    pub chosen: &'a Arc<Representation>,
    pub asked: &'a Preconditions<'a>,
    /// The head that the app has said, if it is one that has the file sent.
    pub own: Option<&'a OwnHead<'a>>,
    pub exchange: &'a mut Exchange<'x>,
}

impl<'a> Reply<'a, '_> {
    /// Sends what is asked for: all of it, parts, or the word that the client has it.
    pub async fn send(&mut self) -> Result<(), Fault> {
        let chosen = self.chosen;
        let now = clock::unix_seconds();
        let validators = Validators { tag: &chosen.tag, modified: chosen.modified_at(), now };
        let mut fields = Vec::with_capacity(6);
        fields.extend([("Last-Modified", &*chosen.modified), ("ETag", &*chosen.tag)]);
        let compresses = self.exchange.settings().static_compression;
        if self.own.is_none() && self.asset.varies(compresses) {
            fields.push(("Vary", "Accept-Encoding"));
        }
        let verdict = match self.is_negotiable() {
            true => self.asked.evaluate(&validators),
            false => Verdict::Holds,
        };
        match verdict {
            Verdict::Holds => {}
            Verdict::Failed => {
                self.put_fault(Cause::Precondition, &[]);
                return Ok(());
            }
            Verdict::NotModified => {
                self.put_head(304, "", None, &fields);
                return Ok(());
            }
        }
        if let Some(coding) = chosen.coding {
            fields.push(("Content-Encoding", coding.name()));
        }
        if !chosen.is_made() {
            fields.push(("Accept-Ranges", "bytes"));
        }
        // Ranges are defined for GET only.
        let asked = match self.exchange.request().method() {
            b"GET" if self.is_negotiable() => self.asked.parts(&validators, chosen.length()),
            _ => Asked::All,
        };
        match asked {
            Asked::All => self.send_whole(&fields).await,
            Asked::Impossible => {
                let range = format!("bytes */{}", chosen.length());
                self.put_fault(Cause::Range, &[("Content-Range", &range)]);
                Ok(())
            }
            Asked::Parts(ranges) => match &ranges[..] {
                [one] => {
                    let whole = chosen.length();
                    let range = format!("bytes {}-{}/{whole}", one.start, one.end - 1);
                    fields.push(("Content-Range", &range));
                    let length = Some(one.end - one.start);
                    self.put_head(206, self.content_type(), length, &fields);
                    body::send(chosen, one.clone(), self.exchange).await
                }
                several => self.send_parts(several, &fields).await,
            },
        }
    }

    async fn send_whole(&mut self, fields: &[(&str, &str)]) -> Result<(), Fault> {
        let length = self.chosen.length();
        let status = match self.own.filter(|_| !self.is_negotiable()) {
            Some(own) => own.status,
            None => 200,
        };
        self.put_head(status, self.content_type(), Some(length), fields);
        if !self.exchange.wants_content() {
            return Ok(());
        }
        body::send(self.chosen, 0..length, self.exchange).await
    }

    /// Sends several ranges as one body of type multipart/byteranges.
    async fn send_parts(
        &mut self,
        ranges: &[std::ops::Range<u64>],
        fields: &[(&str, &str)],
    ) -> Result<(), Fault> {
        let parts = parts::Parts::new(self.content_type(), ranges, self.chosen.length());
        self.put_head(206, &parts.content_type(), Some(parts.length()), fields);
        for (border, range) in parts.borders().zip(ranges) {
            self.exchange.put_data(border.as_bytes());
            body::send(self.chosen, range.clone(), self.exchange).await?;
        }
        self.exchange.put_data(parts.end().as_bytes());
        Ok(())
    }

    /// True if conditions and ranges count: not where an app says another status with the file, or
    /// has done something (POST).
    fn is_negotiable(&self) -> bool {
        let is_reading = || matches!(self.exchange.request().method(), b"GET" | b"HEAD");
        self.own.is_none_or(|own| own.is_of_file() && is_reading())
    }

    fn content_type(&self) -> &'a str {
        self.own.and_then(|own| own.content_type).unwrap_or(self.asset.content_type)
    }

    fn put_fault(&mut self, cause: Cause, fields: &[(&str, &str)]) {
        match self.own {
            Some(own) => own.put_fault(cause, fields, self.exchange),
            None => answer::put_fault(self.exchange, cause, fields),
        }
    }

    fn put_head(
        &mut self,
        status: u16,
        content_type: &str,
        length: Option<u64>,
        fields: &[(&str, &str)],
    ) {
        match self.own {
            Some(own) => own.put(status, content_type, length, fields, self.exchange),
            None => Head { status, content_type, length, fields }.put(self.exchange),
        }
    }
}
