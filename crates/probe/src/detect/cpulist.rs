//! Sets of CPUs in the kernel's two notations: lists (`0-3,8`) and masks (`ff,00000000`).

use std::collections::BTreeSet;

/// The most CPUs that a kernel can be built for (x86 and POWER, Linux 6.12); a larger number is a broken file.
pub(crate) const MAX_CPU: u32 = 1 << 13;

/// The CPUs of a list such as `0-3,8,10-20:2/4`; `None` where it is none. An empty text is the empty set.
pub(crate) fn parse(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.trim_matches(|c: char| c.is_whitespace() || c == '\0').split(',').filter(|part| !part.is_empty()) {
        let (range, stride) = part.split_once(':').map_or((part, None), |(range, stride)| (range, Some(stride)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CPU {
            return None;
        }
        // `10-20:2/4` is the first two of each four (Documentation/admin-guide/kernel-parameters.rst, "cpu lists").
        let (used, group) = match stride {
            None => (1, 1),
            Some(stride) => {
                let (used, group) = stride.split_once('/')?;
                (used.parse::<u32>().ok()?, group.parse::<u32>().ok().filter(|&group| group > 0)?)
            }
        };
        cpus.extend((first..=last).filter(|cpu| (cpu - first) % group < used));
    }
    Some(cpus)
}

/// The CPUs of a mask: hexadecimal words, the highest first, separated by commas; each later word has the width that its
/// digits show, 8 on all kernels of today.
pub(crate) fn parse_mask(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    let mut base = 0u32;
    for word in text.trim_matches(|c: char| c.is_whitespace() || c == '\0').rsplit(',') {
        let word = word.trim();
        let digits = u32::try_from(word.len()).ok().filter(|&digits| digits > 0)?;
        for (place, digit) in word.chars().rev().enumerate() {
            let digit = digit.to_digit(16)?;
            let first = base.checked_add(u32::try_from(place).ok()?.checked_mul(4)?)?;
            if first >= MAX_CPU {
                return None;
            }
            cpus.extend((0..4).filter(|bit| digit >> bit & 1 == 1).map(|bit| first + bit));
        }
        base = base.checked_add(digits.checked_mul(4)?)?;
    }
    Some(cpus)
}

/// The list notation of a set.
pub(crate) fn format(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let parts: Vec<String> =
        ranges.iter().map(|&(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") }).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(cpus: &[u32]) -> Option<BTreeSet<u32>> {
        Some(cpus.iter().copied().collect())
    }

    #[test]
    fn lists() {
        assert_eq!(parse("0-3,8\n"), set(&[0, 1, 2, 3, 8]));
        assert_eq!(parse(""), set(&[]));
        assert_eq!(parse("\n\0\0"), set(&[]));
        assert_eq!(parse("0-7:2/4"), set(&[0, 1, 4, 5]));
        for broken in ["x", "3-1", "0-", "-1", "0-4294967295", "1-2:0/0", "1-2:2"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn masks() {
        assert_eq!(parse_mask("f"), set(&[0, 1, 2, 3]));
        assert_eq!(parse_mask("1,00000000\n"), set(&[32]));
        assert_eq!(parse_mask("00000000,00000103"), set(&[0, 1, 8]));
        assert_eq!(parse_mask(""), None);
        assert_eq!(parse_mask("0x3"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_set_or_none(text in ".{0,40}") {
            let _ = parse(&text);
            let _ = parse_mask(&text);
        }

        #[test]
        fn what_is_formatted_parses_back(cpus in prop::collection::btree_set(0u32..5000, 0..60)) {
            prop_assert_eq!(parse(&format(&cpus)), Some(cpus));
        }
    }
}
