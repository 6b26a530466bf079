//! Values of options that have a type of their own.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::MAX_WORKERS;

/// How many workers a pool has: at least `min`, at most `max`, as many as are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Never fewer. With 0 a pool that has nothing to do is a master alone.
    pub min: usize,
    /// Never more, but for a moment while they are replaced.
    pub max: usize,
}

impl Workers {
    /// Always the same number.
    pub const fn fixed(count: usize) -> Self {
        Self { min: count, max: count }
    }

    /// Whether their number changes with what there is to do.
    pub fn is_elastic(self) -> bool {
        self.min < self.max
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_elastic() { write!(f, "{}..{}", self.min, self.max) } else { write!(f, "{}", self.max) }
    }
}

/// `N` or `MIN..MAX`.
impl FromStr for Workers {
    type Err = WorkersError;

    fn from_str(text: &str) -> Result<Self, WorkersError> {
        let number = |text: &str| text.parse::<usize>().map_err(|_| WorkersError);
        let workers = match text.split_once("..") {
            Some((min, max)) => Self { min: number(min)?, max: number(max)? },
            None => Self::fixed(number(text)?),
        };
        let fits = workers.min <= workers.max && (1..=MAX_WORKERS).contains(&workers.max);
        if fits { Ok(workers) } else { Err(WorkersError) }
    }
}

/// A text that is no number of [`Workers`].
#[derive(Debug, thiserror::Error)]
#[error("expected N or MIN..MAX, at most 512")]
pub struct WorkersError;

/// Where requests are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// Among the other log lines.
    Stderr,
    /// In a file, which is opened again at `USR1`.
    File(PathBuf),
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for AccessLog {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "" => Err("expected stderr or the path of a file"),
            "stderr" => Ok(Self::Stderr),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogFormat {
    /// As Apache's `combined`, with the session and the time taken behind it.
    #[default]
    Combined,
    /// One JSON object per line.
    Json,
}

impl FromStr for AccessLogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "combined" => Ok(Self::Combined),
            "json" => Ok(Self::Json),
            _ => Err("expected combined or json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_of_workers() {
        assert_eq!("4".parse::<Workers>().unwrap(), Workers::fixed(4));
        assert_eq!("0..8".parse::<Workers>().unwrap(), Workers { min: 0, max: 8 });
        assert!("2..16".parse::<Workers>().unwrap().is_elastic() && !Workers::fixed(3).is_elastic());
        for bad in ["", "0", "0..0", "5..4", "1..", "..4", "1..513", "513", "-1", "1...3", "x"] {
            assert!(bad.parse::<Workers>().is_err(), "{bad}");
        }
    }
}
