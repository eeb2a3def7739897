//! Files of GPUs: a device that has broken down may never answer, and must not take the detection with it.

use super::resident::{Budget, Resident};
use crate::host::{Answer, Question, Refusal};
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

fn read(question: &Question) -> Result<Answer, Refusal> {
    match question {
        Question::Read(path) => super::read(path).map(Answer::text),
        Question::List(path) => super::list(path).map(Answer::Names),
        _ => Err(Refusal::NotSupported),
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
    #[test]
    fn a_file_that_hangs_costs_its_share_and_no_other_device() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
            println!("SKIPPED: no mkfifo");
            return;
        }
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
