//! The machines that profiles are made for: rows of `data/archetypes.csv`.

use probe::DescribeMachineError;
use spec::machine::MemoryLimit;
use spec::words;
use spec::{Bytes, Known, Machine};
use std::sync::OnceLock;

const TABLE: &str = include_str!("../../data/archetypes.csv");

words! {
    /// A platform family; each has a quick-start page.
    Family {
        /// Macs with M1 and later.
        AppleSilicon = "apple-silicon",
        /// GeForce and RTX cards in desktops and workstations.
        NvidiaDesktop = "nvidia-desktop",
        /// GeForce GPUs of laptops.
        NvidiaLaptop = "nvidia-laptop",
        /// Cards of data centres.
        NvidiaDatacentre = "nvidia-datacentre",
        /// Jetson modules and GB10: GPU and processor share the memory.
        Jetson = "jetson",
        /// Radeon, Instinct, and processors whose graphics compute: Strix Halo, Radeon 780M.
        Amd = "amd",
        /// Arc cards and graphics.
        Intel = "intel",
        /// No GPU that computes.
        CpuOnly = "cpu-only",
        /// A part of a machine: so many CPUs and so much memory.
        Containers = "containers",
    }
}

/// What a container may use of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerLimits {
    /// CPUs worth of time.
    pub cpus: u32,
    /// Memory.
    pub memory: Bytes,
}

/// A machine that stands for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archetype {
    /// Key: `rtx-3060-12gb`.
    pub id: String,
    /// Its platform family.
    pub family: Family,
    /// The machine as [`probe::describe()`] reads it.
    pub description: String,
    /// What a container may use of it.
    pub limits: Option<ContainerLimits>,
}

/// A row that is no archetype.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("archetypes.csv, row {row}: {problem}")]
pub struct ArchetypeError {
    /// Row, from 1.
    pub row: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl Archetype {
    /// The machine, with the limits of its container.
    ///
    /// # Errors
    /// The description names nothing in the tables; never for [`archetypes`], which a test holds.
    pub fn machine(&self) -> Result<Machine, DescribeMachineError> {
        let mut machine = probe::describe(&self.description)?;
        machine.origin = self.id.clone();
        if let Some(limits) = self.limits {
            machine.limits.cpu_quota = Known::exact(f64::from(limits.cpus), "cpu.max");
            machine.limits.memory = vec![MemoryLimit {
                source: "memory.max".to_owned(),
                limit: limits.memory,
                used: Known::exact(Bytes::ZERO, "an empty container"),
                reclaimable: Known::exact(Bytes::ZERO, "an empty container"),
                swap: Known::unknown("nothing limits it"),
                mapped_files: true,
            }];
        }
        Ok(machine)
    }

    /// What people call it: its GPUs, or its processor, and the memory that goes with them.
    pub fn title(&self) -> String {
        let Ok(machine) = self.machine() else { return self.id.clone() };
        let memory = machine.effective_memory_total().get().unwrap_or(Bytes::ZERO);
        let gpus = super::traits::titles(&machine);
        let gpus = match (gpus.first(), gpus.len()) {
            (Some(one), 1) => Some(one.clone()),
            (Some(one), several) => Some(format!("{several} x {one}")),
            (None, _) => None,
        };
        let processor = || machine.facts.cpu.model.value().cloned().unwrap_or_default();
        match (self.limits, gpus) {
            (Some(limits), None) => format!("{}, {memory}", cpus(limits)),
            (Some(limits), Some(gpus)) => format!("{}, {memory}, {gpus}", cpus(limits)),
            (None, Some(gpus)) => gpus,
            (None, None) => format!("{}, {memory}", processor()),
        }
    }
}

fn cpus(limits: ContainerLimits) -> String {
    if limits.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", limits.cpus) }
}

/// Every archetype, in the order of the table.
pub fn archetypes() -> &'static [Archetype] {
    static ROWS: OnceLock<Vec<Archetype>> = OnceLock::new();
    ROWS.get_or_init(|| read(TABLE).into_iter().filter_map(Result::ok).collect())
}

/// The archetype of this id.
pub fn archetype(id: &str) -> Option<&'static Archetype> {
    archetypes().iter().find(|row| row.id.eq_ignore_ascii_case(id.trim()))
}

/// The ids nearest to a text, at most three.
pub fn nearest(text: &str) -> Vec<&'static str> {
    let text = text.trim().to_ascii_lowercase();
    let mut near: Vec<(f64, &str)> = archetypes()
        .iter()
        .map(|row| (if row.id.contains(&text) { 1.0 } else { strsim::jaro_winkler(&text, &row.id) }, row.id.as_str()))
        .filter(|&(likeness, _)| likeness > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(3).map(|(_, id)| id).collect()
}

fn read(text: &str) -> Vec<Result<Archetype, ArchetypeError>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.records().enumerate().map(|(index, record)| {
        let wrong = |problem: String| ArchetypeError { row: index + 1, problem };
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let cell = |column: usize| record.get(column).map(str::trim).filter(|cell| !cell.is_empty());
        let (Some(id), Some(family), Some(description)) = (cell(0), cell(1), cell(2)) else {
            return Err(wrong("id, family or machine is missing".to_owned()));
        };
        let limits = cell(3).map(limits).transpose().map_err(wrong)?;
        Ok(Archetype { id: id.to_owned(), family: family.parse().map_err(wrong)?, description: description.to_owned(), limits })
    });
    rows.collect()
}

/// `4cpus 16GiB`.
fn limits(text: &str) -> Result<ContainerLimits, String> {
    let wrong = || format!("limits are written like 4cpus 16GiB, not {text:?}");
    let (cpus, memory) = text.split_once(' ').ok_or_else(wrong)?;
    let cpus = cpus.strip_suffix("cpus").and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    Ok(ContainerLimits { cpus, memory: memory.parse().map_err(|_| wrong())? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_is_a_machine_and_appears_once() {
        let rows: Vec<Archetype> = read(TABLE).into_iter().map(Result::unwrap).collect();
        let mut ids = BTreeSet::new();
        for row in &rows {
            let machine = row.machine().unwrap_or_else(|error| panic!("{}: {error}", row.id));
            assert!(machine.warnings.is_empty(), "{}: {:?}", row.id, machine.warnings);
            assert!(machine.effective_memory_total().get().is_some() && !machine.facts.cpu.memory_bandwidth.is_unknown(), "{}", row.id);
            assert!(ids.insert(row.id.clone()), "{} appears twice", row.id);
        }
        let families: BTreeSet<Family> = rows.iter().map(|row| row.family).collect();
        assert_eq!(families, Family::ALL.iter().copied().collect());
    }

    #[test]
    fn a_container_has_its_limits_and_not_its_machine() {
        let machine = archetype("container-4-cpu-16gb").unwrap().machine().unwrap();
        assert_eq!((machine.effective_cores(), machine.effective_memory_total().get()), (4, Some(Bytes::from_gib(16))));
    }

    #[test]
    fn a_malformed_row_names_itself() {
        let told = |row: &str| read(&format!("id,family,machine,limits\n{row}\n"))[0].clone().unwrap_err().to_string();
        insta::assert_snapshot!(told("a,b,c,"), @r#"archetypes.csv, row 1: "b" is not one of apple-silicon, nvidia-desktop, nvidia-laptop, nvidia-datacentre, jetson, amd, intel, cpu-only, containers"#);
        insta::assert_snapshot!(told("a,amd,,"), @"archetypes.csv, row 1: id, family or machine is missing");
        insta::assert_snapshot!(told("a,amd,b,4GiB"), @r#"archetypes.csv, row 1: limits are written like 4cpus 16GiB, not "4GiB""#);
        assert_eq!(nearest("rtx-4090")[0], "rtx-4090-24gb");
    }
}
