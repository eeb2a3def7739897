//! A batch over time: smaller at once where memory fails or is gone, larger only when it has been calm for long enough.

use spec::Bytes;

/// Runs without trouble before a batch may grow, at first; every refusal doubles it.
const CALM: u32 = 8;
/// The longest wait, in runs.
const MOST_CALM: u32 = 4096;
/// A batch grows only if there is room for so many quarters of it: what is free moves all the time.
const QUARTERS: u64 = 5;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pass went well; `room` is the largest batch that what is free now has memory for, what is held included (0: unknown).
    Ran {
        /// The batch for which there is room.
        room: u64,
    },
    /// A pass took more than its batch was planned to.
    Peak {
        /// Bytes that were planned.
        planned: Bytes,
        /// Bytes that were seen.
        seen: Bytes,
    },
    /// The workspace of the batch could not be had, or a pass ran out of memory.
    Refused,
}

/// Why a batch changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An allocation failed.
    Refused,
    /// Less memory is free.
    Pressed,
    /// More was taken than planned.
    Peak,
    /// More memory has been free for so many runs.
    Calm(u32),
}

/// A change of the batch, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: u64,
    /// From now on.
    pub to: u64,
    /// Why.
    pub reason: Reason,
}

/// The state of one workspace. The batch is never below 1 and never above the one that is worth it.
///
/// ```
/// use workspace::{Adaptive, Event};
/// let mut batch = Adaptive::new(64, 64);
/// assert_eq!(batch.observe(Event::Refused).unwrap().to, 32);
/// // There seems to be room at once, but it has to stay.
/// assert_eq!(batch.observe(Event::Ran { room: 200 }), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adaptive {
    batch: u64,
    best: u64,
    calm: u32,
    patience: u32,
    /// A batch that was refused or took too much: growth stops below it until a long calm.
    refused: Option<u64>,
    /// The batch before it grew, until a pass went well: there was memory for that one.
    before: Option<u64>,
}

impl Adaptive {
    /// A batch to begin with and the one that is worth it ([`crate::Choice::batch`] with all memory free).
    pub fn new(batch: u64, best: u64) -> Self {
        let best = best.max(1);
        Self { batch: batch.clamp(1, best), best, calm: 0, patience: CALM, refused: None, before: None }
    }

    /// Tokens at once.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Takes note of what happened.
    pub fn observe(&mut self, event: Event) -> Option<Change> {
        if let Event::Ran { .. } = event {
            self.before = None;
        }
        match event {
            Event::Refused => {
                self.avoid();
                let to = self.before.unwrap_or(self.batch / 2);
                self.change(to, Reason::Refused)
            }
            Event::Peak { planned, seen } if seen > planned => {
                self.avoid();
                let share = u128::from(self.batch) * u128::from(planned.get()) / u128::from(seen.get().max(1));
                self.change(share as u64, Reason::Peak)
            }
            Event::Peak { .. } | Event::Ran { room: 0 } => None,
            Event::Ran { room } if room < self.batch => self.change(room, Reason::Pressed),
            Event::Ran { room } => {
                self.calm = self.calm.saturating_add(1);
                self.grown(room)
            }
        }
    }

    /// Notes that this batch is too large: it is tried again only after a long calm.
    fn avoid(&mut self) {
        self.refused = Some(self.batch);
        self.patience = self.patience.saturating_mul(2).min(MOST_CALM);
    }

    /// A larger batch, if it has been calm for long enough and there is more than enough room for it.
    fn grown(&mut self, room: u64) -> Option<Change> {
        if self.calm < self.patience {
            return None;
        }
        // What was refused once may be there again after a calm of many times the patience.
        if self.calm >= self.patience.saturating_mul(16) {
            self.refused = None;
        }
        let below = self.refused.map_or(u64::MAX, |refused| refused.saturating_sub(1));
        let to = self.batch.saturating_mul(2).min(self.best).min(below);
        let roomy = (u128::from(room) * 4 / u128::from(QUARTERS)).min(u128::from(u64::MAX)) as u64;
        let to = to.min(roomy.max(self.batch));
        // A little more is not worth a new arena, unless it is all there is to gain.
        if to == self.batch || to < self.best.min(below) && to < self.batch.saturating_add(self.batch / 4) {
            return None;
        }
        let calm = self.calm;
        self.change(to, Reason::Calm(calm))
    }

    fn change(&mut self, to: u64, reason: Reason) -> Option<Change> {
        let (from, to) = (self.batch, to.clamp(1, self.best));
        self.calm = 0;
        self.batch = to;
        self.before = (to > from).then_some(from);
        (from != to).then_some(Change { from, to, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs over a trace of room (in tokens); an attempt beyond the room is refused. The changes, and how often it was refused.
    fn run(adaptive: &mut Adaptive, trace: impl IntoIterator<Item = u64>) -> (Vec<Change>, usize) {
        let (mut changes, mut refusals) = (Vec::new(), 0);
        for room in trace {
            let event = if room < adaptive.batch() { Event::Refused } else { Event::Ran { room } };
            refusals += usize::from(event == Event::Refused);
            changes.extend(adaptive.observe(event));
        }
        (changes, refusals)
    }

    proptest! {
        /// Memory that trembles by a tenth: after the first steps nothing changes any more.
        #[test]
        fn a_trembling_room_settles(room in 2..10_000_u64, best in 1..10_000_u64, start in 1..10_000_u64, tremble in prop::collection::vec(0.9..1.0_f64, 4000)) {
            let mut adaptive = Adaptive::new(start, best);
            let trace = |part: &[f64]| part.iter().map(|share| ((room as f64 * share) as u64).max(1)).collect::<Vec<_>>();
            run(&mut adaptive, trace(&tremble[..3000]));
            let (changes, refusals) = run(&mut adaptive, trace(&tremble[3000..]));
            prop_assert!(refusals <= 1 && changes.len() <= 2, "{changes:?}");
        }

        /// Whatever happens, the batch stays within its bounds, and refusals become rare.
        #[test]
        fn refusals_become_rare(best in 1..5000_u64, rooms in prop::collection::vec(1..5000_u64, 1..20)) {
            let mut adaptive = Adaptive::new(best, best);
            for &room in &rooms {
                let (changes, refusals) = run(&mut adaptive, std::iter::repeat_n(room, 500));
                // At most one per halving on the way down, and a few attempts on the way up.
                prop_assert!(refusals <= 16, "{refusals} {changes:?}");
                prop_assert!(changes.iter().all(|change| change.to >= 1 && change.to <= best));
                prop_assert!(adaptive.batch() <= room.max(1));
            }
        }

        /// Nothing comes back and forth: between two changes up there is a calm, and no run of up, down, up, down in steady memory.
        #[test]
        fn steady_memory_brings_no_oscillation(room in 1..5000_u64, best in 1..5000_u64, start in 1..5000_u64) {
            let mut adaptive = Adaptive::new(start, best);
            let (changes, _) = run(&mut adaptive, std::iter::repeat_n(room, 5000));
            let turns = changes.windows(2).filter(|pair| (pair[0].to > pair[0].from) != (pair[1].to > pair[1].from)).count();
            prop_assert!(turns <= 1, "{changes:?}");
            // And what is there is used, but for the quarter that keeps it steady.
            prop_assert!(adaptive.batch() >= best.min(room * 4 / 5 * 4 / 5).max(1) / 2, "{} of {room}, {best}", adaptive.batch());
        }
    }

    #[test]
    fn a_peak_beyond_the_plan_shrinks_in_proportion() {
        let mut adaptive = Adaptive::new(100, 100);
        let event = Event::Peak { planned: Bytes::from_mib(10), seen: Bytes::from_mib(20) };
        assert_eq!(adaptive.observe(event), Some(Change { from: 100, to: 50, reason: Reason::Peak }));
        assert_eq!(adaptive.observe(Event::Peak { planned: Bytes::from_mib(20), seen: Bytes::from_mib(20) }), None);
        let mut one = Adaptive::new(1, 100);
        assert_eq!(one.observe(Event::Refused), None);
        assert_eq!(one.batch(), 1);
    }

    /// A device that takes a third more than its batches are planned to, whose memory seems to have room all the time.
    #[test]
    fn peaks_become_rare() {
        let (mut adaptive, mut peaks) = (Adaptive::new(100, 100), 0);
        for _ in 0..5000 {
            let (planned, seen) = (Bytes::new(1000), Bytes::new(adaptive.batch() * 40 / 3));
            let event = if seen > planned { Event::Peak { planned, seen } } else { Event::Ran { room: 1000 } };
            peaks += u32::from(seen > planned);
            adaptive.observe(event);
        }
        assert!(peaks < 12 && (50..=75).contains(&adaptive.batch()), "{peaks} peaks, {}", adaptive.batch());
    }

    #[test]
    fn what_is_refused_after_growing_leads_back_and_later_to_half() {
        let mut adaptive = Adaptive::new(11, 100);
        let mut change = None;
        while change.is_none() {
            change = adaptive.observe(Event::Ran { room: 1000 });
        }
        assert_eq!(change.map(|change| (change.from, change.to)), Some((11, 22)));
        assert_eq!(adaptive.observe(Event::Refused).map(|change| change.to), Some(11));
        assert_eq!(adaptive.observe(Event::Refused).map(|change| change.to), Some(5));
    }

    #[test]
    fn memory_that_comes_back_is_used_again() {
        let mut adaptive = Adaptive::new(256, 256);
        let (down, _) = run(&mut adaptive, [40; 20]);
        assert_eq!(down.first().map(|change| change.reason), Some(Reason::Refused));
        let (_, refusals) = run(&mut adaptive, [4000; 6000]);
        assert_eq!((adaptive.batch(), refusals), (256, 0));
    }
}
