//! What the hub has for a device, until the connection takes it.

use std::collections::VecDeque;
use std::task::Waker;

use futures_util::task::AtomicWaker;
use nave_hub::{CloseReason, Mailbox, MailboxFull, ToDevice};
use parking_lot::Mutex;

/// Most messages that wait for one connection. A device that takes none of them is disconnected: it reads its twin when it
/// is back, and method calls are never kept.
pub const MAX_INBOX_MESSAGES: usize = 256;

/// Most bytes of payload that wait for one connection; the largest message is a method call of 128 KB.
pub const MAX_INBOX_BYTES: usize = 1 << 20;

/// The mailbox of one connection. An empty one owns no memory beyond itself.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<ToDevice>,
    bytes: usize,
    /// Cloud-to-device messages wait in the device's queue.
    device_bound: bool,
    close: Option<CloseReason>,
}

impl Inbox {
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Everything that waits, in order.
    pub(crate) fn take(&self) -> VecDeque<ToDevice> {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.messages)
    }

    /// Whether the hub has said since the last time that cloud-to-device messages wait.
    pub(crate) fn take_device_bound(&self) -> bool {
        std::mem::take(&mut self.queue.lock().device_bound)
    }

    /// Why the session is over, if it is.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.queue.lock().close
    }

    /// Wakes the connection if something waits that it did not take, here or `elsewhere`: there is room for it now.
    pub(crate) fn resume(&self, elsewhere: bool) {
        if elsewhere || !self.queue.lock().messages.is_empty() {
            self.waker.wake();
        }
    }
}

impl Mailbox for Inbox {
    fn deliver(&self, message: ToDevice) -> Result<(), MailboxFull> {
        {
            let mut queue = self.queue.lock();
            let size = match &message {
                ToDevice::Close(reason) => {
                    queue.close.get_or_insert(*reason);
                    drop(queue);
                    self.waker.wake();
                    return Ok(());
                }
                ToDevice::MessagesWait => {
                    queue.device_bound = true;
                    drop(queue);
                    self.waker.wake();
                    return Ok(());
                }
                ToDevice::Method { name, payload, .. } => name.len() + payload.len(),
                ToDevice::Desired { payload, .. } => payload.len(),
            };
            if queue.messages.len() >= MAX_INBOX_MESSAGES || queue.bytes + size > MAX_INBOX_BYTES {
                return Err(MailboxFull);
            }
            queue.bytes += size;
            queue.messages.push_back(message);
        }
        self.waker.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(bytes: usize) -> ToDevice {
        ToDevice::Desired { version: 1, payload: "x".repeat(bytes).into() }
    }

    #[test]
    fn both_bounds_hold_and_a_close_always_arrives() {
        let inbox = Inbox::default();
        (0..MAX_INBOX_MESSAGES).for_each(|_| inbox.deliver(desired(1)).unwrap());
        assert_eq!(inbox.deliver(desired(1)), Err(MailboxFull));
        inbox.deliver(ToDevice::Close(CloseReason::Overflow)).unwrap();
        assert_eq!((inbox.take().len(), inbox.closed()), (MAX_INBOX_MESSAGES, Some(CloseReason::Overflow)));

        inbox.deliver(desired(MAX_INBOX_BYTES)).unwrap();
        assert_eq!(inbox.deliver(desired(1)), Err(MailboxFull));
    }

    #[test]
    fn waiting_messages_take_no_room() {
        let inbox = Inbox::default();
        (0..10 * MAX_INBOX_MESSAGES).for_each(|_| inbox.deliver(ToDevice::MessagesWait).unwrap());
        assert!(inbox.take().is_empty());
        assert!(inbox.take_device_bound() && !inbox.take_device_bound());
    }
}
