//! Archives: tar under gzip or bzip2.

use std::io::Read;

/// A capture of a large machine has tens of MiB; what is larger is no capture.
const MOST: u64 = 1 << 30;

/// One file, folder or link.
pub struct Entry {
    /// Below the root of the archive, without `./`.
    pub path: String,
    pub kind: Kind,
}

/// What an entry is.
pub enum Kind {
    File(Vec<u8>),
    Link(String),
    Folder,
}

impl Entry {
    /// The text of a file.
    pub fn text(&self) -> Option<String> {
        match &self.kind {
            Kind::File(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }
}

/// What is in an archive; `None` where these bytes are none.
pub fn entries(bytes: &[u8]) -> std::io::Result<Option<Vec<Entry>>> {
    let reader: Box<dyn Read> = match bytes {
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::BzDecoder::new(bytes)),
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(bytes)),
        _ => return Ok(None),
    };
    let mut entries = Vec::new();
    for entry in tar::Archive::new(reader.take(MOST)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                Kind::File(bytes)
            }
            tar::EntryType::Symlink => {
                Kind::Link(entry.link_name()?.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default())
            }
            _ => Kind::Folder,
        };
        entries.push(Entry { path, kind });
    }
    Ok(Some(entries))
}
