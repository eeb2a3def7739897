//! The batch that is worth it.

use crate::arena::Workspace;
use crate::calibration::Calibration;
use crate::kernel::{Kernel, Layer};
use spec::{Bytes, Known};

/// Share of the best throughput that memory allows at which a larger batch is not worth its memory and its wait.
const NEARLY_ALL: f64 = 0.95;

/// Share of a device's whole memory that is taken to be free where nothing says how much is.
const UNASKED: u64 = 8;

/// What memory a device has for a workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Free now, beside what the workspace itself holds.
    pub free: Known<Bytes>,
    /// The device's memory in all.
    pub total: Known<Bytes>,
    /// Held by the workspace already: it can be given back.
    pub held: Bytes,
    /// Left for others.
    pub margin: Bytes,
    /// The largest buffer that the device allows, if it says so.
    pub largest: Option<Bytes>,
}

impl Room {
    /// Bytes that a workspace may take: the lower end of what is free; an eighth of the device where that is unknown, and nothing
    /// where its memory is unknown too.
    pub fn usable(&self) -> Bytes {
        let free = match (self.free.low(), self.total.low()) {
            (Some(&free), _) => free,
            (None, Some(total)) => Bytes::new(total.get() / UNASKED),
            (None, None) => Bytes::ZERO,
        };
        let usable = Bytes::new(free.get().saturating_add(self.held.get())).saturating_sub(self.margin);
        self.largest.map_or(usable, |largest| usable.min(largest))
    }

    /// Whether nothing says how much is free, so that the choice is a conservative one.
    pub fn is_guessed(&self) -> bool {
        self.free.low().is_none()
    }
}

/// What ended the growth of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No more memory.
    Memory,
    /// More tokens would be hardly faster each.
    Throughput,
    /// There is no more to do at once.
    Asked,
}

/// A batch and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Tokens.
    pub batch: u64,
    /// Its workspace.
    pub workspace: Bytes,
    /// What ended its growth.
    pub limit: Limit,
    /// Expected tokens per second of these layers.
    pub tokens_per_second: f64,
    /// The most tokens that memory has room for.
    pub room: u64,
}

/// Not even one token has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one token needs a workspace of {needed}, and there is room for {usable}")]
pub struct NoRoom {
    /// Bytes of one token's workspace.
    pub needed: Bytes,
    /// Bytes there are.
    pub usable: Bytes,
}

/// The smallest batch with 95 % of the best throughput among those that `room` has memory for, at most `asked` tokens.
///
/// # Errors
/// No room for one token.
///
/// ```
/// use spec::{Bytes, Known};
/// use workspace::{Calibration, Kernel, Layer, Limit, Room, optimal_batch};
/// let layers = [Layer::new(2560, 6912).unwrap()];
/// let device = Calibration { bandwidth: 50e9, unpack: 0.0, rate: 4e12, launch: 0.0, tile: 1 };
/// let room = |free| Room { free: Known::exact(free, "a test"), total: Known::unknown("a test"), held: Bytes::ZERO, margin: Bytes::ZERO, largest: None };
/// let much = optimal_batch(Kernel::Gpu, &layers, &device, 256, &room(Bytes::from_gib(1)), 4096).unwrap();
/// assert_eq!((much.batch, much.limit), (10, Limit::Throughput));
/// let little = optimal_batch(Kernel::Gpu, &layers, &device, 256, &room(Bytes::from_kib(250)), 4096).unwrap();
/// assert_eq!((little.batch, little.limit), (5, Limit::Memory));
/// ```
pub fn optimal_batch(
    kernel: Kernel,
    layers: &[Layer],
    calibration: &Calibration,
    alignment: u64,
    room: &Room,
    asked: u64,
) -> Result<Choice, NoRoom> {
    let bytes = |batch: u64| Workspace::new(kernel, layers, batch, alignment).map(|workspace| workspace.total());
    optimal_batch_of(bytes, layers, calibration, room, asked)
}

/// The same for any workspace: `bytes` are what it takes for so many tokens, `None` beyond any memory. They never shrink as tokens grow.
///
/// # Errors
/// No room for one token.
pub fn optimal_batch_of(
    bytes: impl Fn(u64) -> Option<Bytes>,
    layers: &[Layer],
    calibration: &Calibration,
    room: &Room,
    asked: u64,
) -> Result<Choice, NoRoom> {
    let usable = room.usable();
    let asked = asked.max(1);
    let most = most_tokens(&bytes, usable, asked);
    let bytes = |batch: u64| bytes(batch).unwrap_or(Bytes::MAX);
    if most == 0 {
        return Err(NoRoom { needed: bytes(1), usable });
    }
    let throughput = |batch: u64| batch as f64 / calibration.seconds(layers, batch);
    let tile = calibration.tile.max(1);
    // Within a tile tokens are free, so that whole tiles are never slower per token than what is below them.
    let whole = (most / tile).saturating_mul(tile);
    let best = if whole > 0 && throughput(whole) >= throughput(most) { whole } else { most };
    let enough = NEARLY_ALL * throughput(best);
    let tiles = last(most / tile, |tiles| throughput(tiles * tile) < enough);
    let next = (tiles + 1).saturating_mul(tile);
    let batch = if next > most { best } else { next };
    let limit = match () {
        () if throughput(batch) >= NEARLY_ALL * calibration.tokens_per_second(layers) => Limit::Throughput,
        () if most < asked => Limit::Memory,
        () if batch < best => Limit::Throughput,
        () => Limit::Asked,
    };
    Ok(Choice { batch, workspace: bytes(batch), limit, tokens_per_second: throughput(batch), room: most })
}

/// The most tokens, up to `asked`, whose workspace is not beyond `usable`; 0 where that of one is. `bytes` as in [`optimal_batch_of`].
///
/// ```
/// use spec::Bytes;
/// let bytes = |tokens: u64| Some(Bytes::new(100 + 10 * tokens));
/// assert_eq!(workspace::most_tokens(bytes, Bytes::new(155), 512), 5);
/// assert_eq!(workspace::most_tokens(bytes, Bytes::new(100), 512), 0);
/// ```
pub fn most_tokens(bytes: impl Fn(u64) -> Option<Bytes>, usable: Bytes, asked: u64) -> u64 {
    last(asked, |batch| bytes(batch).is_some_and(|bytes| bytes <= usable))
}

/// The last of `1..=most` that `holds`, which holds up to some place and not beyond it; 0 where it holds nowhere.
fn last(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(free: u64) -> Room {
        let free = Known::exact(Bytes::new(free), "a test");
        Room { free, total: Known::unknown("a test"), held: Bytes::ZERO, margin: Bytes::ZERO, largest: None }
    }

    proptest! {
        /// Against looking at every batch.
        #[test]
        fn the_choice_is_that_of_plain_enumeration(
            rows in 1..3000_u64,
            columns in 1..3000_u64,
            free in 0..3_000_000_u64,
            intensity in 0.5..100.0_f64,
            unpack in 0.0..3.0_f64,
            tile in prop::sample::select(vec![1_u64, 2, 4, 8, 16]),
            asked in 1..300_u64,
            gpu: bool,
        ) {
            let layers = [Layer::new(rows, columns).unwrap()];
            let (kernel, bandwidth) = (if gpu { Kernel::Gpu } else { Kernel::Cpu { tile } }, 10e9);
            let device = Calibration { bandwidth, unpack: unpack / 4.0 / bandwidth, rate: intensity * 8.0 * bandwidth, launch: 1e-6, tile };
            let bytes = |batch: u64| Workspace::new(kernel, &layers, batch, 256).unwrap().total().get();
            let throughput = |batch: u64| batch as f64 / device.seconds(&layers, batch);
            let fits: Vec<u64> = (1..=asked).filter(|&batch| bytes(batch) <= free).collect();
            match optimal_batch(kernel, &layers, &device, 256, &room(free), asked) {
                Err(NoRoom { needed, usable }) => {
                    prop_assert!(fits.is_empty());
                    prop_assert_eq!((needed.get(), usable.get()), (bytes(1), free));
                }
                Ok(choice) => {
                    prop_assert_eq!(choice.room, *fits.last().unwrap());
                    let best = fits.iter().map(|&batch| throughput(batch)).fold(0.0, f64::max);
                    let whole = fits.iter().filter(|&&batch| batch % tile == 0 || batch == choice.room);
                    let smallest = whole.copied().find(|&batch| throughput(batch) >= NEARLY_ALL * best).unwrap();
                    prop_assert!(choice.batch == smallest || throughput(smallest) / best < NEARLY_ALL * (1.0 + 1e-9), "{choice:?} {smallest}");
                    prop_assert!(choice.workspace.get() <= free);
                    prop_assert_eq!(choice.workspace.get(), bytes(choice.batch));
                }
            }
        }

        #[test]
        fn more_memory_is_never_slower(free in 10_000..5_000_000_u64, more in 0..5_000_000_u64, intensity in 0.5..100.0_f64) {
            let layers = [Layer::new(640, 2560).unwrap(), Layer::new(2560, 6912).unwrap()];
            let device = Calibration { bandwidth: 10e9, unpack: 0.0, rate: intensity * 8e10, launch: 0.0, tile: 4 };
            let choose = |free| optimal_batch(Kernel::Cpu { tile: 4 }, &layers, &device, 256, &room(free), 4096).ok();
            let speed = |choice: Option<Choice>| choice.map_or(0.0, |choice| choice.tokens_per_second);
            prop_assert!(speed(choose(free + more)) >= NEARLY_ALL * speed(choose(free)));
        }
    }

    #[test]
    fn what_is_unknown_is_taken_with_care() {
        let unknown = |total| Room { free: Known::unknown("no driver"), total, ..room(0) };
        let some = unknown(Known::exact(Bytes::from_gib(8), "a table"));
        assert!(some.is_guessed());
        assert_eq!(some.usable(), Bytes::from_gib(1));
        assert_eq!(unknown(Known::unknown("no table")).usable(), Bytes::ZERO);
        let held = Room { held: Bytes::from_mib(3), margin: Bytes::from_mib(1), largest: Some(Bytes::from_mib(4)), ..room(5 << 20) };
        assert_eq!(held.usable(), Bytes::from_mib(4));
    }
}
