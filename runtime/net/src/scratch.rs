//! The buffers that all connections of a thread share.

use std::cell::RefCell;

use crate::limits::{MAX_INCOMPLETE, OUTPUT_BATCH, READ_BUFFER};

/// Buffers for one turn of one connection. Nothing in them survives the turn.
pub(crate) struct Scratch {
    /// What arrives, behind what a connection kept of an incomplete record.
    pub(crate) read: Box<[u8]>,
    /// Output before it is encrypted.
    pub(crate) plain: Vec<u8>,
    /// Output as it is written.
    pub(crate) sealed: Vec<u8>,
}

/// Capacity above which an output buffer is given back after an unusually large packet.
const KEPT_CAPACITY: usize = 4 * OUTPUT_BATCH;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; MAX_INCOMPLETE + READ_BUFFER].into_boxed_slice(),
        plain: Vec::new(),
        sealed: Vec::new(),
    });
}

/// Lends the thread's buffers; the output buffers are empty.
pub(crate) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = work(scratch);
        for buffer in [&mut scratch.plain, &mut scratch.sealed] {
            buffer.clear();
            buffer.shrink_to(KEPT_CAPACITY);
        }
        result
    })
}
