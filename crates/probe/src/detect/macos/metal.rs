//! GPUs of a Mac, from the answers of Metal.

use super::sysctl;
use crate::host::{Host, MetalField, MetalQuestion, Question, Refusal};
use spec::machine::{Gpu, GpuKind, GpuVendor};
use spec::{Bytes, Known};

/// More devices than any Mac holds.
const MAX_DEVICES: u32 = 16;

/// The GPUs with what is free on each.
#[derive(Default)]
pub(super) struct Gpus {
    pub(super) gpus: Vec<Gpu>,
    pub(super) free: Vec<Known<Bytes>>,
    pub(super) visible: Vec<usize>,
    pub(super) warnings: Vec<String>,
}

/// The GPUs, the system's default first. That one alone is visible: llama.cpp takes no other
/// (`ggml-metal-device.m:1117`, llama.cpp v0.6.0-dev, crate llama-cpp-sys-2 0.1.161).
pub(super) fn read(host: &dyn Host, available: &Known<Bytes>) -> Gpus {
    let mut found = Gpus::default();
    match host.text(&Question::Metal(MetalQuestion::Count)) {
        Ok(count) => {
            for index in 0..count.trim().parse::<u32>().unwrap_or(0).min(MAX_DEVICES) {
                let (gpu, free) = device(host, index, available);
                found.gpus.push(gpu);
                found.free.push(free);
            }
        }
        Err(Refusal::TimedOut) => found.warnings.push("Metal did not answer in time".into()),
        Err(Refusal::NotFound | Refusal::NotRecorded) => {}
        Err(refusal) => found.warnings.push(format!("Metal does not work: {refusal}")),
    }
    if !found.gpus.is_empty() {
        found.visible.push(0);
    }
    found
}

fn device(host: &dyn Host, index: u32, available: &Known<Bytes>) -> (Gpu, Known<Bytes>) {
    let ask = |field| host.text(&Question::Metal(MetalQuestion::Device(index, field)));
    let number = |field| ask(field).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let name = ask(MetalField::Name).ok().filter(|name| !name.is_empty());
    let unified = number(MetalField::Unified) == Some(1);
    let integrated = unified || number(MetalField::LowPower) == Some(1);
    let vendor = vendor(name.as_deref().unwrap_or_default());
    let total = working_set(number(MetalField::WorkingSet), sysctl::number(host, "iogpu.wired_limit_mb").filter(|_| unified));
    let free = free(&total, number(MetalField::Allocated), available, unified);
    let bytes = |field, source: &'static str| {
        Known::from_option(number(field).filter(|bytes| *bytes > 0).map(Bytes::new), source, "Metal does not say")
    };
    let gpu = Gpu {
        name: Known::from_option(name, "Metal", "Metal does not name it"),
        driver: Known::exact("Metal".into(), "Metal"),
        architecture: Known::from_option(ask(MetalField::Family).ok(), "Metal supportsFamily", "Metal names no Apple family"),
        multiprocessors: Known::from_option(
            number(MetalField::Cores).filter(|cores| *cores > 0).and_then(|cores| u32::try_from(cores).ok()),
            "IOKit gpu-core-count",
            "IOKit does not say",
        ),
        largest_buffer: bytes(MetalField::LargestBuffer, "Metal maxBufferLength"),
        memory_total: total,
        unified_memory: unified,
        ..Gpu::unknown(vendor, if integrated { GpuKind::Integrated } else { GpuKind::Discrete }, "macOS does not say")
    };
    (gpu, free)
}

/// What the system lets the GPU use. `iogpu.wired_limit_mb` sets it, and 0 there is the system's own choice; Metal's figure
/// follows it.
fn working_set(metal: Option<u64>, wired_limit_mb: Option<u64>) -> Known<Bytes> {
    let limit = wired_limit_mb.filter(|mb| *mb > 0);
    match (metal.filter(|bytes| *bytes > 0), limit) {
        (Some(bytes), None) => Known::exact(Bytes::new(bytes), "Metal recommendedMaxWorkingSetSize"),
        (Some(bytes), Some(_)) => Known::exact(Bytes::new(bytes), "Metal recommendedMaxWorkingSetSize, set by sysctl iogpu.wired_limit_mb"),
        (None, Some(mb)) => Known::from_option(
            Bytes::new(mb).checked_mul(1 << 20),
            "sysctl iogpu.wired_limit_mb",
            "sysctl iogpu.wired_limit_mb is too large",
        ),
        (None, None) => Known::unknown("Metal names no working set"),
    }
}

/// The rest of the working set, and where the memory is the host's, no more than that has.
fn free(total: &Known<Bytes>, allocated: Option<u64>, available: &Known<Bytes>, unified: bool) -> Known<Bytes> {
    let rest = total.clone().map(|total| total.saturating_sub(Bytes::new(allocated.unwrap_or(0))));
    let (Some(most), Some(now), Some(low), Some(high)) = (rest.get(), available.get(), available.low(), available.high()) else {
        return rest;
    };
    if !unified || *low >= most {
        return rest;
    }
    Known::estimated(now.min(most), *low, (*high).min(most), available.source().clone())
}

fn vendor(name: &str) -> GpuVendor {
    let makers = [
        ("Apple", GpuVendor::Apple),
        ("AMD", GpuVendor::Amd),
        ("Radeon", GpuVendor::Amd),
        ("Intel", GpuVendor::Intel),
        ("NVIDIA", GpuVendor::Nvidia),
    ];
    makers.iter().find(|(word, _)| name.contains(word)).map_or(GpuVendor::Other, |(_, vendor)| *vendor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn host(answers: &[(MetalQuestion, &str)]) -> Recording {
        let mut host = Recording::new("");
        for (question, answer) in answers {
            host.set(&Question::Metal(*question), Ok(Answer::text(*answer)));
        }
        host
    }

    #[test]
    fn an_intel_mac_has_two_and_its_own_memory() {
        let on = MetalQuestion::Device;
        let found = read(
            &host(&[
                (MetalQuestion::Count, "2"),
                (on(0, MetalField::Name), "AMD Radeon Pro 5500M"),
                (on(0, MetalField::Unified), "0"),
                (on(0, MetalField::WorkingSet), "8573157376"),
                (on(1, MetalField::Name), "Intel(R) UHD Graphics 630"),
                (on(1, MetalField::LowPower), "1"),
            ]),
            &Known::exact(Bytes::from_gib(1), "test"),
        );
        assert_eq!((found.gpus[0].kind, found.gpus[0].vendor, found.gpus[0].unified_memory), (GpuKind::Discrete, GpuVendor::Amd, false));
        assert_eq!(found.free[0].get(), Some(Bytes::new(8_573_157_376)));
        assert_eq!((found.gpus[1].kind, found.gpus[1].vendor), (GpuKind::Integrated, GpuVendor::Intel));
        assert!(found.gpus[1].memory_total.is_unknown());
        assert_eq!(found.visible, [0]);
    }

    #[test]
    fn a_wired_limit_stands_for_a_silent_metal() {
        assert_eq!(working_set(None, Some(28_672)).get(), Some(Bytes::from_gib(28)));
        assert!(working_set(None, Some(0)).is_unknown() && working_set(Some(0), None).is_unknown());
        assert!(working_set(None, Some(u64::MAX)).is_unknown());
        assert!(working_set(Some(5), Some(1)).source().as_str().contains("wired_limit"));
    }
}
