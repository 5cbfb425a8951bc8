//! The core with its outputs, driven so that a panic costs one connection and not the server.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::core::{Core, Input, Now, Outputs, Step};

/// After a panic that no connection caused, deadlines wait for this long: the same one is due again at once.
const DEADLINE_REST: Duration = Duration::from_secs(1);

/// Something panicked. What it had put out before is carried out, what it worked on is not used again.
#[derive(Debug)]
pub(super) struct Fault;

/// Runs `work` for one connection.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        log::error!("the work for a connection panicked, which is a mistake in the program: {message}");
        Fault
    })
}

/// The core, what it puts out and what time it is.
pub(super) struct Engine {
    core: Core,
    pub(super) out: Outputs,
    pub(super) now: Now,
    rests_until: Duration,
}

impl Engine {
    pub(super) fn new(core: Core, now: Now) -> Engine {
        Engine { core, out: Outputs::default(), now, rests_until: Duration::ZERO }
    }

    /// One step. The caller drains [`Engine::out`] before the next.
    pub(super) fn step(&mut self, input: Input<'_>) -> Result<Step, Fault> {
        let Engine { core, out, now, .. } = self;
        guarded(|| core.step(*now, input, out))
    }

    /// The step for a deadline that has come; `false` if there is none.
    pub(super) fn step_deadline(&mut self) -> bool {
        if self.next_deadline().is_none_or(|deadline| deadline > self.now.mono) {
            return false;
        }
        if self.step(Input::Deadline).is_err() {
            self.rests_until = self.now.mono + DEADLINE_REST;
        }
        true
    }

    /// When [`Engine::step_deadline`] is to be called.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.core.next_deadline().map(|deadline| deadline.max(self.rests_until))
    }
}
