//! Disks of a test's own, in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::TestDir;

/// Set in the process that has the namespace.
const INSIDE: &str = "CLOAKROOM_TEST_NAMESPACE";

/// Runs `body`, the whole of the test of this name, in a process with a mount namespace of its own: what is mounted there
/// ends with it. Where that cannot be done it says why, and the test is skipped.
#[track_caller]
pub fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("{test}: skipped, only root can mount a disk");
        return;
    }
    let namespace = ["--mount", "--propagation", "private"];
    if !Command::new("unshare").args(namespace).arg("true").output().is_ok_and(|done| done.status.success()) {
        eprintln!("{test}: skipped, no mount namespace can be made here");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(namespace).arg(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]).env(INSIDE, "yes");
    let output = command.output().expect("start this test again");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for line in said.iter().flat_map(|stream| stream.lines()) {
        if !output.status.success() || line.contains(": ") && !line.starts_with("cloakroom") {
            eprintln!("{line}");
        }
    }
    assert!(said[0].contains(" 1 passed"), "{test} failed in its namespace, or there is no such test");
}

/// Whether files can be mounted as disks here; says so if not.
pub fn has_loop_devices(test: &str) -> bool {
    let there = Path::new("/dev/loop-control").exists();
    if !there {
        eprintln!("{test}: skipped, there are no loop devices here");
    }
    there
}

/// What a disk is made of.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Memory, with this mount option.
    Memory(&'static str),
    /// A file of so many MiB, the command that makes the file system, and the mount options.
    Image(u64, &'static [&'static str], &'static str),
}

/// A mounted disk.
pub struct Disk {
    kind: Kind,
    is_mounted: bool,
    // Removed last.
    directory: TestDir,
}

impl Disk {
    pub fn new(kind: Kind) -> Self {
        let directory = TestDir::new();
        std::fs::create_dir(directory.join("disk")).expect("mount point");
        let mut disk = Self { kind, is_mounted: false, directory };
        if let Kind::Image(mebibytes, make, _) = kind {
            // In memory, so that what is waited for is this test's own and not everybody's disk.
            std::fs::create_dir(disk.directory.join("memory")).expect("mount point");
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=1g", "none"])
                .arg(disk.directory.join("memory")));
            let image = std::fs::File::create(disk.image()).expect("image");
            image.set_len(mebibytes << 20).expect("size of the image");
            run(Command::new(make[0]).args(&make[1..]).arg(disk.image()));
        }
        disk.mount();
        disk
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn image(&self) -> PathBuf {
        self.directory.join("memory/image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.join("disk")
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn mount(&mut self) {
        let mut command = Command::new("mount");
        match self.kind {
            Kind::Memory(options) => command.args(["-t", "tmpfs", "-o", options, "none"]),
            Kind::Image(_, _, options) => command.args(["-o", &format!("loop,{options}")]).arg(self.image()),
        };
        run(command.arg(self.path()));
        self.is_mounted = true;
    }

    /// Takes the disk out and puts it in again, so that only what is on it is there. Nothing on it may be open.
    pub fn remount(&mut self) {
        run(Command::new("umount").arg(self.path()));
        self.is_mounted = false;
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // For the directory to be removed; whatever stays goes with the namespace.
        for mounted in [self.is_mounted.then(|| self.path()), Some(self.directory.join("memory"))].into_iter().flatten()
        {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).output();
        }
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
