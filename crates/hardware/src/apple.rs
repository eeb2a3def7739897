//! What part of its memory a Mac gives its GPU.
//!
//! Metal's `recommendedMaxWorkingSetSize` is the limit that llama.cpp obeys. It depends on the size of memory and on the version of
//! macOS, and follows `iogpu.wired_limit_mb` where someone has set that. For a machine at hand ask Metal; this is for planning others.

use crate::row;
use spec::{Bytes, Known};

/// The recommended working set of a Mac with `ram` of memory: the figure of macOS 26, down to that of the versions before it. Between
/// the sizes that were seen the next smaller one counts.
pub fn working_set(ram: Bytes) -> Known<Bytes> {
    let rows = row::read(
        "apple_working_set.csv",
        include_str!("../data/apple_working_set.csv"),
        |row| Ok((row.number::<u64>("ram_gib")?, row.number::<f64>("before_26")?, row.number::<f64>("from_26")?)),
        &mut Vec::new(),
    );
    let mut seen = rows.into_iter().filter_map(|(gib, before, from)| Some((Bytes::from_gib(gib?), before?, from?)));
    match seen.rfind(|&(size, ..)| size <= ram) {
        Some((size, before, from)) => {
            let (low, high) = (ram.scale(before.min(from)), ram.scale(before.max(from)));
            Known::estimated(ram.scale(from), low, high, format!("table row {} GiB of apple_working_set", size.as_gib()))
        }
        None => Known::unknown("no Mac with so little memory runs Metal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_that_logs_show_lie_inside() {
        // GiB of memory, MiB that Metal named.
        for (ram, mib) in [(8, 5461), (16, 10922), (16, 12124), (24, 18186), (36, 27648), (64, 49152), (64, 53084), (128, 110100)] {
            let set = working_set(Bytes::from_gib(ram));
            let (low, high) = (set.low().unwrap().as_mib(), set.high().unwrap().as_mib());
            assert!((low - 6.0..=high + 6.0).contains(&f64::from(mib)), "{ram} GiB: {mib} not in {low}..{high}");
        }
        assert!(working_set(Bytes::from_gib(4)).is_unknown());
        assert_eq!(working_set(Bytes::from_gib(40)).get(), Some(Bytes::from_gib(40).scale(0.78)));
    }
}
