//! The system itself: its version, and what it runs in.
//!
//! Sources: Linux Documentation/ABI (`/sys/hypervisor`, `/sys/class/dmi/id`), the environment files of Docker and Podman,
//! systemd's container interface; Intel SDM volume 2A and the hypervisors' own documents for CPUID leaf 0x40000000.

use crate::host::{Host, Registers};
use spec::Known;

/// Words of `/sys/class/dmi/id/{sys_vendor,product_name}` on virtual machines.
const BOARDS: [(&str, &str); 9] = [
    ("QEMU", "kvm"),
    ("KVM", "kvm"),
    ("Amazon EC2", "amazon-ec2"),
    ("Google Compute Engine", "google-compute-engine"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("Virtual Machine", "hyper-v"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
];

/// Signatures in EBX, ECX, EDX of CPUID leaf 0x40000000.
const SIGNATURES: [(&str, &str); 7] = [
    ("KVMKVMKVM", "kvm"),
    ("Microsoft Hv", "hyper-v"),
    ("VMwareVMware", "vmware"),
    ("XenVMMXenVMM", "xen"),
    ("VBoxVBoxVBox", "virtualbox"),
    ("TCGTCGTCGTCG", "qemu"),
    ("prl hyperv", "parallels"),
];

/// Words in the path of a control group that a container's own tool puts there.
const GROUPS: [(&str, &str); 5] =
    [("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc"), ("containerd", "containerd")];

/// The release of the kernel.
pub(crate) fn version(host: &dyn Host) -> Known<String> {
    const FILE: &str = "/proc/sys/kernel/osrelease";
    match host.read(FILE) {
        Ok(release) if !release.is_empty() => Known::exact(release, FILE),
        Ok(_) => Known::unknown(format!("{FILE} is empty")),
        Err(refusal) => Known::unknown(format!("{FILE}: {refusal}")),
    }
}

/// What the system runs in, outermost first: a virtual machine, then a container.
pub(crate) fn inside(host: &dyn Host, version: &Known<String>, x86_flags: Option<&str>) -> Vec<String> {
    let machine = virtual_machine(host, version, x86_flags);
    machine.into_iter().chain(container(host)).map(str::to_owned).collect()
}

fn virtual_machine(host: &dyn Host, version: &Known<String>, x86_flags: Option<&str>) -> Option<&'static str> {
    let release = version.value().map(|release| release.to_ascii_lowercase()).unwrap_or_default();
    if release.contains("microsoft") {
        // WSL 1 has no kernel of its own and writes `Microsoft` where WSL 2 writes `microsoft-standard-WSL2`.
        return Some(if release.contains("wsl2") || release.contains("microsoft-standard") { "wsl2" } else { "wsl1" });
    }
    // The flag stands on every x86 guest and on no host: where it is missing, nothing else needs to be asked.
    if x86_flags.is_some_and(|flags| !flags.split_ascii_whitespace().any(|flag| flag == "hypervisor")) {
        return None;
    }
    let board = |file: &str| host.read(&format!("/sys/class/dmi/id/{file}")).ok();
    let named = |text: String| self::board(&text);
    let kind = || host.read("/sys/hypervisor/type").ok().filter(|kind| kind == "xen").map(|_| "xen");
    let by_board = board("product_name").and_then(named).or_else(|| board("sys_vendor").and_then(named));
    let by_signature = || host.cpuid(0x4000_0000, 0).ok().and_then(signature);
    by_board.or_else(kind).or_else(by_signature).or_else(|| x86_flags.map(|_| "virtual machine"))
}

/// The virtual machine that a maker or product of a board stands for.
pub(crate) fn board(text: &str) -> Option<&'static str> {
    BOARDS.iter().find(|(word, _)| text.contains(word)).map(|(_, name)| *name)
}

fn signature(registers: Registers) -> Option<&'static str> {
    let bytes: Vec<u8> = [registers.ebx, registers.ecx, registers.edx].iter().flat_map(|word| word.to_le_bytes()).collect();
    let text = String::from_utf8_lossy(&bytes);
    SIGNATURES.iter().find(|(word, _)| text.trim_start().starts_with(word)).map(|(_, name)| *name)
}

fn container(host: &dyn Host) -> Option<&'static str> {
    if host.env("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("kubernetes");
    }
    let group = host.read("/proc/self/cgroup").unwrap_or_default();
    let by_group = || GROUPS.iter().find(|(word, _)| group.contains(word)).map(|(_, name)| *name);
    let file = |path: &str| host.read(path).is_ok();
    if file("/run/.containerenv") {
        return Some("podman");
    }
    if file("/.dockerenv") {
        return Some("docker");
    }
    by_group().or_else(|| file("/run/systemd/container").then_some("container"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    fn host(files: &[(&str, &str)]) -> Recording {
        let mut host = Recording::new("");
        for (path, text) in files {
            host.set(&Question::Read((*path).to_owned()), Ok(Answer::text(*text)));
        }
        host
    }

    fn inside_of(files: &[(&str, &str)], flags: Option<&str>) -> Vec<String> {
        let host = host(files);
        inside(&host, &version(&host), flags)
    }

    #[test]
    fn subsystems_machines_and_containers() {
        let release = "/proc/sys/kernel/osrelease";
        assert_eq!(inside_of(&[(release, "5.15.153.1-microsoft-standard-WSL2")], Some("hypervisor")), ["wsl2"]);
        assert_eq!(inside_of(&[(release, "4.4.0-19041-Microsoft")], None), ["wsl1"]);
        let nested = [("/sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)"), ("/sys/class/dmi/id/sys_vendor", "QEMU")];
        assert_eq!(inside_of(&[nested[0], nested[1], ("/.dockerenv", "")], Some("fpu hypervisor")), ["kvm", "docker"]);
        assert_eq!(inside_of(&[("/proc/self/cgroup", "0::/kubepods.slice/pod7")], Some("fpu")), ["kubernetes"]);
        assert_eq!(inside_of(&[("/sys/class/dmi/id/sys_vendor", "QEMU")], Some("fpu")), [] as [&str; 0]);
        assert_eq!(inside_of(&[], Some("hypervisor")), ["virtual machine"]);
    }

    #[test]
    fn a_signature_in_registers() {
        let text = b"KVMKVMKVM\0\0\0";
        let word = |i: usize| u32::from_le_bytes([text[i], text[i + 1], text[i + 2], text[i + 3]]);
        assert_eq!(signature(Registers { eax: 0, ebx: word(0), ecx: word(4), edx: word(8) }), Some("kvm"));
        assert_eq!(signature(Registers::default()), None);
    }
}
