//! Captures of machines in the formats of other projects, told apart by what they hold and not by their names. Tests and the
//! example `capture` share them; the program has none of it.
#![allow(dead_code, reason = "each program uses its part")]

mod archive;
mod cpuid;
mod gpu;
mod linux;
#[path = "../smi/mod.rs"]
mod smi;
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
    /// What a maker's command line printed, broken.
    #[error("the output of nvidia-smi or rocm-smi, which cannot be read: {problem}")]
    Printed { problem: String },
    /// Another kind of file.
    #[error(
        "{found}, and no capture that is known here: archives of sysfs and procfs (hwloc, lscpu, cpuinfo), of CPUID (hwloc) or of a GPU's sysfs (LACT), CPUID as text (libcpuid), and what nvidia-smi -q, nvidia-smi -q -x and rocm-smi --json print"
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
        json(start)?;
    }
    if start.starts_with('{') || text.contains("<nvidia_smi_log") || text.contains("NVSMI LOG") {
        let recording = smi::read(&text).map_err(|problem| ForeignError::Printed { problem })?;
        return Ok(Tree { recording: Some(recording), ..Tree::default() });
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

/// Tells the JSON of rocm-smi from other JSON.
fn json(text: &str) -> Result<(), ForeignError> {
    let value = serde_json::from_str::<serde_json::Value>(text)
        .map_err(|error| ForeignError::Unknown { found: format!("broken JSON ({error})") })?;
    if value["schema"].as_str().is_some_and(|schema| schema.starts_with("loadmaster.recording/")) {
        return Err(ForeignError::NotRead { format: "a recording", way_out: "read it with: loadmaster detect --machine FILE" });
    }
    let of_cards = value.as_object().is_some_and(|fields| fields.keys().any(|name| name.starts_with("card")));
    if of_cards { Ok(()) } else { Err(ForeignError::Unknown { found: "JSON without cards".into() }) }
}
