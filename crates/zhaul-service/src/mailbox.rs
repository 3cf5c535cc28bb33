//! Messages to a worker that sleeps in an epoll instance of its own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::wake::Wake;

/// Leads to one worker, from any thread. Nobody waits: what is sent is kept until the worker takes it.
#[derive(Debug)]
pub struct Mailbox<M> {
    messages: Arc<Mutex<Vec<M>>>,
    wake: Wake,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self {
            messages: Arc::clone(&self.messages),
            wake: self.wake.clone(),
        }
    }
}

impl<M> Mailbox<M> {
    /// One that is empty.
    ///
    /// # Errors
    /// As `eventfd(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            messages: Arc::default(),
            wake: Wake::new()?,
        })
    }

    /// What the worker sleeps on, edge-triggered.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Sends a message, and wakes the worker if it is not awake already.
    pub fn send(&self, message: M) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        let is_first = messages.len() == 1;
        drop(messages);
        // The worker takes all messages at once, so one call is enough until it does.
        if is_first {
            self.wake.wake();
        }
    }

    /// Takes what has come, in the order in which it was sent.
    pub fn take(&self) -> Vec<M> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_taken_once_and_in_order() {
        let mailbox = Mailbox::new().unwrap();
        let sender = mailbox.clone();
        let sending = std::thread::spawn(move || (0..100).for_each(|n| sender.send(n)));
        sending.join().unwrap();
        assert_eq!(mailbox.take(), (0..100).collect::<Vec<_>>());
        assert!(mailbox.take().is_empty());
    }
}
