//! The process's environment: removing what must not stay in it, and adding what a file says.

use std::ffi::OsString;

/// Takes variables out of the environment and returns their values, in the order of `names`.
///
/// `None` where another thread runs (it might be reading the environment at this moment, in C) and at least one of
/// the variables is set: then nothing was removed. Where `/proc` is not mounted the caller's word is taken for it.
pub(crate) fn take<const N: usize>(names: [&str; N]) -> Option<[Option<OsString>; N]> {
    let values = names.map(std::env::var_os);
    if values.iter().all(Option::is_none) {
        return Some(values);
    }
    if super::process::threads().is_some_and(|threads| threads > 1) {
        return None;
    }
    for (name, value) in names.iter().zip(&values) {
        if value.is_some() {
            // SAFETY: this is the only thread, as counted just now, so nobody reads the environment meanwhile.
            unsafe { std::env::remove_var(name) };
        }
    }
    Some(values)
}

/// Sets those of `variables` that are not set yet, and returns their names.
///
/// `None` where another thread runs (it might be reading the environment at this moment, in C): then nothing was set.
/// Where `/proc` is not mounted the caller's word is taken for it. No name may be empty or contain `=`, and nothing NUL.
pub(crate) fn add(variables: &[(String, String)]) -> Option<Vec<OsString>> {
    let missing: Vec<_> = variables.iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if !missing.is_empty() && super::process::threads().is_some_and(|threads| threads > 1) {
        return None;
    }
    for (name, value) in &missing {
        // SAFETY: this is the only thread, as counted just now, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    Some(missing.iter().map(|(name, _)| name.into()).collect())
}
