//! Machines that are too large to be written by hand, as trees of sysfs and procfs made by rule.
#![allow(dead_code, reason = "each program uses its part")]

use crate::foreign::Tree;
use std::fmt::Write;

/// A uniform server. CPUs are numbered as Linux does: first one thread of every core, socket by socket, then the second ones.
pub struct Server {
    pub model: &'static str,
    pub sockets: u32,
    pub nodes_per_socket: u32,
    pub cores_per_socket: u32,
    /// Cores that share a third-level cache.
    pub cores_per_l3: u32,
    pub threads_per_core: u32,
    pub l2_kib: u32,
    pub l3_kib: u32,
    pub memory_gib_per_node: u64,
}

/// Two EPYC 7763, each in four nodes (NPS4): 256 CPUs.
pub const EPYC_NPS4: Server = Server {
    model: "AMD EPYC 7763 64-Core Processor",
    sockets: 2,
    nodes_per_socket: 4,
    cores_per_socket: 64,
    cores_per_l3: 8,
    threads_per_core: 2,
    l2_kib: 512,
    l3_kib: 32 << 10,
    memory_gib_per_node: 64,
};

/// Two EPYC 9654: 384 CPUs, more than a mask of 64 or a byte can number.
pub const EPYC_384: Server = Server {
    model: "AMD EPYC 9654 96-Core Processor",
    sockets: 2,
    nodes_per_socket: 1,
    cores_per_socket: 96,
    cores_per_l3: 8,
    threads_per_core: 2,
    l2_kib: 1024,
    l3_kib: 32 << 10,
    memory_gib_per_node: 384,
};

impl Server {
    fn cores(&self) -> u32 {
        self.sockets * self.cores_per_socket
    }

    fn cpus(&self) -> u32 {
        self.cores() * self.threads_per_core
    }

    /// The CPUs of these cores, as the kernel lists them.
    fn list(&self, first: u32, cores: u32) -> String {
        let part = |thread: u32| {
            let from = first + thread * self.cores();
            if cores == 1 { from.to_string() } else { format!("{from}-{}", from + cores - 1) }
        };
        (0..self.threads_per_core).map(part).collect::<Vec<_>>().join(",")
    }

    /// The same CPUs as a mask: words of 32 bits, the highest first, for programs that read no lists.
    fn mask(&self, first: u32, cores: u32) -> String {
        let mut words = vec![0_u32; self.cpus().div_ceil(32) as usize];
        for cpu in (0..self.threads_per_core).flat_map(|thread| (first..first + cores).map(move |core| core + thread * self.cores())) {
            words[(cpu / 32) as usize] |= 1 << (cpu % 32);
        }
        words.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(",")
    }

    /// The files of the machine, all CPUs switched on and nothing limited.
    pub fn tree(&self) -> Tree {
        let mut tree = linux();
        let all = format!("0-{}", self.cpus() - 1);
        for name in ["online", "present", "possible"] {
            put(&mut tree, &format!("/sys/devices/system/cpu/{name}"), &all);
        }
        let mut info = String::new();
        for cpu in 0..self.cpus() {
            let (core, socket) = (cpu % self.cores(), cpu % self.cores() / self.cores_per_socket);
            let first_of = |cores: u32| core / cores * cores;
            let folder = format!("/sys/devices/system/cpu/cpu{cpu}");
            let socket_list = self.list(first_of(self.cores_per_socket), self.cores_per_socket);
            let own = self.list(core, 1);
            for (name, text) in [
                ("core_cpus_list", own.as_str()),
                ("thread_siblings_list", &own),
                ("package_cpus_list", &socket_list),
                ("core_siblings_list", &socket_list),
                ("die_cpus_list", &socket_list),
                ("physical_package_id", &socket.to_string()),
                ("die_id", "0"),
                ("core_id", &(core % self.cores_per_socket).to_string()),
            ] {
                put(&mut tree, &format!("{folder}/topology/{name}"), text);
            }
            let socket_mask = self.mask(first_of(self.cores_per_socket), self.cores_per_socket);
            for (name, mask) in [
                ("core_cpus", self.mask(core, 1)),
                ("thread_siblings", self.mask(core, 1)),
                ("package_cpus", socket_mask.clone()),
                ("core_siblings", socket_mask.clone()),
                ("die_cpus", socket_mask),
            ] {
                put(&mut tree, &format!("{folder}/topology/{name}"), &mask);
            }
            let shared = self.list(first_of(self.cores_per_l3), self.cores_per_l3);
            let caches = [
                ("1", "Data", 32, &own),
                ("1", "Instruction", 32, &own),
                ("2", "Unified", self.l2_kib, &own),
                ("3", "Unified", self.l3_kib, &shared),
            ];
            for (index, (level, kind, kib, users)) in caches.into_iter().enumerate() {
                let folder = format!("{folder}/cache/index{index}");
                for (name, text) in [("level", level), ("type", kind), ("size", &format!("{kib}K")), ("shared_cpu_list", users)] {
                    put(&mut tree, &format!("{folder}/{name}"), text);
                }
                let cores = if index == 3 { self.cores_per_l3 } else { 1 };
                put(&mut tree, &format!("{folder}/shared_cpu_map"), &self.mask(first_of(cores), cores));
            }
            for (name, text) in [("cpuinfo_max_freq", "3529052"), ("scaling_max_freq", "3529052"), ("scaling_governor", "schedutil")] {
                put(&mut tree, &format!("{folder}/cpufreq/{name}"), text);
            }
            cpuinfo(&mut info, "AuthenticAMD", self.model, cpu, (socket, core % self.cores_per_socket));
        }
        put(&mut tree, "/proc/cpuinfo", &info);
        self.nodes(&mut tree);
        tree
    }

    fn nodes(&self, tree: &mut Tree) {
        let nodes = self.sockets * self.nodes_per_socket;
        let cores = self.cores_per_socket / self.nodes_per_socket;
        put(tree, "/sys/devices/system/node/online", &if nodes == 1 { "0".into() } else { format!("0-{}", nodes - 1) });
        let kib = self.memory_gib_per_node << 20;
        for node in 0..nodes {
            let distance = |other: u32| match other {
                other if other == node => "10",
                other if other / self.nodes_per_socket == node / self.nodes_per_socket => "12",
                _ => "32",
            };
            let distances = (0..nodes).map(distance).collect::<Vec<_>>().join(" ");
            let folder = format!("/sys/devices/system/node/node{node}");
            put(tree, &format!("{folder}/cpulist"), &self.list(node * cores, cores));
            put(tree, &format!("{folder}/cpumap"), &self.mask(node * cores, cores));
            put(tree, &format!("{folder}/distance"), &distances);
            put(tree, &format!("{folder}/meminfo"), &format!("Node {node} MemTotal: {kib} kB\nNode {node} MemFree: {} kB", kib / 2));
        }
        let all = kib * u64::from(nodes);
        meminfo(tree, all);
    }
}

/// A laptop with a Core Ultra 7 155H, as the kernel numbers it: six performance cores with two threads, eight efficiency cores, two
/// low-power ones. On its battery, with the profile that saves power.
pub fn laptop() -> Tree {
    let mut tree = linux();
    let groups = [("cpu_core", "0-11"), ("cpu_atom", "12-19"), ("cpu_lowpower", "20-21")];
    for (kind, cpus) in groups {
        put(&mut tree, &format!("/sys/devices/{kind}/cpus"), cpus);
    }
    for name in ["online", "present", "possible"] {
        put(&mut tree, &format!("/sys/devices/system/cpu/{name}"), "0-21");
    }
    let mut info = String::new();
    for cpu in 0..22_u32 {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}");
        let (core, base, highest) = match cpu {
            0..12 => (format!("{}-{}", cpu & !1, cpu | 1), "1400000", "4800000"),
            12..20 => (cpu.to_string(), "900000", "3800000"),
            _ => (cpu.to_string(), "700000", "2500000"),
        };
        for (name, text) in [("core_cpus_list", core.as_str()), ("package_cpus_list", "0-21"), ("physical_package_id", "0")] {
            put(&mut tree, &format!("{folder}/topology/{name}"), text);
        }
        for (name, text) in [
            ("base_frequency", base),
            ("cpuinfo_max_freq", highest),
            ("scaling_max_freq", "2000000"),
            ("scaling_governor", "powersave"),
            ("energy_performance_preference", "power"),
        ] {
            put(&mut tree, &format!("{folder}/cpufreq/{name}"), text);
        }
        cpuinfo(&mut info, "GenuineIntel", "Intel(R) Core(TM) Ultra 7 155H", cpu, (0, cpu));
    }
    put(&mut tree, "/proc/cpuinfo", &info);
    meminfo(&mut tree, 32 << 20);
    for (name, text) in
        [("AC/type", "Mains"), ("AC/online", "0"), ("BAT0/type", "Battery"), ("BAT0/status", "Discharging"), ("BAT0/capacity", "23")]
    {
        put(&mut tree, &format!("/sys/class/power_supply/{name}"), text);
    }
    put(&mut tree, "/sys/firmware/acpi/platform_profile", "low-power");
    put(&mut tree, "/sys/class/thermal/thermal_zone0/type", "x86_pkg_temp");
    put(&mut tree, "/sys/class/thermal/thermal_zone0/temp", "51000");
    tree
}

/// Adds control groups of version 2: the process is in `pod/app`, and these files are below the mount.
pub fn grouped(mut tree: Tree, files: &[(&str, &str)]) -> Tree {
    put(&mut tree, "/proc/self/cgroup", "0::/pod/app");
    put(&mut tree, "/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw");
    for (name, text) in files {
        put(&mut tree, &format!("/sys/fs/cgroup/{name}"), text);
    }
    tree
}

/// The same machine with these CPUs switched off: the kernel takes away their folders of topology and caches.
pub fn without(mut tree: Tree, online: &str, offline: impl Iterator<Item = u32>) -> Tree {
    put(&mut tree, "/sys/devices/system/cpu/online", online);
    for cpu in offline {
        let gone = ["topology", "cache", "cpufreq"].map(|name| format!("/sys/devices/system/cpu/cpu{cpu}/{name}/"));
        tree.files.retain(|path, _| !gone.iter().any(|folder| path.starts_with(folder)));
    }
    tree
}

fn linux() -> Tree {
    Tree { os: "linux".into(), arch: "x86_64".into(), ..Tree::default() }
}

/// A file with its folders; files under `/proc` and `/sys` end with a new line.
pub fn put(tree: &mut Tree, path: &str, text: &str) {
    tree.add(path);
    tree.files.insert(path.into(), format!("{text}\n").into_bytes());
}

fn cpuinfo(out: &mut String, vendor: &str, model: &str, cpu: u32, (package, core): (u32, u32)) {
    let flags = "fpu sse2 ssse3 fma sse4_1 sse4_2 popcnt avx f16c avx2 bmi2";
    let _ = writeln!(
        out,
        "processor\t: {cpu}\nvendor_id\t: {vendor}\nmodel name\t: {model}\nphysical id\t: {package}\ncore id\t\t: {core}\nflags\t\t: {flags}\n"
    );
}

fn meminfo(tree: &mut Tree, kib: u64) {
    let text = format!(
        "MemTotal: {kib} kB\nMemFree: {} kB\nMemAvailable: {} kB\nSwapTotal: 8388608 kB\nSwapFree: 8388608 kB\nHugePages_Total: 0\nHugepagesize: 2048 kB",
        kib / 2,
        kib / 4 * 3
    );
    put(tree, "/proc/meminfo", &text);
}
