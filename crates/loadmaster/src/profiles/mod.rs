//! Hardware profiles: what to run a size of model with on a kind of machine, and what to expect.
//!
//! A profile is one [`Archetype`] with an [`Entry`] per [`SizeClass`]. The entries of general use are stored in `data/profiles.csv`, which
//! the planner wrote: `cargo run --release -p loadmaster --example profiles` plans all of them anew, and a test compares the bytes. Other
//! uses are planned when they are asked for ([`recommend`]).
//!
//! ```
//! use loadmaster::profiles::{Fit, profile};
//! let profile = profile("rtx-4090-24gb").unwrap();
//! let eight = profile.entries.iter().find(|entry| entry.class.id == "8b").unwrap();
//! assert_eq!(eight.fit, Fit::Fits);
//! ```

mod archetype;
mod class;
mod entry;
mod generate;
mod matching;
mod traits;

pub use archetype::{Archetype, ArchetypeError, ContainerLimits, Family, archetype, archetypes, nearest};
pub use class::{CLASSES, SizeClass, size_class};
pub use entry::{Entry, Fit, Recommended, arguments};
pub use generate::{generate, recommend};
pub use matching::{Difference, Match, Matching, NEAR, match_machine, score};
pub use traits::{Aspect, Kind, Traits, Value};

use std::sync::OnceLock;

const TABLE: &str = include_str!("../../data/profiles.csv");

/// A kind of machine, and every size of model on it, for general use.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The kind of machine.
    pub archetype: &'static Archetype,
    /// One entry per size, in the order of [`CLASSES`].
    pub entries: Vec<Entry>,
}

/// Every stored profile, in the order of [`archetypes`].
pub fn profiles() -> &'static [Profile] {
    static PROFILES: OnceLock<Vec<Profile>> = OnceLock::new();
    PROFILES.get_or_init(|| read(TABLE).unwrap_or_default())
}

/// The stored profile of this id.
pub fn profile(id: &str) -> Option<&'static Profile> {
    let archetype = archetype(id)?;
    profiles().iter().find(|profile| profile.archetype == archetype)
}

/// The stored table: a row per archetype and size.
pub fn table(archetypes: &[Archetype], entries: &[Vec<Entry>]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = std::iter::once("archetype").chain(entry::COLUMNS);
    let mut written = writer.write_record(header);
    for (archetype, entries) in archetypes.iter().zip(entries) {
        for entry in entries {
            let cells = entry.cells();
            let record = std::iter::once(archetype.id.as_str()).chain(cells.iter().map(String::as_str));
            written = written.and_then(|()| writer.write_record(record));
        }
    }
    // Writing to memory does not fail.
    let bytes = written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The profiles of a table.
///
/// # Errors
/// The row that is none, and why.
pub fn read(text: &str) -> Result<Vec<Profile>, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut profiles: Vec<Profile> = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let at = |problem: String| format!("profiles.csv, row {}: {problem}", index + 1);
        let record = record.map_err(|error| at(error.to_string()))?;
        let cells: Vec<&str> = record.iter().collect();
        let id = cells.first().copied().unwrap_or("");
        let archetype = archetype(id).ok_or_else(|| at(format!("no archetype {id:?}")))?;
        let entry = Entry::read(cells.get(1..).unwrap_or_default()).map_err(at)?;
        match profiles.last_mut().filter(|profile| profile.archetype == archetype) {
            Some(profile) => profile.entries.push(entry),
            None => profiles.push(Profile { archetype, entries: vec![entry] }),
        }
    }
    Ok(profiles)
}
