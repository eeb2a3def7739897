//! Caches from `/sys/devices/system/cpu/cpu*/cache`.

use super::counted::Counted;
use super::cpulist;
use super::topology::CPU;
use crate::host::Host;
use spec::Bytes;
use spec::machine::{Cache, CoreKind};
use std::collections::{BTreeMap, BTreeSet};

/// No processor has more; the folder is not listed, to save a read per core.
const MAX_INDEX: usize = 8;

/// So many cores of a kind are asked one by one.
const FEW: usize = 16;

/// Of more than that, one of so many.
const STEP: usize = 8;

/// First-level data and instruction, second, third.
const USUAL: usize = 4;

/// The caches of these CPUs, one entry per level, kind and size, closest first. Each cache is read once, through the first
/// CPU that uses it. Of many cores of one kind, every eighth tells which caches it has alone, and where these agree the others have the
/// same.
pub(crate) fn read(host: &dyn Host, cpus: &BTreeSet<u32>, kinds: &[CoreKind], cores: &[BTreeSet<u32>]) -> Vec<Cache> {
    // Caches past the usual four belong to the whole machine: what its first CPU does not have, none has.
    let mut reader = Reader { host, cpus, found: Counted::default(), indices: Default::default(), end: MAX_INDEX };
    for cores in alike(kinds, cores) {
        let asked = |place: &usize| cores.len() <= FEW || place.is_multiple_of(STEP) || place + 1 == cores.len();
        let (sample, others): (Vec<usize>, Vec<usize>) = (0..cores.len()).partition(asked);
        let own: Vec<Vec<Own>> = sample.iter().filter_map(|place| Some(reader.core(cores.get(*place)?))).collect();
        let all_alike = own.windows(2).all(|pair| pair.first() == pair.last());
        for core in others.iter().filter_map(|place| cores.get(*place)) {
            if let (true, Some(own)) = (all_alike, own.first()) {
                reader.repeat(core, own);
            }
            reader.core(core);
        }
    }
    for cpu in cpus {
        reader.cpu(*cpu, &mut Vec::new());
    }
    reader.found.into_caches()
}

/// Cores of one kind and as many threads.
fn alike<'a>(kinds: &[CoreKind], cores: &'a [BTreeSet<u32>]) -> Vec<Vec<&'a BTreeSet<u32>>> {
    let mut groups: BTreeMap<(usize, usize), Vec<&BTreeSet<u32>>> = BTreeMap::new();
    for core in cores {
        if let Some(kind) = core.first().and_then(|cpu| kinds.iter().position(|kind| kind.cpus.contains(cpu))) {
            groups.entry((kind, core.len())).or_default().push(core);
        }
    }
    groups.into_values().collect()
}

/// A cache that no other core uses.
#[derive(Clone, Debug, PartialEq)]
struct Own {
    number: usize,
    level: u8,
    kind: String,
    size: Bytes,
    shared_by: usize,
}

struct Reader<'a> {
    host: &'a dyn Host,
    cpus: &'a BTreeSet<u32>,
    found: Counted,
    indices: [Index; MAX_INDEX],
    end: usize,
}

impl Reader<'_> {
    /// Reads the caches of a core that are not counted yet; those that it has alone.
    fn core(&mut self, core: &BTreeSet<u32>) -> Vec<Own> {
        let mut own = Vec::new();
        for cpu in core {
            self.cpu(*cpu, &mut own);
        }
        own.retain(|(users, _)| users.is_subset(core));
        own.into_iter().map(|(_, own)| own).collect()
    }

    /// Counts the caches that this core has alone, without reading them.
    fn repeat(&mut self, core: &BTreeSet<u32>, own: &[Own]) {
        for cache in own {
            self.found.add(cache.level, &cache.kind, cache.size, 1, cache.shared_by);
            if let Some(index) = self.indices.get_mut(cache.number) {
                index.seen.extend(core);
            }
        }
    }

    fn cpu(&mut self, cpu: u32, read: &mut Vec<(BTreeSet<u32>, Own)>) {
        if !self.cpus.contains(&cpu) {
            return;
        }
        for (number, index) in self.indices.iter_mut().enumerate().take(self.end) {
            if index.seen.contains(&cpu) {
                continue;
            }
            let Some((level, kind, size, users)) = cache(self.host, cpu, number, &mut index.kinds) else {
                // A hypervisor may hide one of the usual four; past them the first gap is the end.
                if number < USUAL {
                    continue;
                }
                self.end = number;
                break;
            };
            index.seen.insert(cpu);
            index.seen.extend(&users);
            let users: BTreeSet<u32> = users.intersection(self.cpus).copied().collect();
            let shared_by = users.len().max(1);
            self.found.add(level, &kind, size, 1, shared_by);
            read.push((users, Own { number, level, kind, size, shared_by }));
        }
    }
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
        let caches = read(&host, &(0..4).collect(), &[], &[]);
        let text: Vec<_> =
            caches.iter().map(|c| format!("L{} {} {} x{} by {}", c.level, c.kind, c.size, c.instances, c.shared_by)).collect();
        assert_eq!(
            text,
            ["L1 data 32.00 KiB x2 by 1", "L1 data 48.00 KiB x1 by 2", "L2 unified 2.00 MiB x1 by 2", "L2 unified 4.00 MiB x1 by 2"]
        );
    }
    #[test]
    fn of_many_cores_of_a_kind_a_sample_is_read_and_all_where_it_differs() {
        let machine = |last: &str| {
            let mut host = Recording::new("");
            for cpu in 0..48 {
                for (index, level, size, users) in
                    [(0, "1", if cpu >= 46 { last } else { "32K" }, format!("{}-{}", cpu & !1, cpu | 1)), (1, "3", "8M", "0-47".to_owned())]
                {
                    for (name, text) in [("level", level), ("type", "Unified"), ("size", size), ("shared_cpu_list", &users)] {
                        host.set(&Question::Read(format!("{CPU}/cpu{cpu}/cache/index{index}/{name}")), Ok(Answer::text(text)));
                    }
                }
            }
            host
        };
        let cores: Vec<BTreeSet<u32>> = (0..24).map(|core| BTreeSet::from([core * 2, core * 2 + 1])).collect();
        let kinds = [CoreKind { name: "performance".into(), physical_cores: 24, cpus: (0..48).collect() }];
        let text = |host: &Recording| {
            let caches = read(host, &(0..48).collect(), &kinds, &cores);
            caches.iter().map(|c| format!("L{} {} x{} by {}", c.level, c.size, c.instances, c.shared_by)).collect::<Vec<_>>().join(", ")
        };
        let mut host = machine("32K");
        assert_eq!(text(&host), "L1 32.00 KiB x24 by 2, L3 8.00 MiB x1 by 48");
        assert_eq!(text(&machine("16K")), "L1 16.00 KiB x1 by 2, L1 32.00 KiB x23 by 2, L3 8.00 MiB x1 by 48");
        // The cores between are not asked.
        host.set(&Question::Read(format!("{CPU}/cpu2/cache/index0/size")), Ok(Answer::text("64K")));
        assert_eq!(text(&host), "L1 32.00 KiB x24 by 2, L3 8.00 MiB x1 by 48");
    }
}
