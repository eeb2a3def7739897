//! Captures of machines in the formats of other projects, told apart by what they hold and not by their names. Tests and the
//! example `capture` share them; the program has none of it.
#![allow(dead_code, reason = "each program uses its part")]

mod archive;
mod cpuid;
mod gpu;
mod linux;
mod tree;

pub use tree::Tree;

/// A file that is no capture, or one that is not read.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The archive is broken.
    #[error("an archive that cannot be unpacked: {0}")]
    Archive(#[from] std::io::Error),
    /// Known, and not read.
    #[error("recognised as {format}, which is not read; {way_out}")]
    NotRead { format: &'static str, way_out: &'static str },
    /// Another kind of file.
    #[error(
        "{found}, and no capture that is known here: archives of sysfs and procfs (hwloc, lscpu, cpuinfo), of CPUID (hwloc) or of a GPU's sysfs (LACT), and CPUID as text (libcpuid)"
    )]
    Unknown { found: String },
}

/// The machine in a capture.
pub fn read(bytes: &[u8]) -> Result<Tree, ForeignError> {
    if let Some(entries) = archive::entries(bytes)? {
        return from_archive(entries);
    }
    let text = String::from_utf8_lossy(bytes);
    let start = text.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('{') {
        return Err(json(start));
    }
    if text.contains("<nvidia_smi_log>") {
        return Err(not_read("the XML of nvidia-smi", "record the machine itself: loadmaster detect --capture FILE"));
    }
    if text.contains("==============NVSMI LOG==============") || text.contains("$ nvidia-smi") {
        return Err(not_read("the text of nvidia-smi", "record the machine itself: loadmaster detect --capture FILE"));
    }
    let tree = cpuid::from_text(&text);
    if tree.cpuid.is_empty() {
        let found = if bytes.contains(&0) { "a binary file" } else { "a text without registers of CPUID" };
        return Err(ForeignError::Unknown { found: found.into() });
    }
    Ok(tree)
}

fn from_archive(entries: Vec<archive::Entry>) -> Result<Tree, ForeignError> {
    if entries.iter().any(|entry| linux::is_part(&entry.path)) {
        return Ok(linux::tree(entries));
    }
    if entries.iter().any(|entry| gpu::is_part(&entry.path)) {
        return Ok(gpu::tree(entries));
    }
    let mut tree = Tree::default();
    cpuid::add_files(&mut tree, &entries);
    if tree.cpuid.is_empty() {
        let names: Vec<&str> = entries.iter().take(3).map(|entry| entry.path.as_str()).collect();
        return Err(ForeignError::Unknown { found: format!("an archive of {} files ({} ...)", entries.len(), names.join(", ")) });
    }
    cpuid::name_system(&mut tree);
    Ok(tree)
}

fn json(text: &str) -> ForeignError {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value["schema"].as_str().is_some_and(|schema| schema.starts_with("loadmaster.recording/")) => {
            not_read("a recording", "read it with: loadmaster detect --machine FILE")
        }
        Ok(value) if value.get("card0").is_some() || value.get("system").is_some() => {
            not_read("the JSON of rocm-smi", "record the machine itself: loadmaster detect --capture FILE")
        }
        Ok(_) => ForeignError::Unknown { found: "JSON".into() },
        Err(error) => ForeignError::Unknown { found: format!("broken JSON ({error})") },
    }
}

fn not_read(format: &'static str, way_out: &'static str) -> ForeignError {
    ForeignError::NotRead { format, way_out }
}
