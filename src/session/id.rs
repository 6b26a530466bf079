//! Session IDs.

use std::ffi::CStr;
use std::fmt;

use rand::TryRng as _;
use rand::rngs::SysRng;

use super::SessionError;

/// A session ID: 128 bits from the operating system, written as 32 lower-case hexadecimal digits.
///
/// It is a secret: whoever has it has the session. `Debug` does not show it and there is no `Display`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// Digits of an ID in its text form.
    pub const TEXT_LENGTH: usize = 32;

    /// Draws a new ID from the operating system. Nothing is kept in the process, so forked processes never draw alike.
    ///
    /// # Errors
    /// Where the operating system has no random numbers to give.
    pub fn generate() -> Result<Self, SessionError> {
        let mut bytes = [0; 16];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| SessionError::Random(error.into()))?;
        Ok(Self(bytes))
    }

    /// Reads the text form: exactly 32 digits, lower case only, so that no two names mean one file where the file
    /// system ignores case.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let text: &[u8; Self::TEXT_LENGTH] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The text form, for a cookie or a file name.
    pub fn to_text(&self) -> IdText {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; Self::TEXT_LENGTH + 1];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        IdText(text)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The text form of an [`Id`], without an allocation. It dereferences to `str`.
#[derive(Clone, Copy)]
pub struct IdText([u8; Id::TEXT_LENGTH + 1]);

impl IdText {
    /// The same with the NUL that ends a file name.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("hexadecimal digits and a NUL")
    }
}

impl std::ops::Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0[..Id::TEXT_LENGTH]).expect("hexadecimal digits")
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(…)")
    }
}

impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdText(…)")
    }
}

/// Draws a random token of 128 bits, as text: for forms.
pub(super) fn random_token() -> Result<String, SessionError> {
    Ok(Id::generate()?.to_text().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = Id::generate().unwrap();
        assert_eq!(Id::parse(&id.to_text()), Some(id));
        assert_eq!(id.to_text().as_c_str().to_str(), Ok(&*id.to_text()));
        assert_eq!(
            &*Id::parse("00112233445566778899aabbccddeeff").unwrap().to_text(),
            "00112233445566778899aabbccddeeff"
        );
    }

    #[test]
    fn only_the_one_form_is_an_id() {
        let good = "00112233445566778899aabbccddeeff";
        for bad in [
            "",
            "../../etc/passwd",
            &good[1..],
            &format!("{good}0"),
            &good.to_uppercase(),
            "00112233445566778899aabbccddee/f",
            "00112233445566778899aabbccddee\0f",
            "00112233445566778899aabbccddeeé",
            "*del*",
        ] {
            assert_eq!(Id::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let id = Id::generate().unwrap();
        let shown = format!("{id:?} {:?}", id.to_text());
        assert!(!shown.contains(&id.to_text()[..4]), "{shown}");
    }
}
