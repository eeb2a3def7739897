//! How many tokens of a prompt a GPU computes together: measured on it when its layers are loaded, where the user has not said.
//!
//! One layer is loaded by itself and timed with whole tiles, twice as many each time; from these times and what the plan leaves of the device's
//! memory comes the smallest batch with nearly the best speed ([`workspace::optimal_batch_of`]). Where a step fails, which is logged, the
//! batch is the planned one, or what memory has room for of it.

use bitnet::Stack;
use spec::{Bytes, Known};
use std::time::{Duration, Instant};
use workspace::{Calibration, Choice, Layer, Measured, Room, optimal_batch_of};

/// Batches are measured for no longer than this, but for as many as a fit needs.
const ENOUGH: Duration = Duration::from_millis(500);
const FEWEST: usize = 3;

/// A pass that takes so long needs no second one: what starts it is no part worth leaving out.
const LONG: Duration = Duration::from_millis(100);

/// What is known of a device and its layers before it is measured.
pub(super) struct Question<'a> {
    /// For the log.
    pub(super) name: &'a str,
    /// Projections of a layer.
    pub(super) projections: &'a [Layer],
    /// Layers that the device is to have.
    pub(super) n_layer: usize,
    /// Width of the residual stream.
    pub(super) n_embd: usize,
    /// Tokens of a tile of the kernels.
    pub(super) tile: u64,
    /// Tokens that the plan has room for.
    pub(super) most: u64,
    /// What the plan leaves for the batch on the device.
    pub(super) room: Room,
}

impl Question<'_> {
    /// The batch that is worth it, and the one that is with all memory free. `trial` is one of the layers, with room for all tokens asked for; `bytes` is what a batch takes on the device.
    pub(super) fn answer(&self, trial: &mut dyn Stack, bytes: impl Fn(u64) -> Option<Bytes>) -> Option<(Choice, u64)> {
        let mut x = vec![0.0; self.n_embd * usize::try_from(self.most).ok()?];
        let pass = |tokens: u64| {
            let x = x.get_mut(..self.n_embd * tokens as usize).unwrap_or_default();
            x.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 31 % 255) as f32 / 127.0 - 1.0);
            let began = Instant::now();
            trial.add(0, x).map(|()| began.elapsed()).map_err(|error| error.to_string())
        };
        match self.measured(pass).and_then(|times| self.chosen(&times, bytes)) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(
                    device = self.name,
                    error,
                    tokens = self.most,
                    "the batch of a device was not measured: it is the planned one"
                );
                None
            }
        }
    }

    /// Times of whole tiles.
    fn measured(&self, mut pass: impl FnMut(u64) -> Result<Duration, String>) -> Result<Vec<Measured>, String> {
        let tile = self.tile.max(1);
        let sizes = std::iter::successors(Some(tile), |tokens| tokens.checked_mul(2)).take_while(|&tokens| tokens <= self.most);
        let began = Instant::now();
        let mut times = Vec::new();
        for tokens in sizes {
            if times.len() >= FEWEST && began.elapsed() > ENOUGH {
                break;
            }
            let mut least = pass(tokens)?;
            for _ in 0..2 {
                if least < LONG {
                    least = least.min(pass(tokens)?);
                }
            }
            times.push(Measured { tokens, seconds: least.as_secs_f64() });
        }
        Ok(times)
    }

    fn chosen(&self, times: &[Measured], bytes: impl Fn(u64) -> Option<Bytes>) -> Result<(Choice, u64), String> {
        let calibration = Calibration::fit(self.projections, times, 0.0, self.tile).map_err(|error| error.to_string())?;
        let in_room =
            |room: &Room| optimal_batch_of(&bytes, self.projections, &calibration, room, self.most).map_err(|error| error.to_string());
        let choice = in_room(&self.room)?;
        let best = in_room(&Room { free: Known::exact(Bytes::MAX, "all memory"), ..self.room.clone() })?.batch;
        if self.room.is_guessed() {
            tracing::warn!(device = self.name, usable = %self.room.usable(), "free memory is not known: an eighth of the device's is taken to be");
        }
        tracing::info!(
            device = self.name,
            tokens = choice.batch,
            limit = ?choice.limit,
            room = choice.room,
            workspace = %choice.workspace,
            tokens_per_second = choice.tokens_per_second / self.n_layer.max(1) as f64,
            ?times,
            "the batch of a device, measured"
        );
        Ok((choice, best))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workspace::Limit;

    fn question(projections: &[Layer], free: u64) -> Question<'_> {
        let free = Known::exact(Bytes::new(free), "a test");
        let room = Room { free, total: Known::unknown("a test"), held: Bytes::ZERO, margin: Bytes::ZERO, largest: None };
        Question { name: "test0", projections, n_layer: 2, n_embd: 8, tile: 32, most: 512, room }
    }

    /// A device whose pass costs a floor, or so much per token beyond it.
    fn times(question: &Question<'_>, floor: f64, per_token: f64) -> Vec<Measured> {
        question.measured(|tokens| Ok(Duration::from_secs_f64(floor.max(per_token * tokens as f64)))).unwrap()
    }

    #[test]
    fn the_batch_is_the_smallest_with_nearly_the_best_speed_that_there_is_room_for() {
        let layers = [Layer::new(256, 256).unwrap()];
        let bytes = |tokens: u64| Some(Bytes::new(1000 * tokens));
        for (floor, per_token, free, expected) in [
            // The line begins at 128 tokens.
            (128e-5, 1e-5, u64::MAX, (128, Limit::Throughput)),
            // Every token costs the same from the first on.
            (1e-6, 1e-5, u64::MAX, (32, Limit::Throughput)),
            // Room for 70.
            (128e-5, 1e-5, 70_000, (64, Limit::Memory)),
        ] {
            let question = question(&layers, free);
            let (choice, best) = question.chosen(&times(&question, floor, per_token), bytes).unwrap();
            let (tokens, limit) = expected;
            assert!((tokens..=tokens + 32).contains(&choice.batch) && choice.limit == limit, "{choice:?} {expected:?}");
            assert!(choice.workspace.get() <= free && choice.batch <= best && (choice.limit == Limit::Memory || choice.batch == best));
        }
        assert!(question(&layers, 10).chosen(&times(&question(&layers, 10), 1e-3, 1e-5), bytes).unwrap_err().contains("one token needs"));
    }

    #[test]
    fn a_slow_device_is_measured_no_more_than_a_fit_needs() {
        let layers = [Layer::new(256, 256).unwrap()];
        let mut passes = 0;
        let pass = |tokens: u64| {
            passes += 1;
            std::thread::sleep(Duration::from_millis(200));
            Ok(Duration::from_millis(200 * tokens))
        };
        let times = question(&layers, u64::MAX).measured(pass).unwrap();
        assert_eq!((times.iter().map(|time| time.tokens).collect::<Vec<_>>(), passes), (vec![32, 64, 128], 3));
        // One that fails is not measured; one of too few tiles tells nothing.
        assert_eq!(question(&layers, u64::MAX).measured(|_| Err("lost".into())), Err("lost".into()));
        let few = Question { most: 64, ..question(&layers, u64::MAX) };
        assert!(few.chosen(&times[..2], |_| Some(Bytes::ZERO)).unwrap_err().contains("at least three"));
    }
}
