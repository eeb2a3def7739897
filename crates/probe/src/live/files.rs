//! Files whose answer may not come: those of a device that has broken down, those that firmware or a file system in user space
//! answers. None may take the detection with it.

use super::mounts::Mounts;
use super::resident::{Budget, Resident};
use crate::host::{Answer, Question, Refusal, to_hexadecimal};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a file of a device may take: a hundred times what a slow sensor needs, and no more than a part of what all drivers
/// have together.
const MOST: Duration = Duration::from_millis(25);

/// More devices than this are no devices: their files are then read by one thread.
const MAX_THREADS: usize = 64;

const BUS: &str = "/sys/bus/pci/devices/";
const CLASSES: [&str; 4] = ["/sys/class/kfd/", "/sys/class/drm/", "/sys/class/accel/", "/proc/driver/nvidia/"];

/// True for a file that a driver answers. The kernel itself answers for what a device is.
pub(super) fn of_a_device(path: &str) -> bool {
    let on_the_bus = path.starts_with(BUS) && !path.ends_with("/modalias") && !path.ends_with("/uevent");
    on_the_bus || CLASSES.iter().any(|class| path.starts_with(class))
}

/// A thread for each device, so that one that hangs delays no other.
#[derive(Debug, Default)]
pub(super) struct DeviceFiles {
    threads: Mutex<BTreeMap<String, Arc<Resident<Question, Answer>>>>,
}

impl DeviceFiles {
    /// The answer of the system, in time.
    pub(super) fn ask(&self, question: &Question, path: &str, budget: &Budget) -> Result<Answer, Refusal> {
        let thread = {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            let device = if threads.len() < MAX_THREADS { device(path) } else { "" };
            let new = || Arc::new(Resident::new("device files", || Ok(Box::new(|question: Question| read(&question)))));
            Arc::clone(threads.entry(device.to_owned()).or_insert_with(new))
        };
        thread.ask(question.clone(), budget, MOST)
    }
}

/// What a path is a file of: an address on the bus, or a class.
fn device(path: &str) -> &str {
    match path.strip_prefix(BUS) {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => CLASSES.into_iter().find(|class| path.starts_with(class)).unwrap_or_default(),
    }
}

/// The answer of the system, at once or never.
pub(super) fn read(question: &Question) -> Result<Answer, Refusal> {
    match question {
        Question::Read(path) => super::read(path).map(Answer::text),
        Question::Start(path) => super::start(path).map(Answer::text),
        Question::List(path) => super::list(path).map(Answer::Names),
        Question::Bytes(path) => super::bytes(path).map(|bytes| Answer::Text(to_hexadecimal(&bytes))),
        Question::Link(path) => Ok(Answer::text(std::fs::read_link(path)?.to_string_lossy())),
        _ => Err(Refusal::NotSupported),
    }
}

/// How long all files that hang may take together in one detection. A machine under load is no broken machine: this is a
/// thousand times what the slowest of them needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long one may take, so that one that hangs leaves time for others.
const MOST_OF_ONE: Duration = Duration::from_millis(500);

/// Files of the system on a thread, which is left behind with the file that it waits for.
#[derive(Debug)]
pub(super) struct SystemFiles(Mutex<Threads>);

#[derive(Debug)]
struct Threads {
    free: Resident<Question, Answer>,
    /// Those left behind, by the place that they wait for.
    stuck: BTreeMap<String, Resident<Question, Answer>>,
}

impl Default for SystemFiles {
    fn default() -> Self {
        Self(Mutex::new(Threads { free: new_thread(), stuck: BTreeMap::new() }))
    }
}

fn new_thread() -> Resident<Question, Answer> {
    Resident::new("files", || Ok(Box::new(|question: Question| read(&question))))
}

impl SystemFiles {
    /// The answer of the system, in time.
    pub(super) fn ask(&self, question: &Question, path: &str, mounts: &Mounts, budget: &Budget) -> Result<Answer, Refusal> {
        // A thread costs ten times what such a file does, and large machines have thousands.
        if mounts.answer_at_once(question, path) {
            return read(question);
        }
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = place(path);
        if let Some(stuck) = threads.stuck.get(place) {
            return stuck.ask(question.clone(), budget, MOST_OF_ONE);
        }
        // Where a folder hangs, what is below it is not asked.
        if threads.stuck.keys().any(|stuck| path.strip_prefix(stuck.as_str()).is_some_and(|rest| rest.starts_with('/'))) {
            return Err(Refusal::TimedOut);
        }
        let answer = threads.free.ask(question.clone(), budget, MOST_OF_ONE);
        if answer == Err(Refusal::TimedOut) {
            let stuck = std::mem::replace(&mut threads.free, new_thread());
            threads.stuck.insert(place.to_owned(), stuck);
        }
        answer
    }
}

/// What hangs together: a folder; of `/proc`, where each file is another's, the file.
fn place(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, _)) if !matches!(folder, "" | "/proc") => folder,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_files_may_hang() {
        assert!(of_a_device("/sys/bus/pci/devices/0000:03:00.0/mem_info_vram_total"));
        assert!(of_a_device("/sys/class/kfd/kfd/topology/nodes"));
        assert!(!of_a_device("/sys/bus/pci/devices") && !of_a_device("/sys/bus/pci/devices/0000:03:00.0/modalias"));
        assert!(!of_a_device("/proc/cpuinfo"));
        assert_eq!(device("/sys/bus/pci/devices/0000:03:00.0/drm/card0"), "0000:03:00.0");
        assert_eq!(device("/sys/class/kfd/kfd"), "/sys/class/kfd/");
    }

    /// A pipe that nobody writes to: opening it for reading does not return.
    #[cfg(unix)]
    fn pipe(folder: &std::path::Path) -> Option<std::path::PathBuf> {
        let pipe = folder.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success());
        if !made {
            println!("SKIPPED: no mkfifo");
        }
        made.then_some(pipe)
    }

    #[cfg(unix)]
    #[test]
    fn a_file_of_the_system_that_hangs_costs_its_share_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let Some(pipe) = pipe(folder.path()) else { return };
        let files = SystemFiles::default();
        let mounts = Mounts::listed("");
        let budget = Budget::new(PATIENCE);
        let hangs = Question::Read(pipe.to_string_lossy().into_owned());
        let sound = Question::List(folder.path().to_string_lossy().into_owned());
        let there = Ok(Answer::Names(vec!["pipe".into()]));
        assert_eq!(files.ask(&sound, "/proc/meminfo", &mounts, &budget), there);
        assert_eq!(files.ask(&hangs, "/proc/cpuinfo", &mounts, &budget), Err(Refusal::TimedOut));
        // The next file has a thread of its own, the same file is not waited for again.
        assert_eq!(files.ask(&sound, "/proc/meminfo", &mounts, &budget), there);
        assert_eq!(files.ask(&sound, "/proc/cpuinfo", &mounts, &budget), Err(Refusal::TimedOut));
        // Where a folder hangs, what is below it is not asked.
        assert_eq!(files.ask(&hangs, "/sys/devices/system/cpu/online", &mounts, &budget), Err(Refusal::TimedOut));
        assert_eq!(files.ask(&sound, "/sys/devices/system/cpu/cpu0/topology/core_id", &mounts, &budget), Err(Refusal::TimedOut));
        assert_eq!(files.ask(&sound, "/sys/devices/system/node/online", &mounts, &budget), there);
        // Lets the threads go.
        drop(std::fs::OpenOptions::new().write(true).open(&pipe));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_hangs_costs_its_share_and_no_other_device() {
        let folder = tempfile::tempdir().unwrap();
        let Some(pipe) = pipe(folder.path()) else { return };
        let files = DeviceFiles::default();
        let budget = Budget::new(Duration::from_millis(80));
        let hangs = Question::Read(pipe.to_string_lossy().into_owned());
        let ask = |question: &Question, device: &str| files.ask(question, device, &budget);
        let (broken, sound) = ("/sys/bus/pci/devices/0000:01:00.0/x", "/sys/bus/pci/devices/0000:02:00.0/x");
        assert_eq!(ask(&hangs, broken), Err(Refusal::TimedOut));
        assert_eq!(ask(&hangs, broken), Err(Refusal::TimedOut));
        let list = Question::List(folder.path().to_string_lossy().into_owned());
        assert_eq!(ask(&list, sound), Ok(Answer::Names(vec!["pipe".into()])));
        assert_eq!(ask(&list, broken), Err(Refusal::TimedOut));
        // Lets the thread go.
        drop(std::fs::OpenOptions::new().write(true).open(&pipe));
    }
}
