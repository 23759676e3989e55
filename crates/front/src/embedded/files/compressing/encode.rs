//! The content codings, by the libraries that have them.
//!
//! Each file is compressed once and sent often, so the levels are high ones: those above which less
//! than another tenth of the bytes costs ten times the work, or twice the memory (docs/benchmarks.md).

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::coding::Coding;

/// Of 11. Its tables have 8 MiB whatever the length of the file, and those of the next two 16 and 32.
const BROTLI_QUALITY: i32 = 7;
/// Of 22. Its window is at most as long as a file, and so shorter than the 8 MiB that a browser has
/// for it (RFC 9659). The next one takes twice the memory for the same bytes.
const ZSTD_LEVEL: i32 = 11;

/// Compresses a whole file.
pub fn encode(content: &[u8], coding: Coding) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Brotli => {
            let mut made = Vec::new();
            let quality = BROTLI_QUALITY;
            let params =
                BrotliEncoderParams { quality, size_hint: content.len(), ..Default::default() };
            brotli::BrotliCompress(&mut &*content, &mut made, &params)?;
            Ok(made)
        }
        Coding::Zstd => zstd::bulk::compress(content, ZSTD_LEVEL),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(content)?;
            encoder.finish()
        }
    }
}
