//! Exit statuses of a program that serves; `docs/signals.md` has the table.

/// The answer is no: there is something to mend.
pub(super) const EXIT_NO: u8 = 1;
/// Usage or configuration: trying again does not help.
pub(super) const EXIT_USAGE: u8 = 2;
/// The system failed; it may work another time.
pub(super) const EXIT_TEMPORARY: u8 = 111;
