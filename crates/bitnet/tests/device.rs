//! The seam to layers on a device: what the session asks of it, and what it does when the device fails. Real devices are tested in `gpu`.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::{CacheType, LoadOptions, Options, Session, SessionError, Stack, StackError, Weights};
use models::{Written, cases};
use std::sync::{Arc, Mutex};

/// Positions and values that a device was asked for.
type Calls = Arc<Mutex<Vec<(usize, usize)>>>;

/// A device that adds nothing, and fails after some calls.
#[derive(Debug)]
struct Idle {
    n_layer: usize,
    left: usize,
    calls: Calls,
}

impl Stack for Idle {
    fn n_layer(&self) -> usize {
        self.n_layer
    }

    fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), StackError> {
        self.calls.lock().unwrap().push((start, x.len()));
        self.left = self.left.checked_sub(1).ok_or("the device went away")?;
        Ok(())
    }
}

fn session(n_layer: usize, left: usize) -> (Result<Session, SessionError>, Calls) {
    let built = cases()[0].build(Written::default());
    let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap());
    let options = Options { n_ctx: 16, n_ubatch: 4, cache: CacheType::F32, threads: 1 };
    let calls = Calls::default();
    let device = Idle { n_layer, left, calls: Arc::clone(&calls) };
    (Session::with_device(weights, options, Some(Box::new(device))), calls)
}

#[test]
fn each_micro_batch_is_one_call_with_its_position() {
    let (session, calls) = session(1, 9);
    let mut session = session.unwrap();
    session.read(&[1, 2, 3, 4, 5, 6]).unwrap();
    session.rewind(5);
    session.extend(&[7]).unwrap();
    let width = cases()[0].n_embd;
    assert_eq!(*calls.lock().unwrap(), [(0, 4 * width), (4, 2 * width), (5, width)]);
}

#[test]
fn a_device_that_fails_is_an_error_and_adds_nothing() {
    let (session, _) = session(2, 1);
    let mut session = session.unwrap();
    session.extend(&[1, 2, 3]).unwrap();
    let error = session.extend(&[4]).unwrap_err();
    assert_eq!((error.to_string().as_str(), session.past()), ("layers on a device: the device went away", 3));
}

#[test]
fn more_layers_than_the_model_has_are_refused() {
    let error = session(3, 0).0.unwrap_err();
    assert_eq!(error.to_string(), "a device with 3 layers of a model of 2");
}

/// A device with the output head alone, whose logits say which position they are behind.
#[derive(Debug)]
struct Telling(Calls);

impl Stack for Telling {
    fn n_layer(&self) -> usize {
        0
    }

    fn has_head(&self) -> bool {
        true
    }

    fn add(&mut self, start: usize, x: &mut [f32]) -> Result<(), StackError> {
        self.0.lock().unwrap().push((start, x.len()));
        Ok(())
    }

    fn add_and_tell(&mut self, start: usize, x: &mut [f32], logits: &mut [f32]) -> Result<(), StackError> {
        logits.fill((start + x.len() / cases()[0].n_embd) as f32);
        Ok(())
    }
}

/// Only what is asked for is computed: logits behind the last micro-batch of `extend`, none of `read`.
#[test]
fn logits_of_a_device_are_asked_for_once() {
    let built = cases()[0].build(Written::default());
    let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), &LoadOptions::default()).unwrap());
    let options = Options { n_ctx: 16, n_ubatch: 4, cache: CacheType::F32, threads: 1 };
    let calls = Calls::default();
    let mut session = Session::with_device(weights, options, Some(Box::new(Telling(Arc::clone(&calls))))).unwrap();
    session.read(&[1, 2]).unwrap();
    assert!(session.logits().iter().all(|logit| *logit == 0.0));
    assert!(session.extend(&[3, 4, 5, 6, 7, 8]).unwrap().iter().all(|logit| *logit == 8.0));
    let width = cases()[0].n_embd;
    assert_eq!(*calls.lock().unwrap(), [(0, 2 * width), (2, 4 * width)]);
    // A device without a head says so.
    let mut idle = Idle { n_layer: 1, left: 9, calls };
    assert_eq!(idle.add_and_tell(0, &mut [0.0], &mut [0.0]).unwrap_err().to_string(), "there is no output head");
    assert!(!idle.has_head());
}
