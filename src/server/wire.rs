//! Numbers and bytes in a row: what one process of the pool tells another of a connection that it hands on.
//!
//! Both are the same program, or two versions of it that agree on the scoreboard, whose layout number changes with this.

/// Writes them.
#[derive(Debug, Default)]
pub(super) struct Pen(Vec<u8>);

impl Pen {
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    pub(super) fn flag(&mut self, flag: bool) -> &mut Self {
        self.number(flag.into())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.extend_from_slice(bytes);
        self
    }

    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads them in the same order; `None` where there is something else.
#[derive(Debug)]
pub(super) struct Page<'a>(pub(super) &'a [u8]);

impl<'a> Page<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_refused() {
        let bytes = Pen::default().number(7).flag(true).bytes(b"abc").finish();
        let mut page = Page(&bytes);
        assert_eq!((page.number(), page.flag(), page.bytes()), (Some(7), Some(true), Some(&b"abc"[..])));
        assert_eq!(page.number(), None);
        for end in 0..bytes.len() {
            let mut page = Page(&bytes[..end]);
            assert_eq!(page.number().and(page.flag()).and(page.bytes()), None, "{end}");
        }
        let huge = Pen::default().number(u64::MAX).finish();
        assert_eq!(Page(&huge).bytes(), None);
        assert_eq!(Page(&huge).flag(), None);
    }
}
