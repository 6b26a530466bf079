//! What a request did to its session: what it looked at and what it changed, to be checked and applied at commit.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Expiry;
use super::codec::{CodecError, Encoded};
use super::record::{Record, millis};

/// A queue of outstanding form tokens is no longer than this; the oldest give way.
pub(super) const MAX_FORM_TOKENS: usize = 32;

/// A part of a record that one request can look at or change by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Value(String),
    Flash(String),
    User,
    Token(String),
    Tokens,
    Expiry,
    Everything,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Insert(String, Encoded),
    Remove(String),
    Clear,
    Add(String, i64),
    Push(String, Encoded),
    Flash(String, Encoded),
    TakeFlash(String),
    User(Option<String>),
    AddToken(String),
    RemoveToken(String),
    Expiry(Expiry, SystemTime),
    Restart(SystemTime),
}

/// The changes of one request in their order, and the parts they rely on.
#[derive(Debug, Default)]
pub(super) struct Changes {
    relied_on: BTreeSet<Part>,
    list: Vec<Change>,
}

impl Changes {
    /// The request looked at `part`, or means to replace it: at commit it must be as it was.
    pub(super) fn rely_on(&mut self, part: Part) {
        self.relied_on.insert(part);
    }

    pub(super) fn push(&mut self, change: Change) {
        self.list.push(change);
    }

    pub(super) fn forget_changes(&mut self) {
        self.list.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all that the request relied on is the same in both records.
    pub(super) fn hold(&self, seen: &Record, current: &Record) -> bool {
        self.relied_on.iter().all(|part| part.is_same(seen, current))
    }

    /// Applies the changes, in their order, to `record`. The error names the key that could not be changed.
    pub(super) fn apply(&self, record: &mut Record) -> Result<(), (String, CodecError)> {
        self.list.iter().try_for_each(|change| change.apply(record))
    }
}

impl Part {
    fn is_same(&self, a: &Record, b: &Record) -> bool {
        match self {
            Self::Value(key) => a.values.get(key) == b.values.get(key),
            Self::Flash(key) => a.flash.get(key) == b.flash.get(key),
            Self::User => a.user == b.user,
            Self::Token(token) => a.tokens.contains(token) == b.tokens.contains(token),
            Self::Tokens => a.tokens == b.tokens,
            Self::Expiry => (a.idle, a.ends, a.lifetime) == (b.idle, b.ends, b.lifetime),
            Self::Everything => {
                (&a.user, &a.values, &a.flash, &a.tokens) == (&b.user, &b.values, &b.flash, &b.tokens)
                    && Self::Expiry.is_same(a, b)
            }
        }
    }
}

impl Change {
    pub(super) fn apply(&self, record: &mut Record) -> Result<(), (String, CodecError)> {
        match self {
            Self::Insert(key, value) => {
                record.values.insert(key.clone(), value.clone());
            }
            Self::Remove(key) => {
                record.values.remove(key);
            }
            Self::Clear => {
                record.values.clear();
                record.flash.clear();
            }
            Self::Add(key, n) => {
                let sum = Encoded::add(record.values.get(key), *n).map_err(|error| (key.clone(), error))?;
                record.values.insert(key.clone(), sum);
            }
            Self::Push(key, item) => {
                let list = Encoded::push(record.values.get(key), item).map_err(|error| (key.clone(), error))?;
                record.values.insert(key.clone(), list);
            }
            Self::Flash(key, value) => {
                record.flash.insert(key.clone(), value.clone());
            }
            Self::TakeFlash(key) => {
                record.flash.remove(key);
            }
            Self::User(user) => record.user.clone_from(user),
            Self::AddToken(token) => {
                record.tokens.push(token.clone());
                let extra = record.tokens.len().saturating_sub(MAX_FORM_TOKENS);
                record.tokens.drain(..extra);
            }
            Self::RemoveToken(token) => record.tokens.retain(|t| t != token),
            Self::Expiry(expiry, from) => record.set_expiry(*expiry, millis(*from)),
            Self::Restart(from) => record.restart(millis(*from)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(values: &[(&str, i64)]) -> Record {
        let mut record = Record::new(0, None, Expiry::NEVER);
        for (key, value) in values {
            record.values.insert((*key).into(), Encoded::new(value).unwrap());
        }
        record
    }

    #[test]
    fn only_what_was_relied_on_must_be_unchanged() {
        let (seen, current) = (record(&[("a", 1), ("b", 1)]), record(&[("a", 1), ("b", 2)]));
        let mut changes = Changes::default();
        changes.rely_on(Part::Value("a".into()));
        changes.rely_on(Part::Value("absent".into()));
        assert!(changes.hold(&seen, &current));
        changes.rely_on(Part::Value("b".into()));
        assert!(!changes.hold(&seen, &current));
    }

    #[test]
    fn every_part_notices_its_own_change_and_no_other() {
        let seen = record(&[("k", 1)]);
        let changed: [(Part, Change); 6] = [
            (Part::Value("k".into()), Change::Remove("k".into())),
            (Part::Flash("k".into()), Change::Flash("k".into(), Encoded::new(&1).unwrap())),
            (Part::User, Change::User(Some("ada".into()))),
            (Part::Token("t".into()), Change::AddToken("t".into())),
            (Part::Tokens, Change::AddToken("u".into())),
            (Part::Expiry, Change::Expiry(Expiry::default(), SystemTime::now())),
        ];
        for (part, change) in &changed {
            let mut current = seen.clone();
            change.apply(&mut current).unwrap();
            assert!(!part.is_same(&seen, &current), "{part:?}");
            assert!(!Part::Everything.is_same(&seen, &current), "{part:?}");
            for (other, _) in changed.iter().filter(|(other, _)| other != part) {
                let both_tokens = matches!((part, other), (Part::Token(_), Part::Tokens));
                assert!(both_tokens || other.is_same(&seen, &current), "{part:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_token_queue_has_a_limit() {
        let mut record = record(&[]);
        for n in 0..40 {
            Change::AddToken(n.to_string()).apply(&mut record).unwrap();
        }
        assert_eq!(record.tokens.len(), MAX_FORM_TOKENS);
        assert_eq!(record.tokens[0], "8");
    }
}
