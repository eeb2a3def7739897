//! What the tables say of hardware whose driver leaves it open, and where the two differ.
//!
//! The driver's own figure always stands. A GPU is found in the tables by its PCI id and memory, an Apple one by its chip and number of
//! GPU cores; never by a part of a name.

use hardware::{Accelerator, Build, Tables, figures};
use spec::machine::{Cpu, Gpu, GpuVendor, Machine, MemoryModule};
use spec::units::BytesPerSec;
use spec::{Known, Source};

/// A driver's bandwidth that is further than this from the table's is worth a look: an overclocked card, a wrong row, a wrong reading.
const DIFFERS: f64 = 0.05;

/// Words for [`spec::machine::Platform::inside`] behind which the processor's memory is not this system's alone.
const VIRTUAL: [&str; 9] = ["kvm", "qemu", "vmware", "xen", "hyperv", "hyper-v", "virtualbox", "parallels", "vm"];

/// Fills in what the machine's own sources left open, and warns where they and the tables differ.
pub(crate) fn complete(machine: &mut Machine) {
    let tables = Tables::built_in();
    let mut shared_memory = None;
    for (index, gpu) in machine.facts.gpus.iter_mut().enumerate() {
        let rows = rows(tables, gpu);
        if rows.is_empty() || gpu.slice.is_some() {
            continue;
        }
        if let Some(warning) = difference(index, gpu, &rows) {
            machine.warnings.push(warning);
        }
        if let Some(left) = without_check_bits(gpu, &rows) {
            gpu.memory_bandwidth = left;
        }
        fill(gpu, &rows);
        if gpu.unified_memory && rows.iter().all(|row| row.processor.is_some()) {
            shared_memory = Some(gpu.memory_bandwidth.clone());
        }
    }
    if machine.facts.cpu.memory_bandwidth.is_unknown() {
        let virtual_machine = machine.facts.platform.inside.iter().any(|word| VIRTUAL.contains(&word.to_ascii_lowercase().as_str()));
        let cpu = &machine.facts.cpu;
        let of_processor = || {
            let known =
                if virtual_machine { in_a_guest(tables, cpu) } else { processor_memory(tables, cpu, &machine.facts.memory.modules) };
            known.unwrap_or_else(|| cpu.memory_bandwidth.clone())
        };
        machine.facts.cpu.memory_bandwidth = shared_memory.unwrap_or_else(of_processor);
    }
}

/// The rows that a GPU may be.
fn rows<'a>(tables: &'a Tables, gpu: &Gpu) -> Vec<&'a Accelerator> {
    if let Some(id) = gpu.pci_id.value() {
        // Memory that is the host's tells nothing of the product.
        let memory = if gpu.unified_memory { None } else { gpu.memory_total.get() };
        let rows = tables.by_pci_id(id, memory);
        let same_units = |row: &&Accelerator| row.units.is_some() && row.units == gpu.multiprocessors.get();
        // Cards that share an id differ in what of the chip works.
        let told_apart: Vec<&Accelerator> = rows.iter().copied().filter(same_units).collect();
        return if told_apart.is_empty() { rows } else { told_apart };
    }
    match (gpu.vendor, gpu.name.value(), gpu.multiprocessors.get()) {
        (GpuVendor::Apple, Some(name), Some(cores)) => {
            tables.accelerator(&format!("{name} {cores}-core GPU")).map(|choice| vec![choice.row]).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The driver's bandwidth less what check bits take, where they lie in the memory and are on: the driver then shows a sixteenth less memory than
/// the card has.
fn without_check_bits(gpu: &Gpu, rows: &[&Accelerator]) -> Option<Known<BytesPerSec>> {
    /// Below this share of the memory on the label, some is taken; a driver keeps less than that for itself.
    const TAKEN: f64 = 0.95;
    let (told, total) = (gpu.memory_bandwidth.get()?, gpu.memory_total.get()?);
    let label = rows.iter().flat_map(|row| &row.memory).map(|size| size.as_f64()).min_by(f64::total_cmp)?;
    let on = rows.iter().all(|row| row.inline_ecc) && total.as_f64() < TAKEN * label;
    let data = rows.first().and_then(|row| Some(row.data_bandwidth()?.get() / row.bandwidth?.get()))?;
    let source = Source::new(format!("{}, less what ECC takes", gpu.memory_bandwidth.source()));
    on.then(|| BytesPerSec::new(told.get() * data).map(|rate| Known::exact(rate, source))).flatten()
}

fn fill(gpu: &mut Gpu, rows: &[&Accelerator]) {
    // Graphics of a processor that takes any memory have the bandwidth of that memory.
    let any_memory = rows.iter().any(|row| row.build == Build::Integrated && row.processor.is_none());
    if gpu.memory_bandwidth.is_unknown() && !any_memory {
        let known = figures::bandwidth(rows);
        if !known.is_unknown() {
            gpu.memory_bandwidth = known;
        }
    }
    if gpu.compute.is_unknown() {
        let known = figures::half_precision(rows);
        if !known.is_unknown() {
            gpu.compute = known;
        }
    }
    if gpu.name.is_unknown() {
        let mut names: Vec<&str> = Vec::new();
        for row in rows {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
        }
        gpu.name = Known::exact(names.join(" or "), Source::new("table rows of its PCI id"));
    }
}

/// What to tell where the driver's bandwidth is that of none of the rows.
fn difference(index: usize, gpu: &Gpu, rows: &[&Accelerator]) -> Option<String> {
    let told = gpu.memory_bandwidth.get()?;
    let paper: Vec<BytesPerSec> = rows.iter().filter_map(|row| row.bandwidth).collect();
    let off = |rate: &BytesPerSec| (told.get() / rate.get() - 1.0).abs();
    let nearest = paper.iter().min_by(|a, b| off(a).total_cmp(&off(b)))?;
    (off(nearest) > DIFFERS).then(|| {
        let name = gpu.name.value().map_or("unnamed", String::as_str);
        format!(
            "GPU {index} ({name}): its driver's clock and bus make {told}, the maker states {nearest}; is its memory overclocked, or is it another card than it says? The driver's figure is used"
        )
    })
}

/// What a virtual machine has of the bandwidth of the processor that it names, or of its family. What the firmware says of memory modules
/// is made up there.
fn in_a_guest(tables: &Tables, cpu: &Cpu) -> Option<Known<BytesPerSec>> {
    let model = cpu.model.value()?;
    // A family's name without a number stands for no row.
    let row = model.bytes().any(|byte| byte.is_ascii_digit()).then(|| tables.one_processor(model)).flatten();
    let rows = row.map_or_else(|| tables.processor_family(model, &cpu.features), |row| vec![row]);
    let known = figures::guest_bandwidth(&rows, cpu.logical_cpus.get()?);
    (!known.is_unknown()).then_some(known)
}

/// Bandwidth of the processors' memory: from the modules where the firmware names them, else from what the maker supports.
fn processor_memory(tables: &Tables, cpu: &Cpu, modules: &[MemoryModule]) -> Option<Known<BytesPerSec>> {
    let row = tables.one_processor(cpu.model.value()?)?;
    let packages = cpu.sockets.get().unwrap_or(1);
    let channels = f64::from(row.channels?.saturating_mul(packages));
    let rates = modules.iter().map(|module| Some(module.transfers_per_s.get()? as f64 * f64::from(module.width_bits.get()?) / 8.0));
    let Some(rates) = rates.collect::<Option<Vec<f64>>>().filter(|rates| !rates.is_empty()) else {
        let known = figures::processor_bandwidth(row, packages);
        return (!known.is_unknown()).then_some(known);
    };
    // Modules beyond one per channel share it; the slowest sets the pace.
    let slowest = rates.iter().copied().min_by(f64::total_cmp)?;
    let width = f64::from(row.channel_bits?) / 64.0;
    let most = slowest * (rates.len() as f64).min(channels * width);
    // Two modules may sit in one channel.
    let least = if rates.len() > 1 { most * 0.5 } else { most };
    let source = format!("memory modules, channels of table row {}", row.name);
    Some(Known::estimated(BytesPerSec::new(most)?, BytesPerSec::new(least)?, BytesPerSec::new(most)?, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe;
    use spec::Bytes;
    use spec::machine::GpuKind;

    fn machine(gpu: Gpu) -> Machine {
        let mut machine = describe("ram=64GiB,cores=8,gpu=1GiB").unwrap();
        machine.facts.gpus = vec![gpu];
        machine
    }

    fn gpu(id: &str, memory: Bytes) -> Gpu {
        Gpu {
            pci_id: Known::exact(id.to_owned(), "test"),
            memory_total: Known::exact(memory, "test"),
            ..Gpu::unknown(GpuVendor::Amd, GpuKind::Discrete, "test")
        }
    }

    #[test]
    fn what_a_driver_leaves_open_comes_from_the_row_of_id_and_memory() {
        let mut machine = machine(gpu("1002:744c", Bytes::from_mib(24560)));
        complete(&mut machine);
        let gpu = &machine.facts.gpus[0];
        assert_eq!(gpu.name.value().map(String::as_str), Some("Radeon RX 7900 XTX"));
        assert_eq!(gpu.memory_bandwidth.get(), BytesPerSec::from_gb(960.0));
        assert_eq!(gpu.memory_bandwidth.source().as_str(), "table row Radeon RX 7900 XTX 24 GiB");
        assert!(!gpu.compute.is_unknown() && machine.warnings.iter().all(|text| !text.contains("driver")));
    }

    #[test]
    fn cards_that_share_an_id_give_an_interval() {
        let mut machine = machine(gpu("1002:73df", Bytes::from_mib(12272)));
        complete(&mut machine);
        let gpu = &machine.facts.gpus[0];
        assert!(gpu.name.value().unwrap().contains("Radeon RX 6700 XT or Radeon RX 6750 XT"), "{}", gpu.name);
        let known = &gpu.memory_bandwidth;
        assert!(known.low().unwrap().get() < 384e9 && known.high().unwrap().get() > 432e9, "{known}");
    }

    #[test]
    fn the_number_of_units_tells_cards_of_one_id_apart() {
        let of = |id: &str, units: u32| {
            let units = Known::exact(units, "KFD");
            let mut machine = machine(Gpu { multiprocessors: units, ..gpu(id, Bytes::from_mib(16368)) });
            complete(&mut machine);
            machine.facts.gpus[0].name.value().cloned()
        };
        assert_eq!(of("1002:73bf", 72).as_deref(), Some("Radeon RX 6800 XT"));
        assert_eq!(of("1002:73bf", 7).as_deref(), Some("Radeon RX 6800 or Radeon RX 6800 XT or Radeon RX 6900 XT"));
    }

    #[test]
    fn the_drivers_figure_stands_and_a_large_difference_is_told() {
        let told = |gb: f64| {
            let rate = Known::exact(BytesPerSec::from_gb(gb).unwrap(), "NVML");
            let mut machine = machine(Gpu { memory_bandwidth: rate, ..gpu("10de:2684", Bytes::from_mib(24564)) });
            complete(&mut machine);
            assert_eq!(machine.facts.gpus[0].memory_bandwidth.source().as_str(), "NVML");
            machine.warnings.iter().filter(|text| text.contains("overclocked")).count()
        };
        assert_eq!([told(1008.1), told(1050.0), told(1100.0), told(576.0)], [0, 0, 1, 1]);
    }

    #[test]
    fn check_bits_in_the_memory_take_a_sixteenth_where_they_are_on() {
        let of = |memory: u64, rate: Option<f64>| {
            let known = rate.and_then(BytesPerSec::from_gb).map(|rate| Known::exact(rate, "NVML"));
            let unknown = gpu("10de:26b9", Bytes::from_mib(memory));
            let mut machine = machine(Gpu { memory_bandwidth: known.unwrap_or(unknown.memory_bandwidth.clone()), ..unknown });
            complete(&mut machine);
            (machine.facts.gpus[0].memory_bandwidth.get().unwrap().get() / 1e9).round()
        };
        // An L40S: 864 GB/s by its maker.
        assert_eq!([of(46_068, Some(864.0)), of(49_140, Some(864.0)), of(46_068, None)], [810.0, 864.0, 810.0]);
    }

    #[test]
    fn a_part_of_a_gpu_and_an_unknown_id_are_left_alone() {
        let slice = Some(spec::machine::Slice { profile: "3g.40gb".into(), parent: String::new() });
        for gpu in [Gpu { slice, ..gpu("10de:2330", Bytes::from_gib(40)) }, gpu("1234:5678", Bytes::from_gib(8))] {
            let mut machine = machine(gpu);
            complete(&mut machine);
            assert!(machine.facts.gpus[0].memory_bandwidth.is_unknown() && machine.facts.gpus[0].name.is_unknown());
        }
    }

    #[test]
    fn a_mac_is_found_by_chip_and_cores_and_its_memory_is_the_processors() {
        let mut machine = machine(Gpu {
            name: Known::exact("Apple M3 Max".into(), "Metal"),
            multiprocessors: Known::exact(40, "IOKit"),
            ..Gpu::unknown(GpuVendor::Apple, GpuKind::Integrated, "test")
        });
        complete(&mut machine);
        assert_eq!(machine.facts.gpus[0].memory_bandwidth.get(), BytesPerSec::from_gb(409.6));
        assert_eq!(machine.facts.cpu.memory_bandwidth.get(), BytesPerSec::from_gb(409.6));
    }

    #[test]
    fn memory_of_a_processor_by_its_modules_or_its_row() {
        let named = |model: &str, modules: usize| {
            let mut machine = describe("ram=64GiB,cores=8").unwrap();
            machine.facts.cpu.model = Known::exact(model.to_owned(), "test");
            let module = MemoryModule {
                slot: String::new(),
                size: Known::unknown("test"),
                kind: Known::unknown("test"),
                transfers_per_s: Known::exact(6_000_000_000, "test"),
                width_bits: Known::exact(64, "test"),
            };
            machine.facts.memory.modules = vec![module; modules];
            complete(&mut machine);
            machine.facts.cpu.memory_bandwidth
        };
        assert_eq!(named("AMD Ryzen 9 7950X 16-Core Processor", 1).get(), BytesPerSec::from_gb(48.0));
        assert_eq!(named("AMD Ryzen 9 7950X 16-Core Processor", 4).get(), BytesPerSec::from_gb(96.0));
        let paper = named("AMD Ryzen 9 7950X 16-Core Processor", 0);
        assert_eq!((paper.get(), paper.source().as_str()), (BytesPerSec::from_gb(83.2), "table row Ryzen 9 7950X"));
        assert!(named("QEMU Virtual CPU version 2.5+", 2).is_unknown());
    }

    #[test]
    fn a_virtual_machine_has_a_share_of_its_processor_or_of_the_family() {
        let guest = |model: &str, features: &str| {
            let mut machine = describe("ram=16GiB,cores=4").unwrap();
            machine.facts.platform.inside = vec!["kvm".into()];
            machine.facts.cpu.model = Known::exact(model.to_owned(), "test");
            machine.facts.cpu.features = features.split(' ').map(str::to_owned).collect();
            complete(&mut machine);
            machine.facts.cpu.memory_bandwidth
        };
        let zen5 = "avx avx2 f16c fma avx512f avx512_vnni avx512_bf16 avx_vnni";
        let (named, family) = (guest("AMD EPYC 9965 192-Core Processor", zen5), guest("AMD EPYC", zen5));
        for known in [&named, &family] {
            // Four cores read 20 GB/s in any case, and no more than the package has.
            assert_eq!((known.low().copied(), known.high().copied()), (BytesPerSec::from_gb(20.0), BytesPerSec::from_gb(576.0)), "{known}");
            assert!(known.get().unwrap().get() > 20e9 && known.get().unwrap().get() < 288e9, "{known}");
        }
        assert_eq!(named.source().as_str(), "a share of table row EPYC 9965");
        assert!(guest("QEMU Virtual CPU version 2.5+", zen5).is_unknown());
    }
}
