//! Caches from `/sys/devices/system/cpu/cpu*/cache`.

use super::counted::Counted;
use super::cpulist;
use super::topology::CPU;
use crate::host::Host;
use spec::Bytes;
use spec::machine::Cache;
use std::collections::{BTreeMap, BTreeSet};

/// No processor has more; the folder is not listed, to save a read per core.
const MAX_INDEX: usize = 8;

/// First-level data and instruction, second, third.
const USUAL: usize = 4;

/// The caches of these CPUs, one entry per level, kind and size, closest first. Each cache is read once, through the first
/// CPU that uses it.
pub(crate) fn read(host: &dyn Host, cpus: &BTreeSet<u32>) -> Vec<Cache> {
    let mut found = Counted::default();
    let mut indices: [Index; MAX_INDEX] = Default::default();
    // Caches past the usual four belong to the whole machine: what its first CPU does not have, none has.
    let mut end = MAX_INDEX;
    for cpu in cpus {
        for (number, index) in indices.iter_mut().enumerate().take(end) {
            if index.seen.contains(cpu) {
                continue;
            }
            let Some((level, kind, size, users)) = cache(host, *cpu, number, &mut index.kinds) else {
                // A hypervisor may hide one of the usual four; past them the first gap is the end.
                if number < USUAL {
                    continue;
                }
                end = number;
                break;
            };
            index.seen.insert(*cpu);
            index.seen.extend(&users);
            let shared_by = users.intersection(cpus).count().max(1);
            found.add(level, &kind, size, 1, shared_by);
        }
    }
    found.into_caches()
}

/// What is known of the folders of one number, over all CPUs.
#[derive(Default)]
struct Index {
    /// CPUs whose cache of this number is counted.
    seen: BTreeSet<u32>,
    /// Level and kind of the caches of a size: hundreds of cores do not say it anew.
    kinds: BTreeMap<Bytes, (u8, String)>,
}

/// Level, kind, size and users of one cache; `None` past the last.
fn cache(host: &dyn Host, cpu: u32, index: usize, kinds: &mut BTreeMap<Bytes, (u8, String)>) -> Option<(u8, String, Bytes, BTreeSet<u32>)> {
    let file = |name: &str| host.read(&format!("{CPU}/cpu{cpu}/cache/index{index}/{name}")).ok();
    // "32K", on some kernels "1M"; a hypervisor that hides the size leaves the file out or empty.
    let size = file("size")?.trim().parse::<Bytes>().ok().filter(|size| !size.is_zero())?;
    let (level, kind) = match kinds.get(&size) {
        Some(known) => known.clone(),
        None => {
            let read = (file("level")?.trim().parse().ok()?, file("type")?.trim().to_ascii_lowercase());
            kinds.entry(size).or_insert(read).clone()
        }
    };
    // A cache that its own CPU does not use is a broken file; the mask may be right.
    let uses = |users: &BTreeSet<u32>| users.contains(&cpu);
    let list = file("shared_cpu_list").and_then(|text| cpulist::parse(&text)).filter(uses);
    let users = list.or_else(|| cpulist::parse_mask(&file("shared_cpu_map")?).filter(uses));
    Some((level, kind, size, users.unwrap_or_else(|| BTreeSet::from([cpu]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    #[test]
    fn a_shared_cache_counts_once_and_two_sizes_are_two_entries() {
        let mut host = Recording::new("");
        let mut add = |cpu: u32, index: usize, level: &str, kind: &str, size: &str, users: &str| {
            for (name, text) in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", users)] {
                host.set(&Question::Read(format!("{CPU}/cpu{cpu}/cache/index{index}/{name}")), Ok(Answer::text(text)));
            }
        };
        add(0, 0, "1", "Data", "48K", "0-1");
        add(2, 0, "1", "Data", "32K", "2");
        add(3, 0, "1", "Data", "32K", "3");
        add(0, 1, "2", "Unified", "2048K", "0-1");
        add(2, 1, "2", "Unified", "4M", "2-3");
        let caches = read(&host, &(0..4).collect());
        let text: Vec<_> =
            caches.iter().map(|c| format!("L{} {} {} x{} by {}", c.level, c.kind, c.size, c.instances, c.shared_by)).collect();
        assert_eq!(
            text,
            ["L1 data 32.00 KiB x2 by 1", "L1 data 48.00 KiB x1 by 2", "L2 unified 2.00 MiB x1 by 2", "L2 unified 4.00 MiB x1 by 2"]
        );
    }
}
