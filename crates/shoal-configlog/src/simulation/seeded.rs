//! What openraft runs on in the simulation: tokio, whose clock stands still while anybody has something to do, with dice that
//! fall the same way for the same seed, and with news that reach those who wait for them in the order in which they began to.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{AsyncRuntime, OptionalSend, OptionalSync, TokioRuntime};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// From now on everything on this thread is decided by `seed`.
pub fn sow(seed: u64) {
    DICE.set(seed);
}

/// The next dice of this thread, each of which can be thrown for ever.
pub fn dice() -> SmallRng {
    let seed = DICE.get();
    DICE.set(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    SmallRng::seed_from_u64(seed)
}

/// Tokio with dice that were sown.
#[derive(Debug)]
pub struct Seeded(TokioRuntime);

impl AsyncRuntime for Seeded {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = News;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> SmallRng {
        dice()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

/// The newest of a kind. Tokio's own wakes those who wait in no certain order.
#[derive(Debug)]
pub struct News;

#[derive(Debug)]
struct Page<T> {
    newest: RwLock<T>,
    edition: AtomicU64,
    writers: AtomicUsize,
    printed: Notify,
}

impl<T> Page<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever makes it.
#[derive(Debug)]
pub struct Writer<T>(Arc<Page<T>>);

/// Whoever reads it.
#[derive(Debug)]
pub struct Reader<T> {
    page: Arc<Page<T>>,
    seen: u64,
}

impl<T> Clone for Writer<T> {
    fn clone(&self) -> Self {
        self.0.writers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        if self.0.writers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.printed.notify_waiters();
        }
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { page: Arc::clone(&self.page), seen: self.seen }
    }
}

impl Watch for News {
    type Sender<T: OptionalSend + OptionalSync> = Writer<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Reader<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(first: T) -> (Writer<T>, Reader<T>) {
        let page = Arc::new(Page {
            newest: RwLock::new(first),
            edition: AtomicU64::new(0),
            writers: AtomicUsize::new(1),
            printed: Notify::new(),
        });
        (Writer(Arc::clone(&page)), Reader { page, seen: 0 })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<News, T> for Writer<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.send_if_modified(|newest| {
            *newest = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let is_new = modify(&mut self.0.newest.write().unwrap_or_else(PoisonError::into_inner));
        if is_new {
            self.0.edition.fetch_add(1, Ordering::Relaxed);
            self.0.printed.notify_waiters();
        }
        is_new
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Reader<T> {
        Reader { page: Arc::clone(&self.0), seen: self.0.edition.load(Ordering::Relaxed) }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<News, T> for Reader<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut printed = pin!(self.page.printed.notified());
            printed.as_mut().enable();
            let edition = self.page.edition.load(Ordering::Relaxed);
            if edition != self.seen {
                self.seen = edition;
                return Ok(());
            }
            if self.page.writers.load(Ordering::Relaxed) == 0 {
                return Err(RecvError(()));
            }
            printed.await;
        }
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.page.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        self.seen = self.page.edition.load(Ordering::Relaxed);
        self.page.read()
    }
}
