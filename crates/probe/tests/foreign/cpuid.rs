//! Registers of CPUID: hwloc's files `pu0`, `pu1`, ... in an archive, and the texts that libcpuid collects from its own tool and
//! from those of others.

use super::Tree;
use super::archive::Entry;

/// Adds the registers in the files `puN`: lines `MASK EAX EBX ECX EDX => EAX EBX ECX EDX`, where the mask says which of the
/// registers on entry count.
pub fn add_files(tree: &mut Tree, entries: &[Entry]) {
    for entry in entries {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        let Some(cpu) = name.strip_prefix("pu").and_then(|number| number.parse().ok()) else { continue };
        for line in entry.text().unwrap_or_default().lines() {
            let Some((entry, exit)) = line.split_once("=>") else { continue };
            if let (Some(entry), Some(exit)) = (numbers::<5>(entry.split_whitespace()), numbers(exit.split_whitespace())) {
                tree.cpuid.insert((cpu, entry[1], entry[3]), exit);
            }
        }
    }
}

/// The machine in a text; no registers where it holds none.
pub fn from_text(text: &str) -> Tree {
    let mut tree = Tree::default();
    let mut next = 0_u32;
    let mut cpu = 0_u32;
    for line in text.lines() {
        let line = line.trim();
        if line.contains("Logical CPU #") || line.contains("CPUID Registers (CPU #") || line.starts_with("CPU#") {
            // Some tools count from 0, some from 1: the order counts.
            (cpu, next) = (next, next.saturating_add(1));
        } else if let Some((leaf, subleaf, registers)) = registers(line) {
            // Older tools do not number the subleaves and write them in order.
            let subleaf = subleaf.unwrap_or_else(|| (0..64).find(|subleaf| !tree.cpuid.contains_key(&(cpu, leaf, *subleaf))).unwrap_or(64));
            tree.cpuid.insert((cpu, leaf, subleaf), registers);
        }
    }
    name_system(&mut tree);
    tree
}

/// `CPUID 00000004: 1C004121-01C0003F-0000003F-00000000 [SL 00]`, or `basic_cpuid[4]=1c004121 01c0003f 0000003f 00000000`.
fn registers(line: &str) -> Option<(u32, Option<u32>, [u32; 4])> {
    if let Some(rest) = line.strip_prefix("CPUID ") {
        let (leaf, rest) = rest.split_at_checked(8)?;
        let values = rest.trim_start_matches(|c: char| c == ':' || c.is_whitespace());
        let registers = numbers(values.split_whitespace().next()?.split('-'))?;
        let subleaf = rest.split_once("[SL ").and_then(|(_, rest)| u32::from_str_radix(rest.split(']').next()?, 16).ok());
        return Some((u32::from_str_radix(leaf, 16).ok()?, subleaf, registers));
    }
    let (name, values) = line.split_once("]=")?;
    let (name, index) = name.split_once('[')?;
    let index: u32 = index.parse().ok()?;
    let (leaf, subleaf) = match name {
        "basic_cpuid" => (index, 0),
        "ext_cpuid" => (0x8000_0000_u32.checked_add(index)?, 0),
        "intel_fn4" => (4, index),
        "intel_fn11" => (0xb, index),
        "amd_fn8000001dh" => (0x8000_001d, index),
        _ => return None,
    };
    Some((leaf, Some(subleaf), numbers(values.split_whitespace())?))
}

fn numbers<'a, const N: usize>(mut words: impl Iterator<Item = &'a str>) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = u32::from_str_radix(words.next()?, 16).ok()?;
    }
    words.next().is_none().then_some(numbers)
}

/// Names the CPUs of a dump. Registers do not say what system ran.
pub fn name_system(tree: &mut Tree) {
    let wide = tree.cpuid.iter().any(|((_, leaf, _), registers)| *leaf == 0x8000_0001 && registers[3] >> 29 & 1 == 1);
    tree.os = "linux".into();
    let cpus: std::collections::BTreeSet<u32> = tree.cpuid.keys().map(|(cpu, ..)| *cpu).collect();
    // Tools that go from CPU to CPU write all of them; one CPU alone is no sign that there are no more.
    if cpus.len() > 1 {
        let list = cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        tree.files.insert("/sys/devices/system/cpu/online".into(), list.into_bytes());
    }
    tree.arch = if wide { "x86_64" } else { "x86" }.into();
    tree.notes.push("the capture has the registers of CPUID and nothing of its system; taken as Linux".into());
}
