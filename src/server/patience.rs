//! How long a client may keep a worker waiting: a moment, then somebody else waits in its place, if anybody does.

use std::time::{Duration, Instant};

use super::activity::Activity;

/// How long a worker waits in place each time: who has the next piece ready sends it sooner.
const MOMENT: Duration = Duration::from_millis(1);
/// And all in all, for one request or one response.
const ALL_IN_ALL: Duration = Duration::from_millis(20);

/// How long it waits in place before it asks again, where nobody has taken the connection.
const AGAIN: Duration = Duration::from_millis(10);

/// What is left of it.
pub(super) struct Patience<'a> {
    activity: &'a dyn Activity,
    left: Duration,
    /// Nobody has taken the connection who was asked: there are too many of them just now.
    is_refused: bool,
}

/// What has come of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It can go on.
    Ready,
    /// It takes too long: to be handed over.
    Slow,
    /// There is nobody to hand it to: to be waited for in place.
    Alone,
}

impl<'a> Patience<'a> {
    pub(super) fn new(activity: &'a dyn Activity) -> Self {
        Self { activity, left: ALL_IN_ALL, is_refused: false }
    }

    /// Has `wait` wait for a time, which it is told; it returns whether that was enough.
    pub(super) fn wait(&mut self, wait: impl FnOnce(Instant) -> bool) -> Waited {
        if !self.activity.has_porter() {
            return Waited::Alone;
        }
        let began = Instant::now();
        if self.is_refused {
            return if wait(began + AGAIN) { Waited::Ready } else { Waited::Slow };
        }
        if self.left.is_zero() || !wait(began + MOMENT.min(self.left)) {
            return Waited::Slow;
        }
        self.left = self.left.saturating_sub(began.elapsed());
        Waited::Ready
    }

    /// It was to be handed over, and could not be: it will be tried again.
    pub(super) fn refuse(&mut self) {
        self.is_refused = true;
    }
}
