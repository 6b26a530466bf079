//! A connection that one process of the pool hands to another: what comes with its socket.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// All that was read is answered: it waits for another request.
    Keep,
    /// A request is on its way in, or complete.
    Receive,
    /// A response is on its way out.
    Send,
    /// It is closed when the other side has closed it.
    Linger,
}

impl Errand {
    const ALL: [Self; 4] = [Self::Keep, Self::Receive, Self::Send, Self::Linger];

    /// As a byte.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// What a [byte](Self::code) stands for.
    pub(crate) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|errand| errand.code() == code)
    }
}

/// What is known of the connection, to be sent.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) errand: Errand,
    /// As [`wire`](super::wire) writes it; nothing of one that is kept.
    pub(crate) state: Vec<u8>,
    /// Files and sockets that belong to it.
    pub(crate) descriptors: Vec<BorrowedFd<'a>>,
}

impl Load<'_> {
    /// Of a connection that waits for another request.
    pub(crate) const KEEP: Self = Self { errand: Errand::Keep, state: Vec::new(), descriptors: Vec::new() };
}

/// The same, received.
#[derive(Debug)]
pub(crate) struct Cargo {
    pub(crate) errand: Errand,
    pub(crate) state: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Cargo {
    /// To be sent on as it is.
    pub(crate) fn load(&self) -> Load<'_> {
        let descriptors = self.descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        Load { errand: self.errand, state: self.state.clone(), descriptors }
    }
}
