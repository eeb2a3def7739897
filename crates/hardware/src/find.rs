//! Finding a row: by PCI id and memory, or by a name as people and drivers write it.

use crate::accelerator::Accelerator;
use crate::names::{self, Name};
use crate::processor::{Processor, Segment};
use crate::tables::Tables;
use spec::Bytes;
use std::collections::BTreeSet;

/// Series that a short name leaves out: `4090`, `7950x`, `i7-12700k`.
const SERIES: [&str; 4] = ["rtx", "gtx", "rx", "gt"];
const PROCESSOR_SERIES: [&str; 14] =
    ["core", "xeon", "ryzen", "threadripper", "epyc", "i", "3", "5", "7", "9", "silver", "gold", "platinum", "processor"];

/// What a driver may show of the memory on the label: with error correction on GDDR6 a sixteenth is gone (`NVIDIA A10`: 23028 MiB of 24
/// GiB), tables of the driver take up to another two per cent, and a label may count in units of 10^9.
const SHOWN_LOW: f64 = 0.91;
const SHOWN_HIGH: f64 = 1.02;

/// `xeon` and `epyc`; shorter words are parts of models.
const SHORTEST_FAMILY: usize = 4;

/// An accelerator that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// Its row.
    pub row: &'a Accelerator,
    /// Its memory: what the name says, or the only size that it is sold with.
    pub memory: Option<Bytes>,
}

/// A name that stands for no row, or for several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No row has these words.
    #[error("not in the tables: {text:?}{}", nearest_names(.nearest))]
    NotFound {
        /// The name asked for.
        text: String,
        /// Names of rows that it is nearest to.
        nearest: Vec<String>,
    },
    /// Several rows have them.
    #[error("{text:?} may be {}; write one of them", candidates.join(" or "))]
    Several {
        /// The name asked for.
        text: String,
        /// What each row could be called.
        candidates: Vec<String>,
    },
}

fn nearest_names(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; the nearest are {}", names.join(", ")) }
}

impl Tables {
    /// Every row with a PCI id (`10de:2684`, any case) whose memory agrees with what a driver shows; all rows of the id where the
    /// memory is not known or agrees with none. Several rows share an id where the maker gave cards of one chip one id.
    pub fn by_pci_id(&self, id: &str, memory: Option<Bytes>) -> Vec<&Accelerator> {
        let has_it = |row: &&Accelerator| row.pci_ids.iter().any(|known| known.eq_ignore_ascii_case(id.trim()));
        let rows: Vec<&Accelerator> = self.accelerators_with(id.trim()).into_iter().filter(has_it).collect();
        let Some(memory) = memory else { return rows };
        let off = |size: &Bytes| (memory.as_f64() / size.as_f64() - 1.0).abs();
        let agrees = |size: &Bytes| (SHOWN_LOW..=SHOWN_HIGH).contains(&(memory.as_f64() / size.as_f64()));
        let best = |row: &Accelerator| row.memory.iter().filter(|size| agrees(size)).map(off).min_by(f64::total_cmp);
        let Some(least) = rows.iter().filter_map(|row| best(row)).min_by(f64::total_cmp) else { return rows };
        // Sizes on one label are equal; two labels that both agree differ by more.
        rows.into_iter().filter(|row| best(row).is_some_and(|off| off <= least + 1e-9)).collect()
    }

    /// The accelerator that a name stands for, as drivers (`NVIDIA A100-SXM4-80GB`), shops and people (`rtx4090`, `m3-max-40c-64gb`)
    /// write it.
    ///
    /// # Errors
    /// No row, or several: with another size of memory, another number of GPU cores or another form.
    pub fn accelerator(&self, text: &str) -> Result<Choice<'_>, FindError> {
        let asked = names::accelerator(text);
        let ranked = self.named_accelerators().filter_map(|(row, names)| Some((rank(&asked, names, row)?, row)));
        let ranked: Vec<(u32, &Accelerator)> = ranked.collect();
        let Some(best) = ranked.iter().map(|&(rank, _)| rank).min() else {
            return Err(self.not_found(text, self.accelerators().iter().map(|row| (row.name.clone(), row.title()))));
        };
        let rows: Vec<&Accelerator> = ranked.into_iter().filter(|&(rank, _)| rank == best).map(|(_, row)| row).collect();
        match rows.as_slice() {
            [row] => Ok(Choice { row, memory: memory(&asked, row) }),
            rows => {
                Err(FindError::Several { text: text.to_owned(), candidates: rows.iter().map(|row| written(row, asked.memory)).collect() })
            }
        }
    }

    /// The processor that a name stands for, as the system (`AMD Ryzen 9 7950X 16-Core Processor`) or people (`ryzen-9-7950x`, `7950x`)
    /// write it.
    ///
    /// # Errors
    /// No row, or several.
    pub fn processor(&self, text: &str) -> Result<&Processor, FindError> {
        match self.processors_named(text).as_slice() {
            [] => Err(self.not_found(text, self.processors().iter().map(|row| (row.name.clone(), row.name.clone())))),
            [row] => Ok(row),
            rows => Err(FindError::Several { text: text.to_owned(), candidates: rows.iter().map(|row| row.name.clone()).collect() }),
        }
    }

    /// The processor that a system's name stands for, where there is one: what [`Tables::processor`] finds, in microseconds.
    pub fn one_processor(&self, text: &str) -> Option<&Processor> {
        match self.processors_named(text).as_slice() {
            [row] => Some(row),
            _ => None,
        }
    }

    /// The server processors that a virtual machine may run on which names the family only (`AMD EPYC`, `Intel Xeon Processor (Icelake)`) or
    /// a model that is sold to one cloud: those with these words in their name and no extension that `features` lacks, and of them the ones
    /// with the most extensions. Empty where no word of the name is a family's.
    pub fn processor_family(&self, text: &str, features: &BTreeSet<String>) -> Vec<&Processor> {
        let mut words = names::processor(text);
        words.retain(|word| word.len() >= SHORTEST_FAMILY && word.bytes().all(|byte| byte.is_ascii_lowercase()));
        let Some(longest) = words.iter().max_by_key(|word| word.len()) else { return Vec::new() };
        let named = |names: &[Vec<String>]| names.iter().any(|name| words.iter().all(|word| name.contains(word)));
        let mut rows: Vec<&Processor> = self
            .processors_with(longest)
            .into_iter()
            .filter(|(row, names)| row.segment == Segment::Server && row.features.is_subset(features) && named(names))
            .map(|(row, _)| row)
            .collect();
        let most = rows.iter().map(|row| row.features.len()).max().unwrap_or(0);
        rows.retain(|row| row.features.len() == most);
        rows
    }

    /// The processors that a name may stand for.
    fn processors_named(&self, text: &str) -> Vec<&Processor> {
        let asked = names::processor(text);
        // Every word of the name stands in the row that is meant.
        let rarest = asked.iter().filter(|word| word.is_ascii()).max_by_key(|word| word.len());
        let rows = self.processors_with(rarest.map_or("", String::as_str));
        let that = |fits: &dyn Fn(&Vec<String>) -> bool| -> Vec<&Processor> {
            rows.iter().filter(|(_, names)| names.iter().any(fits)).map(|(row, _)| *row).collect()
        };
        let same = that(&|name| *name == asked);
        if same.is_empty() { that(&|name| misses_only(&asked, name, &PROCESSOR_SERIES)) } else { same }
    }

    /// The error with the titles of the rows whose names are nearest.
    fn not_found(&self, text: &str, names: impl Iterator<Item = (String, String)>) -> FindError {
        let asked = names::plain(text);
        let mut near: Vec<(f64, String)> = names
            .map(|(name, title)| (strsim::jaro_winkler(&asked, &names::plain(&name)), title))
            .filter(|&(likeness, _)| likeness > 0.75)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        near.dedup_by(|a, b| a.1 == b.1);
        FindError::NotFound { text: text.to_owned(), nearest: near.into_iter().take(3).map(|(_, name)| name).collect() }
    }
}

/// A row's title, with the size that was asked for where it is sold with several.
fn written(row: &Accelerator, memory: Option<Bytes>) -> String {
    match memory.filter(|memory| row.memory.len() > 1 && row.memory.contains(memory)) {
        Some(memory) => format!("{} {}GB", row.name, memory.as_gib()),
        None => row.title(),
    }
}

/// How far a row is from what was asked, 0 being the very same; `None` where it is another product.
fn rank(asked: &Name, names: &[Name], row: &Accelerator) -> Option<u32> {
    names.iter().filter_map(|name| rank_of(asked, name, row)).min()
}

fn rank_of(asked: &Name, name: &Name, row: &Accelerator) -> Option<u32> {
    let words = if asked.words == name.words {
        0
    } else if misses_only(&asked.words, &name.words, &SERIES) {
        1
    } else {
        return None;
    };
    let form = match (&asked.form, &name.form) {
        (None, None) => 0,
        (Some((a, a_number)), Some((b, b_number))) => {
            let numbers = a_number.is_none() || b_number.is_none() || a_number == b_number;
            u32::from(a_number != b_number) * u32::from(a == b && numbers) + if a == b && numbers { 0 } else { return None }
        }
        _ => 1,
    };
    let kind = match (&asked.memory_type, &name.memory_type) {
        (None, None) => 0,
        (Some(a), Some(b)) if a == b => 0,
        (None, Some(_)) => 2,
        (Some(a), None) if row.memory_type.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(a)) => 0,
        _ => return None,
    };
    let cores = match (asked.cores, name.cores) {
        (a, b) if a == b => 0,
        (None, Some(_)) => 1,
        _ => return None,
    };
    // A name may hold another size than the device's own (`GH200 480GB`), or the one that tells it from its namesakes.
    let memory = match (asked.memory, name.memory) {
        (None, None) => 0,
        (None, Some(_)) => 1,
        (Some(a), Some(b)) if a == b => 0,
        (Some(a), _) if row.memory.contains(&a) => 0,
        (Some(_), _) if row.memory.is_empty() => 0,
        _ => return None,
    };
    Some(words + form + kind + cores + memory)
}

/// True where all of `asked` is in `words` and what is missing is a series.
fn misses_only(asked: &[String], words: &[String], series: &[&str]) -> bool {
    // A lone short word (`3`, `i`) stands for nothing.
    if !asked.iter().any(|word| word.len() >= 3) {
        return false;
    }
    let mut left: Vec<&String> = words.iter().collect();
    for word in asked {
        let Some(at) = left.iter().position(|other| *other == word) else { return false };
        left.remove(at);
    }
    left.iter().all(|word| series.contains(&word.as_str()))
}

fn memory(asked: &Name, row: &Accelerator) -> Option<Bytes> {
    match (asked.memory, row.memory.as_slice()) {
        (_, [one]) => Some(*one),
        (asked, []) => asked,
        (asked, sizes) => asked.filter(|size| sizes.contains(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> String {
        let tables = Tables::built_in();
        match tables.accelerator(text) {
            Ok(choice) => format!("{} {}", choice.row.name, choice.memory.map_or("?".to_owned(), |memory| memory.to_string())),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_of_drivers_shops_and_people() {
        let asked = [
            "rtx4090",
            "4090",
            "NVIDIA GeForce RTX 4090",
            "RTX 4090 Laptop",
            "rtx-3060-12gb",
            "rtx3060",
            "a10",
            "A1000",
            "A10G",
            "a100",
            "NVIDIA A100-SXM4-80GB",
            "NVIDIA H100 80GB HBM3",
            "NVIDIA GH200 480GB",
            "h200",
            "b200",
            "7900xtx",
            "AMD Instinct MI300X",
            "mi250",
            "m3-max-40c-64gb",
            "m3-max-64gb",
            "m4-16gb",
            "m2-16gb",
            "m3 max 30c",
            "Apple M4 Max 12P+4E+40GPU",
            "jetson-agx-orin-64gb",
            "jetson-thor",
            "gb10",
            "dgx spark",
            "strix-halo 128GB",
            "RTX 4070",
            "rtx 4070 gddr6",
            "rtx 6000 ada",
            "L40S",
            "Arc B580",
            "rtx 4095",
            "banana",
            "",
        ];
        let told: Vec<String> = asked.iter().map(|text| format!("{text}: {}", name(text))).collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn a_pci_id_and_the_memory_that_the_driver_shows() {
        let tables = Tables::built_in();
        let names = |id, mib| tables.by_pci_id(id, Some(Bytes::from_mib(mib))).iter().map(|row| row.title()).collect::<Vec<_>>();
        assert_eq!(names("10DE:2684", 24564), ["GeForce RTX 4090 24 GiB"]);
        assert_eq!(names("10de:2717", 16376), ["GeForce RTX 4090 Laptop GPU 16 GiB"]);
        assert_eq!(names("1002:744c", 24560), ["Radeon RX 7900 XTX 24 GiB"]);
        assert_eq!(names("1002:744c", 20464), ["Radeon RX 7900 XT 20 GiB"]);
        assert_eq!(names("10de:2236", 23028), ["A10 24 GiB"]);
        assert_eq!(names("1002:73bf", 16368).len(), 3);
        assert!(names("dead:beef", 1).is_empty());
    }
    #[test]
    fn one_row_alone_is_the_row_of_the_whole_table() {
        let whole = Tables::built_in();
        assert!(whole.processors().len() > 700);
        for row in whole.processors().iter().step_by(61) {
            let tables = Tables::default();
            assert_eq!(tables.one_processor(&row.name), whole.processor(&row.name).ok(), "{}", row.name);
        }
        let tables = Tables::default();
        for name in ["AMD Ryzen 9 7950X 16-Core Processor", "Intel(R) Xeon(R) CPU E5-2690 0 @ 2.90GHz", "7950x", "AMD EPYC", "banana", ""] {
            assert_eq!(tables.one_processor(name), whole.processor(name).ok(), "{name}");
        }
        for (id, mib) in [("10DE:2684", 24564), ("1002:744c", 20464), ("1002:73bf", 16368), ("dead:beef", 1), ("", 1)] {
            let memory = Some(Bytes::from_mib(mib));
            assert_eq!(tables.by_pci_id(id, memory), Tables::built_in().by_pci_id(id, memory), "{id}");
        }
    }
    #[test]
    fn a_family_is_that_of_its_newest_extensions() {
        let tables = Tables::built_in();
        let features = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<String>>();
        let zen4 = features("avx avx2 f16c fma avx512f avx512_vnni avx512_bf16");
        let zen5 = features("avx avx2 f16c fma avx512f avx512_vnni avx512_bf16 avx_vnni sse4_2");
        let rates = |text: &str, features: &BTreeSet<String>| {
            let rows = tables.processor_family(text, features);
            rows.iter()
                .filter_map(|row| row.bandwidth)
                .map(|rate| format!("{rate}"))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            (rates("AMD EPYC", &zen5), rates("AMD EPYC 9R14", &zen4)),
            ("576.0 GB/s".to_owned(), "230.4 GB/s 460.8 GB/s".to_owned())
        );
        assert!(tables.processor_family("Intel Xeon Processor (Icelake)", &zen4).iter().all(|row| row.name.starts_with("Xeon")));
        for name in ["QEMU Virtual CPU version 2.5+", "Common KVM processor", "", "7950x"] {
            assert!(tables.processor_family(name, &zen5).is_empty(), "{name}");
        }
    }
}
