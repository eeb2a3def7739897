//! The machine that runs this program, as a [`Host`].

mod child;
mod files;
mod mounts;
mod resident;

use crate::ffi;
use crate::host::{Answer, DxgiQuestion, Host, MetalQuestion, Question, Refusal, START};
pub use child::serve;
use files::{DeviceFiles, SystemFiles};
use mounts::Mounts;
pub(crate) use resident::Ask;
use resident::{Budget, Resident};
use std::ffi::OsString;
use std::io::Read;
use std::time::Duration;

/// Longer than `/proc/cpuinfo` of 4096 CPUs; a file under `/proc` or `/sys` that does not end is cut here.
const MAX_FILE: u64 = 16 << 20;

/// The most that an attribute under `/sys/devices` holds (Linux Documentation/filesystems/sysfs.rst).
const PAGE: usize = 4096;

/// The machine that runs this program.
///
/// Files of GPUs are read on threads of their own, for a broken device may never answer. A driver's library is asked on a thread
/// too, or with [`Live::with_child`] in a process of its own, which may crash. All of them together have [`Live::DEADLINE`] in one
/// detection, and the memory of a GPU whose driver has answered before has [`Live::MEMORY_DEADLINE`]; what is later is
/// [`Refusal::TimedOut`], and ready for the next detection with the same `Live`. A file of the system that hangs (of firmware, of a
/// container's own `/proc`) costs half a second, all such files two seconds.
#[derive(Debug)]
pub struct Live {
    budget: Budget,
    /// How long one question for a GPU's memory may take of it, once the driver is awake.
    memory: Duration,
    files: DeviceFiles,
    mounts: Mounts,
    patience: Budget,
    system_files: SystemFiles,
    nvml: Resident<Question>,
    /// Whether NVIDIA's library is worth asking.
    nvidia: fn() -> bool,
    vulkan: Resident<Question>,
    metal: Resident<MetalQuestion>,
    dxgi: Resident<DxgiQuestion>,
    children: Vec<child::Slot>,
}

impl Default for Live {
    fn default() -> Self {
        let mut live = Self::with_deadline(Self::DEADLINE);
        live.memory = Self::MEMORY_DEADLINE;
        live
    }
}

impl Live {
    /// How long a detection may wait for drivers. One that is in memory answers in microseconds; one that nothing holds there
    /// needs seconds to start.
    pub const DEADLINE: Duration = Duration::from_millis(80);

    /// How long one question for the memory of a GPU may take where the driver has answered before: who asks again and again while a
    /// model runs must not stand still for a driver that has hung up since.
    pub const MEMORY_DEADLINE: Duration = Duration::from_millis(10);

    /// This machine, with the default deadlines.
    pub fn new() -> Self {
        Self::default()
    }

    /// This machine, waiting this long for drivers in a detection, for memory as for the rest. Before a launch it pays to wait for a
    /// cold one, and on a busy machine for a late one.
    pub fn with_deadline(deadline: Duration) -> Self {
        Self {
            budget: Budget::new(deadline),
            memory: deadline,
            files: DeviceFiles::default(),
            mounts: Mounts::default(),
            patience: Budget::new(files::PATIENCE),
            system_files: SystemFiles::default(),
            nvml: Resident::new("nvml", nvml(&ffi::nvml::LIBRARIES)),
            nvidia: child::nvidia_may_be_here,
            vulkan: Resident::new("vulkan", || Ok(Box::new(|_| ffi::vulkan::devices(&ffi::vulkan::LIBRARIES)))),
            metal: Resident::new("metal", ffi::macos::open_metal),
            dxgi: Resident::new("dxgi", ffi::windows::open_dxgi),
            children: Vec::new(),
        }
    }

    /// The libraries of NVIDIA's driver and of Vulkan are asked in child processes, so that one that crashes takes no more than its
    /// child along. `command` is a program and its arguments that call [`serve`] with standard input and output.
    #[must_use]
    pub fn with_child(mut self, command: Vec<OsString>) -> Self {
        let (nvml, nvml_slot) = child::open(command.clone());
        let (vulkan, vulkan_slot) = child::open(command);
        self.nvml = Resident::new("nvml", nvml);
        self.vulkan = Resident::new("vulkan", vulkan);
        self.children = vec![nvml_slot, vulkan_slot];
        self
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.children.iter().for_each(child::Slot::end);
    }
}

impl Host for Live {
    fn origin(&self) -> String {
        "live".to_owned()
    }

    fn begin(&self) {
        self.budget.begin();
        self.patience.begin();
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let whenever = Duration::MAX;
        match question {
            Question::Read(path) | Question::List(path) if files::of_a_device(path) => {
                if self.mounts.lacks(path) {
                    Err(Refusal::NotFound)
                } else {
                    self.files.ask(question, path, &self.budget)
                }
            }
            Question::Os => Ok(Answer::text(std::env::consts::OS)),
            Question::Arch => Ok(Answer::text(std::env::consts::ARCH)),
            Question::PageSize => page_size().map(|bytes| Answer::text(bytes.to_string())),
            Question::Affinity => affinity().map(Answer::text),
            Question::Env(name) => std::env::var_os(name).map(|value| Answer::text(value.to_string_lossy())).ok_or(Refusal::NotFound),
            Question::Read(path) | Question::Start(path) | Question::List(path) | Question::Link(path) | Question::Bytes(path) => {
                self.system_files.ask(question, path, &self.mounts, &self.patience)
            }
            Question::Cpuid { leaf, subleaf } => {
                ffi::cpuid::cpuid(*leaf, *subleaf).map(|registers| Answer::text(registers.to_string())).ok_or(Refusal::NotSupported)
            }
            Question::CpuidOf { cpu, leaf, subleaf } => on_cpu(*cpu, || ffi::cpuid::cpuid(*leaf, *subleaf))?
                .map(|registers| Answer::text(registers.to_string()))
                .ok_or(Refusal::NotSupported),
            Question::Xcr0 => ffi::cpuid::xcr0().map(|bits| Answer::text(format!("{bits:x}"))).ok_or(Refusal::NotSupported),
            Question::AmxPermission => ffi::amx::request().map(|()| Answer::text("granted")),
            Question::Nvml(_) if self.nvml.is_idle() && !(self.nvidia)() => Err(Refusal::NotFound),
            Question::Nvml(of) => {
                let most = if of.is_of_memory() && self.nvml.is_awake() { self.memory } else { whenever };
                self.nvml.ask(question.clone(), &self.budget, most).map(Answer::text)
            }
            Question::Vulkan => self.vulkan.ask(question.clone(), &self.budget, whenever).map(Answer::text),
            Question::Sysctl(name) => ffi::macos::sysctl(name).map(Answer::text),
            Question::Mac(question) => ffi::macos::ask(*question).map(Answer::text),
            Question::Metal(question) => self.metal.ask(*question, &self.budget, whenever).map(Answer::text),
            Question::Windows(question) => ffi::windows::ask(*question).map(Answer::text),
            Question::Registry(path) => ffi::windows::registry(path).map(Answer::text),
            Question::RegistryKeys(path) => ffi::windows::registry_keys(path).map(Answer::Names),
            Question::Dxgi(question) => self.dxgi.ask(*question, &self.budget, whenever).map(Answer::text),
        }
    }
}

/// Opens the first of these libraries that is here.
fn nvml(libraries: &'static [&'static str]) -> impl Fn() -> Result<Ask<Question>, Refusal> + Send + Sync + 'static {
    move || {
        let library = ffi::nvml::Nvml::open(libraries)?;
        Ok(Box::new(move |question| match question {
            Question::Nvml(question) => library.ask(question),
            _ => Err(Refusal::NotSupported),
        }))
    }
}

fn bytes(path: &str) -> Result<Vec<u8>, Refusal> {
    let mut file = std::fs::File::open(path)?;
    let mut bytes = vec![0; PAGE];
    let first = file.read(&mut bytes)?;
    bytes.truncate(first);
    // An attribute of a device comes whole with the first read; asking for its end would be a system call more for each of thousands.
    if first == PAGE || !path.starts_with("/sys/devices/") {
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn start(path: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(START);
    std::fs::File::open(path)?.take(START as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(path: &str) -> Result<String, Refusal> {
    Ok(String::from_utf8_lossy(&bytes(path)?).into_owned())
}

fn list(path: &str) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(unix)]
fn page_size() -> Result<usize, Refusal> {
    Ok(rustix::param::page_size())
}

/// Windows says it with the memory.
#[cfg(not(unix))]
fn page_size() -> Result<usize, Refusal> {
    Err(Refusal::NotSupported)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn affinity() -> Result<String, Refusal> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    // Fails on kernels for more CPUs than the set has room for; /proc/self/status answers there.
    let set = sched_getaffinity(None).map_err(std::io::Error::from)?;
    let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).filter_map(|cpu| u32::try_from(cpu).ok()).collect();
    Ok(crate::detect::cpulist::format(&cpus))
}

/// Runs a function on one CPU and lets the thread go back to where it may run.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn on_cpu<T>(cpu: u32, work: impl FnOnce() -> T) -> Result<T, Refusal> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let before = sched_getaffinity(None).map_err(std::io::Error::from)?;
    let cpu = usize::try_from(cpu).ok().filter(|&cpu| cpu < CpuSet::MAX_CPU && before.is_set(cpu)).ok_or(Refusal::Denied)?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(std::io::Error::from)?;
    let result = work();
    sched_setaffinity(None, &before).map_err(std::io::Error::from)?;
    Ok(result)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn on_cpu<T>(_cpu: u32, _work: impl FnOnce() -> T) -> Result<T, Refusal> {
    Err(Refusal::NotSupported)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn affinity() -> Result<String, Refusal> {
    Err(Refusal::NotSupported)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::host::{NvmlField, NvmlQuestion};
    use std::time::Instant;

    /// A library with the interface of NVIDIA's, one device, and one function that does not return for a second.
    const FAKE: &str = r#"
        #include <string.h>
        #include <unistd.h>
        struct memory { unsigned long long total, free, used; };
        struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; };
        int nvmlInit_v2(void) { return 0; }
        int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return i == 0 ? 0 : 2; }
        int nvmlDeviceGetName(void *d, char *text, unsigned n) { strncpy(text, "NVIDIA Test GPU", n); return 0; }
        int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) { m->total = 24ull << 30; m->free = 23ull << 30; return 0; }
        int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor) { *major = 8; *minor = 9; return 0; }
        int nvmlDeviceGetPciInfo_v3(void *d, struct pci *p) { p->domain = 0; p->bus = 0x65; p->device = 0; return 0; }
        int nvmlDeviceGetMemoryBusWidth(void *d, unsigned *n) { return 3; }
        int nvmlDeviceGetMigMode(void *d, unsigned *a, unsigned *b) { return 4; }
        int nvmlDeviceGetNumGpuCores(void *d, unsigned *n) { sleep(1); *n = 7; return 0; }
    "#;

    fn live_with(libraries: &'static [&'static str], deadline: Duration) -> Live {
        let mut live = Live::with_deadline(deadline);
        live.nvml = Resident::new("nvml", nvml(libraries));
        live.nvidia = || true;
        live
    }

    fn ask(live: &Live, field: NvmlField) -> Result<String, Refusal> {
        let host: &dyn Host = live;
        host.text(&Question::Nvml(NvmlQuestion::Device(0, field)))
    }

    #[test]
    fn a_driver_is_asked_and_one_that_hangs_costs_one_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("fake.c"), folder.path().join("libfake.so"));
        std::fs::write(&source, FAKE).unwrap();
        let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).args([&library, &source]).status();
        if !built.is_ok_and(|status| status.success()) {
            println!("SKIPPED: no C compiler to build a library in the place of NVIDIA's");
            return;
        }
        let library: &'static str = Box::leak(library.to_string_lossy().into_owned().into_boxed_str());
        let deadline = Duration::from_millis(400);
        let libraries: &'static [&'static str] = Box::leak(Box::new(["/nowhere/libnone.so", library]));
        let live = live_with(libraries, deadline);
        assert_eq!(ask(&live, NvmlField::Name).as_deref(), Ok("NVIDIA Test GPU"));
        assert_eq!(ask(&live, NvmlField::MemoryTotal), Ok((24u64 << 30).to_string()));
        assert_eq!(ask(&live, NvmlField::ComputeCapability).as_deref(), Ok("8.9"));
        assert_eq!(ask(&live, NvmlField::PciAddress).as_deref(), Ok("0000:65:00.0"));
        // The library's own refusals stay apart, and a function that it lacks is one more.
        assert_eq!(ask(&live, NvmlField::MemoryBusBits), Err(Refusal::NotSupported));
        assert_eq!(ask(&live, NvmlField::Mig), Err(Refusal::Denied));
        assert_eq!(ask(&live, NvmlField::Uuid), Err(Refusal::NotSupported));

        let start = Instant::now();
        assert_eq!(ask(&live, NvmlField::CudaCores), Err(Refusal::TimedOut));
        // While the first hangs, no other waits.
        assert_eq!(ask(&live, NvmlField::Name), Err(Refusal::TimedOut));
        assert_eq!(ask(&live, NvmlField::MemoryTotal), Err(Refusal::TimedOut));
        assert!(start.elapsed() < deadline * 2);
        while ask(&live, NvmlField::Name).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the driver never came back");
            std::thread::sleep(Duration::from_millis(20));
            live.begin();
        }
        assert_eq!(ask(&live, NvmlField::Name).as_deref(), Ok("NVIDIA Test GPU"));
    }

    /// The first question starts the driver and may take long; memory is then had at once or not at all, and the rest still waits.
    #[test]
    fn a_late_answer_about_memory_costs_its_own_deadline() {
        let mut live = Live::with_deadline(Duration::from_secs(60));
        live.nvidia = || true;
        live.memory = Duration::from_millis(1);
        let slow = |question| {
            std::thread::sleep(Duration::from_millis(300));
            match question {
                Question::Nvml(NvmlQuestion::Device(..)) => Ok("1024".to_owned()),
                _ => Err(Refusal::NotSupported),
            }
        };
        live.nvml = Resident::new("nvml", move || Ok(Box::new(slow)));
        assert_eq!(ask(&live, NvmlField::MemoryTotal).as_deref(), Ok("1024"));
        assert_eq!(ask(&live, NvmlField::MemoryFree), Err(Refusal::TimedOut));
        let start = Instant::now();
        while ask(&live, NvmlField::Name).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the driver never came back");
            std::thread::sleep(Duration::from_millis(20));
        }
        live.memory = Duration::from_secs(60);
        assert_eq!(ask(&live, NvmlField::MemoryFree).as_deref(), Ok("1024"));
    }

    #[test]
    fn no_library_is_no_gpu() {
        let live = live_with(&["/nowhere/libnone.so"], Live::DEADLINE);
        assert_eq!(ask(&live, NvmlField::Name), Err(Refusal::NotFound));
        assert_eq!(ask(&live, NvmlField::Name), Err(Refusal::NotFound));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn each_cpu_answers_for_itself_and_the_thread_may_run_where_it_did() {
        let live = Live::new();
        let host: &dyn Host = &live;
        let before = host.text(&Question::Affinity).unwrap();
        let cpus = crate::detect::cpulist::parse(&before).unwrap();
        let of = |cpu| host.registers(&Question::CpuidOf { cpu, leaf: 1, subleaf: 0 });
        // The number of the CPU is in the upper bits of EBX: no two have the same.
        let places: std::collections::BTreeSet<u32> = cpus.iter().map(|&cpu| of(cpu).unwrap().ebx >> 24).collect();
        assert_eq!(places.len(), cpus.len().min(256));
        assert_eq!(host.text(&Question::Affinity).unwrap(), before);
        assert_eq!(of(u32::MAX), Err(Refusal::Denied));
    }

    #[test]
    fn files_folders_and_variables() {
        let live = Live::new();
        let host: &dyn Host = &live;
        assert!(host.read("/proc/self/status").unwrap().contains("Cpus_allowed_list"));
        assert_eq!(host.read("/nowhere"), Err(Refusal::NotFound));
        assert_eq!(host.read("/proc/self/status/nowhere"), Err(Refusal::NotFound));
        assert!(host.read("/proc").is_err());
        assert!(host.list("/proc/self").unwrap().contains(&"status".to_owned()));
        assert_eq!(host.env("NO_SUCH_VARIABLE_HERE"), None);
    }
}
