//! Tar streams and packages written byte by byte, hostile if asked.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A tar stream, without the mark of its end.
#[derive(Clone, Default)]
pub struct TarStream(pub Vec<u8>);

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    Plain,
    Gzip,
    Zstd,
}

pub const WRAPS: [Wrap; 3] = [Wrap::Plain, Wrap::Gzip, Wrap::Zstd];

impl Wrap {
    pub fn wrap(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Wrap::Plain => bytes.to_vec(),
            Wrap::Gzip => {
                let mut packer =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
            Wrap::Zstd => {
                let mut packer = zstd::Encoder::new(Vec::new(), 1).unwrap();
                packer.include_checksum(true).unwrap();
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
        }
    }
}

impl TarStream {
    /// What every package of MFSERV has.
    pub fn of_mfserv() -> Self {
        let mut tar = Self::default();
        tar.file("metwork_plugin/.layerapi2_label", b"plugin_foo@mfserv\n");
        tar.file(
            "metwork_plugin/.metadata.json",
            br#"{"version": "1.0", "release": "1", "size": "3"}"#,
        );
        tar.file("metwork_plugin/.files.json", br#"["metwork_plugin/main/index.html"]"#);
        tar
    }

    /// A package of ours with these files, and a manifest that `edit` has changed.
    pub fn ours(files: &[(&str, &[u8])], edit: impl FnOnce(&mut Value)) -> Self {
        let members: Vec<Value> = files
            .iter()
            .map(|(path, content)| {
                let sum: String =
                    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
                json!({"path": path, "type": "file", "mode": 0o644, "size": content.len(), "sha256": sum})
            })
            .collect();
        let size: usize = files.iter().map(|(_, content)| content.len()).sum();
        let mut manifest = json!({"format": 1, "name": "foo", "version": "1.0", "release": "1",
            "total_size": size, "builder": "a test", "members": members});
        edit(&mut manifest);
        let mut tar = Self::default();
        tar.file("metwork_plugin/.manifest.json", manifest.to_string().as_bytes());
        tar.file("metwork_plugin/.metadata.json", br#"{"version": "1.0", "release": "1"}"#);
        tar.file("metwork_plugin/.files.json", b"[]");
        for (path, content) in files {
            tar.file(&format!("metwork_plugin/{path}"), content);
        }
        tar
    }

    /// An entry as it is, whatever the tar library would say.
    pub fn entry(&mut self, path: &[u8], kind: u8, mode: u32, link: &[u8], content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.raw(&header, content);
    }

    /// A header and what follows it.
    pub fn raw(&mut self, header: &tar::Header, content: &[u8]) {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path.as_bytes(), b'0', 0o644, b"", content);
    }

    /// A pax header for the next entry.
    pub fn pax(&mut self, kind: u8, records: &[(&str, &[u8])]) {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.entry(b"pax", kind, 0o644, b"", &text);
    }

    /// The whole stream, with the mark of its end.
    pub fn ended(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    pub fn gzip(&self, file: &Path) {
        fs::write(file, Wrap::Gzip.wrap(&self.ended())).unwrap();
    }
}
