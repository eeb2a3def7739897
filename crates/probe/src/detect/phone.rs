//! GPUs of phones and small boards, which stand on no bus: Adreno, Mali, and what Samsung's kernels call theirs.
//!
//! Attributes: Qualcomm's kgsl driver (`kgsl_pwrctrl.c`, `kgsl_sysfs.c` of its kernels), Arm's kbase driver
//! (`mali_kbase_core_linux.c`, attribute `gpuinfo`), Samsung's `gpu_info` (`/sys/kernel/gpu`). On Android many of them may be read and
//! their folders not be listed, so each is asked by name.

use super::gpus::{Found, HostMemory, Source};
use crate::host::Host;
use spec::Known;
use spec::machine::{Gpu, GpuCondition, GpuKind, GpuVendor};

const ADRENO: &str = "/sys/class/kgsl/kgsl-3d0";
const MALI: &str = "/sys/class/misc/mali0/device/gpuinfo";
const SAMSUNG: &str = "/sys/kernel/gpu";
const SILENT: &str = "the system does not say";

/// The GPU of the chip; nothing where none of these drivers is there. It computes in the host's memory.
pub(super) fn read(host: &dyn Host, memory: &HostMemory<'_>) -> Source {
    let mut source = Source::default();
    if let Some((name, from)) = name(host) {
        let cores = host.read(MALI).ok().and_then(|text| mali(&text)).and_then(|(_, cores)| cores);
        let gpu = Gpu {
            name: Known::exact(name, from),
            driver: Known::exact(if from == ADRENO { "kgsl" } else { "mali" }.into(), from),
            multiprocessors: Known::from_option(cores, MALI, SILENT),
            max_frequency_hz: clock(host),
            memory_total: memory.total.clone(),
            shared_memory: memory.total.clone(),
            ..Gpu::unknown(GpuVendor::Other, GpuKind::Integrated, SILENT)
        };
        let condition = GpuCondition { utilisation: load(host), temperature_c: temperature(host), ..GpuCondition::unknown(SILENT) };
        source.visible.push(0);
        source.found.push(Found { gpu, free: memory.available.clone(), condition, links: Vec::new() });
    }
    source
}

fn name(host: &dyn Host) -> Option<(String, &'static str)> {
    let text = |path: &str| host.read(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    text(&format!("{ADRENO}/gpu_model"))
        .map(|name| (name, ADRENO))
        .or_else(|| Some((mali(&text(MALI)?)?.0, MALI)))
        .or_else(|| text(&format!("{SAMSUNG}/gpu_model")).map(|name| (name, SAMSUNG)))
}

/// Name and cores of `Mali-G78 24 cores r0p1 0x90020010`.
fn mali(text: &str) -> Option<(String, Option<u32>)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let place = words.iter().position(|word| word.starts_with("core"))?;
    let cores = words.get(place.checked_sub(1)?)?.parse().ok().filter(|cores| *cores > 0);
    let name = words.get(..place - 1).filter(|name| !name.is_empty())?.join(" ");
    Some((name, cores))
}

fn clock(host: &dyn Host) -> Known<u64> {
    let mega = |path: &str| host.number(path)?.checked_mul(1_000_000);
    let hz = host
        .number(&format!("{ADRENO}/max_gpuclk"))
        .or_else(|| mega(&format!("{ADRENO}/max_clock_mhz")))
        .or_else(|| mega(&format!("{SAMSUNG}/gpu_max_clock")));
    Known::from_option(hz.filter(|hz| (50_000_000..10_000_000_000).contains(hz)), "the driver's file", SILENT)
}

/// `37 %` or `37%`.
fn load(host: &dyn Host) -> Known<f64> {
    let percent = |path: String| host.read(&path).ok()?.trim().trim_end_matches('%').trim().parse::<u32>().ok();
    let busy = percent(format!("{ADRENO}/gpu_busy_percentage")).or_else(|| percent(format!("{SAMSUNG}/gpu_busy")));
    Known::from_option(busy.filter(|busy| *busy <= 100).map(|busy| f64::from(busy) / 100.0), "the driver's file", SILENT)
}

fn temperature(host: &dyn Host) -> Known<f64> {
    let path = format!("{ADRENO}/temp");
    let milli = host.number(&path).filter(|milli| (1_000..200_000).contains(milli));
    Known::from_option(milli.map(|milli| milli as f64 / 1000.0), path, SILENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};
    use spec::Bytes;

    fn gpu(files: &[(&str, &str)]) -> Source {
        let mut host = Recording::new("");
        for (path, text) in files {
            host.set(&Question::Read((*path).to_owned()), Ok(Answer::text(*text)));
        }
        let (total, available) = (Known::exact(Bytes::from_gib(8), "test"), Known::exact(Bytes::from_gib(3), "test"));
        read(&host, &HostMemory { total: &total, available: &available })
    }

    #[test]
    fn three_makers() {
        let adreno = gpu(&[
            ("/sys/class/kgsl/kgsl-3d0/gpu_model", "Adreno750v2"),
            ("/sys/class/kgsl/kgsl-3d0/max_gpuclk", "903000000"),
            ("/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage", "37 %"),
            ("/sys/class/kgsl/kgsl-3d0/temp", "41200"),
        ]);
        let found = &adreno.found[0];
        assert_eq!(found.gpu.name.value().map(String::as_str), Some("Adreno750v2"));
        assert_eq!((found.gpu.max_frequency_hz.get(), found.condition.utilisation.get()), (Some(903_000_000), Some(0.37)));
        assert_eq!((found.gpu.unified_memory, found.free.get()), (true, Some(Bytes::from_gib(3))));
        let mali = gpu(&[("/sys/class/misc/mali0/device/gpuinfo", "Mali-G715 7 cores r0p0 0xB0020010")]);
        assert_eq!((mali.found[0].gpu.multiprocessors.get(), mali.visible.as_slice()), (Some(7), &[0usize][..]));
        let samsung = gpu(&[("/sys/kernel/gpu/gpu_model", "Samsung Xclipse 920"), ("/sys/kernel/gpu/gpu_max_clock", "1300")]);
        assert_eq!(samsung.found[0].gpu.max_frequency_hz.get(), Some(1_300_000_000));
        assert!(gpu(&[]).found.is_empty() && gpu(&[(MALI, "cores"), ("/sys/kernel/gpu/gpu_model", "")]).found.is_empty());
    }
}
