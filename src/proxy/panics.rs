//! A panic costs one request, not the process and not silently.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// `future`'s output, or `Err` if it panicked (the panic hook has logged where). What it borrowed is used afterwards
/// only to answer 500 and to close: no state of it is relied on.
///
/// Pinned by the caller: a future that is moved into another takes its room twice.
pub async fn catch<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, ()> {
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(())),
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[tokio::test]
    async fn a_panic_is_an_error_and_anything_else_passes() {
        assert_eq!(catch(pin!(async { 7 })).await, Ok(7));
        let panics = pin!(async {
            if true {
                panic!("made for the test")
            }
        });
        assert_eq!(catch(panics).await, Err(()));
    }
}
