//! Numbers as protocols write them. `str::parse` also takes a sign.

/// `1*DIGIT`, nothing else, if it fits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for wrong in
            [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"1_0", b"0x1", b"1.0", b"18446744073709551616", b"\xc2\xb2"]
        {
            assert_eq!(decimal(wrong), None, "{wrong:?}");
        }
    }
}
