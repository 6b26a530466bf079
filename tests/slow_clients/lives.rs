//! Who dies, leaves or is replaced while slow clients are under way.

use std::thread;
use std::time::Duration;

use crate::site::{Client, Doors, PAUSE, Site, WAYS, Way, pattern};
use crate::support::process::{Signal, demo_by_shell, porter, send, state, wait_until_stopped};
use crate::support::strace::Strace;
use crate::support::{eventually, turn};

const LARGE: usize = 12 << 20;

/// Slow clients of every kind, each of which is still to be answered: two that send, one that reads.
struct Slow {
    senders: Vec<(Client, Vec<u8>)>,
    readers: Vec<Client>,
}

impl Slow {
    fn new(site: &Site) -> Self {
        let before = site.slow();
        let (mut senders, mut readers) = (Vec::new(), Vec::new());
        for way in WAYS {
            let head = way.request("GET", "/hello", b"");
            let body = way.request("POST", "/slow?ms=0", &vec![b'x'; 100_000]);
            for (request, at) in [(&head, 12), (&body, body.len() - 70_000), (&body, body.len() - 1)] {
                let mut client = site.doors.connect(way).expect("connect");
                client.send(&request[..at]).expect("send");
                senders.push((client, request[at..].to_vec()));
            }
            for kind in ["bytes", "stream"] {
                let mut client = site.doors.connect(way).expect("connect");
                client.narrow();
                let target = format!("/large?bytes={LARGE}&as={kind}");
                let request = match way {
                    // In HTTP/1.0 a stream has no chunks, and only the end of the connection is its end.
                    Way::Http => format!("GET {target} HTTP/1.0\r\n\r\n").into_bytes(),
                    Way::Scgi => way.request("GET", &target, b""),
                };
                client.send(&request).expect("send");
                readers.push(client);
            }
        }
        site.wait_for_slow("all are with the porter", |slow| {
            slow[0] == before[0] + senders.len() as u64 && slow[1] == before[1] + readers.len() as u64
        });
        eventually("the workers are done", || site.is_idle());
        Self { senders, readers }
    }

    /// Goes on, and sees that all are answered.
    #[track_caller]
    fn finish(self) {
        for (mut client, rest) in self.senders {
            for piece in rest.chunks(rest.len().div_ceil(3)) {
                thread::sleep(PAUSE);
                client.send(piece).expect("send");
            }
            let answer = String::from_utf8(client.rest().expect("an answer")).expect("text");
            assert!(answer.contains(" 200 OK\r\n"), "{answer}");
        }
        for mut client in self.readers {
            let all = client.rest().expect("the rest");
            let at = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
            assert!(all[at..] == pattern(LARGE), "{} bytes", all.len() - at);
        }
    }
}

#[test]
fn a_worker_that_dies_takes_no_slow_client_with_it() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    let slow = Slow::new(&site);
    for worker in &site.workers {
        send(*worker, Signal::KILL);
    }
    site.proc.ready(2);
    slow.finish();
}

#[test]
fn a_reload_keeps_slow_clients_and_their_deadlines() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    let began = std::time::Instant::now();
    let mut late = site.doors.connect(Way::Http).expect("connect");
    late.send(b"GET /").expect("send");
    site.wait_for_slow("it is with the porter", |slow| slow[0] == 1);
    let slow = Slow::new(&site);
    let before = porter(site.proc.pid()).expect("a porter");
    // So that a deadline that began anew would be seen.
    thread::sleep(Duration::from_secs(5));
    for _ in 0..2 {
        site.proc.signal(Signal::HUP);
        site.proc.line("reloaded");
    }
    eventually("another porter is there", || porter(site.proc.pid()).is_some_and(|pid| pid != before));
    eventually("the one before has left", || !std::path::Path::new(&format!("/proc/{before}")).exists());
    site.wait_for_slow("it has them all", |now| now[0] == 7 && now[1] == 4);
    slow.finish();
    let answer = String::from_utf8(late.rest().expect("an answer")).expect("text");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(14), "{took:?}");
    assert!(!site.proc.log().contains("slow clients are lost"), "{}", site.proc.log());
}

#[test]
fn a_reload_keeps_more_slow_clients_than_a_queue_takes() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    let whole = Way::Http.request("GET", "/hello", b"");
    let mut clients: Vec<Client> = (0..320)
        .map(|_| {
            let mut client = site.doors.connect(Way::Http).expect("connect");
            client.send(&whole[..20]).expect("send");
            client
        })
        .collect();
    site.wait_for_slow("all are with the porter", |slow| slow[0] == 320);
    let before = porter(site.proc.pid()).expect("a porter");
    site.proc.signal(Signal::HUP);
    site.proc.line("reloaded");
    eventually("the one before has left", || !std::path::Path::new(&format!("/proc/{before}")).exists());
    for client in &mut clients {
        client.send(&whole[20..]).expect("send");
    }
    for mut client in clients {
        let answer = String::from_utf8(client.rest().expect("an answer")).expect("text");
        assert!(answer.ends_with("Hello, world!\n"), "{answer}");
    }
}

#[test]
fn a_stop_waits_for_slow_clients() {
    let _turn = turn();
    let mut site = Site::new(2, &[]);
    let slow = Slow::new(&site);
    site.proc.signal(Signal::TERM);
    site.proc.line("TERM: stopping");
    slow.finish();
    assert_eq!(site.proc.end(), 0);
}

#[test]
fn a_stop_waits_no_longer_than_it_may() {
    let _turn = turn();
    let mut site = Site::new(2, &["--graceful-timeout", "1"]);
    let slow = Slow::new(&site);
    let began = std::time::Instant::now();
    site.proc.signal(Signal::TERM);
    assert_eq!(site.proc.end(), 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(slow);
    let mut site = Site::new(2, &[]);
    let slow = Slow::new(&site);
    let began = std::time::Instant::now();
    site.proc.signal(Signal::INT);
    assert_eq!(site.proc.end(), 0);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(slow);
}

#[test]
fn without_a_master_slow_clients_are_served_to_their_end() {
    let _turn = turn();
    let mut site = Site::new(2, &[]);
    let slow = Slow::new(&site);
    site.proc.signal(Signal::KILL);
    slow.finish();
    // The workers and the porter leave by themselves.
    site.proc.end();
}

#[test]
fn a_porter_that_is_killed_is_replaced() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    let slow = Slow::new(&site);
    let killed = porter(site.proc.pid()).expect("a porter");
    send(killed, Signal::KILL);
    site.proc.line(&format!("porter pid={killed} killed signal=9, its slow clients are lost"));
    for (mut client, _) in slow.senders {
        // Some have sent what was not read, and are reset.
        assert!(client.rest().map_or(0, |rest| rest.len()) == 0);
    }
    site.wait_for_slow("it is counted", |slow| slow == [0, 0, slow[2], 0, 1]);
    Slow::new(&site).finish();
    assert_ne!(porter(site.proc.pid()), Some(killed));
}

/// Whoever stops it: its clients wait until it goes on, the next ones are the workers' own meanwhile; and it is not
/// waited for longer than any request may take.
#[test]
fn a_porter_that_is_stopped_is_done_without_and_replaced() {
    let _turn = turn();
    let site = Site::new(2, &["--request-timeout", "2"]);
    let slow = Slow::new(&site);
    let stopped = porter(site.proc.pid()).expect("a porter");
    let stop = || {
        send(stopped, Signal::STOP);
        wait_until_stopped(stopped);
        site.proc.line(&format!("porter pid={stopped} stopped signal=19"));
    };
    stop();
    let handed = site.slow()[2];
    let mut next = site.doors.connect(Way::Http).expect("connect");
    next.send(b"GET /hello HTTP/1.0\r\n").expect("send");
    eventually("a worker waits", || !site.is_idle());
    thread::sleep(PAUSE);
    next.send(b"\r\n").expect("send");
    assert!(next.rest().expect("an answer").ends_with(b"Hello, world!\n"));
    assert_eq!(site.slow()[2], handed, "it was left on the dock");
    send(stopped, Signal::CONT);
    slow.finish();

    let waiting = Slow::new(&site);
    stop();
    let line = site.proc.line(&format!("porter pid={stopped} stopped for "));
    assert!(line.ends_with("s, killed"), "{line}");
    site.proc.line(&format!("porter pid={stopped} killed signal=9, its slow clients are lost"));
    drop(waiting);
    Slow::new(&site).finish();
    assert_ne!(porter(site.proc.pid()), Some(stopped));
}

/// One that is stopped does not hear that it is to make place for the next.
#[test]
fn a_reload_ends_a_porter_that_is_stopped() {
    let _turn = turn();
    let site = Site::new(1, &["--graceful-timeout", "1"]);
    drop(Slow::new(&site));
    let stopped = porter(site.proc.pid()).expect("a porter");
    send(stopped, Signal::STOP);
    wait_until_stopped(stopped);
    site.proc.signal(Signal::HUP);
    site.proc.line(" reloaded");
    eventually("it is gone", || state(stopped).is_none());
    site.wait_for_slow("another one has none", |slow| slow[0] + slow[1] == 0);
    Slow::new(&site).finish();
}

#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn where_no_porter_can_be_started_workers_wait_themselves() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    let output = site.directory.join("strace");
    let strace = Strace::attach(site.proc.pid(), &["-e", "inject=clone,clone3,fork,vfork:error=EAGAIN"], &output);
    let ask = |way: Way| {
        let request = way.request("GET", "/hello", b"");
        let (first, second) = request.split_at(12);
        let mut client = site.doors.connect(way).expect("connect");
        client.send(first).expect("send");
        thread::sleep(PAUSE);
        client.send(second).expect("send");
        String::from_utf8(client.rest().expect("an answer")).expect("text")
    };
    // The first one waits for a porter, which is tried again each second.
    let mut first = site.doors.connect(Way::Http).expect("connect");
    first.send(b"GET /hello HTTP/1.0\r\n").expect("send");
    site.proc.line(" cannot start the porter: ");
    for way in WAYS {
        assert!(ask(way).ends_with("Hello, world!\n"));
    }
    assert_eq!((porter(site.proc.pid()), site.slow()[2]), (None, 1));
    drop(strace);
    site.wait_for_slow("there is one", |slow| slow[0] == 1);
    first.send(b"\r\n").expect("send");
    assert!(first.rest().expect("an answer").ends_with(b"Hello, world!\n"));
}

#[test]
fn where_there_are_too_many_the_longest_waiting_makes_room() {
    let _turn = turn();
    // 128 descriptors are for others, and each client has three.
    let mut site = Site::start(demo_by_shell("ulimit -n 188; exec \"$0\" \"$@\""), 1, &[]);
    let begin = |doors: &Doors| {
        let mut client = doors.connect(Way::Http).expect("connect");
        client.send(b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n").expect("send");
        client
    };
    let mut clients = Vec::new();
    for count in 1..=25 {
        clients.push(begin(&site.doors));
        site.wait_for_slow("it is with the porter", |slow| slow[2] == count);
    }
    site.wait_for_slow("twenty are held", |slow| slow[0] == 20 && slow[3] == 5);
    for (i, client) in clients.iter_mut().enumerate() {
        let _ = client.send(b"\r\n");
        let answer = String::from_utf8(client.rest().unwrap_or_default()).expect("text");
        assert_eq!(answer.ends_with("Hello, world!\n"), i >= 5, "{i}: {answer}");
    }
    site.proc.signal(Signal::TERM);
    assert_eq!(site.proc.end(), 0);
}
