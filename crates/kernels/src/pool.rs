//! Threads that wait for the next layer without going to sleep, and share what there is to do as they are free.
//!
//! A token passes some two hundred layers, and a layer takes a tenth of a millisecond: a pool that wakes its threads through the
//! system each time would spend as long on that as on the work. Between layers these threads spin for a while, and only then sleep.
//!
//! Memory does not serve all processors equally, and other processes take theirs away: threads with equal parts wait for the slowest. Here
//! each takes a piece whenever it is free, large ones first (guided self-scheduling, Polychronopoulos and Kuck, IEEE Transactions on
//! Computers C-36, 1987), and nobody waits for a thread that has not begun.

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of waiting before a thread sleeps: a few milliseconds, longer than what lies between two layers.
const SPINS: u32 = 100_000;

/// Shares of a thread of which the smallest piece is one: threads wait for each other as long as such a piece takes at most. Each piece
/// begins with a wait for memory.
const PIECES: usize = 8;

/// What is to be done: called by threads with their numbers.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// Some threads that compute together; the one that asks is the first of them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Where each worker stands.
    turns: Vec<Turn>,
    /// Workers that sleep.
    asleep: AtomicUsize,
    end: AtomicBool,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    lock: Mutex<()>,
    wake: Condvar,
}

/// Where a worker stands; on a line of a cache that no other one looks at.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Turn(AtomicU8);

impl Turn {
    /// The worker has nothing to do.
    const IDLE: u8 = 0;
    /// There is a job that it may take.
    const OFFERED: u8 = 1;
    /// It has taken the job.
    const TAKEN: u8 = 2;

    /// Whether the job that was offered is now the worker's.
    fn take(&self) -> bool {
        self.0.compare_exchange(Self::OFFERED, Self::TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the job back from a worker that has not begun.
    fn withdraw(&self) {
        // Where this fails, the worker has begun, and `wait` sees its end.
        let _ = self.0.compare_exchange(Self::OFFERED, Self::IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Spins until the worker is idle, and lets others run from time to time: the worker may need this very processor.
    fn wait(&self) {
        let mut turns = 0_u32;
        while self.0.load(Ordering::Acquire) != Self::IDLE {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

// SAFETY: `job` is written by `Pool::offer` alone, which has the pool for itself, while all workers are idle, and read by workers that have
// taken a turn, until they are idle again. The closure behind it may be called from several threads at once.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never used after `offer` has returned.
unsafe impl Send for Shared {}

impl Pool {
    /// With so many threads in all, of which `threads - 1` are started.
    ///
    /// # Errors
    /// The system does not start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let workers = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            turns: std::iter::repeat_with(Turn::default).take(workers).collect(),
            asleep: AtomicUsize::new(0),
            end: AtomicBool::new(false),
            panicked: Mutex::new(None),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::new() };
        for number in 1..=workers {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("kernels-{number}")).spawn(move || work(&shared, number))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` once per thread with the thread's number, and returns when all are done.
    ///
    /// # Panics
    /// With what `job` panicked, once all threads are done.
    pub fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        self.offer(job, true);
    }

    /// Calls `job` with ranges that are all of `0..units` together, in any order and on any threads: each takes the next whenever it is free,
    /// two thirds of its share of what is left, and `smallest` at least. A pool of one thread takes everything at once.
    ///
    /// # Panics
    /// With what `job` panicked, once all threads are done; ranges may then be left out.
    pub fn share(&mut self, units: usize, smallest: usize, job: impl Fn(Range<usize>) + Sync) {
        if units == 0 {
            return;
        }
        if self.workers.is_empty() {
            return job(0..units);
        }
        let (pieces, threads) = (Pieces { begun: AtomicUsize::new(0), units, smallest: smallest.max(1) }, self.threads());
        self.offer(
            &|_| {
                while let Some(piece) = pieces.next(threads) {
                    job(piece)
                }
            },
            false,
        );
    }

    /// Calls `job` on this thread and on workers: on `all` of them, or on those that begin before this one is done.
    fn offer(&mut self, job: &Job<'_>, all: bool) {
        if self.workers.is_empty() {
            return job(0);
        }
        // SAFETY: only the lifetime changes. The pointer is used by workers alone that have taken the job, and this function does not return,
        // nor unwind, before all of them are idle.
        let erased: *const Job<'static> = unsafe { std::mem::transmute(std::ptr::from_ref::<Job<'_>>(job)) };
        // SAFETY: `&mut self` and idle workers: nobody else looks at it.
        unsafe { *self.shared.job.get() = Some(erased) };
        for turn in &self.shared.turns {
            turn.0.store(Turn::OFFERED, Ordering::SeqCst);
        }
        if self.shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        if !all {
            self.shared.turns.iter().for_each(Turn::withdraw);
        }
        self.shared.turns.iter().for_each(Turn::wait);
        let theirs = self.shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Calls `job` with consecutive parts of `out`, of whole multiples of `step` (but the last), and the place where each begins.
    pub fn split(&mut self, out: &mut [f32], step: usize, job: impl Fn(usize, &mut [f32]) + Sync) {
        let width = out.len();
        self.split_columns([(out, width)], step, |[columns]| job(columns.first(), columns.row(0)));
    }

    /// The same for tables of rows of a width each: `job` has some columns of all rows of every table, none of those that are too narrow.
    ///
    /// # Panics
    /// A width or `step` of 0.
    pub fn split_columns<const N: usize>(
        &mut self,
        tables: [(&mut [f32], usize); N],
        step: usize,
        job: impl Fn(&mut [ColumnsMut<'_>; N]) + Sync,
    ) {
        let tables = tables.map(|(out, width)| Table::new(out, width));
        let units = tables.iter().map(|table| table.width.div_ceil(step)).max().unwrap_or(0);
        let smallest = units / (PIECES * self.threads());
        self.share(units, smallest, |piece| job(&mut columns(&tables, step, units, piece)));
    }

    /// The same in one part per thread, all as wide as each other: for jobs that cost more in small parts.
    ///
    /// # Panics
    /// As there.
    pub fn split_columns_evenly<const N: usize>(
        &mut self,
        tables: [(&mut [f32], usize); N],
        step: usize,
        job: impl Fn(&mut [ColumnsMut<'_>; N]) + Sync,
    ) {
        let tables = tables.map(|(out, width)| Table::new(out, width));
        let parts = self.threads();
        self.share(parts, 1, |pieces| pieces.for_each(|part| job(&mut columns(&tables, step, parts, part..part + 1))));
    }

    /// Calls `job` for every row, with what each of the tables has of it. One row, and any rows of a pool of one thread, cost no
    /// synchronisation.
    pub fn each_row<T: Tables>(&mut self, tables: T, job: impl Fn(usize, T::Row) + Sync) {
        let rows = tables.rows();
        let some = |rows: Range<usize>| {
            for row in rows {
                // SAFETY: the tables are this function's own, and every row is asked for once: `share` hands out every row once.
                job(row, unsafe { tables.row(row) });
            }
        };
        match rows {
            0 | 1 => some(0..rows),
            _ => self.share(rows, rows / (PIECES * self.threads()), some),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker hands its panics to `offer`; there is nothing left to tell.
            let _ = worker.join();
        }
    }
}

/// What is left to do, on a line of a cache of its own.
#[repr(align(128))]
struct Pieces {
    /// Units that threads have taken.
    begun: AtomicUsize,
    units: usize,
    smallest: usize,
}

impl Pieces {
    /// The next piece for one of so many threads; `None` when all are taken.
    fn next(&self, threads: usize) -> Option<Range<usize>> {
        let end = |begun: usize| {
            let left = self.units - begun;
            (left > 0).then(|| begun + (2 * left / (3 * threads)).max(self.smallest).min(left))
        };
        // What was written before pieces were offered is seen by whoever has taken the job: the count alone needs no order.
        let begun = self.begun.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).ok()?;
        end(begun).map(|end| begun..end)
    }
}

/// What tables have in some of so many units: consecutive columns, in whole steps but at the end. Units share each table's columns as evenly
/// as its steps allow.
fn columns<'t, const N: usize>(tables: &'t [Table<'_, f32>; N], step: usize, units: usize, piece: Range<usize>) -> [ColumnsMut<'t>; N] {
    tables.each_ref().map(|table| {
        let columns = part(table.width, step, units, piece.start).start..part(table.width, step, units, piece.end - 1).end;
        ColumnsMut { start: table.start, rows: table.rows, width: table.width, columns, out: PhantomData }
    })
}

/// The columns of one of so many units: consecutive, in whole steps but at the end.
fn part(width: usize, step: usize, units: usize, unit: usize) -> Range<usize> {
    let steps = width.div_ceil(step);
    let at = |unit: usize| (steps * unit / units * step).min(width);
    at(unit)..at(unit + 1)
}

/// Memory of rows that threads write to, each to its own.
#[derive(Debug)]
pub struct Table<'a, T> {
    start: *mut T,
    rows: usize,
    width: usize,
    data: PhantomData<&'a mut [T]>,
}

// SAFETY: threads reach what it holds through `Tables::row` and `ColumnsMut::row` only, and each its own part, which `Pool` sees to.
unsafe impl<T: Send> Sync for Table<'_, T> {}

impl<'a, T> Table<'a, T> {
    /// Rows of `width`; what is left over of `data` belongs to none.
    ///
    /// # Panics
    /// A width of 0.
    pub fn new(data: &'a mut [T], width: usize) -> Self {
        Self { start: data.as_mut_ptr(), rows: data.len() / width, width, data: PhantomData }
    }
}

mod sealed {
    /// Tables of this module alone.
    pub trait Sealed {}
}

/// Tables that threads share by rows: a [`Table`], or a pair of such.
pub trait Tables: Sync + sealed::Sealed {
    /// What they have of a row.
    type Row;

    /// Rows of the shortest.
    fn rows(&self) -> usize;

    /// What they have of `row`.
    ///
    /// # Safety
    /// The row is asked for once.
    unsafe fn row(&self, row: usize) -> Self::Row;
}

impl<T> sealed::Sealed for Table<'_, T> {}

impl<'a, T: Send> Tables for Table<'a, T> {
    type Row = &'a mut [T];

    fn rows(&self) -> usize {
        self.rows
    }

    unsafe fn row(&self, row: usize) -> Self::Row {
        assert!(row < self.rows);
        // SAFETY: the row is within the memory that this table borrows, and the caller asks for it once.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width), self.width) }
    }
}

impl<A, B> sealed::Sealed for (A, B) {}

impl<A: Tables, B: Tables> Tables for (A, B) {
    type Row = (A::Row, B::Row);

    fn rows(&self) -> usize {
        self.0.rows().min(self.1.rows())
    }

    unsafe fn row(&self, row: usize) -> Self::Row {
        // SAFETY: as the caller promises.
        unsafe { (self.0.row(row), self.1.row(row)) }
    }
}

/// Some columns of a table whose others belong to other threads.
#[derive(Debug)]
pub struct ColumnsMut<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    columns: Range<usize>,
    out: PhantomData<&'a mut [f32]>,
}

impl ColumnsMut<'_> {
    /// The first of the columns.
    pub fn first(&self) -> usize {
        self.columns.start
    }

    /// How many they are.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Rows of the table.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What they have of a row.
    ///
    /// # Panics
    /// A row beyond the table.
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows && self.columns.end <= self.width);
        // SAFETY: row and columns are within the table, whose memory is borrowed for as long as `split_columns` runs; no other thread has
        // these columns, and `&mut self` lends one row at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + self.columns.start), self.columns.len()) }
    }
}

fn work(shared: &Shared, number: usize) {
    let turn = &shared.turns[number - 1];
    while wait_for_job(shared, turn) {
        if !turn.take() {
            // It was withdrawn.
            continue;
        }
        // SAFETY: the job was written before it was offered, and lives until this worker is idle, which is below.
        let job = unsafe { (*shared.job.get()).map(|job| &*job) };
        let done = catch_unwind(AssertUnwindSafe(|| job.into_iter().for_each(|job| job(number))));
        if let Err(panic) = done {
            *shared.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        turn.0.store(Turn::IDLE, Ordering::Release);
    }
}

/// Waits until a job is offered; false when there will be none.
fn wait_for_job(shared: &Shared, turn: &Turn) -> bool {
    for _ in 0..SPINS {
        if turn.0.load(Ordering::Relaxed) == Turn::OFFERED {
            return true;
        }
        std::hint::spin_loop();
    }
    let mut guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
    shared.asleep.fetch_add(1, Ordering::SeqCst);
    // `offer` offers before it looks for sleepers: either it is seen here, or this thread is woken.
    let offered = loop {
        if turn.0.load(Ordering::SeqCst) == Turn::OFFERED {
            break true;
        }
        if shared.end.load(Ordering::SeqCst) {
            break false;
        }
        guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    shared.asleep.fetch_sub(1, Ordering::SeqCst);
    offered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_every_job_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..300 {
                pool.run(&|number| {
                    counts[number].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 300));
        }
    }

    #[test]
    fn threads_that_sleep_are_woken() {
        let mut pool = Pool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        for _ in 0..3 {
            while pool.shared.asleep.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn every_unit_is_shared_once_however_threads_come_and_go() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for (turn, units) in (0..400).map(|turn| (turn, turn % 97)) {
                let counts: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                pool.share(units, turn % 5, |piece| {
                    assert!(!piece.is_empty());
                    piece.for_each(|unit| {
                        counts[unit].fetch_add(1, Ordering::Relaxed);
                    });
                });
                // All pieces are done when `share` returns, those of workers too.
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{units} units, {threads} threads");
                if turn % 100 == 99 {
                    // Long enough for workers to fall asleep.
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
        }
    }

    #[test]
    fn a_busy_worker_leaves_its_share_to_the_others() {
        let mut pool = Pool::new(2).unwrap();
        let (held, by_caller) = (AtomicBool::new(false), AtomicUsize::new(0));
        let caller = std::thread::current().id();
        pool.share(64, 1, |piece| {
            if std::thread::current().id() == caller {
                by_caller.fetch_add(piece.len(), Ordering::Relaxed);
            } else if !held.swap(true, Ordering::SeqCst) {
                // Until all else is done.
                while by_caller.load(Ordering::Relaxed) + piece.len() < 64 {
                    std::thread::yield_now();
                }
            }
        });
        // The worker had one piece, the first or the second, or never began.
        assert!(by_caller.load(Ordering::Relaxed) >= 64 - 21);
    }

    #[test]
    fn what_is_withdrawn_is_not_taken() {
        let turn = Turn::default();
        assert!(!turn.take());
        turn.0.store(Turn::OFFERED, Ordering::SeqCst);
        turn.withdraw();
        turn.wait();
        assert!(!turn.take());
        turn.0.store(Turn::OFFERED, Ordering::SeqCst);
        assert!(turn.take());
        turn.withdraw();
        assert_eq!(turn.0.load(Ordering::SeqCst), Turn::TAKEN);
    }

    #[test]
    fn pieces_become_smaller_and_end() {
        let sizes = |units, smallest, threads| {
            let pieces = Pieces { begun: AtomicUsize::new(0), units, smallest };
            let sizes: Vec<usize> = std::iter::from_fn(|| pieces.next(threads)).map(|piece| piece.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), units);
            sizes
        };
        assert_eq!(sizes(90, 10, 2), [30, 20, 13, 10, 10, 7]);
        assert_eq!(sizes(3, 1, 4), [1, 1, 1]);
        assert_eq!(sizes(1, 5, 1), [1]);
    }

    #[test]
    fn a_panic_arrives_when_all_are_done_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for guilty in [0, 2] {
            let panic = catch_unwind(AssertUnwindSafe(|| pool.run(&|number| assert!(number != guilty, "thread {number}"))));
            let text = panic.unwrap_err();
            assert_eq!(text.downcast_ref::<String>(), Some(&format!("thread {guilty}")));
            pool.run(&|_| {});
        }
        let panic = catch_unwind(AssertUnwindSafe(|| pool.share(100, 1, |piece| assert!(!piece.contains(&99), "the last"))));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"the last"));
        pool.share(1, 1, |_| {});
    }

    #[test]
    fn parts_are_all_columns_in_order() {
        for (width, step, threads) in [(10, 4, 3), (4, 4, 5), (640, 4, 2), (1, 4, 2), (7, 1, 7)] {
            let parts: Vec<_> = (0..threads).flat_map(|number| part(width, step, threads, number)).collect();
            assert_eq!(parts, (0..width).collect::<Vec<_>>());
            let starts = (0..threads).map(|number| part(width, step, threads, number).start);
            assert!(starts.into_iter().all(|start| start % step == 0 || start == width));
        }
    }

    #[test]
    fn columns_of_all_rows_are_written() {
        let mut pool = Pool::new(3).unwrap();
        let mut out = vec![0.0; 5 * 11];
        pool.split_columns([(&mut out, 11)], 2, |[columns]| {
            for row in 0..5 {
                let first = columns.first();
                for (i, out) in columns.row(row).iter_mut().enumerate() {
                    *out = (row * 11 + first + i) as f32;
                }
            }
        });
        assert_eq!(out, (0..55).map(|i| i as f32).collect::<Vec<_>>());
    }

    #[test]
    fn rows_of_all_tables_are_written_once() {
        for threads in [1, 3] {
            let mut pool = Pool::new(threads).unwrap();
            for rows in [0, 1, 2, 7] {
                let (mut floats, mut bytes) = (vec![0.0; rows * 3], vec![0_u8; rows * 2 + 1]);
                pool.each_row((Table::new(&mut floats, 3), Table::new(&mut bytes, 2)), |row, (floats, bytes)| {
                    floats.iter_mut().for_each(|x| *x += row as f32);
                    bytes.iter_mut().for_each(|x| *x += row as u8);
                });
                assert_eq!(floats, (0..rows * 3).map(|i| (i / 3) as f32).collect::<Vec<_>>());
                assert_eq!(bytes[..rows * 2], (0..rows * 2).map(|i| (i / 2) as u8).collect::<Vec<_>>());
            }
        }
    }
}
