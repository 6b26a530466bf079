//! The store in a loop: what a load and save, or a load alone, costs when nobody else is there.
//!
//! ```text
//! store_loop gen DIR N BYTES IDFILE       creates N sessions of so many bytes
//! store_loop DIR IDFILE N MODE            N times: rw = lock, load, save; ro = load without a lock
//! store_loop sweep DIR [IDLE_SECS]        one sweep that finds nothing to do
//! store_loop wake DIR IDFILE N            N times: from the end of a lock to its waiter, in another process, having it
//! ```
//!
//! The record that is saved is another one each time, so that nothing can be kept from the time before. Prints
//! `{"ops":..,"secs":..,"rate":..}`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ciborium::Value;
use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Record, Saved, Store};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["gen", directory, count, bytes, ids] => generate(directory, count, bytes, ids),
        ["sweep", directory] => sweep(directory, None),
        ["sweep", directory, idle] => sweep(directory, Some(idle)),
        ["wake", directory, ids, count] => wake(directory, ids, count),
        ["wait", directory, ids] => wait(directory, ids),
        [directory, ids, count, mode @ ("rw" | "ro")] => measure(directory, ids, count, mode == "rw"),
        _ => Err("usage: store_loop gen DIR N BYTES IDFILE | store_loop DIR IDFILE N rw|ro | store_loop sweep DIR [IDLE_SECS] | store_loop wake DIR IDFILE N".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store_loop: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A session with a counter, a user's name and padding: what an application keeps.
fn record(count: u64, bytes: usize) -> Result<Record, Box<dyn std::error::Error>> {
    let encoded = |value: Value| -> Result<Value, Box<dyn std::error::Error>> {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes)?;
        Ok(Value::Bytes(bytes))
    };
    let values = vec![
        ("visits".into(), encoded(Value::from(count))?),
        ("name".into(), encoded("Ada Lovelace".into())?),
        ("pad".into(), encoded("x".repeat(bytes.saturating_sub(80)).into())?),
    ];
    let mut encoding = Vec::new();
    let record = vec![
        ("u".into(), "ada".into()),
        ("c".into(), Value::from(1_700_000_000_000_u64)),
        ("i".into(), Value::from(1800)),
        ("e".into(), Value::from(u64::MAX)),
        ("v".into(), Value::Map(values)),
    ];
    ciborium::into_writer(&Value::Map(record), &mut encoding)?;
    Ok(Record::decode(&encoding)?)
}

fn generate(directory: &str, count: &str, bytes: &str, ids: &str) -> Outcome {
    let store = DirectoryStore::at(directory);
    let record = record(1, bytes.parse()?)?;
    let mut names = String::new();
    for _ in 0..count.parse::<u64>()? {
        let id = Id::generate()?;
        store.create(&id, &record)?;
        names.push_str(&id.to_text());
        names.push('\n');
    }
    std::fs::write(ids, names)?;
    Ok(())
}

fn measure(directory: &str, ids: &str, count: &str, write: bool) -> Outcome {
    let store = DirectoryStore::at(directory);
    store.setup()?;
    let names = std::fs::read_to_string(ids)?;
    let ids: Vec<Id> = names.lines().map(|id| Id::parse(id).ok_or("not an ID")).collect::<Result<_, _>>()?;
    let count: u64 = count.parse()?;
    let size = store.load(&ids[0])?.ok_or("no session")?.record.encode().len();
    // Made before the clock runs: making up what to save is the application's work.
    let other = [record(2, size)?, record(3, size)?];
    let began = Instant::now();
    for i in 0..count {
        let id = &ids[i as usize % ids.len()];
        if write {
            let mut guard = store.lock(id, Duration::from_secs(30))?.ok_or("no session")?;
            let stored = guard.load()?.ok_or("no session")?;
            let saved = guard.save(&other[i as usize & 1], stored.version)?;
            if !matches!(saved, Saved::Saved(_)) {
                return Err("not saved".into());
            }
        } else {
            store.load(id)?.ok_or("no session")?;
        }
    }
    report(count, began);
    Ok(())
}

fn sweep(directory: &str, idle: Option<&str>) -> Outcome {
    let store = DirectoryStore::at(directory);
    store.setup()?;
    let idle = idle.map(str::parse).transpose()?.map(Duration::from_secs);
    let began = Instant::now();
    let swept = store.sweep(idle, None)?.ok_or("another process is sweeping")?;
    if swept.deleted > 0 || swept.remaining == 0 {
        return Err(format!("there was something to do: {swept:?}").into());
    }
    report(swept.remaining, began);
    Ok(())
}

/// The clock of all processes, in nanoseconds.
fn clock() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The first ID in a file, or in one of cookies.
fn first(ids: &str) -> Result<Id, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(ids)?;
    let line = text.lines().next().unwrap_or_default();
    Id::parse(line.strip_prefix("session=").unwrap_or(line)).ok_or_else(|| "no ID".into())
}

fn wake(directory: &str, ids: &str, count: &str) -> Outcome {
    let (store, id) = (DirectoryStore::at(directory), first(ids)?);
    let mut waiter = Command::new(std::env::current_exe()?)
        .args(["wait", directory, ids])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut orders, answers) = (waiter.stdin.take().ok_or("no pipe")?, waiter.stdout.take().ok_or("no pipe")?);
    let mut answers = BufReader::new(answers).lines();
    let mut times = Vec::new();
    for _ in 0..count.parse::<u32>()? {
        let guard = store.lock(&id, Duration::from_secs(30))?.ok_or("no session")?;
        orders.write_all(b"\n")?;
        // Until it has fallen asleep.
        std::thread::sleep(Duration::from_micros(500));
        let released = clock();
        drop(guard);
        times.push(answers.next().ok_or("no answer")??.parse::<i64>()? - released);
    }
    drop(orders);
    waiter.wait()?;
    times.sort_unstable();
    #[allow(clippy::cast_precision_loss)]
    let seconds = times[times.len() / 2] as f64 / 1e9;
    println!("{{\"ops\":{count},\"secs\":{seconds:.9},\"rate\":{:.1}}}", 1.0 / seconds);
    Ok(())
}

/// For each line it is given: waits for the lock, and says when it had it.
fn wait(directory: &str, ids: &str) -> Outcome {
    let (store, id) = (DirectoryStore::at(directory), first(ids)?);
    for line in std::io::stdin().lines() {
        line?;
        let guard = store.lock(&id, Duration::from_secs(30))?.ok_or("no session")?;
        let granted = clock();
        drop(guard);
        println!("{granted}");
    }
    Ok(())
}

fn report(count: u64, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds;
    println!("{{\"ops\":{count},\"secs\":{seconds:.4},\"rate\":{rate:.1}}}");
}
