//! A set of processors that threads are held to, as llama.cpp spells it: a hexadecimal mask, or ranges of numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Logical CPUs that threads may run on (`--cpu-mask`, `--cpu-range`); an empty one holds them to nothing.
///
/// Reads hexadecimal digits, with or without `0x`, the last of which is CPUs 0 to 3; or ranges with commas between them (`0-7,16-19`),
/// where what is left out of a range is its first or last possible CPU. Writes hexadecimal digits.
///
/// ```
/// use spec::settings::CpuMask;
/// let mask: CpuMask = "0-5,8-8".parse().unwrap();
/// assert_eq!((mask.to_string(), mask.ranges()), ("0x13f".to_owned(), "0-5,8".to_owned()));
/// assert_eq!("13F".parse(), Ok(mask));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuMask(BTreeSet<u32>);

impl CpuMask {
    /// The engine has room for this many CPUs (`GGML_MAX_N_THREADS`, `ggml/include/ggml.h:225`).
    pub const CPUS: u32 = 512;

    /// True where threads are held to nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CPUs.
    pub fn cpus(&self) -> &BTreeSet<u32> {
        &self.0
    }

    /// The CPUs in words for people: `0-7,16`.
    pub fn ranges(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &cpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        let text = |&(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        ranges.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

impl FromIterator<u32> for CpuMask {
    /// Of these CPUs; numbers that the engine has no room for are left out.
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().filter(|&cpu| cpu < Self::CPUS).collect())
    }
}

impl fmt::Display for CpuMask {
    /// Hexadecimal digits behind `0x`; `none` for an empty one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(&last) = self.0.last() else { return f.pad("none") };
        let digit = |place: u32| (0..4).filter(|bit| self.0.contains(&(place * 4 + bit))).map(|bit| 1 << bit).sum::<u32>();
        let digits: String = (0..=last / 4).rev().filter_map(|place| char::from_digit(digit(place), 16)).collect();
        f.pad(&format!("0x{digits}"))
    }
}

impl FromStr for CpuMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        if text.contains(['-', ',']) {
            let ranges: Result<Vec<BTreeSet<u32>>, String> = text.split(',').map(|range| parse_range(text, range)).collect();
            return Ok(Self(ranges?.into_iter().flatten().collect()));
        }
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let wrong = || format!("{text:?} is neither a hexadecimal mask of CPUs nor ranges of them such as 0-7");
        let digits: Vec<u32> = digits.chars().rev().map(|digit| digit.to_digit(16)).collect::<Option<_>>().ok_or_else(wrong)?;
        if digits.is_empty() {
            return Err(wrong());
        }
        let set = (0_u32..).zip(digits).flat_map(|(place, digit)| {
            (0..4).filter(move |bit| digit >> bit & 1 == 1).map(move |bit| place.saturating_mul(4).saturating_add(bit))
        });
        let set: BTreeSet<u32> = set.collect();
        match set.last() {
            Some(&last) if last >= Self::CPUS => Err(too_high(text)),
            _ => Ok(Self(set)),
        }
    }
}

fn too_high(text: &str) -> String {
    let most = CpuMask::CPUS - 1;
    format!("{text:?} names a CPU above {most}, the last that the engine has room for")
}

/// One range, of which an end that is left out is the first or the last CPU there can be (`common/common.cpp:315-350`).
fn parse_range(text: &str, range: &str) -> Result<BTreeSet<u32>, String> {
    let wrong = || format!("{range:?} is no range of CPUs such as 0-7");
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let end = |end: &str, open: u32| if end.is_empty() { Ok(open) } else { end.parse::<u32>().map_err(|_| wrong()) };
    if first.is_empty() && last.is_empty() {
        return Err(wrong());
    }
    let (first, last) = (end(first, 0)?, end(last, CpuMask::CPUS - 1)?);
    match first.max(last) {
        CpuMask::CPUS.. => Err(too_high(text)),
        _ if first > last => Err(wrong()),
        _ => Ok((first..=last).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_as_the_engine_reads_them_and_written_back() {
        let read = |text: &str| text.parse::<CpuMask>().map(|mask| (mask.ranges(), mask.to_string()));
        for (text, ranges, hex) in [
            ("ff", "0-7", "0xff"),
            ("0xF0", "4-7", "0xf0"),
            ("10", "4", "0x10"),
            ("0-7", "0-7", "0xff"),
            ("0-1,6-7", "0-1,6-7", "0xc3"),
            ("-3", "0-3", "0xf"),
            ("510-", "510-511", &format!("0xc{}", "0".repeat(127))),
            ("0000", "", "none"),
            ("none", "", "none"),
        ] {
            assert_eq!(read(text), Ok((ranges.to_owned(), hex.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_no_mask_is_told_with_what_one_looks_like() {
        let error = |text: &str| text.parse::<CpuMask>().unwrap_err();
        for text in ["", "0x", "xyz", "-", "7-0", "1,", "a-b", "0-512", &format!("1{}", "0".repeat(128)), "4294967296-"] {
            assert!(error(text).contains("CPU"), "{text:?}");
        }
        assert_eq!(error("7-0"), "\"7-0\" is no range of CPUs such as 0-7");
        assert_eq!(error("0-600"), "\"0-600\" names a CPU above 511, the last that the engine has room for");
    }

    #[test]
    fn cpus_without_room_are_left_out() {
        assert_eq!([3, 511, 512].into_iter().collect::<CpuMask>().ranges(), "3,511");
    }
}
