//! `detect` and `plan` in real control groups: memory and time limited on a parent, CPUs by a cpuset.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]
#![cfg(target_os = "linux")]

mod common;

use common::Folder;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use synthetic::FileType;

/// A group of version 1 with one inside it, in which the process runs; both are removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(controller: &str, files: &[(&str, &str)], inner: &[(&str, &str)]) -> std::io::Result<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller)).ok_or(std::io::ErrorKind::NotFound)?;
        let path = line.splitn(3, ':').nth(2).unwrap_or("/");
        let parent = Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/'));
        let folder = parent.join(format!("loadmaster-test-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let group = Self(folder);
        for (name, text) in files {
            std::fs::write(group.0.join(name), text)?;
        }
        std::fs::create_dir(group.inner())?;
        for (name, text) in inner {
            std::fs::write(group.inner().join(name), text)?;
        }
        Ok(group)
    }

    fn inner(&self) -> PathBuf {
        self.0.join("inner")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.inner());
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What the command prints as JSON when it starts inside these groups.
fn inside(groups: &[&Group], folder: &Folder, line: &str) -> Value {
    let join = groups.iter().map(|group| format!("echo $$ > '{}/cgroup.procs' && ", group.inner().display())).collect::<String>();
    let plain = folder.command(line);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{join}exec \"$@\""), "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(folder.path()).stdin(Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = common::finish(command, line);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
}

#[test]
fn limits_of_groups_bind_in_detect_and_in_plan() {
    const LIMIT: u64 = 1 << 30;
    let memory = Group::new("memory", &[("memory.limit_in_bytes", "1073741824")], &[]);
    let time = Group::new("cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")], &[]);
    let one = [("cpuset.cpus", "0"), ("cpuset.mems", "0")];
    let set = Group::new("cpuset", &one, &one);
    let (memory, time, set) = match (memory, time, set) {
        (Ok(memory), Ok(time), Ok(set)) => (memory, time, set),
        (memory, time, set) => {
            let why = [memory.err(), time.err(), set.err()];
            println!("SKIPPED: no control groups of version 1 that this user may write: memory, cpu, cpuset {why:?}");
            return;
        }
    };
    let groups = [&memory, &time, &set];
    let folder = Folder::new();
    folder.model("small.gguf", "smollm2-135m", FileType::Q8_0).model("large.gguf", "llama-3.2-1b", FileType::Q8_0);

    let machine = inside(&groups, &folder, "detect --json");
    assert_eq!((&machine["cpu"]["threads"], &machine["limits"]["cpu_quota"]), (&Value::from(1), &Value::from(1.5)), "{machine}");
    assert_eq!(machine["memory"]["effective_total"], LIMIT, "{}", machine["memory"]);
    // Time alone: no more threads than the quota pays for in full.
    let machine = inside(&groups[..2], &folder, "detect --json");
    assert_eq!(machine["limits"]["effective_cpus"], 1, "{}", machine["limits"]);

    let plan = inside(&groups, &folder, "plan small.gguf --json");
    let setting = |name: &str| {
        let mut settings = plan["settings"].as_array().unwrap().iter();
        settings.find(|setting| setting["name"] == name).map_or(Value::Null, |setting| setting["value"].clone())
    };
    assert_eq!((setting("threads"), setting("threads_batch")), ("1".into(), "1".into()), "{plan}");
    assert_eq!((&plan["verdict"], &plan["budgets"][0]["total_bytes"]["value"]), (&"fits".into(), &LIMIT.into()), "{plan}");
    // 1.3 GB of weights do not fit in the group, whatever the machine has.
    let refused = inside(&groups, &folder, "plan large.gguf --no-mmap --json");
    assert_eq!(refused["verdict"], "refused", "{refused}");
}
