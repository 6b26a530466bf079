//! What sessions are called in reports and access logs.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// A name for the session `key`, by which its requests are recognised as those of one session as long as the pool lives,
/// and from which nobody gets back to the ID: 12 hexadecimal digits of SHA-256.
pub(in crate::server::pool) fn session_name(salt: u64, key: u64) -> String {
    let hash = Sha256::new().chain_update(salt.to_le_bytes()).chain_update(key.to_le_bytes()).finalize();
    hash[..6].iter().fold(String::with_capacity(12), |mut name, byte| {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::session_name;

    #[test]
    fn a_session_has_one_name_in_each_pool() {
        assert_eq!(session_name(1, 2), session_name(1, 2));
        assert_ne!(session_name(1, 2), session_name(1, 3));
        assert_ne!(session_name(1, 2), session_name(2, 2));
        assert!(session_name(0, 0).bytes().all(|b| b.is_ascii_hexdigit()) && session_name(0, 0).len() == 12);
    }
}
