//! A graceful stop while clients ask.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use crate::load::{Client, MANY, Tally, Way};
use crate::process::Place;
use crate::storms::Pool;
use crate::support::client::{http_request, read, scgi_request, send};
use crate::support::process::{Proc, Signal, demo_by_shell};
use crate::support::{eventually, turn};

const ROUNDS: usize = 20;
const LANES: usize = 4;
/// How many requests wait in the queue when the signal comes.
const QUEUED: usize = 40;

/// What was sent before the signal is answered. What came in after it is answered or refused, and nothing is cut.
pub fn a_graceful_stop_answers_all_that_came_in(way: Way) {
    let _turn = turn();
    let tally = Tally::new();
    tally.event("the stop".to_owned());
    // Several pools at a time: who is refused over TCP may wait a second for that.
    let lane = || (0..ROUNDS / LANES).map(|_| stop(way, &tally)).sum::<usize>();
    let cut: usize = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    });
    tally.conclude(&format!("{way:?}, graceful stops"), &format!("{ROUNDS} stops, {cut} late requests cut"));
}

/// One start and one stop; returns how many requests that were late were cut.
fn stop(way: Way, tally: &Tally) -> usize {
    let pool = Pool::start(way, 2, &[]);
    let address = pool.address.clone();
    // When a request was sent that was not answered, as far as that is known, and why it was not.
    let cut = Mutex::new(Vec::new());
    let served = AtomicUsize::new(0);
    let signalled = thread::scope(|scope| {
        // Where this fails the pool goes first, and the clients with it.
        let mut pool = pool;
        for name in 0..MANY {
            let (address, cut, served) = (&*address, &cut, &served);
            scope.spawn(move || {
                let mut client = Client::new(way, address, name);
                loop {
                    match tally.count(&mut client) {
                        Ok(()) => {
                            served.fetch_add(1, Relaxed);
                        }
                        Err(error) if is_refusal(&error) => break,
                        Err(error) => cut.lock().unwrap().push((client.sent, error)),
                    }
                }
            });
        }
        eventually("requests are served", || served.load(Relaxed) > 100);
        let request = match way {
            Way::ScgiUnix | Way::ScgiTcp => scgi_request("GET", "/slow?ms=2", b""),
            _ => http_request("GET", "/slow?ms=2"),
        };
        let queued: Vec<_> = (0..QUEUED).map(|_| send(&address, &request).unwrap()).collect();
        let signalled = Instant::now();
        pool.proc.signal(Signal::TERM);
        for connection in queued {
            match read(connection) {
                Ok(response) if response.contains("\r\n\r\nCounter: 0\n") => {
                    tally.requests.fetch_add(1, Relaxed);
                }
                Ok(response) => tally.fail(&io::Error::other(format!("queued, and answered by {response:?}"))),
                Err(error) => tally.fail(&io::Error::other(format!("queued, and {error}"))),
            }
        }
        assert_eq!(pool.proc.end(), 0);
        signalled
    });
    let cut = cut.into_inner().unwrap();
    for (sent, error) in &cut {
        let when = sent.map(|sent| sent.saturating_duration_since(signalled));
        tally.fail(&io::Error::other(format!("sent {when:?} after the signal: {error}")));
    }
    cut.len()
}

/// Nobody was there any more: the client knows that nothing was done.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Where somebody else holds the socket, as systemd does, a restart drops and refuses nobody: who comes meanwhile waits.
pub fn restarts_refuse_nobody(way: Way) {
    let _turn = turn();
    let place = Place::new();
    let (socket, address): (OwnedFd, _) = if way == Way::ScgiUnix {
        let path = place.path("scgi.sock");
        (UnixListener::bind(&path).unwrap().into(), format!("unix:{}", path.display()))
    } else {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        (socket.into(), address)
    };
    let name = if way == Way::ScgiTcp || way == Way::ScgiUnix { "scgi" } else { "http" };
    let start = || {
        let handed_over = format!("export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}");
        let mut command = demo_by_shell(&format!("{handed_over}; exec \"$0\" \"$@\" 3<&0 </dev/null"));
        command.args(["--workers", "2", "--sessions"]).arg(place.path("sessions"));
        command.stdin(Stdio::from(socket.try_clone().unwrap()));
        let proc = Proc::start(command);
        proc.line("ready workers=2");
        proc
    };
    let tally = Tally::new();
    let mut proc = start();
    thread::scope(|scope| {
        let stopper = tally.clients(scope, way, &address, MANY);
        for round in 0..ROUNDS {
            tally.event(format!("restart {round}"));
            tally.wait_for(100);
            proc.signal(Signal::TERM);
            assert_eq!(proc.end(), 0);
            proc = start();
        }
        tally.wait_for(100);
        drop(stopper);
    });
    tally.conclude(&format!("{way:?}, restarts"), &format!("{ROUNDS} restarts"));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}
