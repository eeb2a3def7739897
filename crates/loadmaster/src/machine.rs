//! The machine to plan for: this one, a recording, or a short description.

use crate::error::exit;
use crate::profiles::archetype;
use spec::Machine;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Which machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MachineSource {
    /// This one, now.
    #[default]
    Live,
    /// A file that `loadmaster detect --capture` wrote.
    Recording(PathBuf),
    /// A short description: `rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x`, `gb10`, `ram=64GiB,cores=8,gpu=24GiB`.
    Description(String),
    /// The machine of a hardware profile, by its id: `rtx-4090-24gb`, `laptop-8-core-16gb`. See [`crate::profiles`].
    Archetype(String),
    /// One of these with another memory or fewer threads. It is planned for like a machine elsewhere: no engine is looked for or started.
    Pretended(Box<Self>, probe::Overrides),
}

impl FromStr for MachineSource {
    type Err = std::convert::Infallible;
    /// `live`; a file where one exists; the id of a hardware profile; a description where the text has a `=` or is near a name of the tables; else a file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "live" | "" => Self::Live,
            text if Path::new(text).exists() => Self::Recording(PathBuf::from(text)),
            text if archetype(text).is_some() => Self::Archetype(text.to_owned()),
            text if text.contains('=') || (!looks_like_a_path(text) && probe::names_hardware(text)) => Self::Description(text.to_owned()),
            text => Self::Recording(PathBuf::from(text)),
        })
    }
}

/// A folder or an ending: nobody writes those of hardware.
fn looks_like_a_path(text: &str) -> bool {
    text.contains(['/', '\\']) || Path::new(text).extension().is_some()
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// Detection failed on the machine at hand.
    #[error("cannot detect this machine: {0}")]
    Detect(#[source] probe::ProbeError),
    /// A recording cannot be opened.
    #[error("cannot read the machine recording {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is no recording, or of a newer version.
    #[error("machine recording {}: {source}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: probe::RecordingError,
    },
    /// A recording from which no machine can be derived.
    #[error("machine recording {}: {source}", path.display())]
    Replay {
        /// The file.
        path: PathBuf,
        /// What is missing.
        source: probe::ProbeError,
    },
    /// Something that cannot be pretended of the machine.
    #[error("{0}")]
    Override(#[source] probe::OverrideError),
    /// A description that cannot be understood.
    #[error("machine description {text:?}: {source}")]
    Description {
        /// The description.
        text: String,
        /// What is wrong with it.
        source: probe::DescribeMachineError,
    },
}

impl MachineError {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Description { .. } | Self::Override(_) => exit::USAGE,
            _ => exit::UNREADABLE,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("--machine takes `live`, a file from `loadmaster detect --capture FILE`, or a description such as rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x or ram=64GiB,cores=8,gpu=24GiB".into())
            }
            Self::Recording { .. } | Self::Replay { .. } => Some("make a new recording with `loadmaster detect --capture FILE`".into()),
            _ => None,
        }
    }
}

/// How long drivers may take where a plan depends on them: an NVIDIA driver that no program holds in memory
/// needs seconds to start.
const PATIENCE: Duration = Duration::from_secs(5);

/// A recording is text; the largest seen is some 200 kB.
const MAX_RECORDING: u64 = 64 << 20;

impl MachineSource {
    /// The machine with what is pretended of it; itself where nothing is.
    pub fn pretending(self, overrides: probe::Overrides) -> Self {
        if overrides.is_empty() { self } else { Self::Pretended(Box::new(self), overrides) }
    }

    /// Detects, replays or describes the machine.
    ///
    /// # Errors
    /// Detection fails, the file is no recording that this program reads, or the description cannot be understood. The
    /// error tells which of the three was tried.
    pub fn load(&self) -> Result<Machine, MachineError> {
        self.load_to(probe::Depth::default(), &[])
    }

    /// As [`MachineSource::load`], and wakes GPUs that sleep and waits for a driver that has to start first. For what depends on the
    /// GPUs.
    ///
    /// # Errors
    /// As [`MachineSource::load`].
    pub fn load_patiently(&self) -> Result<Machine, MachineError> {
        self.load_to(probe::Depth::Waking, &[])
    }

    /// As [`MachineSource::load`], asking as much as `depth` allows. `child` is a program with its arguments that asks the libraries
    /// of drivers in a process of its own (see [`probe::Live::with_child`]); without one a library that crashes takes this process
    /// along.
    ///
    /// # Errors
    /// As [`MachineSource::load`].
    pub fn load_to(&self, depth: probe::Depth, child: &[OsString]) -> Result<Machine, MachineError> {
        match self {
            Self::Live => probe::detect_to(&live(depth, child), depth).map_err(MachineError::Detect),
            Self::Recording(path) => {
                let text = read(path).map_err(|source| MachineError::Read { path: path.clone(), source })?;
                let recording = probe::Recording::parse(&text).map_err(|source| MachineError::Recording { path: path.clone(), source })?;
                let recording = recording.with_origin(path.to_string_lossy());
                probe::detect_to(&recording, depth).map_err(|source| MachineError::Replay { path: path.clone(), source })
            }
            Self::Pretended(machine, overrides) => overrides.apply(machine.load_to(depth, child)?).map_err(MachineError::Override),
            // An id that no profile has any more is read as a description, which says what is near to it.
            Self::Archetype(id) => match archetype(id) {
                Some(known) => known.machine().map_err(|source| MachineError::Description { text: id.clone(), source }),
                None => Self::Description(id.clone()).load_to(depth, child),
            },
            Self::Description(text) => probe::describe(text).map_err(|source| MachineError::Description { text: text.clone(), source }),
        }
    }
}

/// This machine, with the patience that `depth` asks for.
pub fn live(depth: probe::Depth, child: &[OsString]) -> probe::Live {
    // A plan without a GPU's memory is worth less than the milliseconds that a busy driver takes.
    let deadline = if depth < probe::Depth::Waking { probe::Live::DEADLINE } else { PATIENCE };
    let live = probe::Live::with_deadline(deadline);
    if child.is_empty() { live } else { live.with_child(child.to_vec()) }
}

fn read(path: &Path) -> std::io::Result<String> {
    let about = std::fs::metadata(path)?;
    if about.len() > MAX_RECORDING {
        return Err(std::io::Error::other(format!("{} bytes are too many for a recording", about.len())));
    }
    // Opening a pipe would wait for a writer.
    if !about.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_decides_which_of_the_three_is_meant() {
        let parse = |text: &str| text.parse::<MachineSource>().unwrap();
        assert_eq!(parse("live"), MachineSource::Live);
        assert_eq!(parse("ram=64GiB,cores=8"), MachineSource::Description("ram=64GiB,cores=8".into()));
        assert_eq!(parse("pod.json"), MachineSource::Recording("pod.json".into()));
        for name in ["gb10", "m3-max-40c-64gb", "rtx4091", "jetson-agx-orin-64gb,ram=32GiB"] {
            assert_eq!(parse(name), MachineSource::Description(name.into()));
        }
        for id in ["rtx-4090-24gb", "laptop-8-core-16gb", "M1-Max-64GB"] {
            let machine = parse(id);
            assert_eq!(machine, MachineSource::Archetype(id.into()));
            assert!(machine.load().unwrap().effective_memory_total().get().is_some(), "{id}");
        }
        assert_eq!(parse("nothing-like-it"), MachineSource::Recording("nothing-like-it".into()));
        assert_eq!(parse("gb10.json"), MachineSource::Recording("gb10.json".into()));
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a=b.json");
        std::fs::write(&odd, "{}").unwrap();
        assert_eq!(parse(odd.to_str().unwrap()), MachineSource::Recording(odd));
    }

    #[test]
    fn every_way_to_fail_names_what_was_tried() {
        let folder = tempfile::tempdir().unwrap();
        let newer = folder.path().join("newer.json");
        std::fs::write(&newer, r#"{"schema": "loadmaster.recording/999", "description": "", "answers": {}}"#).unwrap();
        let cases = [
            (MachineSource::Recording(folder.path().join("none.json")), "cannot read the machine recording ", 7),
            (MachineSource::Recording(folder.path().to_owned()), "not a regular file", 7),
            (MachineSource::Recording(newer), "999", 7),
            (MachineSource::Description("ram=banana".into()), "machine description \"ram=banana\"", 2),
        ];
        for (source, says, code) in cases {
            let error = source.load().unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn what_is_pretended_is_applied_to_any_machine() {
        let overrides = probe::Overrides { ram: Some(spec::Bytes::from_gib(16)), ..probe::Overrides::default() };
        let source = MachineSource::Description("rtx4090,ram=64GiB,cores=8".into());
        assert_eq!(source.clone().pretending(probe::Overrides::default()), source);
        let machine = source.pretending(overrides).load().unwrap();
        assert_eq!(machine.effective_memory_total().get(), Some(spec::Bytes::from_gib(16)));
        let absent = probe::Overrides { gpu_memory: [(7, spec::Bytes::from_gib(8))].into(), ..probe::Overrides::default() };
        let error = MachineSource::Description("ram=8GiB".into()).pretending(absent).load().unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "there is no GPU 7: the machine has 0; `detect` lists them"));
    }

    #[test]
    fn this_machine_has_a_processor() {
        let machine = MachineSource::Live.load().unwrap();
        assert!(machine.effective_cpus() >= 1);
        let patient = MachineSource::Live.load_patiently().unwrap();
        assert_eq!(patient.effective_cpus(), machine.effective_cpus());
    }
}
