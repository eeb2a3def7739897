//! A machine drawn: its CPUs by node and kind, and how full its memories are.

use super::{BAD, CAUTION, DIM, GOOD, Text, styled};
use anstyle::Style;
use spec::{Bytes, Machine};
use std::collections::BTreeSet;

/// One glyph per kind of core, fastest first; the last for all further ones.
const KINDS: [char; 3] = ['█', '▓', '▒'];
/// A CPU that this process may not use.
const BARRED: char = '·';
/// CPUs in one row: more would be counted by nobody.
const PER_ROW: usize = 64;
/// CPUs of a group in a row, for the eye.
const GROUP: usize = 8;

/// The CPUs of each NUMA node, one glyph each, and what the glyphs mean. Nothing where the CPUs are not known.
pub fn cpus(machine: &Machine, text: &mut Text) {
    let nodes: Vec<_> = machine.facts.numa.iter().filter(|node| !node.cpus.is_empty()).collect();
    if nodes.is_empty() {
        return;
    }
    let names: Vec<String> = nodes.iter().map(|node| format!("node {}", node.id)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    // Blanks between groups take room too.
    let fitting = text.width().saturating_sub(width + 4) * GROUP / (GROUP + 1) / GROUP * GROUP;
    let per_row = fitting.clamp(GROUP, PER_ROW);
    for (node, name) in nodes.iter().zip(&names) {
        let glyphs: Vec<char> = node.cpus.iter().map(|cpu| glyph(machine, *cpu)).collect();
        for (row, chunk) in glyphs.chunks(per_row).enumerate() {
            let groups: Vec<String> = chunk.chunks(GROUP).map(|group| group.iter().collect()).collect();
            text.line(format_args!("  {:width$}  {}", if row == 0 { name.as_str() } else { "" }, groups.join(" ")));
        }
    }
    let entries = legend(machine);
    if entries.len() > 1 {
        text.line(format_args!("  {:width$}  {}", "", styled(DIM, entries.join("  "))));
    }
}

fn glyph(machine: &Machine, cpu: u32) -> char {
    if machine.limits.allowed_cpus.value().is_some_and(|allowed| !allowed.contains(&cpu)) {
        return BARRED;
    }
    let kind = machine.facts.cpu.core_kinds.iter().position(|kind| kind.cpus.contains(&cpu)).unwrap_or(0);
    KINDS.get(kind).or(KINDS.last()).copied().unwrap_or('█')
}

fn legend(machine: &Machine) -> Vec<String> {
    let shown: BTreeSet<u32> = machine.facts.numa.iter().flat_map(|node| node.cpus.iter().copied()).collect();
    let glyphs: BTreeSet<char> = shown.iter().map(|cpu| glyph(machine, *cpu)).collect();
    let kinds = machine.facts.cpu.core_kinds.iter().enumerate();
    let mut entries: Vec<String> = kinds
        .filter_map(|(index, kind)| {
            let drawn = *KINDS.get(index).or(KINDS.last())?;
            glyphs.contains(&drawn).then(|| format!("{drawn} {}", kind.name))
        })
        .collect();
    if glyphs.contains(&BARRED) {
        entries.push(format!("{BARRED} not for this process"));
    }
    entries
}

/// How full one memory is.
pub struct Fill {
    /// The memory.
    pub name: String,
    /// All of it.
    pub total: Bytes,
    /// What is free of it.
    pub free: Bytes,
    /// What this process may take of that, where a limit is tighter.
    pub usable: Option<Bytes>,
}

/// A bar per memory: what is taken, what a limit keeps away, what can be used.
pub fn fills(fills: &[Fill], text: &mut Text) {
    const ROOM: usize = 32;
    let width = fills.iter().map(|fill| fill.name.chars().count()).max().unwrap_or(0);
    let mut limited = false;
    for fill in fills {
        let free = fill.free.min(fill.total);
        let usable = fill.usable.unwrap_or(free).min(free);
        let cells = |bytes: Bytes| (bytes.as_f64() / fill.total.as_f64().max(1.0) * ROOM as f64).round() as usize;
        let usable_cells = cells(usable).min(ROOM);
        let kept_cells = cells(free).min(ROOM).saturating_sub(usable_cells);
        let taken = ROOM - usable_cells - kept_cells;
        limited |= kept_cells > 0;
        let style = match usable.as_f64() / fill.total.as_f64().max(1.0) {
            share if share < 0.1 => BAD,
            share if share < 0.25 => CAUTION,
            _ => GOOD,
        };
        let bar = format!("{}{}{}", "█".repeat(taken), styled(DIM, "▒".repeat(kept_cells)), "░".repeat(usable_cells));
        let name = format!("{:width$}", fill.name);
        text.line(format_args!(
            "  {name}  {bar}  {} of {} usable",
            styled(Style::new().bold().fg_color(style.get_fg_color()), usable),
            fill.total
        ));
    }
    if !fills.is_empty() {
        let kept = if limited { "  ▒ kept away by a limit" } else { "" };
        text.line(format_args!("  {:width$}  {}", "", styled(DIM, format_args!("█ taken{kept}  ░ usable"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadmaster::probe::describe;
    use spec::Known;
    use spec::machine::{CoreKind, NumaNode};

    fn shown(machine: &Machine) -> String {
        let mut text = Text::new(60, false);
        cpus(machine, &mut text);
        anstream::adapter::strip_str(&text.finish()).to_string()
    }

    #[test]
    fn kinds_nodes_and_barred_cpus() {
        let mut machine = describe("ram=64GiB,cores=12,threads=20").unwrap();
        machine.facts.cpu.core_kinds = vec![
            CoreKind { name: "performance".into(), cpus: (0..16).collect(), physical_cores: 8 },
            CoreKind { name: "efficiency".into(), cpus: (16..20).collect(), physical_cores: 4 },
        ];
        machine.limits.allowed_cpus = Known::exact((2..20).collect(), "test");
        insta::assert_snapshot!(shown(&machine), @"
          node 0  ··██████ ████████ ▓▓▓▓
                  █ performance  ▓ efficiency  · not for this process
        ");
        let node = |id: u32| NumaNode {
            id,
            cpus: (id * 48..(id + 1) * 48).collect(),
            memory: Known::unknown("test"),
            distances: Vec::new(),
            of_gpu: false,
        };
        let mut large = describe("ram=64GiB,cores=96").unwrap();
        large.facts.numa = vec![node(0), node(1)];
        insta::assert_snapshot!(shown(&large), @"
          node 0  ████████ ████████ ████████ ████████ ████████
                  ████████
          node 1  ████████ ████████ ████████ ████████ ████████
                  ████████
        ");
        assert_eq!(shown(&describe("ram=8GiB").unwrap()), "");
    }

    #[test]
    fn a_limit_keeps_memory_away() {
        let mut text = Text::new(80, false);
        let gib = Bytes::from_gib;
        let host = Fill { name: "host".into(), total: gib(64), free: gib(48), usable: Some(gib(4)) };
        let gpu = Fill { name: "GPU 0".into(), total: gib(24), free: gib(24), usable: None };
        fills(&[host, gpu], &mut text);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text.finish()).to_string(), @"
          host   ████████▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒░░  4.00 GiB of 64.00 GiB usable
          GPU 0  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  24.00 GiB of 24.00 GiB usable
                 █ taken  ▒ kept away by a limit  ░ usable
        ");
    }
}
