//! The doctor: asks a deployment, through its front server, what of a request arrives, and says what is missing,
//! contradictory or refused, and which lines mend it.
//!
//! A deployment answers only who knows its token ([`DoctorToken`]); without one nobody is told anything. The token is a
//! request header field, so a deployment that is reached without TLS gives it away to whoever listens.

pub(crate) mod answer;
mod client;
mod curl;
mod diagnosis;
mod probes;
mod report;
mod target;
mod token;

use self::client::Client;
pub use self::report::{Finding, Mend, Report, Server, Severity};
use self::target::Target;
pub use self::token::DoctorToken;

/// Why a deployment could not be examined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// It is not a URL of a site.
    #[error("doctor: {url:?}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing answers there.
    #[error("doctor: {0}")]
    Unreachable(String),
}

impl DoctorError {
    /// Whether trying again does not help.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Url { .. })
    }
}

/// Examines the deployment at `url`, the URL that its application is mounted at, with the token that it was given.
///
/// Sends some twenty requests to pages below `/cloakroom-doctor`, one after another; only the first one, if whoever
/// answers does not know the token. `https` needs the program curl. With `insecure` its certificate is not checked.
///
/// # Errors
/// Where the URL makes no sense, or nothing can be reached there. What can be reached and does not answer as it should
/// is a [`Finding`].
pub fn examine(url: &str, token: &DoctorToken, insecure: bool) -> Result<Report, DoctorError> {
    let target = Target::parse(url).map_err(|reason| DoctorError::Url { url: url.to_owned(), reason })?;
    let client = Client { target: &target, token, insecure };
    let seen = probes::examine(&client).map_err(|error| DoctorError::Unreachable(error.to_string()))?;
    Ok(diagnosis::report(&target, &seen))
}
