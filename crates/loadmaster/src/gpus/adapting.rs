//! Layers on a GPU whose batch follows the memory that is free: smaller when others need it or it takes more than planned, larger after it has
//! been calm for long enough.

use bitnet::{Stack, StackError};
use spec::Bytes;
use std::fmt;
use workspace::{Adaptive, Event};

/// Layers whose batch can be made anew; keys and values stay.
pub(super) trait Resizable: Stack {
    /// Tokens that are computed together; 0 where there is no batch.
    fn tokens(&self) -> usize;

    /// Computes so many together from now on, or as many as there is memory for.
    fn resize(&mut self, tokens: usize) -> Result<(), StackError>;
}

/// A device after a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// The largest batch that there is memory for, with what this one holds; `None` where nobody knows.
    pub(super) room: Option<u64>,
    /// What the plan allows for a batch, and what was seen to be taken for this one; `None` where nobody knows either.
    pub(super) peak: Option<(Bytes, Bytes)>,
}

/// Asks a device behind a batch of so many tokens.
pub(super) type Ask = Box<dyn FnMut(u64) -> Now + Send>;

/// Layers with a batch that is looked after.
pub(super) struct Adapting<S> {
    name: String,
    stack: S,
    batch: Adaptive,
    ask: Ask,
    n_embd: usize,
}

impl<S: Resizable> Adapting<S> {
    /// `best`: the batch that is worth it with all memory free.
    pub(super) fn new(name: &str, stack: S, best: u64, ask: Ask, n_embd: usize) -> Self {
        let batch = Adaptive::new(stack.tokens() as u64, best.max(stack.tokens() as u64));
        Self { name: name.to_owned(), stack, batch, ask, n_embd }
    }

    /// Behind so many values that were computed. Decode needs one token at a time, and no time for this.
    fn look_behind(&mut self, values: usize) {
        if values > self.n_embd {
            self.look();
        }
    }

    /// After a prompt's batch that went well. Where no batch can be made any more, that is logged, and the next one says so.
    fn look(&mut self) {
        let Now { room, peak } = (self.ask)(self.stack.tokens() as u64);
        let room = room.unwrap_or(0);
        let event = match peak {
            Some((planned, seen)) if seen > planned => Event::Peak { planned, seen },
            _ => Event::Ran { room },
        };
        let Some(change) = self.batch.observe(event) else { return };
        tracing::info!(device = self.name, from = change.from, to = change.to, reason = ?change.reason, ?event, "another batch of a device");
        loop {
            if let Err(error) = self.stack.resize(self.batch.batch() as usize) {
                tracing::warn!(device = self.name, %error, "no batch of a device");
                return;
            }
            if self.stack.tokens() as u64 >= self.batch.batch() {
                return;
            }
            // There was less than it seemed.
            let Some(change) = self.batch.observe(Event::Refused) else { return };
            tracing::info!(device = self.name, from = change.from, to = change.to, reason = ?change.reason, "a smaller batch of a device");
        }
    }
}

impl<S: Resizable> Stack for Adapting<S> {
    fn n_layer(&self) -> usize {
        self.stack.n_layer()
    }

    fn has_head(&self) -> bool {
        self.stack.has_head()
    }

    fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), StackError> {
        self.stack.add(start, x)?;
        self.look_behind(x.len());
        Ok(())
    }

    fn add_and_tell(&mut self, start: usize, x: &mut [f32], logits: &mut [f32]) -> Result<(), StackError> {
        self.stack.add_and_tell(start, x, logits)?;
        self.look_behind(x.len());
        Ok(())
    }
}

impl<S: fmt::Debug> fmt::Debug for Adapting<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapting").field("name", &self.name).field("stack", &self.stack).field("batch", &self.batch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    const WIDTH: usize = 4;

    /// Layers on a device with memory for so many tokens.
    #[derive(Debug)]
    struct Simulated {
        memory: Arc<AtomicU64>,
        tokens: usize,
        resized: Vec<usize>,
    }

    impl Stack for Simulated {
        fn n_layer(&self) -> usize {
            1
        }
        fn add(&mut self, _: usize, x: &mut [f32]) -> Result<(), StackError> {
            if self.tokens == 0 {
                return Err("no batch".into());
            }
            x.iter_mut().for_each(|x| *x += 1.0);
            Ok(())
        }
    }

    impl Resizable for Simulated {
        fn tokens(&self) -> usize {
            self.tokens
        }
        fn resize(&mut self, tokens: usize) -> Result<(), StackError> {
            let memory = self.memory.load(Ordering::Relaxed) as usize;
            self.tokens = std::iter::successors(Some(tokens), |tokens| Some(tokens / 2)).find(|&tokens| tokens <= memory).unwrap_or(0);
            self.resized.push(self.tokens);
            if self.tokens == 0 { Err("no memory".into()) } else { Ok(()) }
        }
    }

    fn adapting(tokens: usize, best: u64, told: impl Fn(u64) -> Option<u64> + Send + 'static) -> (Adapting<Simulated>, Arc<AtomicU64>) {
        let memory = Arc::new(AtomicU64::new(tokens as u64));
        let stack = Simulated { memory: Arc::clone(&memory), tokens, resized: Vec::new() };
        let now = Arc::clone(&memory);
        (Adapting::new("test0", stack, best, Box::new(move |_| Now { room: told(now.load(Ordering::Relaxed)), peak: None }), WIDTH), memory)
    }

    fn prompts(stack: &mut Adapting<Simulated>, count: usize) {
        for _ in 0..count {
            stack.add(0, &mut [0.0; 3 * WIDTH]).unwrap();
        }
    }

    #[test]
    fn a_batch_follows_free_memory_and_decode_does_not_ask() {
        let (mut stack, memory) = adapting(64, 64, Some);
        memory.store(20, Ordering::Relaxed);
        stack.add(0, &mut [0.0; WIDTH]).unwrap();
        assert_eq!(stack.stack.tokens, 64, "one token");
        prompts(&mut stack, 1);
        assert_eq!(stack.stack.tokens, 20, "others need memory");
        memory.store(1000, Ordering::Relaxed);
        prompts(&mut stack, 1);
        assert_eq!(stack.stack.tokens, 20, "it has to stay free");
        prompts(&mut stack, 100);
        assert_eq!(stack.stack.tokens, 64, "and not beyond what is worth it");
        assert!(stack.stack.resized.len() < 6, "{:?}", stack.stack.resized);
    }

    #[test]
    fn what_is_told_and_not_there_is_not_asked_for_again_and_again() {
        // The driver tells more than it gives.
        let (mut stack, _) = adapting(8, 512, |_| Some(10_000));
        prompts(&mut stack, 2000);
        assert_eq!(stack.stack.tokens, 8);
        assert!(stack.stack.resized.len() < 24, "{:?}", stack.stack.resized);
    }

    #[test]
    fn a_batch_that_takes_more_than_the_plan_allows_becomes_smaller_and_stays_so() {
        let stack = Simulated { memory: Arc::new(AtomicU64::new(1000)), tokens: 64, resized: Vec::new() };
        // Twenty bytes a token, and a thousand that the plan allows.
        let ask = |tokens: u64| Now { room: Some(200), peak: Some((Bytes::new(1000), Bytes::new(20 * tokens))) };
        let mut stack = Adapting::new("test0", stack, 64, Box::new(ask), WIDTH);
        prompts(&mut stack, 1);
        assert_eq!(stack.stack.tokens, 50);
        prompts(&mut stack, 2000);
        assert!((25..=50).contains(&stack.stack.tokens) && stack.stack.resized.len() < 16, "{:?}", stack.stack.resized);
    }

    #[test]
    fn where_nobody_knows_nothing_changes_and_no_memory_at_all_is_an_error_of_the_next_batch() {
        let (mut stack, memory) = adapting(8, 512, |_| None);
        prompts(&mut stack, 1000);
        assert_eq!(stack.stack.resized, [] as [usize; 0]);
        let (mut lost, none) = adapting(8, 8, |room| Some(room.max(1)));
        none.store(0, Ordering::Relaxed);
        prompts(&mut lost, 1);
        assert!(lost.add(0, &mut [0.0; 3 * WIDTH]).is_err());
        drop(memory);
    }
}
