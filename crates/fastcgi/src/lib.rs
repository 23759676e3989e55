//! FastCGI 1.0 as a web server speaks it to a responder such as php-fpm: bytes in, bytes out.
//!
//! A request is written as records ([`begin_request`], [`put_params`], [`put_content`],
//! [`END_OF_CONTENT`]). The answer of a responder is a CGI document (RFC 3875, 6) inside of
//! records; [`Answer`] takes it out of them, and makes of it the HTTP/1.1 answer that any other
//! worker would have sent.
//!
//! Each connection has one request, with the number 1, and the responder closes it: nginx does the
//! same unless it is told otherwise.

#![forbid(unsafe_code)]

mod answer;
mod record;

pub use self::answer::{Answer, Fault};
pub use self::record::{
    CONTENT_MAX, END_OF_CONTENT, begin_request, content_head, longest_param, put_content,
    put_param, put_params,
};
