//! What may not answer (the library of a driver, a file of a broken device) on a thread of its own, within what is left of a
//! detection's time.

use crate::host::Refusal;
use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An open library: a question in, its answer out, as a text where nothing else is said. Lives on one thread.
pub(crate) type Ask<Q, A = String> = Box<dyn Fn(Q) -> Result<A, Refusal>>;
type Open<Q, A> = dyn Fn() -> Result<Ask<Q, A>, Refusal> + Send + Sync;

/// How long a detection may wait, for all answers together: a hundred slow answers cost no more than one that does not come.
#[derive(Debug)]
pub(crate) struct Budget {
    whole: Duration,
    left: Mutex<Duration>,
}

impl Budget {
    /// A budget of this much time for each detection.
    pub(crate) fn new(whole: Duration) -> Self {
        Self { whole, left: Mutex::new(whole) }
    }

    /// A detection begins: all of the time is left.
    pub(crate) fn begin(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = self.whole;
    }

    fn left(&self) -> Duration {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spend(&self, time: Duration) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(time);
    }
}

/// A library that is opened with the first question and stays open.
pub(crate) struct Resident<Q, A = String> {
    name: &'static str,
    open: Arc<Open<Q, A>>,
    worker: Mutex<Worker<Q, A>>,
}

#[derive(Default)]
enum Worker<Q, A> {
    /// Not asked yet.
    #[default]
    Idle,
    /// Ready for a question.
    Ready(Channel<Q, A>),
    /// Still busy with a question whose deadline has passed.
    Late(Channel<Q, A>),
    /// The thread could not be started or has ended.
    Gone,
}

struct Channel<Q, A> {
    questions: Sender<Q>,
    answers: Receiver<Result<A, Refusal>>,
}

impl<Q: Send + 'static, A: Send + 'static> Resident<Q, A> {
    /// A library that `open` opens, on a thread of this name.
    pub(crate) fn new(name: &'static str, open: impl Fn() -> Result<Ask<Q, A>, Refusal> + Send + Sync + 'static) -> Self {
        Self { name, open: Arc::new(open), worker: Mutex::new(Worker::Idle) }
    }

    /// True before the first question.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(*self.worker.lock().unwrap_or_else(PoisonError::into_inner), Worker::Idle)
    }

    /// True where the library has been asked and is not late: it is open, and its start costs nothing any more.
    pub(crate) fn is_awake(&self) -> bool {
        matches!(*self.worker.lock().unwrap_or_else(PoisonError::into_inner), Worker::Ready(_))
    }

    /// The answer to one question, waited for at most this long and no longer than the budget has left.
    ///
    /// # Errors
    /// The library's refusal, or that of opening it; [`Refusal::TimedOut`] where the answer did not come in time, and as long as it
    /// has not come.
    pub(crate) fn ask(&self, question: Q, budget: &Budget, most: Duration) -> Result<A, Refusal> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match std::mem::replace(&mut *worker, Worker::Gone) {
            Worker::Idle => self.start()?,
            Worker::Ready(channel) => channel,
            Worker::Late(channel) => match channel.answers.try_recv() {
                // The answer to the question that was given up.
                Ok(_) => channel,
                Err(TryRecvError::Empty) => {
                    *worker = Worker::Late(channel);
                    return Err(Refusal::TimedOut);
                }
                Err(TryRecvError::Disconnected) => return Err(Refusal::NotFound),
            },
            Worker::Gone => return Err(Refusal::NotFound),
        };
        let allowed = budget.left().min(most);
        if allowed.is_zero() {
            *worker = Worker::Ready(channel);
            return Err(Refusal::TimedOut);
        }
        channel.questions.send(question).map_err(|_| Refusal::NotFound)?;
        let start = Instant::now();
        let answer = channel.answers.recv_timeout(allowed);
        budget.spend(start.elapsed());
        match answer {
            Ok(answer) => {
                *worker = Worker::Ready(channel);
                answer
            }
            Err(RecvTimeoutError::Timeout) => {
                *worker = Worker::Late(channel);
                Err(Refusal::TimedOut)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Refusal::Failed("the driver's thread has ended".into())),
        }
    }

    fn start(&self) -> Result<Channel<Q, A>, Refusal> {
        let (questions, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let open = Arc::clone(&self.open);
        std::thread::Builder::new().name(self.name.into()).spawn(move || serve(&*open, &inbox, &outbox))?;
        Ok(Channel { questions, answers })
    }
}

impl<Q, A> fmt::Debug for Resident<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident").field("name", &self.name).finish_non_exhaustive()
    }
}

fn serve<Q, A>(open: &Open<Q, A>, inbox: &Receiver<Q>, outbox: &Sender<Result<A, Refusal>>) {
    let mut library = None;
    while let Ok(question) = inbox.recv() {
        // Opened with the first question, so that a slow start counts against its deadline.
        let answer = match library.get_or_insert_with(open) {
            Ok(ask) => ask(question),
            Err(refusal) => Err(refusal.clone()),
        };
        if outbox.send(answer).is_err() {
            return;
        }
    }
}
