//! The library of NVIDIA's driver as the program asks it, in a child: one that answers, one that is late, one that hangs, one that crashes.
//!
//! A library of this name that a compiler makes stands in for the driver's, and a bus with one of its GPUs lies in the place of the
//! system's, in a name space of mounts.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test that fails panics, and says what it skips")]
#![cfg(target_os = "linux")]

mod common;

use common::Folder;
use serde_json::Value;
use std::process::{Command, Stdio};

/// One device of 24 GiB; what `nvmlInit_v2` and `nvmlDeviceGetMemoryInfo` do before they answer is put in.
const LIBRARY: &str = r#"
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    struct memory { unsigned long long total, free, used; };
    struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; };
    int nvmlInit_v2(void) { INIT; return 0; }
    int nvmlSystemGetDriverVersion(char *text, unsigned n) { strncpy(text, "570.1", n); return 0; }
    int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
    int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return i == 0 ? 0 : 2; }
    int nvmlDeviceGetName(void *d, char *text, unsigned n) { strncpy(text, "NVIDIA Test GPU", n); return 0; }
    int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) { MEMORY; m->total = 24ull << 30; m->free = 23ull << 30; return 0; }
    int nvmlDeviceGetPciInfo_v3(void *d, struct pci *p) { p->domain = 0; p->bus = 1; p->device = 0; p->id = 0x268410de; return 0; }
"#;

/// What `loadmaster LINE` prints as JSON before such a library; `None` where this machine cannot show it.
fn before(init: &str, memory: &str, line: &str) -> Option<Value> {
    let folder = Folder::new();
    folder.file("nvml.c", LIBRARY.replace("INIT", init).replace("MEMORY", memory));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o", "libnvidia-ml.so.1", "nvml.c"]).current_dir(folder.path());
    let built = compiler.status().is_ok_and(|status| status.success());
    let allowed = Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success());
    if !built || !allowed {
        println!("SKIPPED: no C compiler, or no name space of mounts for this user");
        return None;
    }
    let script = "mount -t tmpfs none /sys/bus/pci/devices && mkdir /sys/bus/pci/devices/0000:01:00.0 && \
        echo pci:v000010DEd00002684sv00001043sd000088E2bc03sc00i00 > /sys/bus/pci/devices/0000:01:00.0/modalias && exec \"$@\"";
    let plain = folder.command(line);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(folder.path()).stdin(Stdio::null()).env("LD_LIBRARY_PATH", folder.path()).env("PATH", "/usr/bin:/bin");
    let output = common::finish(command, line);
    let answer = serde_json::from_slice(&output.stdout);
    Some(answer.unwrap_or_else(|error| panic!("{line}: {error}: {output:?}")))
}

fn warnings(machine: &Value) -> String {
    machine["warnings"].to_string()
}

#[test]
fn a_driver_that_answers_is_believed() {
    // All that may be asked, with its longer deadline: starting a child takes its time on a loaded machine.
    let Some(machine) = before("", "", "detect --full --json") else { return };
    let gpu = &machine["gpus"][0];
    assert_eq!((&gpu["name"], &gpu["memory_total"]), (&"NVIDIA Test GPU".into(), &Value::from(24u64 << 30)), "{machine:#}");
}

#[test]
fn a_driver_that_is_late_is_unknown_and_the_card_on_the_bus_is_there() {
    // The program's own deadline of 80 ms.
    for init in ["sleep(3)", "for (;;) sleep(1000)"] {
        let Some(machine) = before(init, "", "detect --json") else { return };
        let gpu = &machine["gpus"][0];
        assert_eq!((machine["gpus"].as_array().unwrap().len(), &gpu["pci_id"]), (1, &"10de:2684".into()), "{machine:#}");
        assert!(gpu["memory_total"].is_null() && gpu["memory_free"].is_null(), "{gpu:#}");
        assert!(warnings(&machine).contains("did not answer in time"), "{machine:#}");
        let unknown = machine["unknown"].to_string();
        assert!(unknown.contains("timed out"), "{unknown}");
    }
}

#[test]
fn a_driver_that_hangs_over_one_figure_leaves_the_others() {
    let Some(machine) = before("", "for (;;) sleep(1000)", "detect --full --json") else { return };
    assert_eq!(machine["gpus"][0]["pci_id"], "10de:2684", "{machine:#}");
    assert!(machine["gpus"][0]["memory_total"].is_null(), "{machine:#}");
}

#[test]
fn a_driver_that_crashes_takes_its_child_along_and_nothing_else() {
    for (init, memory) in [("abort()", ""), ("*(volatile int *)0 = 1", ""), ("", "abort()")] {
        let Some(machine) = before(init, memory, "detect --full --json") else { return };
        assert_eq!(machine["gpus"][0]["pci_id"], "10de:2684", "{machine:#}");
        assert!(machine["gpus"][0]["memory_total"].is_null(), "{machine:#}");
    }
}
