//! Responses on their way out.
