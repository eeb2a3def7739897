//! Threads that wait for the next layer without going to sleep.
//!
//! A token passes some two hundred layers, and a layer takes a tenth of a millisecond: a pool that wakes its threads through the
//! system each time would spend as long on that as on the work. Between layers these threads spin for a while, and only then sleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of waiting before a thread sleeps: a few milliseconds, longer than what lies between two layers.
const SPINS: u32 = 100_000;

/// What is to be done: called once per thread with its number.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// Some threads that compute together; the one that asks is the first of them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Counts jobs; a change is the signal to start.
    generation: AtomicU64,
    /// Workers that are not done yet.
    remaining: AtomicUsize,
    /// Workers that sleep.
    asleep: AtomicUsize,
    end: AtomicBool,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    lock: Mutex<()>,
    wake: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

// SAFETY: `job` is written by `Pool::run` alone, which has the pool for itself, while no worker runs (`remaining` is 0), and read by workers
// between the rise of `generation` and their fall of `remaining`. The closure behind it may be called from several threads at once.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never used after `run` has returned.
unsafe impl Send for Shared {}

impl Pool {
    /// With so many threads in all, of which `threads - 1` are started.
    ///
    /// # Errors
    /// The system does not start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            generation: AtomicU64::new(0),
            remaining: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            end: AtomicBool::new(false),
            panicked: Mutex::new(None),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::new() };
        for number in 1..threads.max(1) {
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
        if self.workers.is_empty() {
            return job(0);
        }
        // SAFETY: only the lifetime changes. The pointer is used by workers alone, and this function does not return, nor unwind, before
        // all of them are done.
        let erased: *const Job<'static> = unsafe { std::mem::transmute(std::ptr::from_ref::<Job<'_>>(job)) };
        // SAFETY: `&mut self` and `remaining == 0`: nobody else looks at it.
        unsafe { *self.shared.job.get() = Some(erased) };
        self.shared.remaining.store(self.workers.len(), Ordering::Relaxed);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut turns = 0_u32;
        while self.shared.remaining.load(Ordering::Acquire) > 0 {
            pause(&mut turns);
        }
        let theirs = self.shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Splits `out` into consecutive parts of whole multiples of `step` (but the last), one per thread, and calls `job` with each part and
    /// the place where it begins.
    pub fn split(&mut self, out: &mut [f32], step: usize, job: impl Fn(usize, &mut [f32]) + Sync) {
        let width = out.len();
        self.split_columns([(out, width)], step, |[columns]| {
            let first = columns.first();
            if columns.width() > 0 {
                job(first, columns.row(0));
            }
        });
    }

    /// The same for tables of rows of a width each: each thread has some columns of all rows of every table, none where there are too few.
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
        let threads = self.threads();
        self.run(&|number| {
            // `part` gives every thread other columns.
            let columns = tables.each_ref().map(|table| {
                let columns = part(table.width, step, threads, number);
                ColumnsMut { start: table.start, rows: table.rows, width: table.width, columns, out: PhantomData }
            });
            job(&mut { columns });
        });
    }

    /// Calls `job` for every row, with what each of the tables has of it: each thread has some consecutive rows. One row, and any rows of
    /// a pool of one thread, cost no synchronisation.
    pub fn each_row<T: Tables>(&mut self, tables: T, job: impl Fn(usize, T::Row) + Sync) {
        let rows = tables.rows();
        let threads = self.threads();
        let some = |rows: Range<usize>| {
            for row in rows {
                // SAFETY: the tables are this function's own, and every row is asked for once: `part` gives every thread other rows.
                job(row, unsafe { tables.row(row) });
            }
        };
        match rows {
            0 | 1 => some(0..rows),
            _ => self.run(&|number| some(part(rows, 1, threads, number))),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker hands its panics to `run`; there is nothing left to tell.
            let _ = worker.join();
        }
    }
}

/// The columns of thread `number`: consecutive, in whole steps but at the end.
fn part(width: usize, step: usize, threads: usize, number: usize) -> Range<usize> {
    let steps = width.div_ceil(step);
    let at = |number: usize| (steps * number / threads * step).min(width);
    at(number)..at(number + 1)
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
    let mut seen = 0;
    loop {
        seen = next_generation(shared, seen);
        if shared.end.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: `generation` rose after the job was written, and the job lives until `remaining` falls to 0, which is below.
        let job = unsafe { (*shared.job.get()).map(|job| &*job) };
        let done = catch_unwind(AssertUnwindSafe(|| job.into_iter().for_each(|job| job(number))));
        if let Err(panic) = done {
            *shared.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        shared.remaining.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until there is another job than `seen`.
fn next_generation(shared: &Shared, seen: u64) -> u64 {
    for _ in 0..SPINS {
        let generation = shared.generation.load(Ordering::Acquire);
        if generation != seen {
            return generation;
        }
        std::hint::spin_loop();
    }
    let mut guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
    shared.asleep.fetch_add(1, Ordering::SeqCst);
    // `run` raises the generation before it looks for sleepers: either it is seen here, or this thread is woken.
    while shared.generation.load(Ordering::SeqCst) == seen {
        guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    shared.asleep.fetch_sub(1, Ordering::SeqCst);
    shared.generation.load(Ordering::SeqCst)
}

/// Spins, and lets others run from time to time: the one that is waited for may need this very processor.
fn pause(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    if turns.is_multiple_of(4096) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
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
    fn a_panic_arrives_when_all_are_done_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for guilty in [0, 2] {
            let panic = catch_unwind(AssertUnwindSafe(|| pool.run(&|number| assert!(number != guilty, "thread {number}"))));
            let text = panic.unwrap_err();
            assert_eq!(text.downcast_ref::<String>(), Some(&format!("thread {guilty}")));
            pool.run(&|_| {});
        }
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
