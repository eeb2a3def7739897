//! How Windows's processors form cores, caches, nodes and packages: from the bytes of `GetLogicalProcessorInformationEx` to the text
//! of an answer, and from that to sets of CPUs.
//!
//! Layout: `SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX` and its parts, `winnt.h` of the Windows SDK, 64 bits. Windows numbers CPUs within
//! groups of at most 64; here they are counted through, group after group.

use std::collections::{BTreeMap, BTreeSet};

/// CPUs by their masks within groups.
type Masks = Vec<(u16, u64)>;
/// CPUs counted through.
pub(crate) type Cpus = BTreeSet<u32>;

/// A core, and how fast it is: a higher class is faster and less efficient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) cpus: Cpus,
    pub(crate) class: u32,
}

/// A cache and who shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheOf {
    pub(crate) level: u8,
    pub(crate) kind: String,
    pub(crate) bytes: u64,
    pub(crate) cpus: Cpus,
}

/// The processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relations {
    /// Number, first CPU counted through, CPUs, per group.
    pub(crate) groups: BTreeMap<u16, (u32, Cpus)>,
    pub(crate) cores: Vec<Core>,
    pub(crate) caches: Vec<CacheOf>,
    pub(crate) nodes: BTreeMap<u32, Cpus>,
    pub(crate) packages: Vec<Cpus>,
    pub(crate) dies: Vec<Cpus>,
}

impl Relations {
    /// All CPUs of the machine.
    pub(crate) fn cpus(&self) -> Cpus {
        self.cores.iter().flat_map(|core| core.cpus.iter().copied()).collect()
    }

    /// The CPUs of a mask within a group.
    pub(crate) fn in_group(&self, group: u16, mask: u64) -> Cpus {
        let first = self.groups.get(&group).map_or(u32::from(group) * 64, |(first, _)| *first);
        (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| first + bit).collect()
    }

    fn all(&self, masks: &Masks) -> Cpus {
        masks.iter().flat_map(|(group, mask)| self.in_group(*group, *mask)).collect()
    }
}

/// The lines of [`encode`] as sets. A line of another form is left out.
pub(crate) fn parse(text: &str) -> Relations {
    let mut found = Relations::default();
    let mut first = 0u32;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["group", number, most, mask] = words.as_slice()
            && let (Ok(number), Ok(most), Ok(mask)) = (number.parse::<u16>(), most.parse::<u32>(), u64::from_str_radix(mask, 16))
            && number < 1024
        {
            found.groups.insert(number, (first, BTreeSet::new()));
            let cpus = found.in_group(number, mask);
            found.groups.insert(number, (first, cpus));
            first = first.saturating_add(most.min(64));
        }
    }
    for line in text.lines() {
        parse_line(line, &mut found);
    }
    found
}

fn parse_line(line: &str, found: &mut Relations) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some(cpus) = words.last().and_then(|word| masks(word)).map(|masks| found.all(&masks)).filter(|cpus| !cpus.is_empty()) else {
        return;
    };
    match words.as_slice() {
        ["core", class, _] => {
            if let Ok(class) = class.parse() {
                found.cores.push(Core { cpus, class });
            }
        }
        ["cache", level, kind, bytes, _] => {
            if let (Ok(level), Ok(bytes)) = (level.parse(), bytes.parse()) {
                found.caches.push(CacheOf { level, kind: (*kind).to_owned(), bytes, cpus });
            }
        }
        ["node", number, _] => {
            if let Ok(number) = number.parse() {
                found.nodes.entry(number).or_default().extend(cpus);
            }
        }
        ["package", _] => found.packages.push(cpus),
        ["die", _] => found.dies.push(cpus),
        _ => {}
    }
}

/// `0:ff,1:3`: masks within groups.
fn masks(word: &str) -> Option<Masks> {
    let one = |part: &str| {
        let (group, mask) = part.split_once(':')?;
        Some((group.parse().ok().filter(|group| *group < 1024)?, u64::from_str_radix(mask, 16).ok()?))
    };
    word.split(',').map(one).collect()
}

/// The text of an answer: one line per group, core, cache, node, package and die, ending in masks within groups. `None` where a
/// length does not fit.
#[cfg(any(test, windows))]
pub(crate) fn encode(bytes: &[u8]) -> Option<String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = usize::try_from(number(rest, 4, 4)?).ok().filter(|length| *length >= 8)?;
        let (record, after) = rest.split_at_checked(length)?;
        rest = after;
        lines.extend(record_lines(record)?);
    }
    Some(lines.join("\n"))
}

/// `length` bytes from `at`, least significant first.
#[cfg(any(test, windows))]
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(length)?)?;
    Some(part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(any(test, windows))]
fn record_lines(record: &[u8]) -> Option<Vec<String>> {
    const CACHE_KINDS: [&str; 4] = ["unified", "instruction", "data", "trace"];
    let field = |at, length| number(record, at, length);
    Some(match field(0, 4)? {
        0 => vec![format!("core {} {}", field(9, 1)?, group_masks(record, 32, field(30, 2)?)?)],
        // RelationNumaNode, and RelationNumaNodeEx with all groups of a node.
        1 | 6 => vec![format!("node {} {}", field(8, 4)?, group_masks(record, 32, field(30, 2)?)?)],
        2 => {
            let kind = usize::try_from(field(16, 4)?).ok().and_then(|kind| CACHE_KINDS.get(kind))?;
            vec![format!("cache {} {kind} {} {}", field(8, 1)?, field(12, 4)?, group_masks(record, 40, field(38, 2)?)?)]
        }
        3 => vec![format!("package {}", group_masks(record, 32, field(30, 2)?)?)],
        4 => {
            let groups = usize::try_from(field(10, 2)?).ok()?;
            let line = |group: usize| {
                let at = 32 + group * 48;
                Some(format!("group {group} {} {:x}", field(at, 1)?, field(at + 40, 8)?))
            };
            (0..groups).map(line).collect::<Option<_>>()?
        }
        5 => vec![format!("die {}", group_masks(record, 32, field(30, 2)?)?)],
        // Modules and what later versions know.
        _ => Vec::new(),
    })
}

/// Versions before Windows Server 2022 leave the count of caches and nodes zero and write one mask.
#[cfg(any(test, windows))]
fn group_masks(record: &[u8], at: usize, count: u64) -> Option<String> {
    let one = |index: usize| {
        let at = at + index * 16;
        Some(format!("{}:{:x}", number(record, at + 8, 2)?, number(record, at, 8)?))
    };
    let count = usize::try_from(count).ok()?.max(1);
    (0..count).map(one).collect::<Option<Vec<_>>>().map(|masks| masks.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn affinity(group: u16, mask: u64) -> Vec<u8> {
        [&mask.to_le_bytes()[..], &group.to_le_bytes(), &[0; 6]].concat()
    }

    fn record(relation: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap();
        [&relation.to_le_bytes()[..], &length.to_le_bytes(), body].concat()
    }

    #[test]
    fn bytes_of_windows() {
        let core = |class: u8, mask: u64| record(0, &[&[1, class][..], &[0; 20], &1u16.to_le_bytes(), &affinity(0, mask)].concat());
        let cache = |level: u8, kind: u32, bytes: u32, count: u16, group: u16, mask: u64| {
            let head =
                [&[level, 8][..], &64u16.to_le_bytes(), &bytes.to_le_bytes(), &kind.to_le_bytes(), &[0; 18], &count.to_le_bytes()].concat();
            record(2, &[head, affinity(group, mask)].concat())
        };
        let package = record(3, &[&[0; 22][..], &2u16.to_le_bytes(), &affinity(0, 0xff), &affinity(1, 3)].concat());
        let node = record(1, &[&7u32.to_le_bytes()[..], &[0; 18], &0u16.to_le_bytes(), &affinity(1, 3)].concat());
        let group = |most: u8, mask: u64| [&[most, most][..], &[0; 38], &mask.to_le_bytes()].concat();
        let groups = record(4, &[&2u16.to_le_bytes()[..], &2u16.to_le_bytes(), &[0; 20], &group(8, 0xff), &group(2, 3)].concat());
        let bytes = [
            core(1, 3),
            core(0, 4),
            cache(1, 2, 49152, 1, 0, 3),
            cache(3, 0, 1 << 20, 0, 1, 3),
            package,
            node,
            groups,
            record(7, &[0; 40]),
        ];
        let text = encode(&bytes.concat()).unwrap();
        insta::assert_snapshot!(text, @r"
        core 1 0:3
        core 0 0:4
        cache 1 data 49152 0:3
        cache 3 unified 1048576 1:3
        package 0:ff,1:3
        node 7 1:3
        group 0 8 ff
        group 1 2 3
        ");
        let found = parse(&text);
        assert_eq!(found.packages, [(0..10).collect::<Cpus>()]);
        assert_eq!((found.nodes[&7].clone(), found.caches[1].cpus.clone()), ([8, 9].into(), [8, 9].into()));
        assert_eq!(found.cores[0], Core { cpus: [0, 1].into(), class: 1 });
        assert_eq!(encode(&core(0, 1)[..20]), None);
        assert_eq!(encode(&[0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_and_any_text_are_read(
            bytes in prop::collection::vec(any::<u8>(), 0..200), relation in 0u32..8, text in "((core|cache|node|group|die) [0-9a-f:, ]{0,20}\n){0,5}",
        ) {
            let _ = (encode(&bytes), encode(&record(relation, &bytes)), parse(&text));
        }
    }
}
