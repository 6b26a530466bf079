//! The proof that the pool drops nothing: clients that ask without pause, and every answer whole and right, while the
//! workers are replaced again and again, by reload, by recycling, by a new program, by more and fewer of them; and at a
//! graceful stop.
//!
//! Events follow upon log lines, never upon time, and tests take turns, so that each has the machine to itself. With
//! `CLOAKROOM_ZERO_DROP=full` each goes on until it has made 20,000 requests. What was done is printed, whatever
//! becomes of it.
#![allow(missing_docs, unreachable_pub)]

#[allow(dead_code)]
#[path = "front_servers/client.rs"]
mod client;
#[path = "zero_drop/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "front_servers/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "front_servers/site.rs"]
mod site;
#[path = "zero_drop/stop.rs"]
mod stop;
#[path = "zero_drop/storms.rs"]
mod storms;
mod support;

/// All the storms, for clients who come in one way.
macro_rules! storms {
    ($module:ident, $way:ident, $count:expr $(, $ignore:meta)?) => {
        mod $module {
            use crate::load::Way;
            use crate::storms::{self, Clients};

            const CLIENTS: Clients = Clients { way: Way::$way, count: $count };

            storms!(@each ($($ignore)?): reloads waves swaps more_and_fewer all_at_once);
        }
    };
    (@each $ignore:tt: $($storm:ident)*) => { $(storms!(@one $ignore, $storm);)* };
    (@one ($($ignore:meta)?), $storm:ident) => {
        #[test]
        $(#[$ignore])?
        fn $storm() {
            storms::$storm(CLIENTS);
        }
    };
}

storms!(scgi_unix, ScgiUnix, crate::load::MANY);
storms!(scgi_tcp, ScgiTcp, crate::load::MANY);
storms!(http, Http, crate::load::MANY);
storms!(http_kept, HttpKept, crate::load::MANY);
storms!(nginx, Nginx, crate::load::MANY, ignore = "needs nginx (Debian: nginx-light): run tests/run");

// A client who is alone waits for good if the kernel has woken just the worker that leaves: nobody else wakes another.
storms!(scgi_unix_alone, ScgiUnix, 1);
storms!(scgi_tcp_alone, ScgiTcp, 1);
storms!(http_alone, Http, 1);
storms!(http_kept_alone, HttpKept, 1);

/// Tests of a stop, for the ways without a web server in between.
macro_rules! stops {
    ($($stop:ident)*) => {
        $(
            mod $stop {
                stops!(@each $stop: scgi_unix ScgiUnix, scgi_tcp ScgiTcp, http Http, http_kept HttpKept);
            }
        )*
    };
    (@each $stop:ident: $($name:ident $way:ident),*) => {
        $(
            #[test]
            fn $name() {
                crate::stop::$stop(crate::load::Way::$way);
            }
        )*
    };
}

stops!(a_graceful_stop_answers_all_that_came_in restarts_refuse_nobody);
