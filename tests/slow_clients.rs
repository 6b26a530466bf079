//! Clients that send or read slowly keep no worker, are answered at their deadlines, and get every byte.

#![allow(missing_docs, unreachable_pub)]

#[path = "slow_clients/crowd.rs"]
mod crowd;
#[path = "slow_clients/lives.rs"]
mod lives;
#[path = "slow_clients/reader.rs"]
mod reader;
#[path = "slow_clients/sender.rs"]
mod sender;
#[path = "slow_clients/site.rs"]
mod site;
mod support;
