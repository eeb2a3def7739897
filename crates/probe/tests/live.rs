//! This machine: recorded, replayed, and inside real control groups.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(target_os = "linux")]

mod common;

use probe::{Answer, Host, Live, Question, Recording, Refusal, capture, detect};
use spec::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A host that answers each question once and then always the same, so that two detections see one moment.
struct Frozen {
    live: Live,
    answers: Mutex<Recording>,
}

impl Host for Frozen {
    fn origin(&self) -> String {
        "frozen".into()
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let mut answers = self.answers.lock().unwrap();
        match answers.ask(question) {
            Err(Refusal::NotRecorded) => {
                let answer = self.live.ask(question);
                answers.set(question, answer.clone());
                answer
            }
            answer => answer,
        }
    }
}

#[test]
fn a_recording_of_this_machine_is_this_machine() {
    let host = Frozen { live: Live::new(), answers: Mutex::new(Recording::new("")) };
    let mut live = detect(&host).unwrap();
    let text = capture(&host).to_text();
    let mut replayed = detect(&Recording::parse(&text).unwrap()).unwrap();
    assert_eq!(Recording::parse(&text).unwrap().to_text(), text);
    // Names of control groups may be ids, which a recording replaces: the only difference beside the origin.
    live.origin.clear();
    replayed.origin.clear();
    assert_eq!(live.facts, replayed.facts);
    assert_eq!(live.free, replayed.free);
    assert_eq!(live.warnings, replayed.warnings);
    assert_eq!(live.limits.allowed_cpus.value(), replayed.limits.allowed_cpus.value());
    assert_eq!(live.limits.cpu_quota.value(), replayed.limits.cpu_quota.value());
    let figures = |machine: &spec::Machine| machine.limits.memory.iter().map(|limit| (limit.limit, limit.headroom())).collect::<Vec<_>>();
    assert_eq!(figures(&live), figures(&replayed));
    assert_eq!(live.limits.visible_gpus, replayed.limits.visible_gpus);
    if !text.contains("00000000000") {
        assert_eq!(live, replayed);
    }
}

#[test]
fn this_machine_is_known() {
    let machine = detect(&Live::new()).unwrap();
    assert!(machine.facts.memory.total.get().unwrap() > Bytes::from_mib(64));
    assert!(machine.free.memory.get().unwrap() <= machine.facts.memory.total.get().unwrap());
    assert!(machine.facts.cpu.logical_cpus.get().unwrap() >= 1);
    assert!(machine.effective_cpus() >= 1);
    // The standard library counts affinity within quota as well, but does not find every mount of version 1.
    let parallelism = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    assert!(machine.effective_cpus() <= parallelism, "{}", common::render(&machine));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(machine.facts.cpu.features.contains("avx2"), std::is_x86_feature_detected!("avx2"));
}

/// A host that holds everything a recording must not keep.
struct Telltale(Recording);

impl Host for Telltale {
    fn origin(&self) -> String {
        "test".into()
    }
    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        self.0.ask(question)
    }
}

#[test]
fn a_recording_keeps_nothing_that_identifies_machine_or_owner() {
    let secrets = [
        "build-box-17",
        "corp.example.com",
        "mallory",
        "7013cd95e4f0679144dc0759a6f3571c",
        "8932f937-d72c-4106-c12f-20bd9faed9f6",
        "8932f937",
        "52:54:00:ab:cd:ef",
        "10000000deadbeef",
        "0e9c3f4a_11d2_4b3c_9d8e_7f6a5b4c3d2e",
        "secret-share",
    ];
    let mut host = Recording::new("");
    let group = "/mallory.slice/pod0e9c3f4a_11d2_4b3c_9d8e_7f6a5b4c3d2e/7013cd95e4f0679144dc0759a6f3571c";
    let mut set = |question: Question, text: &str| host.set(&question, Ok(Answer::text(text)));
    let read = |path: &str| Question::Read(path.to_owned());
    set(Question::Os, "linux");
    set(Question::Arch, "aarch64");
    set(Question::Env("USER".into()), "mallory");
    set(Question::Env("CUDA_VISIBLE_DEVICES".into()), "GPU-8932f937");
    set(read("/proc/sys/kernel/hostname"), "build-box-17.corp.example.com");
    set(read("/proc/cpuinfo"), "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nSerial\t\t: 10000000deadbeef");
    set(read("/proc/self/cgroup"), &format!("0::{group}"));
    set(
        read("/proc/self/mountinfo"),
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n40 23 0:50 / /home/mallory rw - nfs build-box-17:/secret-share rw,mac=52:54:00:ab:cd:ef",
    );
    set(read(&format!("/sys/fs/cgroup{group}/memory.max")), "1073741824");
    set(read(&format!("/sys/fs/cgroup{group}/memory.current")), "4096");
    let nvml = |field| Question::Nvml(probe::host::NvmlQuestion::Device(0, field));
    set(Question::Nvml(probe::host::NvmlQuestion::Count), "1");
    set(nvml(probe::host::NvmlField::Uuid), "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6");
    let host = Telltale(host);

    let text = capture(&host).to_text();
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    // And still the same machine: the limit is found under its new name, the GPU under its new UUID.
    let (mut original, mut replayed) = (detect(&host).unwrap(), detect(&Recording::parse(&text).unwrap()).unwrap());
    for machine in [&mut original, &mut replayed] {
        assert!(!machine.facts.gpus[0].uuid.is_unknown());
        machine.facts.gpus[0].uuid = spec::Known::unknown("differs");
    }
    assert_eq!(original.limits.memory[0].headroom(), replayed.limits.memory[0].headroom());
    assert_eq!((&original.limits.visible_gpus, &replayed.limits.visible_gpus), (&vec![0], &vec![0]));
    assert_eq!(original.facts, replayed.facts);
}

/// Set in the process that a test starts inside a control group.
const INSIDE: &str = "PROBE_TEST_PRINT_MACHINE";

#[test]
fn inside() {
    if std::env::var_os(INSIDE).is_some() {
        println!("{}", common::render(&detect(&Live::new()).unwrap()));
    }
}

/// A control group of version 1 that is removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(controller: &str, files: &[(&str, &str)]) -> std::io::Result<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller)).ok_or(std::io::ErrorKind::NotFound)?;
        let path = line.splitn(3, ':').nth(2).unwrap_or("/");
        let parent = Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/'));
        let folder = parent.join(format!("probe-test-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let group = Self(folder);
        for (name, text) in files {
            std::fs::write(group.0.join(name), text)?;
        }
        // The process goes one level deeper: the limit is the parent's.
        std::fs::create_dir(group.0.join("inner"))?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.0.join("inner"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn limits_of_a_parent_bind_in_a_real_control_group() {
    // Set by scripts/check-targets: under emulation this program cannot start itself.
    if std::env::var_os("LOADMASTER_TEST_EMULATED").is_some() {
        println!("SKIPPED: emulated");
        return;
    }
    let memory = Group::new("memory", &[("memory.limit_in_bytes", "805306368")]);
    let cpu = Group::new("cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")]);
    let (memory, cpu) = match (memory, cpu) {
        (Ok(memory), Ok(cpu)) => (memory, cpu),
        (memory, cpu) => {
            println!("SKIPPED: no control groups of version 1 that this user may write: memory {:?}, cpu {:?}", memory.err(), cpu.err());
            return;
        }
    };
    let join = |group: &Group| format!("echo $$ > '{}/inner/cgroup.procs'", group.0.display());
    let script = format!("{} && {} && exec \"$0\" --exact inside --nocapture", join(&memory), join(&cpu));
    let output =
        std::process::Command::new("sh").args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    };
    assert!(line("=> cpus, cores").starts_with("1, 1"), "{text}");
    assert!(line("quota").starts_with("1 ["), "{text}");
    assert!(line("=> memory").contains("of 768.00 MiB"), "{text}");
}

/// A pipe without a writer in the place of a file of the system, in a name space of mounts that ends with the process.
#[test]
fn a_file_of_the_system_that_never_answers_costs_a_deadline() {
    if std::env::var_os("LOADMASTER_TEST_EMULATED").is_some() {
        println!("SKIPPED: emulated");
        return;
    }
    let allowed = std::process::Command::new("unshare").args(["-m", "true"]).output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no name space of mounts for this user: {allowed:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let script = "mkfifo \"$1\" && for file in /proc/cpuinfo /proc/meminfo; do mount --bind \"$1\" $file || exit; done; shift; exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&pipe).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "inside", "--nocapture"]).env(INSIDE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("unknown (/proc/meminfo: timed out)"), "{text}");
    assert!(text.contains("/sys/devices/system/cpu/online]"), "{text}");
}

#[test]
fn a_software_device_of_vulkan_is_found_labelled_and_not_chosen() {
    // Nothing is late here: a loaded machine takes its time to start Vulkan.
    let live = Live::with_deadline(std::time::Duration::from_secs(60));
    let machine = probe::detect_fully(&live).unwrap();
    let gpus = &machine.facts.gpus;
    let Some(index) = gpus.iter().position(|gpu| gpu.kind == spec::machine::GpuKind::Software) else {
        println!("SKIPPED: no software device of Vulkan (Debian: mesa-vulkan-drivers, libvulkan1)");
        return;
    };
    assert!(!machine.limits.visible_gpus.contains(&index), "{}", common::render(&machine));
    assert!(gpus[index].name.value().is_some_and(|name| !name.is_empty()));
    assert!(gpus[index].memory_total.get().is_some_and(|memory| memory >= Bytes::from_mib(1)));
}
