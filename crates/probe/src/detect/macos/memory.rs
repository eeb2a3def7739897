//! Memory of a Mac.

use super::sysctl;
use crate::detect::fields;
use crate::host::{Host, MacQuestion, Question};
use spec::machine::{HugePages, Memory};
use spec::{Bytes, Known};

/// All memory that the system has.
pub(super) fn total(host: &dyn Host) -> Known<Bytes> {
    let bytes = sysctl::number(host, "hw.memsize").filter(|bytes| *bytes > 0).map(Bytes::new);
    Known::from_option(bytes, "sysctl hw.memsize", "the kernel does not say hw.memsize")
}

/// The facts beside the total.
pub(super) fn memory(host: &dyn Host, total: Known<Bytes>) -> Memory {
    Memory {
        swap_total: swap(host, "total"),
        page: page(host),
        huge_pages: HugePages::unknown("macOS gives programs no larger pages"),
        modules: Vec::new(),
        total,
    }
}

fn page(host: &dyn Host) -> Known<Bytes> {
    let bytes = sysctl::number(host, "hw.pagesize").filter(|bytes| *bytes > 0).map(Bytes::new);
    Known::from_option(bytes, "sysctl hw.pagesize", "the kernel does not say hw.pagesize")
}

/// Free swap. macOS makes more as it is needed and the disk has room.
pub(super) fn free_swap(host: &dyn Host) -> Known<Bytes> {
    swap(host, "free")
}

fn swap(host: &dyn Host, field: &str) -> Known<Bytes> {
    let text = sysctl::text(host, "vm.swapusage").unwrap_or_default();
    Known::from_option(fields::number(&text, field).map(Bytes::new), "sysctl vm.swapusage", "the kernel does not say vm.swapusage")
}

/// What a new program can take without compressing or swapping. The kernel has no such figure. Taken is what is free, what a
/// program has offered back (purgeable) and pages of files; of those, active ones are dropped last, so that the least is half of
/// them and the most is every page that is not anonymous, wired or compressed.
pub(super) fn available(host: &dyn Host, total: &Known<Bytes>) -> Known<Bytes> {
    const SOURCE: &str = "host_statistics64: free + purgeable + file-backed";
    let answer = host.text(&Question::Mac(MacQuestion::Memory));
    let text = match &answer {
        Ok(text) => text,
        Err(refusal) => return Known::unknown(format!("host_statistics64: {refusal}")),
    };
    let page = page(host).get().unwrap_or(Bytes::ZERO);
    let bytes = |field: &str| fields::number(text, field).and_then(|pages| page.checked_mul(pages));
    let (Some(free), Some(files)) = (bytes("free"), bytes("file-backed")) else {
        return Known::unknown("host_statistics64 names no free or no file-backed pages");
    };
    let rest = |field: &str| bytes(field).unwrap_or(Bytes::ZERO);
    // Read-ahead pages are counted as free and as pages of files.
    let free = free.saturating_sub(rest("speculative"));
    let (purgeable, most) = (rest("purgeable"), total.get().unwrap_or(Bytes::MAX));
    let taken = [rest("anonymous"), rest("wired"), rest("compressor")].into_iter().sum::<Bytes>();
    let sum = |parts: [Bytes; 3]| parts.into_iter().sum::<Bytes>().min(most);
    let (value, low) = (sum([free, purgeable, files]), sum([free, purgeable, files.scale(0.5)]));
    let high = total.get().map_or(value, |total| (total.saturating_sub(taken) + purgeable).clamp(value, total.max(value)));
    Known::estimated(value, low, high, SOURCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    #[test]
    fn pages_that_can_be_had() {
        let mut host = Recording::new("");
        let set = |host: &mut Recording, text: &str| host.set(&Question::Mac(MacQuestion::Memory), Ok(Answer::text(text)));
        host.set(&Question::Sysctl("hw.pagesize".into()), Ok(Answer::text("16384")));
        set(&mut host, "free: 1000\nspeculative: 200\npurgeable: 50\nfile-backed: 400\nanonymous: 500\nwired: 300\ncompressor: 100");
        let pages = |pages: u64| Bytes::new(pages * 16384);
        let total = Known::exact(pages(2300), "test");
        let known = available(&host, &total);
        assert_eq!((known.get(), known.low().copied(), known.high().copied()), (Some(pages(1250)), Some(pages(1050)), Some(pages(1450))));
        set(&mut host, "free: 18446744073709551615\nfile-backed: 1");
        assert!(available(&host, &total).is_unknown());
        assert!(available(&Recording::new(""), &total).is_unknown());
    }
}
