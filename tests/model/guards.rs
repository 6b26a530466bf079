//! What the protocol relies on. Each of these is taken out by a test of its own, and must be missed.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Only one process at a time changes a file.
    Lock,
    /// The kernel frees a lock when its holder dies.
    FreedByDeath,
    /// A save without a lock before it is refused where the version has changed.
    Version,
    /// A record goes into the slot that is not current.
    OtherSlot,
    /// A slot that is half written is not taken for good.
    Checksum,
    /// A look with a bad slot in it is believed only if the next is the same.
    SecondLook,
    /// Who reads one slot alone has read the header of the other one before.
    BothHeaders,
    /// Both slots have the mark of their file.
    Mark,
    /// A link count of 0 under the lock means that the session is gone.
    LinkCount,
    /// A save is acknowledged when it is written.
    WriteBeforeAnswer,
    /// A growth copies the record in B to A before B moves away.
    Copy,
    /// A deletion leaves a tombstone in the file.
    Tombstone,
    /// A renewal has the new record complete before it ends the old one.
    NewBeforeOld,
    /// A sweep takes the lock of what it deletes.
    SweepLock,
    /// Under the lock a sweep decides anew.
    SweepLook,
    /// Before it unlinks, a sweep looks at the time once more: a touch takes no lock.
    SweepTime,
    /// Who creates a file holds its lock until the first record is complete.
    CreateLock,
    /// A creation ends with a look at the link count.
    CreateLinkCount,
    /// With `Durability::Power` a save is on disk before it is acknowledged.
    SyncSave,
    /// With it, what was written by whoever died before a sync is on disk before the other slot is overwritten.
    SyncCurrent,
    /// The same for the copy of a growth, before the length.
    SyncCopy,
    /// A new length is on disk before slot A becomes wide.
    SyncLength,
    /// Also where whoever made the file grow died before that.
    SyncGrown,
    /// A tombstone is on disk before the name is unlinked.
    SyncTombstone,
    /// With `Durability::Power` the directory is on disk before a creation is acknowledged.
    SyncDirectory,
}
