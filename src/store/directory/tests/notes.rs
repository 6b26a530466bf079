//! What a sweep notes on the files of sessions that are not over.

use super::*;

/// Made with an idle timeout of so many seconds, and swept once.
fn noted(store: &DirectoryStore, idle: u64) -> (Id, PathBuf) {
    let (id, mut record) = (Id::generate().unwrap(), record(10));
    record.set_expiry(Expiry { idle: Some(Duration::from_secs(idle)), absolute: None }, now());
    store.create(&id, &record).unwrap();
    assert_eq!(swept(store), (0, 1));
    (id, store.path.join(&*id.to_text()))
}

fn swept(store: &DirectoryStore) -> (u64, u64) {
    // Without the directory's lock, of which a process that another test is just starting may have a copy.
    let swept = store.delete_old_sessions(None).unwrap();
    (swept.deleted, swept.remaining)
}

/// Makes the session one that is over, and hides that from who looks at the file's times alone.
fn end(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let times = fs::FileTimes::new().set_accessed(metadata.accessed().unwrap());
    let file = OpenOptions::new().write(true).open(path).unwrap();
    // The absolute end, in either slot; whether the checksum is right is asked under the lock only.
    file.write_all_at(&1_u64.to_le_bytes(), 40).unwrap();
    file.set_times(times.set_modified(metadata.modified().unwrap())).unwrap();
}

#[test]
fn a_session_that_was_found_alive_is_not_opened_again() {
    let (store, _keep) = store();
    let (_, path) = noted(&store, 1000);
    let metadata = fs::metadata(&path).unwrap();
    let ends = metadata.mtime() + 1000;
    assert!((ends - 1..=ends).contains(&metadata.atime()), "{metadata:?}");
    end(&path);
    assert_eq!(swept(&store), (0, 1), "opened");
    // Who asks for an age asks for nothing that was noted.
    let by_age = store.sweep(Some(Duration::from_secs(1000)), None).unwrap().unwrap();
    assert_eq!((by_age.deleted, by_age.remaining), (0, 1));
    // Opened, and found to be damaged.
    File::open(&path).unwrap().set_times(fs::FileTimes::new().set_accessed(SystemTime::now())).unwrap();
    assert_eq!(swept(&store), (0, 0));
}

/// Whatever happens to a session, its end or its time, what was noted before counts no more.
#[test]
fn a_note_is_void_once_the_session_has_changed() {
    let (store, _keep) = store();
    let ended = Record { ends: Some(1), ..record(10) };
    let (id, path) = noted(&store, 1000);
    let mut guard = store.lock(&id, WAIT).unwrap().unwrap();
    let version = guard.load().unwrap().unwrap().version;
    assert!(matches!(guard.save(&ended, version).unwrap(), Saved::Saved(_)));
    drop(guard);
    assert_eq!(swept(&store), (1, 0));
    assert!(!path.exists());
    // Its time alone.
    let (_, path) = noted(&store, 1000);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(2000)).unwrap();
    assert_eq!(swept(&store), (1, 0));
    // A touch.
    let (id, path) = noted(&store, 1000);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    while fs::metadata(&path).unwrap().modified().unwrap() == before {
        assert!(store.touch(&id).unwrap());
    }
    fs::write(&path, b"no session").unwrap();
    assert_eq!(swept(&store), (0, 0));
}

#[test]
fn a_note_does_not_outlive_the_session() {
    let (store, _keep) = store();
    let (_, path) = noted(&store, 6);
    let deadline = Instant::now() + Duration::from_secs(60);
    while path.exists() {
        assert!(Instant::now() < deadline);
        swept(&store);
    }
}

/// Access times that nobody noted: in the past, far away, or of another file.
#[test]
fn other_access_times_are_no_notes() {
    let (store, _keep) = store();
    let far = Duration::from_secs(400 * 24 * 3600);
    let (_, noted_path) = noted(&store, 1000);
    let others = fs::metadata(&noted_path).unwrap().accessed().unwrap();
    fs::remove_file(&noted_path).unwrap();
    for accessed in [SystemTime::UNIX_EPOCH, SystemTime::now() + far, SystemTime::now() + far / 2, others] {
        let (_, path) = noted(&store, 1000);
        end(&path);
        File::open(&path).unwrap().set_times(fs::FileTimes::new().set_accessed(accessed)).unwrap();
        assert_eq!(swept(&store), (0, 0), "{accessed:?}");
    }
}
