//! The secret that a deployment answers the doctor for.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

/// Fewer could be guessed.
const LEAST: usize = 16;
const MOST: usize = 256;

/// The secret that a deployment and its doctor share. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct DoctorToken(String);

impl DoctorToken {
    /// Whether `candidate` is the same, found out in a time that does not tell how much of it was.
    pub(crate) fn is(&self, candidate: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(candidate).fold(0, |differences, (a, b)| black_box(differences | (a ^ b)));
        own.len() == candidate.len() && differences == 0
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for DoctorToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        // It is the value of a header field, and quoted in configuration files.
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if (LEAST..=MOST).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("expected 16 to 256 letters, digits and -._~+/=")
        }
    }
}

impl fmt::Debug for DoctorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DoctorToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_is_the_same() {
        let token: DoctorToken = "0123456789abcdef".parse().unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in ["", "0", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "1123456789abcdef"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn one_that_could_be_guessed_or_breaks_a_file_is_refused() {
        for bad in ["", "0123456789abcde", "0123456789abcde\"", "0123456789 abcdef", "0123456789abcd\u{e9}"] {
            assert!(bad.parse::<DoctorToken>().is_err(), "{bad}");
        }
        assert!("x".repeat(MOST + 1).parse::<DoctorToken>().is_err());
    }

    #[test]
    fn debug_does_not_show_it() {
        let token: DoctorToken = "0123456789abcdef".parse().unwrap();
        assert_eq!(format!("{token:?}"), "DoctorToken(..)");
    }
}
