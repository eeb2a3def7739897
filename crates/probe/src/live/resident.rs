//! A driver's library on a thread of its own, with a deadline for each answer.

use crate::host::Refusal;
use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An open library: a question in, its answer as a text out. Lives on one thread.
pub(crate) type Ask<Q> = Box<dyn Fn(Q) -> Result<String, Refusal>>;
type Open<Q> = dyn Fn() -> Result<Ask<Q>, Refusal> + Send + Sync;
type Answered = Result<String, Refusal>;

/// A library that is opened with the first question and stays open.
pub(crate) struct Resident<Q> {
    name: &'static str,
    deadline: Duration,
    open: Arc<Open<Q>>,
    worker: Mutex<Worker<Q>>,
}

#[derive(Default)]
enum Worker<Q> {
    /// Not asked yet.
    #[default]
    Idle,
    /// Ready for a question.
    Ready(Channel<Q>),
    /// Still busy with a question whose deadline has passed.
    Late(Channel<Q>),
    /// The thread could not be started or has ended.
    Gone,
}

struct Channel<Q> {
    questions: Sender<Q>,
    answers: Receiver<Answered>,
}

impl<Q: Send + 'static> Resident<Q> {
    /// A library that `open` opens, on a thread of this name, with this long for each answer.
    pub(crate) fn new(name: &'static str, deadline: Duration, open: impl Fn() -> Result<Ask<Q>, Refusal> + Send + Sync + 'static) -> Self {
        Self { name, deadline, open: Arc::new(open), worker: Mutex::new(Worker::Idle) }
    }

    /// The answer to one question.
    ///
    /// # Errors
    /// The library's refusal, or that of opening it; [`Refusal::TimedOut`] where the answer did not come within the deadline, and as
    /// long as it has not come.
    pub(crate) fn ask(&self, question: Q) -> Answered {
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
        channel.questions.send(question).map_err(|_| Refusal::NotFound)?;
        match channel.answers.recv_timeout(self.deadline) {
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

    fn start(&self) -> Result<Channel<Q>, Refusal> {
        let (questions, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let open = Arc::clone(&self.open);
        std::thread::Builder::new().name(self.name.into()).spawn(move || serve(&*open, &inbox, &outbox))?;
        Ok(Channel { questions, answers })
    }
}

impl<Q> fmt::Debug for Resident<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident").field("name", &self.name).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

fn serve<Q>(open: &Open<Q>, inbox: &Receiver<Q>, outbox: &Sender<Answered>) {
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
