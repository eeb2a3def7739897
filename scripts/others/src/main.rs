//! Prints physical cores, threads and memory as `sysinfo` and `num_cpus` find them: `others sysinfo`, `others num_cpus`.
//! `others sysinfo-all` reads all that a `System` of `sysinfo` knows, `others nothing` is the start of a process alone.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("sysinfo") => {
            let cpus = CpuRefreshKind::nothing().with_frequency();
            let kinds = RefreshKind::nothing().with_cpu(cpus).with_memory(MemoryRefreshKind::everything());
            let system = System::new_with_specifics(kinds).expect("a system that it knows");
            let cores = System::physical_core_count().map_or_else(|_| "none".to_owned(), |cores| cores.to_string());
            let limit = system.cgroup_limits().map_or(0, |limits| limits.total_memory);
            println!("{cores} {} {} {limit}", system.cpus().len(), system.total_memory());
        }
        Some("sysinfo-all") => drop(System::new_all()),
        Some("num_cpus") => println!("{} {} 0 0", num_cpus::get_physical(), num_cpus::get()),
        Some("nothing") => {}
        _ => {
            eprintln!("usage: others sysinfo | sysinfo-all | num_cpus | nothing");
            std::process::exit(2);
        }
    }
}
