//! Visitors who come, do something, and go: their sessions live for seconds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::Dice;
use crate::book::{Book, Reply};
use crate::support::visit::{Answer, Visitor};

/// How long most of these sessions live when nobody uses them, and some.
const SHORT: u64 = 4;
/// Who had to wait for so long, from one answer to the next, does not know whether its session is still there.
const SURE: Duration = Duration::from_millis(2500);

/// What visitors did.
#[derive(Default)]
pub struct Guests {
    pub sessions: AtomicU64,
    pub logins: AtomicU64,
    pub logouts: AtomicU64,
    /// For how many seconds the longer ones of them live.
    pub long: u64,
}

impl Guests {
    /// One visit. It ends early where something is not known, and its session then ends by itself.
    pub fn visit(&self, book: &Book, visitor: &mut Visitor, dice: &mut Dice) {
        let _ = self.try_visit(book, visitor, dice);
        visitor.cookie = None;
    }

    /// `None` where it ended early.
    fn try_visit(&self, book: &Book, visitor: &mut Visitor, dice: &mut Dice) -> Option<()> {
        let mut last = Instant::now();
        let mut ask = |visitor: &mut Visitor, method: &str, target: &str, form: &str| -> Option<Answer> {
            let Reply::Done(answer) = book.ask(visitor, method, target, form) else { return None };
            let is_sure = last.elapsed() < SURE;
            last = Instant::now();
            if !is_sure && visitor.cookie.is_some() {
                // A login may just have made another session, which is to last for longer.
                let _ = book.ask(visitor, "GET", "/logout", "");
            }
            is_sure.then_some(answer)
        };
        let expect = |is: bool, what: &str, answer: &Answer| {
            if !is {
                book.fail(format_args!("{what}: {answer:?}"));
            }
        };
        visitor.cookie = None;
        let idle = if dice.roll(10) == 0 { self.long } else { SHORT };
        let answer = ask(visitor, "GET", &format!("/keep?idle={idle}"), "")?;
        expect(visitor.cookie.is_some(), "no session", &answer);
        self.sessions.fetch_add(1, Relaxed);
        let counts = 1 + dice.roll(4);
        for count in 1..=counts {
            let answer = ask(visitor, if dice.roll(2) == 0 { "GET" } else { "POST" }, "/counter", "")?;
            expect(answer.body.contains(&format!("Counter: {count}<")), "not the next number", &answer);
        }
        if dice.roll(3) == 0 {
            let form = ask(visitor, "GET", "/login", "")?.body;
            let token = form.split_once("name=\"form_token\" value=\"").and_then(|(_, rest)| rest.split_once('"'));
            let before = visitor.cookie.clone();
            let answer = ask(visitor, "POST", "/login", &format!("name=ada&form_token={}", token?.0))?;
            expect(visitor.cookie != before && visitor.cookie.is_some(), "a login with the old ID", &answer);
            self.logins.fetch_add(1, Relaxed);
            let answer = ask(visitor, "GET", "/check", "")?;
            let is_right = answer.body.contains("user: ada\n") && answer.body.contains(&format!("counter: {counts}\n"));
            expect(is_right, "not what was there before the login", &answer);
        }
        if dice.roll(3) == 0 {
            ask(visitor, "POST", &format!("/fill?bytes={}", dice.roll(20_000)), "")?;
        }
        if dice.roll(2) == 0 {
            let before = visitor.cookie.clone();
            let answer = ask(visitor, if dice.roll(2) == 0 { "GET" } else { "POST" }, "/logout", "")?;
            expect(visitor.cookie.is_none(), "the cookie was not taken back", &answer);
            self.logouts.fetch_add(1, Relaxed);
            visitor.cookie = before;
            let answer = ask(visitor, "GET", "/check", "")?;
            expect(answer.body.contains("session_id: None\n"), "a session after its logout", &answer);
        }
        Some(())
    }
}
