//! Host: the application with its sessions and settings, and the life of one request.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::gateway::{Limits, Site};
use crate::message::{Request, Response};
use crate::session::{Session, Store};

/// An application, with its sessions and settings: what the servers serve.
pub struct Host {
    limits: Limits,
    site: Site,
    store: Option<Arc<dyn Store>>,
}

impl Host {
    /// Stub.
    pub fn new(_application: impl Fn(Request, &mut Session) -> Result<Response> + Send + Sync + 'static) -> Self {
        Self { limits: Limits::default(), site: Site::default(), store: None }
    }

    /// Stub.
    #[must_use]
    pub fn lock_timeout(self, _timeout: Duration) -> Self {
        self
    }

    /// Stub.
    #[must_use]
    pub fn script_name(mut self, mount: impl Into<String>) -> Self {
        self.site.script_name = Some(mount.into());
        self
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.as_ref()
    }

    /// The life of one request: load, call, commit, respond. Never panics; every failure is a response. When it
    /// returns, the session is committed and no lock is held.
    pub(crate) fn respond(&self, _request: Request) -> Response {
        Response::text("stub")
    }
}
