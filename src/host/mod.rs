//! Host: the application with its sessions and settings, and the life of one request: load, call, commit, respond.
//!
//! Knows no transport and no process; those are in `server`.

mod examination;
mod failure;
mod respond;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::doctor::DoctorToken;
use crate::error::Result;
use crate::gateway::{Limits, Site};
use crate::message::{FormLimits, Request, Response};
use crate::session::{Access, CookiePolicy, Expiry, HasInfo, Record, Session, SessionManager, Store, Witness};

pub(crate) use self::examination::Examination;

type Application = dyn Fn(Request, &mut Session) -> Result<Response> + Send + Sync;
/// What is called when a request takes long.
pub(crate) type SoftTimeoutHook = dyn Fn(&Late) + Send + Sync;
type AccessRule = dyn Fn(&Request) -> Access + Send + Sync;

/// An application with its sessions and settings: what the servers serve.
///
/// ```no_run
/// use std::process::ExitCode;
/// use cloakroom::{DirectoryStore, Host, Request, Response, Result, Session};
///
/// fn counter(_request: Request, session: &mut Session) -> Result<Response> {
///     let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
///     session.insert("visits", visits)?;
///     Ok(Response::text(format!("visit {visits}\n")))
/// }
///
/// fn main() -> ExitCode {
///     Host::new(counter).sessions(DirectoryStore::at("/var/lib/counter/sessions")).run()
/// }
/// ```
pub struct Host {
    application: Box<Application>,
    access: Option<Box<AccessRule>>,
    soft_timeout_hook: Option<Arc<SoftTimeoutHook>>,
    store: Option<Arc<dyn Store>>,
    /// Made from the settings before the first request.
    manager: Option<Arc<SessionManager>>,
    settings: Settings,
    limits: Limits,
    site: Site,
    doctor_token: Option<DoctorToken>,
}

/// A request that takes long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Late {
    /// Its method.
    pub method: String,
    /// Its path, without the query; the end of a very long one is missing.
    pub path: String,
    /// How long the application has been at it.
    pub age: Duration,
}

/// What becomes the session manager.
#[derive(Default)]
struct Settings {
    cookie: CookiePolicy,
    expiry: Expiry,
    has_info: Option<Arc<HasInfo>>,
    lock_timeout: Option<Duration>,
    touch_resolution: Option<Duration>,
}

impl Host {
    /// An application: one callback, called for every request.
    ///
    /// `Ok` commits the session and answers; `Err` and a panic save nothing and are answered with 500 (or with the
    /// status that the error carries) and a fixed text, the error itself going to the log. A callback of a GET, HEAD,
    /// OPTIONS or TRACE request may be called a second time, see [`Access::Optimistic`].
    pub fn new(application: impl Fn(Request, &mut Session) -> Result<Response> + Send + Sync + 'static) -> Self {
        Self {
            application: Box::new(application),
            access: None,
            soft_timeout_hook: None,
            store: None,
            manager: None,
            settings: Settings::default(),
            limits: Limits::default(),
            site: Site::default(),
            doctor_token: None,
        }
    }

    /// Where sessions are kept. Without a store every access to a session is an error.
    #[must_use]
    pub fn sessions(mut self, store: impl Store + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self.configured()
    }

    /// How each request uses its session, decided before the callback; by default
    /// [`Optimistic`](Access::Optimistic) for safe methods without a message-body and
    /// [`Exclusive`](Access::Exclusive) for the rest.
    ///
    /// Where it says `Optimistic` for a request with a message-body, that is read into memory first, so that it can be
    /// read twice.
    #[must_use]
    pub fn access(mut self, rule: impl Fn(&Request) -> Access + Send + Sync + 'static) -> Self {
        self.access = Some(Box::new(rule));
        self
    }

    /// What is called when a request takes longer than the pool's soft timeout (`--soft-timeout`): to write down what the
    /// application is busy with, or to set a flag that it looks at.
    ///
    /// It is called in a thread of its own, as the worker's own is busy with the request, once for each such request. The
    /// hard deadline comes later ([`Request::deadline`]); [`Request::extend_deadline`] puts both off.
    #[must_use]
    pub fn on_soft_timeout(mut self, hook: impl Fn(&Late) + Send + Sync + 'static) -> Self {
        self.soft_timeout_hook = Some(Arc::new(hook));
        self
    }

    /// Which sessions are worth keeping. A session for which it says no is never stored, and a stored one is deleted and
    /// its cookie taken back. By default those that hold anything: a user, a value, a flash value or a form token.
    #[must_use]
    pub fn has_info(mut self, rule: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        self.settings.has_info = Some(Arc::new(rule));
        self.configured()
    }

    /// How long sessions live.
    #[must_use]
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.settings.expiry = expiry;
        self.configured()
    }

    /// How the session ID cookie is sent.
    #[must_use]
    pub fn cookie(mut self, policy: CookiePolicy) -> Self {
        self.settings.cookie = policy;
        self.configured()
    }

    /// How long a request waits for a session that another one holds, before it is answered with 503. Default 30 s. In a
    /// pool it is answered sooner where too many wait for the same session, see [the guide](crate::docs::deploy).
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.settings.lock_timeout = Some(timeout);
        self.configured()
    }

    /// The time of last access is renewed at most once in this time (and in a tenth of the idle timeout). Default 10 s.
    #[must_use]
    pub fn touch_resolution(mut self, resolution: Duration) -> Self {
        self.settings.touch_resolution = Some(resolution);
        self.configured()
    }

    /// How much a client may send, and how long it may take.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits of forms.
    #[must_use]
    pub fn form_limits(mut self, limits: FormLimits) -> Self {
        self.site.form_limits = limits;
        self
    }

    /// Where the application is mounted: `/shop` for `https://example.org/shop/...`. Under CGI the server's `SCRIPT_NAME`
    /// says so; over SCGI and HTTP the default is the root.
    #[must_use]
    pub fn script_name(mut self, mount: impl Into<String>) -> Self {
        self.site.script_name = Some(mount.into());
        self
    }

    /// Proxies whose forwarding header fields (X-Forwarded-For, X-Forwarded-Proto, Forwarded) are believed. None by
    /// default: anybody could send them.
    #[must_use]
    pub fn trusted_proxies(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.site.trusted_proxies = networks.into_iter().collect();
        self
    }

    /// Answers the doctor ([`crate::doctor`]), which must send this token. None by default, and nobody is told anything.
    #[must_use]
    pub fn doctor_token(mut self, token: DoctorToken) -> Self {
        self.doctor_token = Some(token);
        self
    }

    pub(crate) fn set_limits(&mut self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.limits);
    }

    pub(crate) fn current_limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn soft_timeout_hook(&self) -> Option<&Arc<SoftTimeoutHook>> {
        self.soft_timeout_hook.as_ref()
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.as_ref()
    }

    /// From now on `witness` is told what requests do with sessions; called once, after fork and before the first request.
    pub(crate) fn set_witness(&self, witness: Arc<dyn Witness>) {
        if let Some(manager) = &self.manager {
            // Whoever was there first stays.
            let _ = manager.witness.set(witness);
        }
    }

    /// Makes the session manager anew from store and settings, in whatever order they come.
    fn configured(mut self) -> Self {
        let manager = self.store.clone().map(|store| {
            let mut manager = SessionManager::new(store);
            manager.cookie.clone_from(&self.settings.cookie);
            manager.expiry = self.settings.expiry;
            manager.has_info.clone_from(&self.settings.has_info);
            manager.lock_timeout = self.settings.lock_timeout.unwrap_or(manager.lock_timeout);
            manager.touch_resolution = self.settings.touch_resolution.unwrap_or(manager.touch_resolution);
            Arc::new(manager)
        });
        self.manager = manager;
        self
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("limits", &self.limits).finish_non_exhaustive()
    }
}
