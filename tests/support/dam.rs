//! What holds others back until a test lets them go.

use super::Upstream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Whoever comes to it waits until it is opened; then nobody does.
#[derive(Clone, Default)]
pub struct Dam(Arc<(Mutex<bool>, Condvar)>);

impl Dam {
    /// An upstream that holds every request back until it is opened, then answers 200.
    pub fn upstream(&self, name: &str) -> Upstream {
        let dam = self.clone();
        Upstream::with(name, move |exchange| {
            exchange.read_body();
            dam.wait();
            exchange.answer(200, &[], b"ok")
        })
    }

    pub fn wait(&self) {
        let (open, opened) = &*self.0;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Sets a flag when it is dropped, also by a panic: threads that run until then end with their test.
pub struct Stop<'s>(pub &'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
